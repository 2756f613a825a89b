"""The curses display: what stands where, and a terminal that is given back whatever happens."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import pexpect
import pyte
import pytest
from display_feeder import LINES, PRODUCTION, snapshot
from hypothesis import given
from hypothesis import strategies as st
from pyte.screens import wcwidth

from production.model import Usage
from production.view.base import RunLine, Snapshot
from production.view.display import Message, render
from production.view.stamp import labelled, stamped

HERE = Path(__file__).parent
WHEN = time.mktime((2014, 5, 1, 12, 0, 0, 0, 0, -1))
PATIENCE = 60.0


def news(*texts: str) -> list[Message]:
    return [Message(WHEN + number, text) for number, text in enumerate(texts)]


def shown(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").split("\n")]


def screen(width: int, height: int, *texts: str, of: Snapshot | None = None) -> list[str]:
    return [line.rstrip() for line in render(of or snapshot(), news(*texts), width, height)]


# ------------------------------------------------------------------------------- what stands where


def test_the_screen_of_2014() -> None:
    assert screen(80, 24, "Claimed run: 2090", "Downloading run: 2091") == shown("""
ALCAPANA v4 v7.1_calib ||||||||||||||||||||||||||||||||||||||||||||||| Quota 45%
N 120  C 5  R 10  F 300  E 2                                           Limit 90%
--------------------------------------------------------------------------------
   Run   |    Status    |         Download Progress         |    Run Time
--------------------------------------------------------------------------------
   2088  |      Running | [==========================] 100% |     1h 06m 40s
   2090  |      Running | [==========================] 100% |        12m 30s
   2094  |   Submitting | [==========================] 100% |         0m 03s
   2095  |        Ready | [==========================] 100% |         1m 01s
   2091  |  Downloading | [===========               ]  45% |         0m 12s
   2100  |      Claimed |                                   |     2h 05m 09s
   2089  |       Ending | [==========================] 100% |         0m 01s









--------------------------------------------------------------------------------
2014-05-01 12:00:00 Claimed run: 2090
2014-05-01 12:00:01 Downloading run: 2091
""")


def test_a_small_screen_shows_what_fits() -> None:
    assert screen(40, 10, "Claimed run: 2090", "Downloading run: 2091") == shown("""
ALCAPANA v4 v7.1_calib ||||||| Quota 45%
N 120  C 5  R 10  F 300  E 2   Limit 90%
----------------------------------------
  Run   |   Status   |  %  |  Run Time
----------------------------------------
  2088  |    Running | 100%| 1h 06m 40s
  2090  |    Running | 100%|    12m 30s
  2094  | Submitting | 100%|     0m 03s
   ...  | 4 more
12:00:01 Downloading run: 2091
""")


def test_a_tiny_screen_shows_no_part_of_a_number() -> None:
    assert screen(20, 5, "Claimed run: 2090") == shown("""
ALCAPANA Quota 45%
N 120 C 5 R 10 F 300
  2088  |    Running
  2090  |    Running
