"""How far long work has come: bytes, rate, time left, in one line that is drawn again and again."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from production.view.console import BAR_SECONDS, BAR_WIDTH, bar


class Progress:
    """``with Progress(total) as progress``, then ``progress.add(bytes)``.

    Draws on standard error, and only when that is a terminal.
    """

    def __init__(self, total: int, out: TextIO | None = None) -> None:
        self._total = total  # bytes
        self._out = out or sys.stderr
        self._shown = self._out.isatty()
        self._done = 0
        self._began = time.monotonic()
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
            self._draw(describe(done, self._total, now - self._began))

    def _draw(self, text: str) -> None:
        if self._shown and (text or self._length):
            self._out.write(f"\r{text:{self._length}}" + ("" if text else "\r"))
            self._out.flush()
            self._length = len(text)


def describe(done: int, total: int, seconds: float) -> str:
    """``[===   ]  45% 1.35 of 3.00 GB, 210.0 MB/s, 8 s left``."""
    rate = done / seconds if seconds else 0.0
    left = f", {max(total - done, 0) / rate:.0f} s left" if rate else ""
    amount = f"{done / 1e9:.2f} of {total / 1e9:.2f} GB, {rate / 1e6:.1f} MB/s"
    return f"{bar(done, total, BAR_WIDTH)} {amount}{left}"
