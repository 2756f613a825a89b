"""The filesystem itself, as df shows it, where there are no quotas."""

from __future__ import annotations

import os
from pathlib import Path

from production.errors import ProbeFailed
from production.model import Space, Unit, Usage


class StatvfsProbe:
    """The whole filesystem that holds ``directory``, or will hold it once it is made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def probe(self) -> Space:
        """Space as an ordinary user has it and df counts it: without what is kept back for root.

        Raises ProbeFailed.
        """
        # A link that points nowhere yet shows where the directory will be.
        place = Path(os.path.realpath(self._directory))
        while True:
            try:
                figures = os.statvfs(place)
                break
            except (FileNotFoundError, NotADirectoryError):
                place = place.parent
            except OSError as error:
                raise ProbeFailed(where=place, what=error.strerror) from None
        used = figures.f_blocks - figures.f_bfree
        limit = used + figures.f_bavail
        if not limit:
            raise ProbeFailed(where=place, what="the filesystem does not tell its size")
        size = figures.f_frsize
        limits = [Usage(used * size, limit * size, f"statvfs {place}")]
        # Some tell 0 (btrfs: as many as there is space for), or what cannot be (CephFS).
        if 0 < figures.f_favail <= figures.f_ffree <= figures.f_files:
            inodes = figures.f_files - figures.f_ffree
            most = inodes + figures.f_favail
            limits.append(Usage(inodes, most, f"statvfs {place}, files", Unit.FILES))
        return Space(tuple(limits))
