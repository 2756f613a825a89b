"""Plain messages: how much is said, and the bar lines of transfers on a terminal."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pyte
import pytest
from bookkeeping import Bookkeeping
from desks import Office, Said
from laboratory import FRONT_DOOR, Laboratory, laboratory, spoil
from terminal import Terminal

from production.errors import ProductionError, TransferError
from production.manager.loop import Manager
from production.view.console import Console
from production.view.progress import BAR_SECONDS, Bars, describe

ALCAPANA = "--production=alcapana"
MB = 10**6
LEVELS = ("detail", "info", "report", "warning", "error")


class Tty:
    """A terminal in this process: what is printed to ``out``, and what it looks like."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.out = os.fdopen(slave, "w")
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        os.set_blocking(self._master, False)

    @property
    def lines(self) -> list[str]:
        """What stands there; a line without its trailing space, the last ones not when empty."""
        try:
            while received := os.read(self._master, 1 << 16):
                self._stream.feed(received)
        except BlockingIOError:
            pass
        lines = [line.rstrip() for line in self._screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def close(self) -> None:
        self.out.close()
        os.close(self._master)


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tty]:
    monkeypatch.setenv("TERM", "linux")
    made = Tty()
    yield made
    made.close()


class Clock:
    """Monotonic time that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# ------------------------------------------------------------------------------- bars


def test_each_transfer_has_a_line_with_its_rate_and_the_time_that_is_left(tty: Tty) -> None:
    clock = Clock()
    bars = Bars(tty.out, clock)
    for run in (2092, 2091):
        bars.reach(run, 0, 100 * MB)
        clock.now += 1.0
    clock.now += 1.0
    bars.reach(2091, 20 * MB, 100 * MB)
    clock.now += 2.0
    bars.reach(2092, 8 * MB, 100 * MB)
    assert [re.sub(" +", " ", line) for line in tty.lines] == [
        "run 2091: [==== ] 20% 20.0 MB of 100.0 MB, 5.0 MB/s, 16.0s left",
        "run 2092: [= ] 8% 8.0 MB of 100.0 MB, 1.6 MB/s, 57.5s left",
    ]
    bars.end(2091)
    clock.now += 1.0
    bars.reach(2092, 10 * MB, 100 * MB)
    assert [line[:9] for line in tty.lines] == ["run 2092:"]
    bars.end(2092)
    assert tty.lines == []


def test_bars_are_not_drawn_more_often_than_somebody_can_look(tty: Tty) -> None:
    clock = Clock()
    bars = Bars(tty.out, clock)
    bars.reach(2091, 0, 100)
    clock.now += BAR_SECONDS / 2
    bars.reach(2091, 50, 100)
    assert "0%" in tty.lines[0]
    assert "50%" not in tty.lines[0]
    clock.now += BAR_SECONDS
    bars.reach(2091, 60, 100)
    assert "60%" in tty.lines[0]


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 3), (20, 1), (200, 60)])
def test_bars_fit_on_the_terminal(columns: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    tty, clock = Tty(columns, rows), Clock()
    bars = Bars(tty.out, clock)
    for second in range(2):
        for run in range(1, 31):
            clock.now += 1.0
            bars.reach(run, second * 10 * MB, 100 * MB)
            shown = tty.lines  # or the terminal would have no room for more
    assert len(shown) == min(30, max(rows - 1, 1))
    assert all(line.startswith(f"run {at}: ") for at, line in enumerate(shown, start=1))
    assert all(len(line) < columns for line in shown)
    bars.clear()
    assert tty.lines == []
    tty.close()


def test_messages_stand_above_the_bars(tty: Tty) -> None:
    console = Console(out=tty.out)
    console.message("Downloading run: 2091")
    console.progress(2091, 50, 100)
    assert [line[:9] for line in tty.lines[1:]] == ["run 2091:"]
    console.message("Claimed run: 2092")
    console.close()
    assert [line[20:] for line in tty.lines] == ["Downloading run: 2091", "Claimed run: 2092"]


@pytest.mark.parametrize("terminal", ["dumb", None])
def test_where_the_cursor_cannot_be_moved_there_are_no_bars(
    terminal: str | None, tty: Tty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TERM")
    if terminal is not None:
        monkeypatch.setenv("TERM", terminal)
    console = Console(out=tty.out)
    console.progress(2091, 50, 100)
    console.message("news")
    console.close()
    assert [line[20:] for line in tty.lines] == ["news"]


@pytest.mark.parametrize("silent", [{"quiet": True}, {"form": "json"}, {"form": "quiet"}])
def test_who_wants_no_lines_gets_no_bars(silent: dict[str, object], tty: Tty) -> None:
    console = Console(out=tty.out, **silent)  # type: ignore[arg-type]
    console.progress(2091, 50, 100)
    console.close()
    assert tty.lines == []


def test_what_is_not_known_is_not_told() -> None:
    assert describe(5 * MB, None, None) == f"[{' ' * 30}]   ?% 5.0 MB"
    assert describe(5 * MB, None, MB).endswith("?% 5.0 MB, 1.0 MB/s")
    assert describe(5 * MB, 10 * MB, 0.0).endswith(" 50% 5.0 MB of 10.0 MB, 0 B/s")


class Ended(Said):
    """A view that notes which transfers are over."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[int] = []

    def transferred(self, run: int) -> None:
        self.runs.append(run)


