"""The file that a transfer writes: under its own name only when all of it is safely there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from production.errors import LocalTrouble, NoSpaceLeft, file_trouble

PartStamp = tuple[int, int, int]


class PartFile:
    """``target``'s ``.part`` file, which becomes ``target`` when it is complete.

    ``file`` and ``host`` are for the TransferFailed that a local OSError becomes.
    """

    def __init__(self, target: Path, file: str, host: str) -> None:
        self.path = target.with_name(target.name + ".part")
        self._target = target
        self._file = file
        self._host = host

    def size(self) -> int:
        """How many bytes it has; 0 when it is not there."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def stamp(self) -> PartStamp | None:
        """What changes whenever somebody writes to it; None when it is not there."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    @contextmanager
    def open(self, offset: int) -> Iterator[BinaryIO]:
        """Write to it from ``offset`` on; what had come after that is lost."""
        with self._troubles(), self.path.open("r+b" if offset else "wb") as sink:
            if offset:
                sink.truncate(offset)
                sink.seek(offset)
            yield sink
            sink.flush()
            os.fsync(sink.fileno())

    def complete(self) -> None:
        """Give it its final name."""
        # Network filesystems report a full disk as late as close(), so only now.
        with self._troubles():
            self.path.replace(self._target)

    def remove(self) -> None:
        """Leave nothing behind, as far as that is possible."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            trouble = file_trouble(self.path, error)
            if isinstance(trouble, NoSpaceLeft):
                raise trouble from None
            what = f"{self.path}: {error.strerror or error}"
            raise LocalTrouble(file=self._file, host=self._host, what=what) from None