Claimed run: 2090
""")


def test_a_wide_screen_shows_the_jobs() -> None:
    lines = screen(120, 24)
    assert lines[3].split("|")[-1].strip() == "Job"
    assert lines[6].split("|")[-1].strip() == "4711"


def test_a_high_screen_shows_more_messages() -> None:
    lines = screen(80, 40, *(f"message {number}" for number in range(100)))
    assert [line[20:] for line in lines[-27:]] == [f"message {number}" for number in range(73, 100)]


def test_more_runs_than_rows_are_counted() -> None:
    many = tuple(RunLine(run, "running", 1.0) for run in range(500, 530))
    lines = screen(80, 24, "latest", of=snapshot((*many, RunLine(1, "claimed", 1.0))))
    assert [line[:9].strip() for line in lines[5:22]] == [str(run) for run in range(500, 517)]
    assert lines[22:] == ["    ...  | 14 more", "2014-05-01 12:00:00 latest"]


def test_messages_only_before_the_first_snapshot() -> None:
    lines = render(None, news("Starting", "Claimed run: 2090"), 80, 4)
    assert lines == [
        "",
        "",
        "2014-05-01 12:00:00 Starting",
        "2014-05-01 12:00:01 Claimed run: 2090",
    ]


@pytest.mark.parametrize(
    ("used", "said"), [(None, "?%"), (57, "57%"), (0, "0%"), (103, "103%"), (89, "89%")]
)
def test_the_quota(used: int | None, said: str) -> None:
    assert screen(80, 24, of=snapshot(used=used))[0].endswith(f"| Quota {said}")


def test_a_quota_just_below_the_limit_does_not_read_as_reached() -> None:
    state = replace(snapshot(), usage=Usage(899, 1000, "test"))
    assert screen(80, 24, of=state)[0].endswith(" Quota 89%")


def test_a_long_software_tag_gives_way() -> None:
    tagged = replace(snapshot(), production=replace(PRODUCTION, software="x" * 70))
    assert re.fullmatch(r"ALCAPANA v4 \|+ Quota 45%", screen(80, 24, of=tagged)[0])


def test_a_transfer_of_unknown_size_shows_its_bytes() -> None:
    line = RunLine(7, "downloading", 1.0, 12_345_678, None)
    assert "| 12.3 MB " in screen(80, 24, of=snapshot((line,)))[5]
    assert "|   ?%|" in screen(40, 24, of=snapshot((line,)))[5]


def test_a_run_without_download_shows_no_progress() -> None:
    assert screen(80, 24, of=snapshot((RunLine(7, "running", 1.0),)))[5].split("|")[2].isspace()


def test_an_unknown_phase_comes_last() -> None:
    lines = screen(80, 24, of=snapshot((RunLine(1, "resting", 1.0), *LINES)))
    assert lines[12].split("|")[:2] == ["      1  ", "      Resting "]


def test_messages_cannot_steer_the_terminal() -> None:
    assert screen(80, 24, "one\ntwo\tthree \x1b[2J \udcff end")[-1] == (
        "2014-05-01 12:00:00 one two three ?[2J ? end"
    )


LINE = st.builds(
    RunLine,
    st.integers(0, 10**9),
    st.sampled_from(["running", "downloading", "claimed", "some other phase"]),
    st.floats(-5, 1e7),
    st.integers(0, 10**13),
    st.none() | st.integers(0, 10**13),
    st.text(max_size=30),
)
TEXT = st.text(st.sampled_from("a Z9\n\t\x1b\x00é→日本\u0301\udc80"), max_size=300)


@given(
    st.lists(LINE, max_size=40),
    st.lists(TEXT, max_size=60),
    st.integers(0, 250),
    st.integers(0, 70),
    TEXT,
)
def test_any_screen_is_filled_and_never_exceeded(
    lines: list[RunLine], texts: list[str], width: int, height: int, software: str
) -> None:
    state = replace(
        snapshot(tuple(lines)), production=replace(PRODUCTION, software=software, version=10**6)
    )
    for whole in (state, None):
        drawn = render(whole, news(*texts), width, height)
        assert len(drawn) == height
        for line in drawn:
            assert line.isprintable()
            assert sum(max(0, wcwidth(char)) for char in line) <= width


# ----------------------------------------------------------------------------------- the terminal


class Terminal:
    """A terminal with a display in it, as somebody sees it who looks at it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.screen = pyte.Screen(80, 24)
        self.received = b""
        self._stream = pyte.ByteStream(self.screen)
        self._child: pexpect.spawn

    def run(self, scenario: str, width: int = 80, height: int = 24, /, **variables: str) -> None:
        """Start the feeder by a shell, which also keeps the terminal's settings and the code."""
        command = f"trap : INT; stty -g >before; {feeder(scenario)}; echo $? >code; stty -g >after"
        self.start(["sh", "-c", command], width, height, **variables)

    def start(
        self, argv: list[str], width: int = 80, height: int = 24, /, **variables: str
    ) -> None:
        self.screen.resize(height, width)
        self._child = pexpect.spawn(
            argv[0],
            argv[1:],
            dimensions=(height, width),
            cwd=str(self.directory),
            env={**ENVIRONMENT, **variables},
        )
        self._child.delaybeforesend = None

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    def shows(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def send(self, keys: str) -> None:
        self._child.send(keys)

    def resize(self, width: int, height: int) -> None:
        self.screen.resize(height, width)
        self._child.setwinsize(height, width)

    def hang_up(self) -> None:
        os.close(self._child.child_fd)

    def touch(self, name: str) -> None:
        (self.directory / name).touch()

    def read_until(self, condition: Callable[[], bool]) -> None:
        """Take what the terminal is sent, until it looks as it should."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.read() and time.monotonic() < deadline, "\n".join(self.lines)

    def read(self) -> bool:
        """Take what is there; False when nothing will come any more."""
        try:
            received = self._child.read_nonblocking(1 << 16, timeout=0.05)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.received += received
        self._stream.feed(received)
        return True

    def end(self) -> int:
        """The feeder's exit code, when the terminal has its settings again."""
        deadline = time.monotonic() + PATIENCE
        while self.read():
            assert time.monotonic() < deadline, "\n".join(self.lines)
        self._child.close()
        before, after, code = (
            (self.directory / name).read_text() for name in ("before", "after", "code")
        )
        assert after == before
        return int(code)

    def printed(self) -> list[str]:
        """The messages in the last lines, each without its time."""
        lines = [line for line in self.lines if line]
        stamps = [re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d (.*)", line) for line in lines]
        first = max((at + 1 for at, stamp in enumerate(stamps) if not stamp), default=0)
        return [stamp[1] for stamp in stamps[first:] if stamp]


ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in {"LINES", "COLUMNS"}},
    "PYTHONPATH": str(HERE.parent),
    "LC_ALL": "C.UTF-8",
    "TERM": "linux",
}


