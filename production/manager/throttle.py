"""What holds submissions back: how many a second, and how many jobs may fail."""

from __future__ import annotations

import time

from production.units import counted

ENOUGH = 20  # jobs of which a share is a share


class RateLimit:
    """So many jobs a second, at most a second's worth at once."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate  # jobs a second; None: no limit
        self._saved = self._most = max(1.0, rate or 0.0)
        self._since = time.monotonic()

    def allowed(self, wanted: int) -> int:
        """How many of the ``wanted`` jobs may be submitted now."""
        if self._rate is None:
            return wanted
        now = time.monotonic()
        self._saved = min(self._saved + (now - self._since) * self._rate, self._most)
        self._since = now
        return min(wanted, int(self._saved))

    def take(self, jobs: int) -> None:
        """Jobs are being submitted."""
        self._saved -= jobs

    @property
    def next(self) -> float:
        """When the next job may be submitted (monotonic)."""
        missing = max(0.0, 1.0 - self._saved)
        return self._since + (missing / self._rate if self._rate else 0.0)


class FailureWatch:
    """Whether so many jobs have failed that something common to all must be broken.

    ``limit``: jobs in a row, or, below 1, a share of all jobs once enough have ended.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._ended = self._failed = self._in_a_row = 0

    def count(self, ok: bool) -> None:
        """A job has ended."""
        self._ended += 1
        self._failed += not ok
        self._in_a_row = 0 if ok else self._in_a_row + 1

    @property
    def verdict(self) -> str:
        """What has failed too often, in words; empty as long as all is well enough."""
        if self._limit >= 1:
            in_a_row = f"{counted(self._in_a_row, 'job')} in a row"
            return in_a_row if self._in_a_row >= self._limit else ""
        too_many = self._ended >= ENOUGH and self._failed > self._limit * self._ended
        return f"{self._failed} of {counted(self._ended, 'job')}" if too_many else ""
