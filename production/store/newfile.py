"""A file that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from production.errors import FileExists, FileUnwritable, StoreError


@contextmanager
def new_file(
    path: Path, *, replace: bool = False, exists: type[StoreError] = FileExists
) -> Iterator[Path]:
    """Yield another name to write under; the file gets its own when the block ends well.

    By then it is safe on disk.  Whatever the block raises, nothing is left of it.  Raises
    ``exists``, at once or at the end, when there is such a file and ``replace`` is not set, and
    FileUnwritable.
    """
    if not replace and os.path.lexists(path):
        raise exists(path=path)
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        yield new
        _sync(new)
        if replace:
            new.replace(path)
        else:  # a rename would replace what has come there in the meantime
            os.link(new, path)
            new.unlink()
        _sync(path.parent)
    except FileExistsError:
        raise exists(path=path) from None
    except OSError as error:
        raise FileUnwritable(path=path, what=error.strerror or error) from None
    finally:
        with contextlib.suppress(OSError):
            new.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
