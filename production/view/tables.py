"""Tables for people and papers, CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence

# ``table`` for the terminal, ``github`` and ``latex`` to be pasted, the others for programs.
FORMS = ("table", "github", "latex", "csv", "json", "quiet")
_STYLES = {"table": "simple", "github": "github", "latex": "latex"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_MICROSECONDS = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\.\d+")

Shown = Mapping[str, Callable[[object], object]]


def is_for_people(form: str) -> bool:
    """Whether a person reads it, so that values may be worded and rounded."""
    return form in _STYLES


def render(
    headers: Sequence[str], rows: Sequence[Sequence[object]], form: str, shown: Shown | None = None
) -> str:
    """The rows in one of FORMS; ``quiet`` is their first column alone.

    ``shown``: how the values of a column are worded for people.  Programs get them as they are.
    """
    if form == "json":
        return json.dumps([dict(zip(headers, row, strict=True)) for row in rows], indent=1)
    if form == "quiet":
        return "\n".join(str(row[0]) for row in rows)
    if form == "csv":
        return _csv(headers, rows)
    from tabulate import tabulate

    ways = [(shown or {}).get(name, _as_it_is) for name in headers]
    cells = [
        [
            _cell(way(value) if value is not None else None, form)
            for way, value in zip(ways, row, strict=True)
        ]
        for row in rows
    ]
    # numparse would print software tags such as 1e5 as numbers
    return str(tabulate(cells, headers=headers, tablefmt=_STYLES[form], disable_numparse=True))


# --------------------------------------------------------------------------- ways to word values


def to_the_second(value: object) -> str:
    """A time of the database without its microseconds."""
    return _MICROSECONDS.sub(r"\1", str(value))


def duration(value: object) -> str:
    """Seconds as ``4.2s``, ``12m 30s``, ``3h 07m``, ``2d 04h``."""
    seconds = float(str(value))
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, hours, days = round(seconds) // 60, round(seconds) // 3600, round(seconds) // 86400
    if hours < 1:
        return f"{minutes}m {round(seconds) % 60:02}s"
    if days < 1:
        return f"{hours}h {minutes % 60:02}m"
    return f"{days}d {hours % 24:02}h"


def size(value: object) -> str:
    """Bytes as ``999 B``, ``1.5 GB``; powers of 1000, as disks are sold."""
    amount = float(str(value))
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} PB"


def percentage(value: object) -> str:
    """A fraction as ``45.2%``; 100.0% is told of the whole only."""
    part = float(str(value))
    return f"{min(part * 100, 99.9) if part < 1 else part * 100:.1f}%"


def figure(value: object) -> str:
    """A number with three digits that count, and never as 1e+06."""
    number = float(str(value))
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


# --------------------------------------------------------------------------- the forms


def _as_it_is(value: object) -> object:
    return value


def _cell(value: object, form: str) -> object:
    """A value on one line, without what a terminal or the form would take for its own."""
    if not isinstance(value, str):
        return value
    text = _CONTROL.sub(" ", value)
    return text.replace("|", r"\|") if form == "github" else text


def _csv(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows(rows)
    return file.getvalue().removesuffix("\n")
