"""What a manager tells whoever looks at it.

The manager calls a View from its loop's thread only; a View never calls the manager.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from production.model import Production, Status, Usage


@dataclass(frozen=True)
class RunLine:
    """One run that the manager holds."""

    run: int
    phase: str  # claimed, downloading, ready, submitting, running, ending
    seconds: float  # in this phase
    done: int = 0  # bytes transferred
    total: int | None = None  # bytes, None: not known
    detail: str = ""  # job id, what it waits for


@dataclass(frozen=True)
class Snapshot:
    """A manager at one moment."""

    production: Production
    counts: Mapping[Status, int]  # of the whole production
    usage: Usage | None  # None: not known yet, or the probe failed
    spacelim: float
    lines: tuple[RunLine, ...]


class View(Protocol):
    """Console, display, or a test's list."""

    live: bool  # whether it wants snapshots

    def message(self, text: str, *, level: str = "info") -> None:
        """One line of news; ``level`` is info, warning or error."""

    def progress(self, run: int, done: int, total: int | None) -> None:
        """A transfer has come this far, in bytes."""

    def update(self, snapshot: Snapshot) -> None:
        """The state of everything, about once a second while ``live``."""

    def close(self) -> None:
        """Give the terminal back."""


def tell_of_waits(view: View) -> Callable[[str], None]:
    """What tells the user by ``view`` why the database is waited for (Database.on_wait)."""
    return lambda cause: view.message(f"{cause.rstrip('.')}. Waiting", level="warning")
