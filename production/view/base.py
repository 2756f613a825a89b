"""What a manager tells whoever looks at it.

The manager calls a View from its loop's thread only; a View never calls the manager.  What people
ask for on a display goes the way of everybody's requests: by a command and the database
(production/view/door.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from production.model import Production, Status, Usage


@dataclass(frozen=True)
class RunLine:
    """One run that somebody holds, or that needs somebody's attention."""

    run: int
    phase: str  # claimed, downloading, ready, submitting, queued, running, ending, error
    seconds: float  # in this phase
    done: int = 0  # bytes transferred
    total: int | None = None  # bytes, None: not known
    detail: str = ""  # what it waits for, its job and host, why it failed
    dataset: str = ""
    attempt: int = 0
    user: str = ""  # whose manager holds it
    reason: str = ""  # why the attempt before failed
    logs: tuple[Path, ...] = ()  # of the latest attempt


@dataclass(frozen=True)
class ManagerLine:
    """A manager that is at work on the production, as far as can be seen."""

    id: int
    user: str
    host: str
    runs: int  # that it holds


@dataclass(frozen=True)
class Snapshot:
    """A production at one moment, as one manager or an onlooker sees it."""

    production: Production
    counts: Mapping[Status, int]  # of the whole production
    usage: Usage | None  # None: not known yet, not asked, or the probe failed
    spacelim: float
    lines: tuple[RunLine, ...]
    rate: float | None = None  # runs finished an hour; None: not known
    managers: tuple[ManagerLine, ...] = ()
    manager: int | None = None  # whose display this is; None: an onlooker's
    paused: bool = False


class View(Protocol):
    """Console, display, or a test's list."""

    @property
    def live(self) -> bool:
        """Whether it wants snapshots."""

    def message(self, text: str, *, level: str = "info") -> None:
        """One line; ``level`` is detail, info, report (the closing one), warning or error."""

    def progress(self, run: int, done: int, total: int | None) -> None:
        """A transfer has come this far, in bytes."""

    def transferred(self, run: int) -> None:
        """It is over, in whatever way."""

    def update(self, snapshot: Snapshot) -> None:
        """The state of everything, about once a second while ``live``."""

    def close(self) -> None:
        """Give the terminal back."""


def tell_of_waits(view: View) -> Callable[[str], None]:
    """What tells the user by ``view`` why the database is waited for (Database.on_wait)."""
    return lambda cause: view.message(f"{cause.rstrip('.')}. Waiting", level="warning")
