"""Leaving something that is in trouble alone for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from production.errors import ProductionError

LONGEST_WAIT = 300.0  # seconds; where growing waits stop growing


class Rest:
    """A pause after trouble with something outside: said once, with growing waits, without end.

    ``longest``: where the waits stop growing, in seconds.
    """

    def __init__(self, longest: float = LONGEST_WAIT) -> None:
        self._longest = longest
        self._until = 0.0
        self._wait = 0.0

    @property
    def resting(self) -> bool:
        """Whether to leave the troubled thing alone."""
        return time.monotonic() < self._until

    def begin(self, shortest: float) -> bool:
        """Trouble: wait, longer each time.  True at the first time since all was well."""
        first = not self._wait
        self._wait = min(max(self._wait * 2, shortest), max(self._longest, shortest))
        self._until = time.monotonic() + self._wait
        return first

    def over(self) -> None:
        """All is well again."""
        self._wait = self._until = 0.0


class PlaceRests:
    """Which places of the archive are down; the ``Watch`` of ``staging.places``.

    ``tell`` is called, in whatever thread finds it out, when a place goes down of which nothing was
    said yet: all places of a host that does not answer are one trouble.
    """

    def __init__(self, shortest: float, tell: Callable[[ProductionError], None]) -> None:
        self._shortest = shortest  # seconds
        self._tell = tell
        self._lock = threading.Lock()
        self._rests: dict[str, Rest] = {}
        self._said: dict[str, str] = {}  # of each place that is down

    def is_resting(self, place: str) -> bool:
        """See ``Watch.is_resting``."""
        with self._lock:
            return place in self._rests and self._rests[place].resting

    def down(self, place: str, error: ProductionError) -> None:
        """See ``Watch.down``."""
        with self._lock:
            rest = self._rests.setdefault(place, Rest())
            if rest.resting:
                return  # another transfer has met the same trouble
            rest.begin(self._shortest)
            is_known = place in self._said or str(error) in self._said.values()
            self._said.setdefault(place, str(error))
        if not is_known:
            self._tell(error)

    def up(self, place: str) -> None:
        """See ``Watch.up``."""
        with self._lock:
            self._rests.pop(place, None)
            self._said.pop(place, None)
