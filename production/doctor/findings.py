"""What the doctor finds, in words for the user."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How bad it is."""

    OK = 0
    NOTE = 1  # good to know
    WARNING = 2  # works today, or for some
    ERROR = 3  # does not work, or loses data

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str  # what was looked at, in a word or two
    level: Level
    what: str  # what was found, in one line
    remedy: str = ""  # what to do; empty only where nothing needs to be done


def ok(check: str, what: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, what)


def note(check: str, what: str, remedy: str = "") -> Finding:
    """Good to know."""
    return Finding(check, Level.NOTE, what, remedy)


def warning(check: str, what: str, remedy: str) -> Finding:
    """Works today, or for some."""
    return Finding(check, Level.WARNING, what, remedy)


def error(check: str, what: str, remedy: str) -> Finding:
    """Does not work, or loses data."""
    return Finding(check, Level.ERROR, what, remedy)
