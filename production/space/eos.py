"""Quotas of EOS, from the monitoring format of ``eos quota ls``: key=value, bytes.

One line a quota node and user or group.  What is used and allowed is told twice: as the disks have
it, and as files have it (``logical``), which is less where files are kept more than once.  The
latter is taken, for that is what is going to be written.  A limit of 0 is none.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from production.commands import run
from production.errors import CommandError, ProbeFailed
from production.model import Space
from production.space.mounts import existing
from production.space.quotas import Count, Quota, as_space

_COMMAND = "eos"
_TIMEOUT = 60.0  # seconds
_PAIR = re.compile(r"([a-z]+)=(\S*)")
_FIGURE = re.compile(r"[0-9]{1,18}")


class EosProbe:
    """The quotas of the user who runs this and of the user's group in EOS.

    Of ``device`` (a quota node, such as ``/eos/mu2e/``), else of the one above ``directory``.
    """

    def __init__(self, directory: Path, device: str | None) -> None:
        self._directory = directory
        self._device = device

    def probe(self) -> Space:
        """See ``Probe``.  Raises NoQuotaSet, ProbeFailed."""
        where = self._device or str(existing(self._directory))
        try:
            text = run([_COMMAND, "-b", "quota", "ls", "-m", "-p", where], timeout=_TIMEOUT).stdout
        except CommandError as error:
            raise ProbeFailed(where=where, what=str(error)) from None
        quotas = parse_monitoring(text)
        if quotas is None:
            raise ProbeFailed(
                where=where, what=f"the output of {_COMMAND} quota was not understood"
            )
        return as_space(choose(quotas, PurePosixPath(where), _names()), f"{_COMMAND} quota", where)


def _names() -> frozenset[str]:
    uid, gid = os.getuid(), os.getgid()
    names = {f"uid {uid}", f"gid {gid}", "gid project"}
    with contextlib.suppress(KeyError):
        names.add(f"uid {pwd.getpwuid(uid).pw_name}")
    with contextlib.suppress(KeyError):
        names.add(f"gid {grp.getgrgid(gid).gr_name}")
    return frozenset(names)


def choose(quotas: Iterable[Quota], place: PurePosixPath, names: frozenset[str]) -> list[Quota]:
    """Those that hold at ``place`` for somebody with these names: of the node nearest above."""
    above = [quota for quota in quotas if place.is_relative_to(quota.place)]
    nearest = max((len(PurePosixPath(quota.place).parts) for quota in above), default=0)
    return [
        quota
        for quota in above
        if len(PurePosixPath(quota.place).parts) == nearest and quota.kind in names
    ]


def parse_monitoring(text: str) -> list[Quota] | None:
    """The quotas, or None when there is a line that is none."""
    quotas = []
    for line in filter(str.strip, text.splitlines()):
        pairs = dict(_PAIR.findall(line))
        try:
            kind = f"uid {pairs['uid']}" if "uid" in pairs else f"gid {pairs['gid']}"
            logical = "usedlogicalbytes" in pairs and "maxlogicalbytes" in pairs
            how = "logicalbytes" if logical else "bytes"
            blocks = Count(_figure(pairs[f"used{how}"]), hard=_figure(pairs[f"max{how}"]))
            files = Count(_figure(pairs["usedfiles"]), hard=_figure(pairs["maxfiles"]))
            quotas.append(Quota(pairs["space"], kind, blocks, files))
        except (KeyError, ValueError):
            return None
    return quotas


def _figure(text: str) -> int:
    if not _FIGURE.fullmatch(text):
        raise ValueError(text)
    return int(text)
