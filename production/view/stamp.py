"""How a message reads, wherever it is shown."""

from __future__ import annotations

import time

TROUBLE = ("warning", "error")  # the levels that a reader must not overlook


def stamped(text: str, when: float | None = None) -> str:
    """``YYYY-MM-DD HH:MM:SS text``, in local time; ``when`` is seconds since 1970, default now."""
    return time.strftime("%Y-%m-%d %H:%M:%S ", time.localtime(when)) + text


def labelled(text: str, level: str) -> str:
    """``WARNING: text``; news, and text that says it itself, goes without a label."""
    if level not in TROUBLE or text.startswith(("ERROR", "... ")):
        return text
    return f"{level.upper()}: {text}"
