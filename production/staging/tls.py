"""TLS as archives need it: their certificates are verified, by the authorities that are known here.

Those are the system's, or what ``$SSL_CERT_FILE`` and ``$SSL_CERT_DIR`` name instead (OpenSSL's own
variables); ``$REQUESTS_CA_BUNDLE`` names further ones, as for other Python programs.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path


def context() -> ssl.SSLContext:
    """How to connect.  Raises OSError when a file of authorities cannot be read."""
    made = ssl.create_default_context()
    if further := os.environ.get("REQUESTS_CA_BUNDLE"):
        directory = Path(further).is_dir()
        try:
            made.load_verify_locations(**{"capath" if directory else "cafile": further})
        except OSError as error:
            what = f"$REQUESTS_CA_BUNDLE ({further}) cannot be used: {error.strerror}"
            raise OSError(error.errno, what) from None
    return made


def said(error: ssl.SSLError) -> str:
    """What went wrong, in words for the user."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({error.verify_message}). If an authority of your "
            "laboratory has signed it, have $SSL_CERT_FILE name that one's certificate"
        )
    return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
