"""The display on real terminals: what they show, and that they are given back whatever happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import pytest
from display_feeder import snapshot
from terminal import ENVIRONMENT, HERE, PATIENCE, Terminal, feeder

from production.view.keys import KEYS
from production.view.layout import Scene, render


def screen(width: int, height: int) -> list[str]:
    """What stands there without any message."""
    return [
        line.rstrip() for line in render(Scene(snapshot(), rates={2091: 0.0}), width, height).lines
    ]


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def test_it_shows_the_screen_and_gives_the_terminal_back(terminal: Terminal) -> None:
    terminal.run("closes")
    terminal.read_until(lambda: terminal.shows("2089  |"))
    terminal.read_until(lambda: terminal.lines[:12] == screen(80, 24)[:12])
    news = ["Claimed run: 2090", "WARNING: no space left"]
    terminal.read_until(lambda: [line[20:] for line in terminal.lines[-2:]] == news)
    assert terminal.screen.cursor.hidden
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
    terminal.see("by status 1-9/9 -")  # the last line: nothing more is on its way
    terminal.touch("drawn")
    terminal.read_until(lambda: terminal.lines[3].startswith("stray"))
    terminal.touch("seen")
    terminal.read_until(lambda: terminal.lines[3] == "-" * 80)
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


def test_ctrl_z_and_fg_come_back_to_an_open_menu(terminal: Terminal) -> None:
    terminal.start(["bash", "--norc", "-i"], PS1="> ")
    terminal.send(f"{feeder('is_used')}\r")
    terminal.see("> 2088")
    terminal.press("m", lambda: terminal.shows("- Back"))
    suspend(terminal)
    assert not terminal.screen.cursor.hidden
    terminal.send("fg\r")
    terminal.read_until(lambda: terminal.shows("1 - Pause") and not terminal.shows("Stopped"))
    terminal.press("\x1b", lambda: terminal.shows("? help"))
    terminal.touch("stop")
    terminal.read_until(lambda: terminal.lines[23] == ">")
    terminal.send("exit\r")


def suspend(terminal: Terminal) -> None:
    """Press Ctrl-Z."""
    terminal.press("\x1a", lambda: terminal.shows("Stopped"))


def turns(terminal: Terminal) -> int:
    """How far ``counts_aloud`` has counted."""
    file = terminal.directory / "turns"
    return int(file.read_text()) if file.exists() else 0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ------------------------------------------------------------------------------- keys


# What a terminal sends for each of them.
CODES = {
    "up": "\x1b[A",
    "down": "\x1b[B",
    "page up": "\x1b[5~",
    "page down": "\x1b[6~",
    "home": "\x1b[1~",
    "end": "\x1b[4~",
    "escape": "\x1b",
    "enter": "\r",
    "repaint": "\x0c",
    **{name: name for name in "/slim?hq"},
}


def test_every_key(terminal: Terminal) -> None:
    assert set(CODES) == {name for key in KEYS for name in key.names}
    terminal.run("is_used")
    terminal.see("> 2088")
    for name in ("?", "h"):
        terminal.press(CODES[name], lambda: terminal.shows("The keys"))
        for row in KEYS:
            terminal.see(f"{row.shown}  ")
        terminal.press(CODES["q"], lambda: terminal.shows("? help"))
    for name, run in (
        *(("down", 2090), ("up", 2088), ("page down", 2077), ("page up", 2088)),
        *(("end", 2077), ("home", 2088)),
    ):
        terminal.press(CODES[name], lambda: terminal.shows(f"> {run}"))  # noqa: B023 - at once
    terminal.press(CODES["s"], lambda: terminal.shows("by run 1-9/9"))
    terminal.read_until(lambda: terminal.lines[6].startswith("  2077"))
    for sort in ("dataset", "time", "tries", "status"):
        terminal.press(CODES["s"], lambda: terminal.shows(f"by {sort} "))  # noqa: B023 - at once
    terminal.send(f"{CODES['/']}bobx\x7f R{CODES['enter']}")
    terminal.see("only bob R, by status 1-2/2")
    terminal.press(CODES["escape"], lambda: terminal.shows("1-9/9"))
    terminal.press(CODES["l"], lambda: terminal.shows("event 99"))
    terminal.press(CODES["home"], lambda: terminal.shows("event 0"))
    terminal.press(CODES["page down"], lambda: terminal.shows("event 22"))
    terminal.press(CODES["end"], lambda: terminal.shows("event 99"))
    with (terminal.directory / "alcapana.run02088.out").open("a") as log:
        log.write("one more\n")
    terminal.see("one more")
    terminal.press(CODES["escape"], lambda: terminal.shows("? help"))
    terminal.press(CODES["enter"], lambda: terminal.shows("one more"))
    terminal.press(CODES["q"], lambda: terminal.shows("? help"))
    terminal.press(CODES["i"], lambda: terminal.shows("status   running"))
    terminal.see("on node3, job 4709")
    terminal.see("ERROR: Database")  # its history; there is no database here
    terminal.press(CODES["escape"], lambda: terminal.shows("? help"))
    terminal.press(CODES["m"], lambda: terminal.shows("1 - Pause"))
    terminal.press(CODES["escape"], lambda: terminal.shows("? help"))
    before = len(terminal.received)
    terminal.press(CODES["repaint"], lambda: b"? help" in terminal.received[before:])
    terminal.press(CODES["q"], lambda: terminal.shows("Quit? r: roll back"))
    terminal.press(CODES["escape"], lambda: not terminal.shows("Quit?"))
    terminal.press(CODES["q"], lambda: terminal.shows("Quit? r: roll back"))
    terminal.send("l")
    terminal.see("production leave --production=alcapana --version=4 ")
    terminal.press(CODES["q"], lambda: terminal.shows("Quit? r: roll back"))
    terminal.send("r")
    assert terminal.end() == 0
    assert terminal.printed()[-1] == "User cancelling jobs..."


def test_keys_that_mean_nothing_do_nothing(terminal: Terminal) -> None:
    terminal.run("is_used")
    terminal.see("> 2088")
    left, right, tab, delete, f1 = "\x1b[D", "\x1b[C", "\t", "\x1b[3~", "\x1b[[A"
    for key in (left, right, tab, delete, f1) * 4:
        terminal.send_alone(key)
    terminal.press("m", lambda: terminal.shows("- Back"))
    for key in (left, tab, delete, f1):
        terminal.send_alone(key)
    terminal.press("\x1b", lambda: terminal.shows("? help"))
    terminal.send("/bob")
    for key in (left, tab, delete, f1):
        terminal.send_alone(key)
    terminal.send(" R\r")
    terminal.see("only bob R, by status 1-2/2")
    terminal.touch("stop")
    assert terminal.end() == 0


def test_ctrl_l_draws_all_of_it_again(terminal: Terminal) -> None:
    terminal.run("is_used")
    terminal.see("> 2088")
    terminal.send("?")
    terminal.see("The keys")
    before = len(terminal.received)
    terminal.press("\x0c", lambda: b"The keys" in terminal.received[before:])
    terminal.touch("stop")
    assert terminal.end() == 0


@pytest.mark.parametrize(("width", "height", "rows"), [(80, 24, 15), (40, 10, 4), (200, 60, 51)])
def test_all_runs_are_reached(terminal: Terminal, width: int, height: int, rows: int) -> None:
    terminal.run("has_many_runs", width, height)
    terminal.see("> 1000")
    terminal.send("\x1b[6~")
    terminal.see(f"> {1000 + rows}")
    terminal.press("\x1b[4~", lambda: terminal.shows("> 1099"))
    terminal.send("/1042\r")
    terminal.see("> 1042")
    terminal.touch("stop")
    assert terminal.end() == 0


def test_an_onlooker_quits_at_once(terminal: Terminal) -> None:
    terminal.run("is_looked_at")
    terminal.see("2089  |")
    terminal.send("q")
    assert terminal.end() == 0


def test_without_a_keyboard_it_shows_all_the_same(terminal: Terminal) -> None:
    terminal.start(["sh", "-c", f"{feeder('closes')} </dev/null"])
    terminal.see("2089  |")
    terminal.send("m")
    terminal.touch("stop")
    assert terminal.wait() == 0


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
def test_other_character_sets(terminal: Terminal, locale: str) -> None:
    terminal.run("is_used", LC_ALL=locale, PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    terminal.see("> 2088")
    terminal.press("m", lambda: terminal.shows("- Back"))
    terminal.press("\x1b", lambda: terminal.shows("? help"))
    terminal.touch("stop")
    assert terminal.end() == 0


@pytest.mark.parametrize("name", ["vt100", "xterm-mono", "vt220", "xterm-256color", "screen"])
def test_terminals_with_and_without_colour(terminal: Terminal, name: str) -> None:
    terminal.run("is_used", TERM=name)
    terminal.see("> 2088")
    terminal.press("m", lambda: terminal.shows("- Back"))
    terminal.press("\x1b", lambda: terminal.shows("? help"))
    terminal.touch("stop")
    assert terminal.end() == 0


# ------------------------------------------------------------------------------- the document


def test_the_document_shows_the_screen_and_tells_the_keys(terminal: Terminal) -> None:
    page = (HERE.parent / "docs" / "display.md").read_text()
    (picture,) = re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    terminal.run("closes")
    terminal.see("WARNING: no space left")
    terminal.see("]  45% 0.0 MB/s")
    assert without_times("\n".join(terminal.lines) + "\n") == without_times(picture)
    terminal.touch("stop")
    assert terminal.end() == 0
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", page, re.MULTILINE)
    assert rows[1 : 1 + len(KEYS)] == [(key.shown, key.meaning) for key in KEYS]


def without_times(text: str) -> str:
    return re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text, flags=re.MULTILINE)