@pytest.mark.parametrize(
    "trouble", [None, TransferError(file="run02091.mid", host="archive", what="it broke")]
)
def test_bars_go_when_transfers_end_whether_well_or_not(
    trouble: ProductionError | None, tmp_path: Path
) -> None:
    office = Office(Bookkeeping(tmp_path), tmp_path, max_attempts=1)
    office.desk.view = ended = Ended()
    office.archive.trouble = trouble
    Manager(office.desk).run()
    assert ended.runs == [2091]
    assert office.status == ("F" if trouble is None else "E")


@pytest.mark.slow
def test_a_download_on_a_terminal(tmp_path: Path) -> None:
    with laboratory(tmp_path, "2091-2092") as lab:
        for run in (2091, 2092):
            (lab.archive.root / f"run{run:05d}.mid").write_bytes(b"x" * 400_000)
        terminal = Terminal(tmp_path)
        argv = [sys.executable, str(FRONT_DOOR), ALCAPANA, "--new=v1", "--pause=0.1"]
        terminal.start([*argv, "--rate-limit=200k"], 80, 24, **lab.environment, TERM="linux")

        assert terminal.wait() == 0
        drawn = terminal.received.decode()
        for run in (2091, 2092):
            assert re.search(rf"run {run}: \[[= ]*\] +\d+% [^\r\n]*/s, [^\r\n]* left", drawn)
        assert not terminal.shows("run 2091: [")
        assert terminal.shows("Nothing left to do here. alcapana_v1: 2 F")


# ------------------------------------------------------------------------------- how much is said


def said_of_each_level(form: str, *, quiet: bool) -> tuple[str, str]:
    """What stands on standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    console = Console(form, out, quiet=quiet)
    with redirect_stderr(err):
        for level in LEVELS:
            console.message(f"<{level}>", level=level)
    return out.getvalue(), err.getvalue()


def test_what_is_said_by_form_and_quiet() -> None:
    def levels(text: str) -> list[str]:
        return [level for level in LEVELS if f"<{level}>" in text]

    loud, quiet = list(LEVELS), ["report", "warning", "error"]
    assert [levels(text) for text in said_of_each_level("table", quiet=False)] == [loud, []]
    assert [levels(text) for text in said_of_each_level("table", quiet=True)] == [quiet, []]
    assert [levels(text) for text in said_of_each_level("json", quiet=False)] == [loud, []]
    assert [levels(text) for text in said_of_each_level("json", quiet=True)] == [quiet, []]
    for is_quiet in (False, True):
        found = [levels(text) for text in said_of_each_level("quiet", quiet=is_quiet)]
        assert found == [[], ["warning", "error"]]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Laboratory]:
    with laboratory(tmp_path) as made:
        yield made


@pytest.mark.slow
def test_quiet_is_trouble_and_the_closing_report(lab: Laboratory) -> None:
    spoil(lab, "alcapana", "[[ $RUN != 2092 ]] || exit 4")
    said = lab.run(ALCAPANA, "--new=v1", "--quiet", "--max-attempts=1")
    assert said.code == 40
    assert said.lines == [
        "WARNING: Failed run: 2092: exit code 4 (no attempts left)",
        "Nothing left to do here. alcapana_v1: 2 F, 1 E",
    ]
    again = lab.finish("--production=rootana", "--new=v1", "--quiet", "--output=json")
    assert [json.loads(line)["level"] for line in again.out.splitlines()] == ["report", "report"]


@pytest.mark.slow
def test_verbose_tells_what_is_recorded_and_answered(lab: Laboratory) -> None:
    said = lab.finish(ALCAPANA, "--new=v1", "--verbose", "--output=json")
    found = [json.loads(line) for line in said.out.splitlines()]
    details = [entry["message"] for entry in found if entry["level"] == "detail"]
    assert details[0] == "Registered as manager 1 with a lease of 600 s"
    assert any("of the space is used" in detail for detail in details)
    assert any(detail.startswith("Jobs: ") for detail in details)
    assert any(detail.startswith("local accepted ") for detail in details)
    jobs = lab.rows("SELECT run, job FROM alcapana_v1")
    assert len(jobs) == 3
    for run, job in jobs:
        recorded = [text for text in details if text.startswith(f"Recorded: run {run}, attempt 1")]
        intent, submission, end = (text.partition(": run ")[2] for text in recorded)
        assert "a job is about to be submitted by local, spool /" in intent
        assert submission.endswith(f"C to R, job {job}")
        assert "R to F, on " in end
        assert f"Run {run} may be fetched" in details
    plain = lab.finish(ALCAPANA, "--new=v2", "--output=json")
    assert '"detail"' not in plain.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--quiet", "--verbose"), "argument --verbose: not allowed with argument --quiet"),
        (("--quiet", "--display"), "--quiet is for messages: a display shows all of them"),
    ],
)
def test_what_does_not_go_together_is_refused(
    lab: Laboratory, words: tuple[str, ...], told: str
) -> None:
    said = lab.run(ALCAPANA, "--new=v1", *words)
    assert said.code == 2
    assert told in said.err
    assert lab.rows("SELECT count(*) FROM productions") == [(0,)]
