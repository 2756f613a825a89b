"""What every probe of the space can do, and which one a name asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from production.errors import ConfigurationError, NoQuotaSet
from production.model import Usage
from production.space.mmlsquota import MmlsquotaProbe, find_command
from production.space.statvfs import StatvfsProbe


class Probe(Protocol):
    """Something that knows how much space is used and allowed."""

    def probe(self) -> Usage:
        """Ask now.  Raises ProbeFailed."""


def open_probe(name: str, directory: Path, device: str | None = None) -> Probe:
    """The probe called ``name`` for the filesystem that holds ``directory``.

    ``auto`` is mmlsquota where that command exists and a quota is set, otherwise statvfs.
    ``device`` names the filesystem to mmlsquota; without it the fullest one counts.

    Raises ConfigurationError when there is no such probe.
    """
    if name not in _PROBES:
        known = ", ".join(_PROBES)
        raise ConfigurationError(where="space probe", what=f"'{name}' is not known; known: {known}")
    return _PROBES[name](directory, device)


class _QuotaElseDisk:
    """A quota where one is set, otherwise the whole filesystem."""

    def __init__(self, quota: Probe, disk: Probe) -> None:
        self._quota = quota
        self._disk = disk

    def probe(self) -> Usage:
        try:
            return self._quota.probe()
        except NoQuotaSet:
            return self._disk.probe()


def _auto(directory: Path, device: str | None) -> Probe:
    disk = StatvfsProbe(directory)
    return _QuotaElseDisk(MmlsquotaProbe(device), disk) if find_command() else disk


_PROBES: dict[str, Callable[[Path, str | None], Probe]] = {
    "auto": _auto,
    "mmlsquota": lambda _, device: MmlsquotaProbe(device),
    "statvfs": lambda directory, _: StatvfsProbe(directory),
}
