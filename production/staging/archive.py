"""What every archive can do, and which protocol a URL asks for.

An archive is reached in one of two ways.  One at the other end of a network is a ``Door`` with
sessions behind it (one module a protocol), and ``RemoteArchive`` does for all of them alike what
makes transfers safe and fast: it keeps connections, resumes, checks, and names files only when they
are complete.  One that is mounted here is an archive by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from production.errors import ConfigurationError, TransferError
from production.model import Checksum

if TYPE_CHECKING:
    from production.staging.limit import Limit

DEFAULT_TIMEOUT = 60.0  # seconds of silence

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have come so far and, when the archive tells it, the file's size."""

Look = Callable[[], None]
"""Called every moment while waiting; may raise to end the wait."""


class Archive(Protocol):
    """A tape archive with a disk before it; files are named relative to the URL's directory.

    All calls may be made from several threads at a time.
    """

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

    def look(self, files: Sequence[str]) -> Mapping[str, TransferError | None]:
        """What keeps each of ``files`` from being fetched now, as far as the archive tells.

        NotOnDisk: it is still on tape; FileMissing.  Raises NetrcError, ArchiveUnavailable.
        """

    def names(self, pattern: str) -> list[str]:
        """The files that fit: ``*`` in the last part stands for any characters, ``?`` for one.

        Raises NetrcError and the TransferErrors.
        """

    def fetch(self, file: str, target: Path, progress: Progress, stop: threading.Event) -> Arrived:
        """Bring ``file`` to ``target``.

        ``target`` appears when it is complete and not before.  ``progress`` is called at the start
        and after each block.  When ``stop`` gets set, the transfer ends at once with
        TransferStopped.  Raises NetrcError and the TransferErrors; after ArchiveUnavailable, what
        has come so far stays as ``target``.part, and the next ``fetch`` goes on from there.
        """


@dataclass(frozen=True)
class Arrived:
    """What is known of a file that has come."""

    size: int  # bytes
    checksum: Checksum | None = None  # of what has come; None: the archive told none to compare


@dataclass(frozen=True)
class Facts:
    """What an archive tells of a file before it sends it."""

    size: int | None  # bytes; None: it does not tell
    stamp: str = ""  # changes when the file changes (a time, an ETag); '': it does not tell

    def are_of_the_same_file(self, other: Facts | None) -> bool:
        """Whether it has surely not changed in between."""
        return self == other and bool(self.stamp)


class Session(Protocol):
    """A connection to an archive, logged in; used by one thread at a time.

    All that waits calls ``look``.  Whatever raises, the session is closed and used no more.
    """

    look: Look

    def stage(self, files: Sequence[str]) -> None:
        """See ``Archive.stage``."""

    def facts(self, file: str) -> Facts:
        """What is known of a file before it is sent; raises the TransferErrors."""

    def names(self, directory: str, pattern: str) -> Sequence[str]:
        """The names in the directory that fit; none when there is no such directory.

        Raises the TransferErrors.
        """

    def blocks(self, file: str, offset: int) -> Iterator[bytes | memoryview]:
        """The file from ``offset`` on; at its end it is known to be all that the archive sends.

        A block is valid until the next one is asked for.  Raises ResumeRefused when it can only be
        sent from the start, else the TransferErrors.
        """

    def is_alive(self) -> bool:
        """Whether the other side still listens, after a while in which nothing was asked."""

    def close(self) -> None:
        """End the connection; never raises."""


@runtime_checkable
class Computes(Protocol):
    """A session whose archive computes checksums."""

    def checksums(self) -> Sequence[str]:
        """The kinds that it knows, of those of CHECKSUM_KINDS; raises the TransferErrors."""

    def checksum(self, file: str, kind: str) -> str:
        """The file's, hexadecimal; raises the TransferErrors."""


class Door(Protocol):
    """Where sessions begin."""

    @property
    def host(self) -> str:
        """See ``Archive.host``."""

    def check(self) -> None:
        """See ``Archive.check``."""

    def open(self, look: Look) -> Session:
        """A new session.  Raises NetrcError, ArchiveUnavailable, ArchiveLoginRefused."""


