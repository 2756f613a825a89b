"""A file server that stumbles: for a moment it does not know a file any more."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def stale(path: Path, *, error: int = errno.ESTALE) -> Iterator[None]:
    """Meanwhile each look at that very file ends in ``error``, as NFS has it.

    What is done in a directory goes on: only its own attributes cannot be had.
    """

    def stumbling(look: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def stumble(place: Any, *rest: Any, **options: Any) -> os.stat_result:
            if not isinstance(place, int) and os.fspath(place) == str(path):
                raise OSError(error, os.strerror(error))
            return look(place, *rest, **options)

        return stumble

    with pytest.MonkeyPatch.context() as patch:
        for name in ("stat", "lstat"):
            patch.setattr(os, name, stumbling(getattr(os, name)))
        yield
