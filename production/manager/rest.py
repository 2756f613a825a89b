"""Leaving something that is in trouble alone for a while."""

from __future__ import annotations

import time

LONGEST_WAIT = 300.0  # seconds; where growing waits stop growing


class Rest:
    """A pause after trouble with something outside: said once, with growing waits, without end."""

    def __init__(self) -> None:
        self._until = 0.0
        self._wait = 0.0

    @property
    def resting(self) -> bool:
        """Whether to leave the troubled thing alone."""
        return time.monotonic() < self._until

    def begin(self, shortest: float) -> bool:
        """Trouble: wait, longer each time.  True at the first time since all was well."""
        first = not self._wait
        self._wait = min(max(self._wait * 2, shortest), LONGEST_WAIT)
        self._until = time.monotonic() + self._wait
        return first

    def over(self) -> None:
        """All is well again."""
        self._wait = self._until = 0.0
