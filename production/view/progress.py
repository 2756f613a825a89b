"""How far long work has come: bytes, rate, time left, in lines that are drawn again and again."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from production.view.pace import Rates
from production.view.tables import duration, size

BAR_SECONDS = 0.2  # how often bars are drawn again
BAR_WIDTH = 30


class Progress:
    """``with Progress(total) as progress``, then ``progress.add(bytes)``.

    Draws on standard error, and only when that is a terminal.
    """

    def __init__(self, total: int, out: TextIO | None = None) -> None:
        self._total = total  # bytes
        self._out = out or sys.stderr
        self._shown = self._out.isatty()
        self._done = 0
        self._rates = Rates()
        self._rates.observe(time.monotonic(), {0: 0})
        self._drawn = 0.0
        self._length = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._draw("")

    def add(self, count: int) -> None:
        """So many bytes more are done."""
        self.reach(self._done + count)

    def reach(self, done: int) -> None:
        """So many bytes are done in all."""
        self._done = done
        now = time.monotonic()
        if self._shown and now - self._drawn >= BAR_SECONDS:
            self._drawn = now
            rate = self._rates.observe(now, {0: done}).get(0)
            self._draw(describe(done, self._total, rate))

    def _draw(self, text: str) -> None:
        if self._shown and (text or self._length):
            self._out.write(f"\r{text:{self._length}}" + ("" if text else "\r"))
            self._out.flush()
            self._length = len(text)


class Bars:
    """One line for each transfer under way, below all that has been printed.

    Only on a terminal on which the cursor can be moved; elsewhere nothing is drawn.  ``clear``
    before anything else is printed.
    """

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._shown = out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._rates = Rates()
        self._under_way: dict[int, tuple[int, int | None]] = {}
        self._drawn = 0.0
        self._height = 0  # lines that stand on the terminal

    def reach(self, run: int, done: int, total: int | None) -> None:
        """So many bytes of a run are here."""
        now = self._clock()
        if self._shown:
            self._under_way[run] = (done, total)
            if now - self._drawn >= BAR_SECONDS:
                self._drawn = now
                self._draw(now)

    def end(self, run: int) -> None:
        """The transfer is over; its line goes."""
        if self._under_way.pop(run, None):
            self.clear()

    def clear(self) -> None:
        """Take all lines away; those of transfers that go on come back with their next bytes."""
        if self._height:
            up = f"\x1b[{self._height - 1}A" if self._height > 1 else ""
            self._out.write(f"\r{up}\x1b[J")
            self._out.flush()
            self._height = 0

    def _draw(self, now: float) -> None:
        self.clear()
        rates = self._rates.observe(now, {run: done for run, (done, _) in self._under_way.items()})
        columns, rows = _dimensions(self._out)
        lines = []
        for run, (done, total) in sorted(self._under_way.items()):
            name = f"run {run}: "
            room = columns - 1 - len(name)  # a full line would have the cursor in the next one
            lines.append((name + describe(done, total, rates.get(run), room))[: columns - 1])
        shown = lines[: max(rows - 1, 1)]
        self._out.write("\n".join(shown))
        self._out.flush()
        self._height = len(shown)


def describe(done: int, total: int | None, rate: float | None, room: int = 80) -> str:
    """``[===   ]  45% 1.4 GB of 3.0 GB, 210.0 MB/s, 8.0s left``; ``rate`` is bytes a second.

    The bar is what gives way where there is ``room`` for fewer characters.
    """
    parts = [size(done) if total is None else f"{size(done)} of {size(total)}"]
    if rate is not None:
        parts.append(f"{size(rate)}/s")
    if rate and total is not None:
        parts.append(f"{duration(max(total - done, 0) / rate)} left")
    text = ", ".join(parts)
    return f"{bar(done, total, max(0, min(BAR_WIDTH, room - len(text) - 8)))} {text}"


def bar(done: int, total: int | None, width: int) -> str:
    """``[=====     ]  45%``, or an empty bar when the size is not known."""
    if not total:
        return f"[{' ' * width}]   ?%"
    fraction = min(done / total, 1.0)
    return f"[{'=' * int(fraction * width):{width}}] {int(fraction * 100):3}%"


def _dimensions(out: TextIO) -> tuple[int, int]:
    """Columns and rows of the terminal; one that does not tell is taken for the usual one."""
    try:
        columns, rows = os.get_terminal_size(out.fileno())
    except OSError:
        columns = rows = 0
    return columns or 80, rows or 24
