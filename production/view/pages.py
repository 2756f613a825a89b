"""Pages of text about a run: its log as it grows, and all that is known about it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from production.view.base import RunLine
from production.view.cells import duration

TAIL = 64 * 1024  # bytes of each log
MOST_LINES = 1000


def read_log(paths: Sequence[Path]) -> list[str]:
    """The ends of the log files, one after the other."""
    lines: list[str] = []
    for path in paths:
        lines += [f"==> {path}", *_tail(path), ""]
    return lines[:-1]


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            text = file.read(TAIL).decode(errors="replace")
    except FileNotFoundError:
        return ["(not written yet)"]
    except OSError as error:
        return [f"(cannot be read: {error.strerror})"]
    lines = text.splitlines()
    if size > TAIL:
        lines = lines[1:]  # the first one is cut
    return lines[-MOST_LINES:] or ["(empty)"]


def details(line: RunLine) -> list[str]:
    """All that is known about a run."""
    rows = {
        "run": str(line.run),
        "dataset": line.dataset,
        "status": line.phase,
        "since": duration(line.seconds),
        "now": line.detail,
        "input": f"{line.done / 1e6:.1f} MB of {_size(line.total)}" if line.done else "",
        "attempt": str(line.attempt or ""),
        "before": line.reason,
        "user": line.user,
        **{f"log {place}": str(path) for place, path in enumerate(line.logs, 1)},
    }
    return [f"{name:8} {value}" for name, value in rows.items() if value]


def attempts(history: str) -> list[str]:
    """The attempts at a run, from what ``production history --output=json`` printed."""
    return [_attempt(row) for row in json.loads(history) if row["attempt"] is not None]


def _attempt(row: dict[str, object]) -> str:
    ended = row["outcome"] or "lasts"
    place = f" on {row['host']}" if row["host"] else ""
    job = f", job {row['job']}" if row["job"] else ""
    when = f"{str(row['claimed'])[:19]} to {str(row['stop'])[:19] if row['stop'] else 'now'}"
    why = f": {row['reason']}" if row["reason"] else ""
    return f"{row['attempt']:>3}  {when}  {row['user']}  {ended}{place}{job}{why}"


def _size(total: int | None) -> str:
    return "?" if total is None else f"{total / 1e6:.1f} MB"
