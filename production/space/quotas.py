"""Quotas as commands tell them, and what a manager makes of them.

A quota may limit bytes and files, and each softly and hard: the soft limit may be exceeded for the
time of the grace.  The lower of the two counts, whether a grace is running or not.  A production
lasts longer than most graces, and one that used the grace up would stop all that its user does; so
what a grace is good for is left to jobs that are running already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from production.errors import NoQuotaSet
from production.model import Space, Unit, Usage

KIB = 1024
_NO_GRACE = ("", "-", "0", "none")


@dataclass(frozen=True)
class Count:
    """What is used of bytes or files; a limit of 0 is none."""

    used: int
    soft: int = 0
    hard: int = 0
    grace: str = ""  # how long it may be above the soft limit, in the command's words

    @property
    def allowed(self) -> int:
        """The limit that counts; 0: none."""
        return min((limit for limit in (self.soft, self.hard) if limit), default=0)


@dataclass(frozen=True)
class Quota:
    """One quota."""

    place: str  # filesystem, as the command names it
    kind: str  # whose it is
    blocks: Count  # bytes
    files: Count = Count(0)

    def limits(self, command: str) -> Iterator[Usage]:
        """Those that are set."""
        for count, unit, word in (
            (self.blocks, Unit.BYTES, ""),
            (self.files, Unit.FILES, ", files"),
        ):
            if allowed := count.allowed:
                over = count.soft and count.used > count.soft and count.grace not in _NO_GRACE
                grace = f", above its soft limit, grace: {count.grace}" if over else ""
                source = " ".join(filter(None, (command, self.place, self.kind)))
                yield Usage(count.used, allowed, f"{source}{word}{grace}", unit)


def as_space(quotas: Iterable[Quota], command: str, where: object, remark: str = "") -> Space:
    """All limits that these quotas set; raises NoQuotaSet when that is none."""
    limits = tuple(limit for quota in quotas for limit in quota.limits(command))
    if not limits:
        raise NoQuotaSet(where=where)
    return Space(limits, remark)
