"""Archives that are mounted here: files are copied, or linked where nothing needs to be moved."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from production.errors import (
    ArchiveUnavailable,
    FileMissing,
    TransferError,
    TransferFailed,
    TransferStopped,
)
from production.locations import fits
from production.staging.archive import Arrived, Facts, Look, Progress
from production.units import is_utf8

_BLOCK = 1024 * 1024  # bytes
_LINKS: Mapping[str, Callable[[Path, Path], None]] = {"hard": os.link, "symbolic": os.symlink}
WAYS = ("copy", *_LINKS)


class MountedDoor:
    """A directory whose files are copied; see ``Door``."""

    def __init__(self, directory: Path) -> None:
        self.host = str(directory)
        self._directory = directory

    def check(self) -> None:
        """See ``Door.check``: whoever may read needs no login."""

    def open(self, look: Look) -> MountedSession:
        """See ``Door.open``."""
        _need(self._directory)
        return MountedSession(self._directory, look)


class MountedSession:
    """See ``Session``."""

    def __init__(self, directory: Path, look: Look) -> None:
        self.look = look
        self._directory = directory

    def stage(self, files: Sequence[str]) -> None:
        """See ``Session.stage``: a filesystem with tape behind it brings what is opened."""

    def facts(self, file: str) -> Facts:
        """See ``Session.facts``."""
        return _facts(self._directory, file)

    def names(self, directory: str, pattern: str) -> list[str]:
        """See ``Session.names``."""
        return _names(self._directory, directory, pattern)

    def blocks(self, file: str, offset: int) -> Iterator[memoryview]:
        """See ``Session.blocks``."""
        buffer = memoryview(bytearray(_BLOCK))
        with _troubles(self._directory, file):
            source = (self._directory / file).open("rb", buffering=0)
        with source:
            with _troubles(self._directory, file):
                source.seek(offset)
            while True:
                self.look()
                with _troubles(self._directory, file):
                    count = source.readinto(buffer)
                if not count:
                    return
                yield buffer[:count]

    def is_alive(self) -> bool:
        """See ``Session.is_alive``."""
        return True

    def close(self) -> None:
        """See ``Session.close``."""


class LinkedArchive:
    """A directory whose files are linked; see ``Archive``.

    The links are in the attempt's own directory, so removing inputs removes links only.
    """

    def __init__(self, directory: Path, how: str) -> None:
        self.host = str(directory)
        self._directory = directory
        self._link = _LINKS[how]

    def check(self) -> None:
        """See ``Archive.check``."""

    def stage(self, files: Sequence[str]) -> None:
        """See ``Archive.stage``."""

    def look(self, files: Sequence[str]) -> Mapping[str, TransferError | None]:
        """See ``Archive.look``."""
        _need(self._directory)
        found: dict[str, TransferError | None] = {}
        for file in files:
            found[file] = None
            try:
                _facts(self._directory, file)
            except FileMissing as trouble:
                found[file] = trouble
            except TransferFailed:
                continue  # fetching it will tell
        return found

    def names(self, pattern: str) -> list[str]:
        """See ``Archive.names``."""
        directory, slash, name = pattern.rpartition("/")
        there = _names(self._directory, directory, name)
        return [f"{directory}{slash}{file}" for file in there]

    def fetch(self, file: str, target: Path, progress: Progress, stop: threading.Event) -> Arrived:
        """See ``Archive.fetch``."""
        if stop.is_set():
            raise TransferStopped(file=file, host=self.host)
        _need(self._directory)
        size = _facts(self._directory, file).size or 0
        progress(0, None)  # a link takes no space
        with _troubles(self._directory, file):
            target.unlink(missing_ok=True)
            self._link((self._directory / file).absolute(), target)
        progress(size, size)
        return Arrived(size)


def _need(directory: Path) -> None:
    try:
        if stat.S_ISDIR(directory.stat().st_mode):
            return
        what = "it is not a directory"
    except OSError as error:
        what = error.strerror or str(error)
    raise ArchiveUnavailable(host=directory, what=what)


def _names(root: Path, directory: str, pattern: str) -> list[str]:
    """The names in a directory that fit; none when it is not there."""
    _need(root)
    try:
        with os.scandir(root / directory) as entries:
            names = [entry.name for entry in entries if fits(entry.name, pattern)]
    except FileNotFoundError:
        return []
    except OSError as error:
        what = error.strerror or str(error)
        raise TransferFailed(file=directory or ".", host=root, what=what) from None
    for name in names:
        if not is_utf8(name):  # neither a database nor a job's orders could take it
            what = f"the file name {name!a} is not UTF-8"
            raise TransferFailed(file=directory or ".", host=root, what=what)
    return names


def _facts(directory: Path, file: str) -> Facts:
    with _troubles(directory, file):
        found = (directory / file).stat()
    if not stat.S_ISREG(found.st_mode):
        raise TransferFailed(file=file, host=directory, what="it is not a file")
    return Facts(found.st_size, f"{found.st_mtime_ns}.{found.st_ino}")


@contextmanager
def _troubles(directory: Path, file: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        _need(directory)
        raise FileMissing(file=file, host=directory, what="no such file") from None
    except OSError as error:
        what = error.strerror or str(error)
        raise TransferFailed(file=file, host=directory, what=what) from None
