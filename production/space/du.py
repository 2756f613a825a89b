"""What the data directory holds, against a limit that the user gives: for want of a quota."""

from __future__ import annotations

import os
import re
from pathlib import Path

from production.commands import run
from production.errors import CommandError, ProbeFailed
from production.model import Space, Unit, Usage

_COMMAND = "du"
_TIMEOUT = 600.0  # seconds; it looks at every file
_TOTAL = re.compile(r"([0-9]{1,18})\t.*", re.DOTALL)


class DuProbe:
    """``directory`` may hold ``limit`` bytes and ``files`` files; None: as many as there are."""

    def __init__(self, directory: Path, limit: int | None, files: int | None) -> None:
        self._directory = directory
        self._limit = limit
        self._files = files

    def probe(self) -> Space:
        """See ``Probe``.  Raises ProbeFailed."""
        limits = []
        if self._limit is not None:
            used = self._ask("--block-size=1")
            limits.append(Usage(used, self._limit, f"{_COMMAND} {self._directory}"))
        if self._files is not None:
            used, source = self._ask("--inodes"), f"{_COMMAND} {self._directory}, files"
            limits.append(Usage(used, self._files, source, Unit.FILES))
        return Space(tuple(limits))

    def _ask(self, what: str) -> int:
        if not os.path.lexists(self._directory):
            return 0
        argv = [_COMMAND, "-s", what, "--", os.path.realpath(self._directory)]
        try:
            # 1: a file was gone when its turn came, which happens all the time.
            text = run(argv, timeout=_TIMEOUT, accept=(0, 1)).stdout
        except CommandError as error:
            raise ProbeFailed(where=self._directory, what=str(error)) from None
        total = parse_total(text)
        if total is None:
            told = f"the output of {_COMMAND} was not understood"
            raise ProbeFailed(where=self._directory, what=told)
        return total


def parse_total(text: str) -> int | None:
    """The figure of the one line that it prints; None when that is none."""
    match = _TOTAL.fullmatch(text)
    return int(match[1]) if match else None
