"""An authority of the tests' own, and a certificate that it has signed for this machine."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificates:
    """PEM files."""

    authority: Path
    certificate: Path  # for 127.0.0.1, 127.0.0.2, ::1 and localhost
    key: Path
    both: Path  # certificate and key in one


def make_certificates(base: Path) -> Certificates:
    """New ones in a directory of their own below ``base``."""
    directory = base / "certificates"
    directory.mkdir()
    made = Certificates(*(directory / name for name in ("ca.pem", "cert.pem", "key.pem", "both")))
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _builder("authority of the tests", "authority of the tests", authority_key)
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    addresses = ("127.0.0.1", "127.0.0.2", "::1")
    names += [x509.IPAddress(ipaddress.ip_address(text)) for text in addresses]
    server = _builder("archive of the tests", "authority of the tests", key)
    server = server.add_extension(x509.SubjectAlternativeName(names), False)
    pem = serialization.Encoding.PEM
    for path, builder in ((made.authority, authority), (made.certificate, server)):
        path.write_bytes(builder.sign(authority_key, hashes.SHA256()).public_bytes(pem))
    made.key.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    made.both.write_bytes(made.certificate.read_bytes() + made.key.read_bytes())
    return made


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
    )