def feeder(scenario: str) -> str:
    return shlex.join([sys.executable, str(HERE / "display_feeder.py"), scenario])


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def test_it_shows_the_screen_and_gives_the_terminal_back(terminal: Terminal) -> None:
    terminal.run("closes")
    terminal.read_until(lambda: terminal.shows("2089  |"))
    assert terminal.lines[:12] == screen(80, 24)[:12]
    assert terminal.screen.cursor.hidden
    assert [line[20:] for line in terminal.lines[-2:]] == [
        "Claimed run: 2090",
        "WARNING: no space left",
    ]
    terminal.touch("stop")
    assert terminal.end() == 0
    assert terminal.printed() == [
        "Claimed run: 2090",
        "WARNING: no space left",
        "after the end, 0 keys left",
    ]
    assert not terminal.screen.cursor.hidden


@pytest.mark.parametrize(("width", "height"), [(40, 10), (20, 5), (2, 2), (1, 1), (250, 70)])
def test_terminals_of_other_sizes(terminal: Terminal, width: int, height: int) -> None:
    terminal.run("closes", width, height)
    first = screen(width, height)[0]
    terminal.read_until(lambda: terminal.lines[0] == first)
    terminal.touch("stop")
    assert terminal.end() == 0


@pytest.mark.parametrize("variables", [{}, {"LINES": "24", "COLUMNS": "80"}])
def test_it_follows_the_size_of_the_terminal(terminal: Terminal, variables: dict[str, str]) -> None:
    terminal.run("closes", **variables)
    for width, height in [(80, 24), (132, 50), (40, 10), (3, 1), (90, 7), (80, 24)]:
        terminal.resize(width, height)
        wanted = list(takewhile(bool, screen(width, height)))
        terminal.read_until(lambda: terminal.lines[: len(wanted)] == wanted)  # noqa: B023
    terminal.touch("stop")
    assert terminal.end() == 0


@pytest.mark.parametrize("name", ["dumb", "unknown", "no-such-terminal", ""])
def test_a_terminal_that_cannot_show_it_is_refused(terminal: Terminal, name: str) -> None:
    terminal.run("closes", 200, 24, TERM=name)
    assert terminal.end() == 1
    assert terminal.lines[0].startswith(f"ERROR: The display cannot be shown: TERM={name}")
    assert terminal.lines[0].endswith(". Run without --display")


