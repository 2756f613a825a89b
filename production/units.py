"""Times, sizes, fractions and counts as people write them.

Pure functions: text in, number out, or back; a ValueError carries the one line that the user reads.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(
    "".join(rf"(?:(?P<{unit}>{_NUMBER})\s*{unit}\s*)?" for unit in _UNITS), re.ASCII | re.IGNORECASE
)
_CLOCK = re.compile(r"(\d{1,6}):([0-5]\d):([0-5]\d)", re.ASCII)
_MEMORY = re.compile(rf"({_NUMBER})\s*([KMGT])(?:i?B)?", re.ASCII | re.IGNORECASE)
_RATE = re.compile(rf"({_NUMBER})\s*(?:/\s*([smhd]))?", re.ASCII | re.IGNORECASE)
_FRACTION = re.compile(r"(\d{1,9}\.?\d{0,9}|\.\d{1,9})\s*(%?)", re.ASCII)


def parse_duration(text: str) -> float:
    """Seconds, more than 0, in ``90``, ``90s``, ``1h4m``, ``2d 12h`` or ``01:04:00``."""
    written = text.strip()
    if re.fullmatch(_NUMBER, written, re.ASCII):
        written += "s"
    written = _CLOCK.sub(r"\1h\2m\3s", written)
    match = _DURATION.fullmatch(written)
    parts = match.groupdict() if match else {}
    seconds = sum(float(number or 0) * _UNITS[unit] for unit, number in parts.items())
    if not seconds:
        raise ValueError(f"{text!r} is not a time: write 90 (seconds), 1h4m, 2d12h or 01:04:00")
    return seconds


def parse_moment(text: str, now: datetime) -> str:
    """UTC as the database keeps it, of ``2026-11-21``, ``2026-11-21 06:36`` (UTC) or ``2h`` ago."""
    from datetime import UTC, datetime, timedelta  # not for every --help

    written = text.strip()
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        try:
            moment = now - timedelta(seconds=parse_duration(written))
        except (ValueError, OverflowError):
            raise ValueError(
                f"{text!r} is not a moment: write 2026-11-21, '2026-11-21 06:36' (UTC) or, for two "
                "hours ago, 2h"
            ) from None
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")


def parse_lease(text: str) -> int:
    """Whole seconds, from 10 on, in what ``parse_duration`` takes."""
    seconds = int(parse_duration(text))
    if seconds < 10:
        raise ValueError(f"{text!r} is too short: a manager needs 10 s for a sign of life")
    return seconds


def parse_memory(text: str) -> int:
    """Bytes in ``500M``, ``2G``, ``1.5 GB``; the units are powers of 1024."""
    match = _MEMORY.fullmatch(text.strip())
    size = int(float(match[1]) * 1024.0 ** ("KMGT".index(match[2].upper()) + 1)) if match else 0
    if not size:
        raise ValueError(f"{text!r} is not a size: write it with its unit, 500M or 2G")
    return size


def counted(number: int, one: str, many: str = "") -> str:
    """``1 run``, ``2 runs``; ``many`` where an s is not enough."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def parse_fraction(text: str) -> float:
    """The fraction in ``90``, ``90%`` or ``0.9``, above 0 and up to 1.

    A number with a percent sign or above 1 is a percentage, any other a fraction.
    """
    match = _FRACTION.fullmatch(text.strip())
    number = float(match[1]) if match else 0.0
    fraction = number / 100 if match and (match[2] or number > 1) else number
    if not 0 < fraction <= 1:
        raise ValueError(f"{text!r} is not a limit: write a percentage (90 or 90%) or 0.9")
    return fraction


def parse_rate(text: str) -> float:
    """How often a second, more than 0, in ``5`` (a second), ``30/m`` or ``1000/h``."""
    match = _RATE.fullmatch(text.strip())
    rate = float(match[1]) / _UNITS[(match[2] or "s").lower()] if match else 0.0
    if not rate:
        raise ValueError(f"{text!r} is not a rate: write 5 (a second), 30/m or 1000/h")
    return rate


def parse_failures(text: str) -> int | float:
    """A number of failures from 1 on in ``20``, or the fraction, below 1, in ``25%``."""
    written = text.strip()
    if written.isascii() and written.isdigit() and 0 < len(written) < 10 and int(written):
        return int(written)
    match = _FRACTION.fullmatch(written)
    fraction = float(match[1]) / 100 if match and match[2] else 0.0
    if not 0 < fraction < 1:
        raise ValueError(f"{text!r} is no limit of failures: write a number (20) or 25%")
    return fraction


def is_utf8(text: str) -> bool:
    """Whether a database can take it: the names of files, which Python reads, may be any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
