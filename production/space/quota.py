"""Quotas of local filesystems and of NFS servers, from the command quota(1).

Over NFS it asks the server's rpc.rquotad; a server without one has no quotas to tell.
"""

from __future__ import annotations

import re
from pathlib import Path

from production.commands import run
from production.errors import CommandError, ProbeFailed
from production.model import Space
from production.space.mounts import mount_of
from production.space.quotas import as_space
from production.space.table import parse_table

_COMMAND = "quota"
_TIMEOUT = 60.0  # seconds; an NFS server is asked several times by the command itself

# What it says when the filesystem has no quotas, or its server none to tell.
_NONE = re.compile(
    r"no quota enabled|Not all specified mountpoints are using quota|No correct mountpoint"
    r"|Cannot (find|initialize) mountpoint|Connection refused|not registered"
)


class QuotaProbe:
    """The quotas of the user who runs this, and of the user's groups.

    Of ``device`` (a mount point or a device), else of the filesystem that holds ``directory``.
    """

    def __init__(self, directory: Path, device: str | None) -> None:
        self._directory = directory
        self._device = device

    def probe(self) -> Space:
        """See ``Probe``.  Raises NoQuotaSet, ProbeFailed."""
        where = self._device or self._mounted()
        # Long names on one line, graces as figures; other filesystems are not asked, for the
        # server of one of them may be down.
        argv = [_COMMAND, "-w", "-p", "-u", "-g", "-f", where]
        try:
            # 1 is "above a limit" and "one of the kinds of quota is not set" and any trouble.
            answer = run(argv, timeout=_TIMEOUT, accept=(0, 1, 2))
        except CommandError as error:
            raise ProbeFailed(where=where, what=str(error)) from None
        quotas = parse_table(answer.stdout)
        if quotas is None:
            raise ProbeFailed(where=where, what=f"the output of {_COMMAND} was not understood")
        said = [line for line in answer.stderr.splitlines() if line.strip()]
        troubles = [line for line in said if line != "Skipping..." and not _NONE.search(line)]
        if troubles:
            raise ProbeFailed(where=where, what=troubles[0].strip())
        return as_space(quotas, _COMMAND, where)

    def _mounted(self) -> str:
        """As the command takes it: it knows a bind mount by its device only."""
        mount = mount_of(self._directory)
        if mount is None:
            raise ProbeFailed(where=self._directory, what="it is not known what is mounted there")
        return mount.source if mount.source.startswith("/dev/") else str(mount.point)
