#!/usr/bin/env python3
"""What the display costs: memory over a day, the time of a redraw, and CPU time at its own pace.

    python3 benchmarks/display.py [--hours=24] [--runs=100000] [--active=100] [--seconds=60]
        [--directory=/dev/shm]

A database has that many runs, of which so many have a job.  A display on a pseudo-terminal of 80x24
is fed with a snapshot a simulated second, as fast as it draws; meanwhile runs finish, others begin,
and messages come; a job takes 1000 such seconds.  Then another display is fed once a second for so
many real seconds, and its process's CPU time is counted, snapshots included.

The floor of a redraw is curses alone: it erases the screen, writes 24 lines, of which 18 differ
from those before, and refreshes.  A redraw is timed by the clock, which also counts what others do
on the machine, and in CPU time.  A day takes 15 minutes of a machine with other work; how far it is
is told on standard error.  The aims are those of AIMS, the first one in CPU time for 99 % of
redraws; exits with 1 when one is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import curses
import json
import os
import pty
import statistics
import sys
import tempfile
import threading
import time
import traceback
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from production.identity import this_process  # noqa: E402
from production.manager import survey as surveys  # noqa: E402 - the path comes first
from production.manager.survey import Survey  # noqa: E402
from production.model import (  # noqa: E402
    Claim,
    Finished,
    Intended,
    JobRecord,
    RunFilter,
    Submitted,
    Usage,
)
from production.store import datasets, managers, migrations, productions  # noqa: E402
from production.store.connection import Database, utc_now  # noqa: E402
from production.store.productions import NewProduction  # noqa: E402
from production.store.runs import RunStore  # noqa: E402
from production.view import display as displays  # noqa: E402
from production.view.display import Display  # noqa: E402

AIMS = {"redraw": 0.020, "growth": 3.0, "share": 0.01}  # seconds, MB, of a core
JOB = 1000.0  # simulated seconds
SETTLED = 3600  # simulated seconds after which memory has no reason to grow any more
PATIENCE = 300.0  # seconds for one redraw
LOG = Path("/data/log/run.out")
USAGE = Usage(45, 100, "benchmark")


def memory() -> float:
    """What this process has in memory, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Books:
    """The database, and a manager that keeps so many jobs in it."""

    def __init__(self, path: Path, runs: int, active: int) -> None:
        migrations.create(path)
        self.db = Database(path)
        datasets.add(self.db, [datasets.Label(run, "SiR2", 1, "gold", None) for run in range(runs)])
        new = NewProduction("alcapana", "v7", "", ("tree",), None)
        self.production, _ = productions.start(self.db, new, RunFilter())
        who = managers.register(self.db, this_process(), self.production.id)
        self._store = RunStore(self.db, self.production, who)
        self._held: list[Claim] = []
        self._begin(active)

    def _begin(self, count: int) -> None:
        claims = self._store.claim(count, RunFilter())
        for claim in claims:
            spool = Path(f"/data/spool/{claim.run}")
            intended = Intended(claim, "slurm", spool, None, olog=LOG, elog=LOG)
            self._store.apply([intended, Submitted(claim, str(claim.run))])
        self._held += claims

    def turn_over(self) -> int:
        """The oldest job ends well, and another begins; its run."""
        claim = self._held.pop(0)
        now = utc_now()
        record = JobRecord("done", 0, None, "node17", now, now, "", 1.0, None, ())
        self._store.apply([Finished(claim, record, LOG, LOG)])
        self._begin(1)
        return claim.run


