"""One recorded file: whether it is there, as long as recorded, and has the content."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from production.model import RecordedFile

CHUNK = 1 << 20  # bytes read at once


class Finding(StrEnum):
    """What can be amiss."""

    MISSING = "missing"  # a recorded output is not there
    SIZE = "size"  # it is longer or shorter than recorded
    CONTENT = "content"  # its checksum is another
    UNSEEN = "unseen"  # it cannot be looked at, so nothing is known
    NO_OUTPUT = "no output"  # a finished run has not recorded an output
    NO_LOG = "no log"  # its log is not there
    STRAY = "stray"  # a file among the outputs that nobody has recorded


@dataclass(frozen=True)
class Trouble:
    """What is amiss with a file."""

    finding: Finding
    detail: str


def look(
    file: RecordedFile, content: bool, progress: Callable[[int], None] = lambda _: None
) -> Trouble | None:
    """What is amiss with a recorded file; None: nothing.

    ``content``: read it as well, where a checksum is recorded; ``progress`` is told of bytes read.
    """
    try:
        found = os.stat(file.path)  # noqa: PTH116 - a third of the cost of Path.stat
        if not stat.S_ISREG(found.st_mode):
            return Trouble(Finding.SIZE, "it is not a file")
        if file.size is not None and found.st_size != file.size:
            return Trouble(Finding.SIZE, f"{found.st_size} bytes, recorded are {file.size}")
        if content and file.sha256 is not None and checksum(file.path, progress) != file.sha256:
            return Trouble(Finding.CONTENT, f"its SHA-256 is not {file.sha256}")
    except (FileNotFoundError, NotADirectoryError):
        return Trouble(Finding.MISSING, "there is no such file")
    except OSError as error:
        return Trouble(Finding.UNSEEN, error.strerror or str(error))
    return None


def checksum(path: Path, progress: Callable[[int], None] = lambda _: None) -> str:
    """The SHA-256 of a file's content; raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            progress(len(chunk))
    return digest.hexdigest()
