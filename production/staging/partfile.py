"""The file that a transfer writes: under its own name only when all of it is safely there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from production.errors import NoSpaceLeft, TransferFailed, file_trouble


@contextmanager
def part_file(target: Path, file: str, host: str) -> Iterator[BinaryIO]:
    """Open ``target``'s ``.part`` file for writing; at the end of the block it becomes ``target``.

    When the block raises, or the disk refuses, the part is removed.  ``file`` and ``host`` are for
    the TransferFailed that a local OSError becomes.
    """
    part = target.with_name(target.name + ".part")
    try:
        with part.open("wb") as sink:
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
        # Network filesystems report a full disk as late as close(), so only now.
        part.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            trouble = file_trouble(part, error)
            if isinstance(trouble, NoSpaceLeft):
                raise trouble from None
            what = f"{part}: {error.strerror or error}"
            raise TransferFailed(file=file, host=host, what=what) from None
        raise
