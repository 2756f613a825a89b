"""Files that grow, read as they do: what ``tail -f`` does, also when a file comes late or moves."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_BLOCK = 65536  # bytes


class Growing:
    """One file, from some place on; use ``more`` again and again, and ``close``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trouble = ""  # why it could not be opened, where it is there
        self._file: BinaryIO | None = None
        self._done = 0  # bytes

    def skip_to_last(self, lines: int) -> None:
        """Begin with the last lines of what there is."""
        if self._open():
            self._done = _beginning_of_last(self._file, lines) if self._file else 0

    def more(self) -> bytes:
        """What comes next, some of it; empty when nothing has come, or the file is not there (yet).

        A file that was renamed meanwhile is the same file; one that a network filesystem has lost
        sight of is opened again by its name.
        """
        if not self._open() or self._file is None:
            return b""
        try:
            self._file.seek(self._done)
            found = self._file.read(_BLOCK)
        except OSError:
            self.close()
            return b""
        self._done += len(found)
        return found

    def opens(self) -> bool:
        """Whether it can be opened."""
        return self._open()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file = None

    def move(self, path: Path) -> None:
        """It has another name from now on."""
        self.path = path

    def _open(self) -> bool:
        if self._file is None:
            try:
                self._file = self.path.open("rb", buffering=0)
            except (FileNotFoundError, NotADirectoryError):
                self.trouble = ""
            except OSError as error:
                self.trouble = error.strerror or str(error)
        return self._file is not None


def _beginning_of_last(file: BinaryIO, lines: int) -> int:
    """Where the last ``lines`` lines of a file begin."""
    end = file.seek(0, os.SEEK_END)
    place, wanted = end, lines + 1  # the newline before them counts; that at the end does not
    if not lines:
        return end
    while place > 0:
        begin = max(0, place - _BLOCK)
        file.seek(begin)
        block = file.read(place - begin)
        if place == end and not block.endswith(b"\n"):
            wanted -= 1
        for found in reversed([i for i, byte in enumerate(block) if byte == 10]):
            wanted -= 1
            if not wanted:
                return begin + found + 1
        place = begin
    return 0
