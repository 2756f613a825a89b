"""How many bytes a second all transfers of a manager may bring together."""

from __future__ import annotations

import threading
import time

from production.staging.archive import Look

_GLANCE = 0.2  # seconds between two looks


class Limit:
    """At most ``rate`` bytes a second; None: as fast as they come.  Used by several threads."""

    def __init__(self, rate: float | None = None) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._spent_until = 0.0  # monotonic: when all that has come would have come at this rate

    def spend(self, count: int, look: Look) -> None:
        """Wait until ``count`` more bytes may have come; calls ``look`` meanwhile."""
        if self._rate is None:
            return
        with self._lock:
            self._spent_until = max(self._spent_until, time.monotonic()) + count / self._rate
            until = self._spent_until
        while (left := until - time.monotonic()) > 0:
            look()
            time.sleep(min(left, _GLANCE))
