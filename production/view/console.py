"""Messages as lines on standard output: for people, or as JSON for programs."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from production.view.base import Snapshot
from production.view.progress import Bars
from production.view.stamp import TROUBLE, labelled, stamped


class Console:
    """Plain messages; on a terminal also one bar line for each transfer under way.

    Losing the reader (``| head``, a ``tee`` that Ctrl-C has ended, a terminal that was closed) is
    no reason to stop a production, and least of all to break off a roll-back.

    ``quiet``: no news, only trouble and the closing report, and no bars.
    """

    live = False

    def __init__(
        self, form: str = "table", out: TextIO | None = None, *, quiet: bool = False
    ) -> None:
        self._form = form  # table: lines for people; json: one object a line; quiet: warnings only
        self._out = out or sys.stdout
        self._levels = (*TROUBLE, "report") if quiet else (*TROUBLE, "report", "info", "detail")
        self._bars = Bars(self._out) if form == "table" and not quiet else None

    def message(self, text: str, *, level: str = "info") -> None:
        """Print one line."""
        if level in self._levels:
            with self._while_somebody_reads():
                self._clear_bars()
                self._print(text, level)

    @contextmanager
    def _while_somebody_reads(self) -> Iterator[None]:
        """Nothing more is printed when the reader has gone; on a full disk, this is not."""
        try:
            yield
        except OSError as error:
            reads = error.errno in (errno.ENOSPC, errno.EDQUOT)
            if not reads:
                self._form, self._bars = "none", None
            self._empty_buffer(for_good=not reads)

    def _empty_buffer(self, *, for_good: bool) -> None:
        """Or what is in it would fail once more, with the next message or when the program ends."""
        with contextlib.suppress(OSError), Path(os.devnull).open("w") as null:
            out = self._out.fileno()
            kept = os.dup(out)
            os.dup2(null.fileno(), out)
            self._out.flush()
            if not for_good:
                os.dup2(kept, out)
            os.close(kept)

    def _print(self, text: str, level: str) -> None:
        if self._form == "json":
            fields = {"time": time.time(), "level": level, "message": text}
            print(json.dumps(fields), file=self._out, flush=True)
        elif self._form == "table":
            print(stamped(labelled(text, level)), file=self._out, flush=True)
        elif self._form == "quiet" and level in TROUBLE:
            sys.stderr.write(stamped(labelled(text, level)) + "\n")

    def progress(self, run: int, done: int, total: int | None) -> None:
        """Draw its bar, when somebody looks."""
        if self._bars is not None:
            with self._while_somebody_reads():
                self._bars.reach(run, done, total)

    def transferred(self, run: int) -> None:
        """Remove its bar."""
        if self._bars is not None:
            with self._while_somebody_reads():
                self._bars.end(run)

    def update(self, snapshot: Snapshot) -> None:
        """Nothing: messages tell it."""

    def close(self) -> None:
        """Remove all bars."""
        with self._while_somebody_reads():
            self._clear_bars()

    def _clear_bars(self) -> None:
        if self._bars is not None:
            self._bars.clear()
