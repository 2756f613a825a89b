"""How long failed runs still rest where the end was set by a clock that is ahead of this one.

The end of a rest is written by the clock of the host that failed.  An attempt that ended in the
future shows that this clock is behind that one; then the length of the rest is measured by the
observer's own clock, from the moment when it first saw that attempt, as with the leases of managers
(production/store/managers.py).
"""

from __future__ import annotations

import time

KEPT = 3600.0  # seconds for which a rest that is over is remembered, or it would begin anew


class Rests:
    """What one observer has seen of such rests."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, int], float] = {}  # by run and attempt, monotonic

    def is_over(self, run: int, attempt: int, seconds: float) -> bool:
        """Whether the run has rested for so long since this failed attempt was first seen."""
        now = time.monotonic()
        return self._ends.setdefault((run, attempt), now + seconds) <= now

    @property
    def lasting(self) -> int:
        """How many are not over, as far as they were seen."""
        now = time.monotonic()
        return sum(end > now for end in self._ends.values())

    def forget(self) -> None:
        """Drop what is over for long: those runs were most likely claimed."""
        oldest = time.monotonic() - KEPT
        self._ends = {which: end for which, end in self._ends.items() if end > oldest}
