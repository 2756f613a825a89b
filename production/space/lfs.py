"""Quotas of Lustre filesystems, from the command ``lfs quota``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from production.commands import run
from production.errors import CommandError, ProbeFailed
from production.model import Space
from production.space.mounts import existing
from production.space.quotas import Quota, as_space
from production.space.table import is_inexact, parse_table

_COMMAND = "lfs"
_TIMEOUT = 60.0  # seconds
_INEXACT = "A part of the Lustre filesystem does not answer: what is used is more than it tells."


class LfsProbe:
    """The quotas of the user who runs this, of the user's group, and of the directory's project.

    On ``device`` (a mount point), else on the filesystem that holds ``directory``.
    """

    def __init__(self, directory: Path, device: str | None) -> None:
        self._directory = directory
        self._device = device

    def probe(self) -> Space:
        """See ``Probe``.  Raises NoQuotaSet, ProbeFailed."""
        place = existing(self._directory)
        where = self._device or str(place)
        quotas: list[Quota] = []
        inexact = False
        try:
            for whose in self._kinds(place):
                text = run([_COMMAND, "quota", *whose, where], timeout=_TIMEOUT).stdout
                rows = parse_table(text)
                if rows is None:
                    what = f"the output of {_COMMAND} quota was not understood"
                    raise ProbeFailed(where=where, what=what)
                quotas += rows
                inexact |= is_inexact(text)
        except CommandError as error:
            raise ProbeFailed(where=where, what=str(error)) from None
        return as_space(quotas, f"{_COMMAND} quota", where, _INEXACT if inexact else "")

    def _kinds(self, place: Path) -> Iterator[tuple[str, str]]:
        yield "-u", str(os.getuid())
        yield "-g", str(os.getgid())
        try:
            text = run([_COMMAND, "project", "-d", str(place)], timeout=_TIMEOUT).stdout
        except CommandError:
            return  # a release or a server without projects
        if project := parse_project(text):
            yield "-p", str(project)


def parse_project(text: str) -> int:
    """The directory's project, 0 when it has none: ``1000 P /lustre/mu2e``."""
    match = re.match(r"\s*([0-9]{1,10})\s+\S\s+\S", text)
    return int(match[1]) if match else 0
