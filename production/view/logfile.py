"""Every message as a JSON line in a file, which several managers and several hosts may share."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from production.errors import UsageError
from production.units import counted
from production.view.base import Snapshot, View

PATIENCE = 5.0  # seconds; a lock is held for one line, unless its owner stands still
GLANCE = 0.005  # seconds between two tries to lock


class Rotated:
    """A file to the end of which lines are appended, and which is renamed when it has its size.

    ``FILE`` becomes ``FILE.1``, that ``FILE.2`` and so on, up to ``kept`` of them.  A line is one
    write at the end of the file under a lock of the file: NFS knows no appending, and has the end
    right for who holds a lock only (open(2), O_APPEND).  Where there is no lock to be had it is
    written all the same, and nothing is renamed.  Whether the name still leads to the file is seen
    at each line, so that whoever else renames, removes or empties the file does no harm.

    Raises OSError.
    """

    def __init__(self, path: Path, size: int, kept: int) -> None:
        self._path = path
        self._size = size  # bytes
        self._kept = kept
        self._patience = PATIENCE
        self._fd = self._open()

    def append(self, line: bytes) -> None:
        """Write a line, with its end; all of it or, when that fails, nothing."""
        try:
            self._append(line)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            self._reopen()  # another host has removed the file
            self._append(line)

    def _append(self, line: bytes) -> None:
        if not self._is_ours():
            self._reopen()
        with self._locked() as locked:
            if not (locked and self._is_full(line) and self._rotate()):
                self._write(line, locked)
                return
        self._append(line)  # to the new file, under its own lock

    def _write(self, line: bytes, locked: bool) -> None:
        end = os.fstat(self._fd).st_size
        try:
            written = os.write(self._fd, line)
            if written < len(line):  # the disk is full: the rest tells so
                os.write(self._fd, line[written:])
        except OSError:
            if locked:  # else it may not be the end any more
                with contextlib.suppress(OSError):  # a device has no length
                    os.ftruncate(self._fd, end)
            raise

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def _reopen(self) -> None:
        before, self._fd = self._fd, self._open()
        with contextlib.suppress(OSError):  # what a file server says last
            os.close(before)

    def _is_ours(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._fd))
        except OSError:  # there is none, or ours is gone from its server
            return False

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the lock of the file that has the name; False: it could not be had soon."""
        locked = self._lock()
        self._patience = PATIENCE if locked else 0.0  # many lines are not to wait one by one
        try:
            yield locked
        finally:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def _lock(self) -> bool:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # it is somebody else's
                if time.monotonic() >= deadline:
                    return False
                time.sleep(GLANCE)
            except OSError:  # this filesystem has none
                return False
            else:
                if self._is_ours():
                    return True
                self._reopen()  # it was renamed while we waited

    def _is_full(self, line: bytes) -> bool:
        end = os.fstat(self._fd).st_size
        if not end or end + len(line) <= self._size:
            return False
        # Opening the directory has NFS ask for its names anew: another host may have been faster.
        with contextlib.suppress(OSError):  # it may be closed to us
            os.close(os.open(self._path.parent, os.O_RDONLY))
        return self._is_ours()

    def _rotate(self) -> bool:
        """Make place for a new file; False when nothing may be renamed there.

        Who waits for the lock of the old file sees, once it has it, that the name has moved.
        """
        names = [self._path, *(self._numbered(number) for number in range(1, self._kept + 1))]
        try:
            for old, older in reversed(list(itertools.pairwise(names))):
                with contextlib.suppress(FileNotFoundError):
                    old.replace(older)
        except OSError:
            return False
        self._reopen()
        return True

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


class LogFile:
    """Every message as a JSON line in a file, beside another view.

    Trouble with the file, such as a full disk, is told by the other view when it begins and when it
    is over; it stops nothing.
    """

    def __init__(self, path: Path, open_inner: Callable[[], View], size: int, kept: int) -> None:
        self._path = path
        try:
            self._file = Rotated(path, size, kept)
        except OSError as error:
            raise UsageError(
                text=f"--log-file={path} cannot be written: {error.strerror}"
            ) from None
        self._who = {"host": socket.gethostname(), "pid": os.getpid()}
        self._missing = 0  # messages that could not be written
        self._inner = open_inner()  # last: a display would hide the error

    @property
    def live(self) -> bool:
        """As long as the inner one is."""
        return self._inner.live

    def message(self, text: str, *, level: str = "info") -> None:
        """Log it, and pass it on."""
        self._log(text, level)
        self._inner.message(text, level=level)

    def _log(self, text: str, level: str) -> None:
        try:
            if self._missing:
                what = f"{counted(self._missing, 'message')} before this could not be written"
                self._file.append(self._line(what, "warning"))
                self._inner.message(f"Log file {self._path} is written again: {what}")
                self._missing = 0
            self._file.append(self._line(text, level))
        except OSError as error:
            self._missing += 1
            if self._missing == 1:
                what = f"Log file {self._path} cannot be written: {error.strerror}"
                self._inner.message(f"{what}. Work goes on without it", level="warning")

    def _line(self, text: str, level: str) -> bytes:
        entry = {"time": time.time(), "level": level, **self._who, "message": text}
        return json.dumps(entry).encode() + b"\n"

    def progress(self, run: int, done: int, total: int | None) -> None:
        """Pass it on."""
        self._inner.progress(run, done, total)

    def transferred(self, run: int) -> None:
        """Pass it on."""
        self._inner.transferred(run)

    def update(self, snapshot: Snapshot) -> None:
        """Pass it on."""
        self._inner.update(snapshot)

    def close(self) -> None:
        """Close the inner view; messages that follow are logged still."""
        self._inner.close()
