"""Messages as lines: for people on standard output, for programs as JSON lines, into a log file."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from production.errors import UsageError
from production.view.base import Snapshot, View
from production.view.stamp import labelled, stamped

BAR_SECONDS = 0.2  # how often a progress bar is drawn again
BAR_WIDTH = 30


class Console:
    """Plain messages; on a terminal also one bar line for the transfer under way.

    Losing the reader (``| head``, a ``tee`` that Ctrl-C has ended, a terminal that was closed) is
    no reason to stop a production, and least of all to break off a roll-back.
    """

    live = False

    def __init__(self, form: str = "table", out: TextIO | None = None) -> None:
        self._form = form  # table: lines for people; json: one object a line; quiet: warnings only
        self._out = out or sys.stdout
        self._bar = ""
        self._drawn = 0.0

    def message(self, text: str, *, level: str = "info") -> None:
        """Print one line."""
        with self._while_somebody_reads():
            self._clear_bar()
            self._print(text, level)

    @contextmanager
    def _while_somebody_reads(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self._form, self._bar = "none", ""
            # Or what is in the buffer would fail once more when the program ends.
            with contextlib.suppress(OSError), Path(os.devnull).open("w") as null:
                os.dup2(null.fileno(), self._out.fileno())

    def _print(self, text: str, level: str) -> None:
        if self._form == "json":
            fields = {"time": time.time(), "level": level, "message": text}
            print(json.dumps(fields), file=self._out, flush=True)
        elif self._form == "table":
            print(stamped(labelled(text, level)), file=self._out, flush=True)
        elif self._form == "quiet" and level != "info":
            sys.stderr.write(stamped(labelled(text, level)) + "\n")

    def progress(self, run: int, done: int, total: int | None) -> None:
        """Draw the bar, when somebody looks."""
        now = time.monotonic()
        if self._form != "table" or not self._out.isatty() or now - self._drawn < BAR_SECONDS:
            return
        self._drawn = now
        with self._while_somebody_reads():
            self._clear_bar()
            self._bar = f"run {run}: {bar(done, total, BAR_WIDTH)} {done / 1e6:.1f} MB"
            self._out.write(self._bar)
            self._out.flush()

    def update(self, snapshot: Snapshot) -> None:
        """Nothing: messages tell it."""

    def close(self) -> None:
        """Remove the bar."""
        with self._while_somebody_reads():
            self._clear_bar()

    def _clear_bar(self) -> None:
        if self._bar:
            self._out.write("\r" + " " * len(self._bar) + "\r")
            self._out.flush()
            self._bar = ""


class LogFile:
    """Every message as a JSON line in a file, beside another view."""

    def __init__(self, path: Path, open_inner: Callable[[], View]) -> None:
        try:
            file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise UsageError(
                text=f"--log-file={path} cannot be written: {error.strerror}"
            ) from None
        self._inner = open_inner()  # last: a display would hide the error
        self._console = Console("json", file)

    @property
    def live(self) -> bool:
        """As long as the inner one is."""
        return self._inner.live

    def message(self, text: str, *, level: str = "info") -> None:
        """Log it, and pass it on."""
        self._console.message(text, level=level)
        self._inner.message(text, level=level)

    def progress(self, run: int, done: int, total: int | None) -> None:
        """Pass it on."""
        self._inner.progress(run, done, total)

    def update(self, snapshot: Snapshot) -> None:
        """Pass it on."""
        self._inner.update(snapshot)

    def close(self) -> None:
        """Close the inner view; messages that follow are logged still."""
        self._inner.close()


def bar(done: int, total: int | None, width: int) -> str:
    """``[=====     ]  45%``, or an empty bar when the size is not known."""
    if not total:
        return f"[{' ' * width}]   ?%"
    fraction = min(done / total, 1.0)
    return f"[{'=' * int(fraction * width):{width}}] {int(fraction * 100):3}%"
