"""Checksums that FTP servers compute: HASH (draft-bryan-ftpext-hash) and the commands before it."""

from __future__ import annotations

import ftplib
import re
from collections.abc import Mapping

from production.staging.checksum import DIGITS

# Commands by the kinds of CHECKSUM_KINDS, as FEAT lists them.
_COMMANDS = {
    "XSHA256": "sha256",
    "XSHA1": "sha1",
    "XSHA": "sha1",
    "XMD5": "md5",
    "XCRC": "crc32",
}
_HASHES = {"SHA-256": "sha256", "SHA-1": "sha1", "MD5": "md5", "CRC32": "crc32"}
_HEX = re.compile(r"[0-9A-Fa-f]+")


def offered(features: str) -> Mapping[str, tuple[str, ...]]:
    """Kinds, and the commands that ask for one (the file is to be added to the last of them).

    ``features`` is the reply to FEAT (RFC 2389), a line each.
    """
    found: dict[str, tuple[str, ...]] = {}
    for line in features.splitlines()[1:]:
        command, _, more = line.strip().partition(" ")
        if command.upper() == "HASH":
            for name in more.replace("*", "").upper().split(";"):
                if kind := _HASHES.get(name.strip()):
                    found[kind] = (f"OPTS HASH {name.strip()}", "HASH")
        elif kind := _COMMANDS.get(command.upper()):
            found.setdefault(kind, (command.upper(),))
    return found


def ask(ftp: ftplib.FTP, commands: tuple[str, ...], file: str, kind: str) -> str:
    """The file's checksum, hexadecimal; ValueError when the reply holds none."""
    if not commands:
        raise ValueError(f"the server computes no {kind}")
    *before, last = commands
    digits = DIGITS[kind]
    for command in before:
        ftp.voidcmd(command)
    reply = ftp.sendcmd(f"{last} {file}")
    for word in reply.replace('"', " ").split()[1:]:
        if _HEX.fullmatch(word) and (len(word) == digits or (last == "XCRC" and len(word) < 9)):
            return word.lower().zfill(digits)
    raise ValueError(f"no checksum in the reply: {' '.join(reply.split())}")
