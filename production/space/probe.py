"""What every probe of the space can do, and which one a name asks for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from production.errors import ConfigurationError, NoQuotaSet
from production.model import Space
from production.space import eos, lfs, mmlsquota, quota
from production.space.custom import CustomProbe
from production.space.du import DuProbe
from production.space.mounts import existing, mount_of
from production.space.statvfs import StatvfsProbe

if TYPE_CHECKING:
    from production.config import Space as Asked


class Probe(Protocol):
    """Something that knows how much space is used and allowed."""

    def probe(self) -> Space:
        """Ask now, which may take as long as the command's time-out.  Raises ProbeFailed."""


def open_probe(asked: Asked, directory: Path) -> Probe:
    """The probe that the configuration asks for, of the filesystem that holds ``directory``.

    Where no quota is set, the whole filesystem counts.  ``auto`` is the command that goes with the
    filesystem, as far as it is there, else statvfs.  ``directory`` need not be there yet.

    Raises ConfigurationError when there is no such probe, or something that it needs is not said.
    """
    if asked.probe not in _PROBES:
        known = ", ".join(_PROBES)
        raise _refused(f"'{asked.probe}' is not known; known: {known}")
    return _PROBES[asked.probe](asked, directory)


def _refused(what: str) -> ConfigurationError:
    return ConfigurationError(where="space probe", what=what)


class _QuotaElseDisk:
    """A quota where one is set, otherwise the whole filesystem."""

    def __init__(self, quota: Probe, directory: Path) -> None:
        self._quota = quota
        self._disk = StatvfsProbe(directory)

    def probe(self) -> Space:
        try:
            return self._quota.probe()
        except NoQuotaSet as none:
            remark = f"No quota is set on {none.fields['where']}: the whole filesystem counts"
            return replace(self._disk.probe(), remark=remark)


def _auto(asked: Asked, directory: Path) -> Probe:
    """By the filesystem's kind, as far as that tells."""
    mount = mount_of(directory)
    kind = mount.kind if mount is not None else ""
    in_eos = "eos" in kind or existing(directory).is_relative_to("/eos")
    if mmlsquota.find_command():
        return _PROBES["mmlsquota"](asked, directory)
    if kind == "lustre" and shutil.which("lfs"):
        return _PROBES["lfs"](asked, directory)
    if in_eos and shutil.which("eos"):
        return _PROBES["eos"](asked, directory)
    if kind in _WITH_QUOTA and shutil.which("quota"):
        return _PROBES["quota"](asked, directory)
    return StatvfsProbe(directory)


_WITH_QUOTA = frozenset({"ext2", "ext3", "ext4", "f2fs", "jfs", "nfs", "nfs4", "reiserfs", "xfs"})


def _du(asked: Asked, directory: Path) -> Probe:
    if asked.limit is None and asked.files is None:
        raise _refused('du needs a limit: write limit = "2T", or files = 1000000, into [space]')
    return DuProbe(directory, asked.limit, asked.files)


def _custom(asked: Asked, directory: Path) -> Probe:
    if not asked.command:
        raise _refused('command needs one: write command = ["COMMAND", "ARGUMENT"] into [space]')
    return _QuotaElseDisk(CustomProbe(asked.command), directory)


_Open = Callable[["Asked", Path], Probe]


def _with_device(open_: Callable[[Path, str | None], Probe]) -> _Open:
    return lambda asked, directory: _QuotaElseDisk(open_(directory, asked.device), directory)


_PROBES: Mapping[str, _Open] = {
    "auto": _auto,
    "mmlsquota": _with_device(mmlsquota.MmlsquotaProbe),
    "lfs": _with_device(lfs.LfsProbe),
    "quota": _with_device(quota.QuotaProbe),
    "eos": _with_device(eos.EosProbe),
    "statvfs": lambda _, directory: StatvfsProbe(directory),
    "du": _du,
    "command": _custom,
}