def open_archive(
    url: str,
    timeout: float = DEFAULT_TIMEOUT,
    limit: Limit | None = None,
    checksums: str = "off",
) -> Archive:
    """The archive at ``url``, for instance ``ftp://archive.example.org/mu2e/run2013``.

    The directory is relative to where the login leads; ``ftp://host//absolute`` is not.  No call
    waits longer than ``timeout`` seconds for a silent network.  Transfers keep to the ``limit``.
    ``checksums``: which must be right, see ``checksum.Lookup``.  Nothing is connected yet.

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
    if not parts.hostname and parts.scheme != "file":
        raise _refused(f"the URL names no host; write {parts.scheme}://host[:port]/directory")
    if "@" in parts.netloc:
        raise _refused("the URL must not hold a login; put user and password into ~/.netrc")
    if not unquote(parts.path).isprintable():
        raise _refused("the directory in the URL holds control characters")
    from production.staging.limit import Limit

    return _PROTOCOLS[parts.scheme](Place(parts, port, timeout, limit or Limit(), checksums))


def _refused(what: str) -> ConfigurationError:
    return ConfigurationError(where="archive", what=what)


@dataclass(frozen=True)
class Place:
    """An URL in its parts, and how to work with what is there."""

    parts: SplitResult
    port: int | None
    timeout: float  # seconds of silence
    limit: Limit
    checksums: str = "off"

    @property
    def host(self) -> str:
        """The host's name."""
        return self.parts.hostname or ""

    @property
    def directory(self) -> str:
        """Relative to where the login leads; from the root with a slash before it."""
        return unquote(self.parts.path).removeprefix("/")

    def choice(self, option: str, *known: str) -> str:
        """What the URL says after its ``?``; the first of those that are known if nothing."""
        chosen = dict(parse_qsl(self.parts.query)).get(option, known[0])
        if chosen not in known:
            raise _refused(f"{option}={chosen} is not known; known: {', '.join(known)}")
        return chosen


def _ftp(place: Place) -> Archive:
    from production.staging.ftp import FtpDoor
    from production.staging.remote import RemoteArchive

    door = FtpDoor(
        place.host,
        place.port,
        place.directory,
        place.timeout,
        secure=place.parts.scheme == "ftps",
        active=place.choice("mode", "passive", "active") == "active",
    )
    return RemoteArchive(door, place.limit, place.checksums)


def _sftp(place: Place) -> Archive:
    from production.staging.remote import RemoteArchive
    from production.staging.sftp import SftpDoor

    door = SftpDoor(place.host, place.port, place.directory, place.timeout)
    return RemoteArchive(door, place.limit, place.checksums)


def _http(place: Place) -> Archive:
    from production.staging.https import HttpDoor
    from production.staging.remote import RemoteArchive

    scheme = place.parts.scheme
    door = HttpDoor(scheme, place.host, place.port, place.directory, place.timeout)
    return RemoteArchive(door, place.limit, place.checksums)


def _root(place: Place) -> Archive:
    from production.staging.remote import RemoteArchive
    from production.staging.root import RootDoor

    door = RootDoor(place.host, place.port, place.directory, place.timeout)
    return RemoteArchive(door, place.limit, place.checksums)


def _file(place: Place) -> Archive:
    from production.staging.mounted import WAYS, LinkedArchive, MountedDoor
    from production.staging.remote import RemoteArchive

    if place.host not in {"", "localhost"}:
        raise _refused("a file:// URL names no host; write file:///directory")
    directory = Path("/", place.directory)
    way = place.choice("link", *WAYS)
    if way == "copy":
        return RemoteArchive(MountedDoor(directory), place.limit, place.checksums)
    return LinkedArchive(directory, way)


_PROTOCOLS: dict[str, Callable[[Place], Archive]] = {
    "file": _file,
    "ftp": _ftp,
    "ftps": _ftp,
    "http": _http,
    "https": _http,
    "root": _root,
    "sftp": _sftp,
}