def simulate(books: Books, hours: float, tell: Callable[[str], None]) -> dict[str, Any]:
    """A day of it, as fast as it goes; it is told how far it is."""
    clock = SimpleNamespace(now=0.0, began=time.time())
    surveys.time = SimpleNamespace(  # type: ignore[assignment, attr-defined]
        monotonic=lambda: clock.now,
        time=lambda: clock.began + clock.now,
        thread_time=time.thread_time,
    )
    displays.DRAW_EVERY = 0.0
    seconds = round(hours * 3600)
    took = array("d", bytes(8 * 2 * seconds))  # at once, or our own notes would be what grows
    busy = array("d", bytes(8 * 2 * seconds))
    drawn, draws = threading.Event(), 0
    original: Callable[[Display], None] = Display._draw

    def timed(view: Display) -> None:
        nonlocal draws
        start = time.perf_counter(), time.thread_time()
        original(view)
        took[draws] = time.perf_counter() - start[0]
        busy[draws] = time.thread_time() - start[1]
        draws += 1
        drawn.set()

    Display._draw = timed  # type: ignore[assignment, method-assign]
    survey = Survey(books.db, books.production)
    view = Display()
    every = JOB / len(books._held)
    due, settled = every, 0.0
    for second in range(seconds):
        clock.now = float(second)
        while due <= second:
            due += every
            view.message(f"Finished run: {books.turn_over()}")
        if second == min(SETTLED, seconds // 2):
            settled = memory()
        drawn.clear()
        view.update(survey.snapshot(usage=USAGE, spacelim=0.9))
        if not drawn.wait(PATIENCE) or not view.live:
            raise RuntimeError(f"the display does not draw any more, after {second} seconds")
        if second % 3600 == 0:
            tell(f"{second // 3600} of {hours:g} hours, {time.time() - clock.began:.0f} s")
    grown = memory()
    view.close()
    Display._draw = original  # type: ignore[assignment, method-assign]
    surveys.time = time  # type: ignore[attr-defined]
    displays.DRAW_EVERY = 0.25
    return {
        "settled": settled,
        "grown": grown,
        "redraws": sorted(took[:draws]),
        "busy": sorted(busy[:draws]),
    }


def bare(count: int) -> tuple[list[float], list[float]]:
    """Curses alone: by the clock, and in CPU time."""
    window = curses.initscr()
    took = []
    busy = []
    for number in range(count):
        lines = [f"{row:4} {'x' * 60} {number + row if row < 18 else 0:14}" for row in range(24)]
        start = time.perf_counter(), time.thread_time()
        window.erase()
        for row, line in enumerate(lines):
            with contextlib.suppress(curses.error):
                window.addstr(row, 0, line)
        window.refresh()
        took.append(time.perf_counter() - start[0])
        busy.append(time.thread_time() - start[1])
    curses.endwin()
    return sorted(took), sorted(busy)


def at_its_pace(books: Books, seconds: float) -> float:
    """The share of a core that a display takes, snapshots included."""
    survey = Survey(books.db, books.production)
    view = Display()
    view.update(survey.snapshot(usage=USAGE, spacelim=0.9))
    time.sleep(2)  # the start is not counted
    began, spent = time.monotonic(), time.process_time()
    while time.monotonic() - began < seconds:
        view.update(survey.snapshot(usage=USAGE, spacelim=0.9))
        time.sleep(1.0)
    share = (time.process_time() - spent) / (time.monotonic() - began)
    view.close()
    return share


def measure(options: argparse.Namespace, path: Path, told: int) -> None:
    """In the child, whose terminal is the pseudo-terminal; ``told`` is the parent's."""
    os.environ |= {"TERM": "xterm"}
    books = Books(path / "production.db", options.runs, options.active)
    found = simulate(books, options.hours, lambda text: _say(told, text))
    found["bare"], found["bare_busy"] = bare(5000)
    found["share"] = at_its_pace(books, options.seconds)
    (path / "found.json").write_text(json.dumps(found))


def _say(told: int, text: str) -> None:
    os.write(told, f"{text}\n".encode())


def drained(master: int) -> Iterator[int]:
    """How many bytes the terminal is sent, until nobody sends any."""
    while True:
        try:
            received = os.read(master, 1 << 16)
        except OSError:
            return
        if not received:
            return
        yield len(received)


def late(values: list[float]) -> float:
    """What 99 % of sorted values do not exceed."""
    return values[min(len(values) * 99 // 100, len(values) - 1)]


def main() -> int:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--active", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--directory", type=Path, help="where the database is to be")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        path = Path(directory)
        told = os.dup(sys.stderr.fileno())
        pid, master = pty.fork()
        if pid == 0:
            code = 1
            try:
                measure(options, path, told)
                code = 0
            except BaseException:  # noqa: BLE001 - told by the parent
                (path / "trouble").write_text(traceback.format_exc())
            finally:
                os._exit(code)
        import fcntl
        import struct
        import termios

        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        sent = sum(drained(master))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code:
            trouble = path / "trouble"
            print(f"the display's process ended with {code}", file=sys.stderr)
            print(trouble.read_text() if trouble.exists() else "", file=sys.stderr)
            return 1
        found = json.loads((path / "found.json").read_text())
    print(f"{options.hours:g} hours, {options.active} of {options.runs} runs active")
    print(f"{len(found['redraws'])} redraws, {sent / 1e6:.1f} MB sent to the terminal in all")
    for how, own, floor in (("clock", "redraws", "bare"), ("CPU", "busy", "bare_busy")):
        for name, value in (("mean", statistics.fmean), ("99 %", late)):
            one, alone = value(found[own]), value(found[floor])
            ratio = f"{one / alone:.1f} times curses alone, {alone * 1e3:.3f} ms"
            print(f"redraw by the {how}, {name}: {one * 1e3:.2f} ms; {ratio}")
    growth = found["grown"] - found["settled"]
    print(f"memory: {found['settled']:.1f} MB when settled, {growth:+.1f} MB at the end")
    print(f"CPU at its own pace: {found['share']:.2%} of a core")
    missed = (
        late(found["busy"]) > AIMS["redraw"]
        or growth > AIMS["growth"]
        or found["share"] > AIMS["share"]
    )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
