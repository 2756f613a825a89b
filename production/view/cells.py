"""Text that fits into so many cells of a terminal, and durations in few of them."""

from __future__ import annotations

import unicodedata


def duration(seconds: float) -> str:
    """``12m 30s``, ``2h 05m 09s``, ``4d 06h 05m``: how long a run is where it is."""
    minutes, second = divmod(max(0, int(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02d}h {minute:02d}m"
    return f"{hours}h {minute:02d}m {second:02d}s" if hours else f"{minute}m {second:02d}s"


def rough(seconds: float) -> str:
    """``40m``, ``11h``, ``9d``: how long it will take."""
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f}m"
    return f"{seconds / 3600:.0f}h" if seconds < 100 * 3600 else f"{seconds / 86400:.0f}d"


def cells(char: str) -> int:
    """How many cells of the terminal a character takes."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """At most ``width`` cells of it, without anything that would steer the terminal."""
    if text.isascii() and text.isprintable():
        return text[: max(0, width)]
    used = 0
    shown = []
    for char in text:
        if not char.isprintable():
            char = " " if char.isspace() else "?"
        used += cells(char)
        if used > width:
            break
        shown.append(char)
    return "".join(shown)


def padded(text: str, width: int) -> str:
    """The text with blanks up to ``width`` cells."""
    if text.isascii():
        return text.ljust(width)
    return text + " " * (width - sum(map(cells, text)))