def test_without_a_terminal_it_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        done = subprocess.run(
            [sys.executable, str(HERE / "display_feeder.py"), "closes"],
            env=ENVIRONMENT,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.stderr == (
        "ERROR: The display cannot be shown: standard output is not a terminal. "
        "Run without --display\n"
    )
    assert (tmp_path / "output").read_bytes() == b""


def test_in_the_background_it_is_refused(terminal: Terminal) -> None:
    command = f"{feeder('closes')} & wait $!; echo ended"
    terminal.start(["bash", "--norc", "-m", "-c", command], 200, 24)
    terminal.read_until(lambda: terminal.shows("ended"))
    assert terminal.shows("this process runs in the background")


def test_ctrl_c_is_a_keyboard_interrupt(terminal: Terminal) -> None:
    terminal.run("is_interrupted")
    terminal.read_until(lambda: terminal.shows("2089  |"))
    terminal.send("\x03")
    assert terminal.end() == 0
    assert terminal.printed() == ["User cancelling jobs..."]


def test_other_keys_mean_nothing(terminal: Terminal) -> None:
    terminal.run("closes")
    terminal.read_until(lambda: terminal.shows("2089  |"))
    terminal.send("q\r\x1b[Aexit\n")
    seen = len(terminal.received)
    terminal.resize(80, 20)
    terminal.read_until(lambda: len(terminal.received) > seen)
    assert b"exit" not in terminal.received
    terminal.touch("stop")
    assert terminal.end() == 0
    assert terminal.printed()[-1] == "after the end, 0 keys left"


def test_an_exception_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    terminal.run("raises")
    terminal.read_until(lambda: terminal.shows("2089  |"))
    terminal.touch("stop")
    assert terminal.end() == 1
    assert terminal.printed() == ["Claimed run: 2090"]
    assert b"RuntimeError: trouble" in terminal.received


def test_a_signal_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    terminal.run("is_terminated")
    terminal.read_until(lambda: terminal.shows("2089  |"))
    os.kill(int((terminal.directory / "pid").read_text()), signal.SIGTERM)
    assert terminal.end() == 128 + signal.SIGTERM
    assert terminal.printed() == ["Claimed run: 2090"]


def test_the_last_thousand_messages_are_printed(terminal: Terminal) -> None:
    terminal.run("says_much", 80, 3)
    assert terminal.end() == 0
    printed = terminal.received.partition(b"... 7 earlier messages are not shown\r\n")[2]
    texts = [line[20:] for line in printed.decode().splitlines()]
    assert texts == [f"message {number}" for number in range(7, 1007)]


def test_when_drawing_fails_plain_messages_go_on(terminal: Terminal) -> None:
    terminal.run("fails", 100, 24)
    terminal.read_until(lambda: terminal.shows("2089  |"))
    terminal.touch("break")
    assert terminal.end() == 0
    assert terminal.printed() == [
        "before",
        "WARNING: The display has been switched off (ZeroDivisionError: no room)",
        "ERROR: afterwards",
    ]


def test_progress_is_drawn_a_few_times_a_second(terminal: Terminal) -> None:
    terminal.run("progresses")
    terminal.read_until(lambda: terminal.shows(" 99% |"))
    terminal.touch("stop")
    assert terminal.end() == 0
    draws, took = (terminal.directory / "draws").read_text().split()
    assert 1 <= int(draws) <= 1 + float(took) * 4


def test_what_others_write_over_it_goes_away(terminal: Terminal) -> None:
    terminal.run("is_written_over")
    terminal.read_until(lambda: terminal.lines[2].startswith("stray"))
    terminal.touch("seen")
    terminal.read_until(lambda: terminal.lines[2] == "-" * 80)
    terminal.touch("stop")
    assert terminal.end() == 0


def test_a_terminal_that_is_gone_does_no_harm(terminal: Terminal) -> None:
    terminal.start(["sh", "-c", f"trap '' HUP; {feeder('outlives_its_terminal')}"])
    terminal.read_until((terminal.directory / "ready").exists)
    terminal.hang_up()
    terminal.touch("stop")
    wait_for((terminal.directory / "survived").exists)


def test_a_terminal_on_hold_does_not_hold_up_the_manager(terminal: Terminal) -> None:
    terminal.run("counts_aloud")
    terminal.read_until(lambda: terminal.shows("2089  |"))
    terminal.send("\x13")
    held = turns(terminal)
    wait_for(lambda: turns(terminal) > held + 20)
    terminal.send("\x11")
    terminal.touch("stop")
    assert terminal.end() == 0
    assert terminal.printed()[-1] == f"turn {turns(terminal)}"


def test_in_the_background_it_goes_on_without_drawing(terminal: Terminal) -> None:
    terminal.start(["bash", "--norc", "-i"], PS1="> ")
    terminal.send(f"{feeder('counts_aloud')}\r")
    terminal.read_until(lambda: terminal.shows("2089  |"))
    suspend(terminal)
    stopped = turns(terminal)
    terminal.send("bg\r")
    wait_for(lambda: turns(terminal) > stopped + 20)
    terminal.send("fg\r")
    terminal.read_until(lambda: terminal.lines[:12] == screen(80, 24)[:12])
    terminal.touch("stop")
    terminal.read_until(lambda: terminal.lines[23] == ">")
    terminal.send("exit\r")


def suspend(terminal: Terminal) -> None:
    """Press Ctrl-Z; once more when it is lost, as keys are while curses sets the terminal up."""
    deadline = time.monotonic() + PATIENCE
    while not terminal.shows("Stopped"):
        assert time.monotonic() < deadline, "\n".join(terminal.lines)
        terminal.send("\x1a")
        again = time.monotonic() + 3
        while not terminal.shows("Stopped") and time.monotonic() < again:
            assert terminal.read()


def turns(terminal: Terminal) -> int:
    """How far ``counts_aloud`` has counted."""
    return int((terminal.directory / "turns").read_text())


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ------------------------------------------------------------------------------------ the message


def test_the_time_before_a_message_is_local() -> None:
    assert stamped("text", WHEN) == "2014-05-01 12:00:00 text"


def test_without_a_time_it_is_now() -> None:
    before = stamped("", time.time())
    assert before <= stamped("") <= stamped("", time.time())


@pytest.mark.parametrize(
    ("text", "level", "read"),
    [
        ("news", "info", "news"),
        ("trouble", "warning", "WARNING: trouble"),
        ("trouble", "error", "ERROR: trouble"),
        ("ERROR: trouble", "error", "ERROR: trouble"),
    ],
)
def test_levels_are_labels(text: str, level: str, read: str) -> None:
    assert labelled(text, level) == read
