"""What every archive can do, and which protocol a URL asks for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from production.errors import ConfigurationError

DEFAULT_TIMEOUT = 60.0  # seconds of silence

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have come so far and, when the archive tells it, the file's size."""


class Archive(Protocol):
    """A tape archive with a disk before it; files are named relative to the URL's directory."""

    @property
    def host(self) -> str:
        """The archive's host name, as in the netrc file."""

    def check(self) -> None:
        """See that there is an acceptable login for the host, without asking the network.

        Raises NetrcError.
        """

    def stage(self, files: Sequence[str]) -> None:
        """Ask for all of ``files`` to be brought from tape to the archive's disk.

        Does not wait for the tape.  An archive without tape and a refusal for one file are no
        errors here: ``fetch`` tells.  Raises NetrcError, ArchiveUnavailable, ArchiveLoginRefused.
        """

    def fetch(self, file: str, target: Path, progress: Progress, stop: threading.Event) -> int:
        """Bring ``file`` to ``target`` and return its size in bytes.

        ``target`` appears when it is complete and not before; whatever fails, nothing is left
        behind.  ``progress`` is called at the start and after each block.  When ``stop`` gets set,
        the transfer ends at once with TransferStopped.  Raises NetrcError and the TransferErrors.
        """


def open_archive(url: str, timeout: float = DEFAULT_TIMEOUT) -> Archive:
    """The archive at ``url``, for instance ``ftp://archive.example.org/mu2e/run2013``.

    The directory is relative to where the login leads; ``ftp://host//absolute`` is not.  No call
    waits longer than ``timeout`` seconds for a silent network.  Nothing is connected yet.

    Raises ConfigurationError, which never repeats the URL: people write passwords into URLs.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused("that is not a URL of the form ftp://host[:port]/directory") from None
    if parts.scheme not in _PROTOCOLS:
        known = ", ".join(f"{scheme}://" for scheme in sorted(_PROTOCOLS))
        raise _refused(f"protocol '{parts.scheme}' is not known; known: {known}")
    if not parts.hostname:
        raise _refused("the URL names no host; write ftp://host[:port]/directory")
    if "@" in parts.netloc:
        raise _refused("the URL must not hold a login; put user and password into ~/.netrc")
    if not unquote(parts.path).isprintable():
        raise _refused("the directory in the URL holds control characters")
    return _PROTOCOLS[parts.scheme](parts, port, timeout)


def _refused(what: str) -> ConfigurationError:
    return ConfigurationError(where="archive", what=what)


def _ftp(parts: SplitResult, port: int | None, timeout: float) -> Archive:
    from production.staging.ftp import FtpArchive

    directory = unquote(parts.path).removeprefix("/")
    return FtpArchive(parts.hostname or "", port, directory, timeout)


_PROTOCOLS: dict[str, Callable[[SplitResult, int | None, float], Archive]] = {"ftp": _ftp}
