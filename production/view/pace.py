"""How fast transfers go, over the time that they were watched."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

WINDOW = 10.0  # seconds that are looked back


class Rates:
    """Bytes a second of each transfer."""

    def __init__(self) -> None:
        self._notes: dict[int, deque[tuple[float, int]]] = {}

    def observe(self, now: float, done: Mapping[int, int]) -> dict[int, float]:
        """Note how many bytes of each run are here; bytes a second of those that can be told."""
        for run in self._notes.keys() - done.keys():
            del self._notes[run]
        rates = {}
        for run, count in done.items():
            notes = self._notes.setdefault(run, deque())
            if notes and count < notes[-1][1]:
                notes.clear()  # begun anew
            notes.append((now, count))
            while notes[0][0] < now - WINDOW:
                notes.popleft()
            since, before = notes[0]
            if now > since:
                rates[run] = (count - before) / (now - since)
        return rates
