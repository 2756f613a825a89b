"""When somebody who does not look is to be told: rarely enough to be read."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from production.units import counted


class Event(StrEnum):
    """What people can be told of."""

    END = "end"  # the manager ends, whatever the reason
    FAILURE = "failure"  # the first run that fails
    PAUSE = "pause"  # nothing new is begun: somebody asked for it, too much fails, no space
    PROGRESS = "progress"  # so many more runs are finished


@dataclass(frozen=True)
class Notice:
    """What is sent."""

    subject: str  # one line
    text: str


@dataclass(frozen=True)
class NoticeRules:
    """Which events become notices."""

    events: Collection[Event] = ()
    every: int = 0  # finished runs; 0: never
    apart: float = 600.0  # seconds between two notices at least


class Notices:
    """Which events of one manager become notices.

    Of failures the first; and but for the end no two within the time that the rules say: what
    comes too early is told with the next one.
    """

    def __init__(
        self, label: str, rules: NoticeRules, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._label = label  # of the production
        self._rules = rules
        self._clock = clock
        self._last: float | None = None  # when the last one went
        self._failed = False
        self._finished = 0
        self._kept: list[str] = []  # told with the next one

    def finished(self, runs: int = 1) -> Notice | None:
        """So many runs more are finished."""
        before = self._finished
        self._finished += runs
        every = self._rules.every
        if not every or before // every == self._finished // every:
            return None
        return self._notice(
            Event.PROGRESS, f"{counted(self._finished, 'run')} finished by this manager"
        )

    def failed(self, run: int, reason: str) -> Notice | None:
        """A run has failed."""
        if self._failed:
            return None
        self._failed = True
        return self._notice(Event.FAILURE, f"Run {run} is the first that failed: {reason}")

    def paused(self, why: str) -> Notice | None:
        """Nothing new is begun for the time being."""
        return self._notice(Event.PAUSE, f"Paused: {why}")

    def ended(self, how: str) -> Notice | None:
        """The manager ends."""
        return self._notice(Event.END, how)

    def _notice(self, event: Event, text: str) -> Notice | None:
        if event not in self._rules.events and event is not Event.PROGRESS:
            return None
        now = self._clock()
        soon = self._last is not None and now - self._last < self._rules.apart
        if soon and event is not Event.END:
            self._kept.append(text)
            return None
        self._last = now
        lines, self._kept = [*self._kept, text], []
        return Notice(f"{self._label}: {_one_line(text)}", "".join(f"{line}\n" for line in lines))


def _one_line(text: str, most: int = 100) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
