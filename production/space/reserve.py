"""What has been promised of the space and cannot yet be seen as used.

A probe tells what is used now.  What transfers and jobs that are under way will still write is
reserved here, so that together they stay below every limit.  A share ends with the first probe
that was begun after all of it was written: only that one is sure to have counted it.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from production.model import Unit, Usage


@dataclass(frozen=True)
class Need:
    """What something will take; 0 bytes: not known."""

    bytes: int = 0
    files: int = 0

    def __add__(self, other: Need) -> Need:
        return Need(self.bytes + other.bytes, self.files + other.files)

    def __sub__(self, other: Need) -> Need:
        return Need(self.bytes - other.bytes, self.files - other.files)

    def __mul__(self, times: int) -> Need:
        return Need(self.bytes * times, self.files * times)

    def of(self, unit: Unit) -> int:
        """The figure that counts against a limit of that unit."""
        return self.bytes if unit is Unit.BYTES else self.files


NOTHING = Need()

Owner = tuple[object, str]
"""Whom a share is for, and which part of it."""


class Reservations:
    """Shares of the space by whom they are for; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: tuple[Usage, ...] = ()
        self._fraction = 0.0  # of each limit that may be used
        self._shares: dict[Owner, Need] = {}
        self._sum = NOTHING
        self._ending: set[Owner] = set()  # all that they stand for was written when asked

    # ----------------------------------------------------------------- the probe

    def begin_probe(self, written: Collection[Owner]) -> None:
        """The space is about to be asked for, and all that was reserved for these is on disk."""
        with self._lock:
            self._ending = {owner for owner in written if owner in self._shares}

    def end_probe(self, limits: Iterable[Usage], fraction: float) -> None:
        """The answer to that; ``fraction`` of each limit may be used."""
        with self._lock:
            self._limits, self._fraction = tuple(limits), fraction
            for owner in self._ending:
                self._set(owner, NOTHING)
            self._ending = set()

    # ----------------------------------------------------------------- shares

    def take(self, wanted: Mapping[Owner, Need]) -> bool:
        """Reserve all that or, when it does not fit below the limits, nothing of it.

        What an owner had before is replaced, and does not end with a probe that is under way.
        """
        with self._lock:
            more = NOTHING
            for owner, need in wanted.items():
                more += need - self._shares.get(owner, NOTHING)
            if not self._fits(more, least=int(not self._shares.keys() >= wanted.keys())):
                return False
            for owner, need in wanted.items():
                self._set(owner, need)
            self._ending.difference_update(wanted)  # more will be written than was when asked
            return True

    def places(self, need: Need, most: int) -> int:
        """How many things that need so much fit, up to ``most``."""
        with self._lock:
            few, many = 0, most
            while few < many:
                half = (few + many + 1) // 2
                few, many = (half, many) if self._fits(need * half, 1) else (few, half - 1)
            return few

    def hold(self, owner: Owner, need: Need) -> None:
        """Reserve what will be written whether it fits or not."""
        with self._lock:
            self._set(owner, need)
            self._ending.discard(owner)

    def drop(self, owner: Owner) -> None:
        """Nothing will be written after all, or it is gone again."""
        with self._lock:
            self._set(owner, NOTHING)

    def owners(self) -> Sequence[Owner]:
        """For whom something is reserved."""
        with self._lock:
            return tuple(self._shares)

    def left(self) -> Usage | None:
        """What is still free below the tightest limit of bytes, as its ``used``; None: no limit."""
        with self._lock:
            free = [
                Usage(max(0, self._room(limit)), limit.limit, limit.source)
                for limit in self._limits
                if limit.unit is Unit.BYTES
            ]
        return min(free, key=lambda usage: usage.used, default=None)

    # ----------------------------------------------------------------- with the lock held

    def _set(self, owner: Owner, need: Need) -> None:
        self._sum += need - self._shares.pop(owner, NOTHING)
        if need != NOTHING:
            self._shares[owner] = need

    def _room(self, limit: Usage) -> int:
        return int(self._fraction * limit.limit) - limit.used - self._sum.of(limit.unit)

    def _fits(self, more: Need, least: int) -> bool:
        """``least``: 1 for something new, for what nobody knows the size of needs some room."""
        wanted = ((max(more.of(limit.unit), least), limit) for limit in self._limits)
        return all(count <= 0 or count <= self._room(limit) for count, limit in wanted)
