"""What the display's menu leads to: commands, each of which people can type as well."""

from __future__ import annotations

import queue
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from display_feeder import LINES, snapshot
from terminal import PATIENCE, Terminal

from production.cli import COMMANDS, command_parser
from production.view.choices import (
    Command,
    FindOffers,
    Menu,
    Offers,
    Question,
    ShowLog,
    Step,
    leave,
    main_menu,
)
from production.view.door import Answer, Door

T = TypeVar("T")
WHICH = ("--production=alcapana", "--version=4")
FAILED = next(line for line in LINES if line.phase == "error")
RUNNING = next(line for line in LINES if line.phase == "running")
OFFERS = Offers(
    {"alcapana": None, "rootana": "alcapana"},
    ["alcapana_v3", "alcapana_v4", "rootana_v1"],
    ["Al100", "SiR2"],
)


def step(menu: Step, *texts: str) -> Step:
    """Where the entries lead that begin with these texts, one after the other."""
    for text in texts:
        assert isinstance(menu, Menu)
        (entry,) = (entry for entry in menu.entries if entry.text.startswith(text))
        menu = entry.step()
        if isinstance(menu, FindOffers):
            menu = menu.then(OFFERS)
    return menu


def all_commands(start: Step, depth: int = 0) -> Iterator[Command]:
    """Every command that can be reached; datasets are switched on once."""
    if isinstance(start, Command):
        yield start
    elif isinstance(start, Question):
        yield from all_commands(start.then("80"), depth + 1)
    elif isinstance(start, FindOffers):
        yield from all_commands(start.then(OFFERS), depth + 1)
    elif isinstance(start, Menu) and depth < 6:
        for entry in start.entries:
            yield from all_commands(entry.step(), depth + 1)


@pytest.mark.parametrize("manager", [3, None])
@pytest.mark.parametrize("line", [FAILED, RUNNING, None])
def test_everything_is_a_command_that_can_be_typed(manager: int | None, line: object) -> None:
    menu = main_menu(snapshot(manager=manager), line)  # type: ignore[arg-type]
    seen = set()
    for command in [*all_commands(menu), leave(snapshot())]:
        name, *rest = command.words
        parser, _ = command_parser(name, name)
        parser.parse_args(rest)
        seen.add(name)
    expected = {"run", "pause", "resume", "set", "queue", "retry", "stop", "leave", "kill"}
    assert seen == expected | ({"release"} if line else set())
    assert seen <= set(COMMANDS)


def test_a_managers_own_display_is_about_that_manager() -> None:
    menu = main_menu(snapshot(manager=3), None)
    own = ("--manager=3", "--output=quiet")
    assert step(menu, "Pause") == Command(("pause", *WHICH, *own))
    assert step(menu, "Kill", "Yes") == Command(("kill", *WHICH, *own))
    asked = step(menu, "Space limit")
    assert isinstance(asked, Question)
    assert asked.then("85%") == Command(("set", "spacelim=85%", *WHICH, *own))


def test_an_onlooker_is_asked_which_managers_are_meant() -> None:
    menu = main_menu(snapshot(manager=None), None)
    assert step(menu, "Stop", "Yes", "All of your own") == Command(("stop", *WHICH))
    assert step(menu, "Pause", "4: bob") == Command(("pause", *WHICH, "--manager=4"))
    assert step(menu, "Resume", "All, whoever's") == Command(("resume", *WHICH, "--everybody"))
    asked = step(menu, "Queue")
    assert isinstance(asked, Question)
    assert step(asked.then("long"), "3: anna") == Command(("queue", "long", *WHICH, "--manager=3"))


def test_the_chosen_run() -> None:
    failed = main_menu(snapshot(), FAILED)
    assert step(failed, f"Retry run {FAILED.run}") == Command(("retry", "2077", *WHICH))
    assert step(failed, "Release run") == Command(("release", "2077", *WHICH))
    assert step(failed, "Show the log") == ShowLog(FAILED)
    running = main_menu(snapshot(), RUNNING)
    assert isinstance(running, Menu)
    assert not [entry for entry in running.entries if entry.text.startswith("Retry run")]


def test_a_production_is_chosen_from_lists() -> None:
    menu = step(main_menu(snapshot(), None), "Start or resume")
    begun = step(menu, "Resume alcapana_v3", "Begin with all datasets")
    assert begun == Command(("run", "--production=alcapana", "--version=3"), alone=True)
    some = step(menu, "Resume rootana_v1", "[ ] Al100", "[ ] SiR2", "[x] Al100")
    assert step(some, "Begin with the chosen") == Command(
        ("run", "--production=rootana", "--version=1", "--dataset=SiR2"), alone=True
    )
    tag = step(menu, "New alcapana")
    assert isinstance(tag, Question)
    assert step(tag.then("v8"), "Begin with all") == Command(
        ("run", "--production=alcapana", "--new=v8"), alone=True
    )
    tag = step(menu, "New rootana")
    assert isinstance(tag, Question)
    assert step(tag.then("v2.2"), "From alcapana_v4", "Begin with all") == Command(
        ("run", "--production=rootana", "--new=v2.2", "--version=4"), alone=True
    )


# ------------------------------------------------------------------------------- the door


def told(ask: Callable[[Callable[[T], None]], None]) -> T:
    """What the door answers."""
    answers: queue.SimpleQueue[T] = queue.SimpleQueue()
    ask(answers.put)
    return answers.get(timeout=PATIENCE)


@pytest.mark.slow
def test_what_goes_wrong_is_told(tmp_path: Path) -> None:
    database = tmp_path / "data" / "no.db"
    door = Door(database)
    missing = f"ERROR: Database {database} does not exist."
    said: Answer = told(partial(door.ask, ("pause", *WHICH)))
    assert (said.done, said.lines[0][: len(missing)]) == (False, missing)
    found: Offers | Answer = told(door.offers)
    assert isinstance(found, Answer)
    assert not found.done
    said = told(partial(door.begin, ("run", *WHICH)))
    assert said == Answer(
        False, (f"{tmp_path}/data/log: No such file or directory: no manager was started",)
    )
    database.parent.mkdir()
    said = told(partial(door.begin, ("run", *WHICH)))
    assert (said.done, said.lines[0][: len(missing)]) == (False, missing)
    assert said.lines[1].startswith("The manager has ended already; see ")


# ------------------------------------------------------------------------------- on the screen


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def open_menu(terminal: Terminal) -> None:
    """And wait until all of it is there, to the last line."""
    terminal.press("m", lambda: terminal.shows("1 - Pause") and not terminal.shows("? help"))


ENTRIES = {
    "Pause": ("1", "", "pause"),
    "Resume": ("2", "", "resume"),
    "Jobs at a time": ("3", "20\r", "set nproc=20"),
    "Runs to have ready": ("4", "7\r", "set nprep=7"),
    "Queue": ("5", "long\r", "queue long"),
    "Space limit": ("6", "80%\r", "set spacelim=80%"),
    "Retry all": ("7", "", "retry"),
    "Release": ("8", "", "release 2088"),
    "Show the log": ("9", "", "Log of run 2088"),
    "Stop": ("9\x1b[B\x1b[B", "\r", "stop"),
    "Leave": ("9\x1b[B\x1b[B\x1b[B", "\r", "leave"),
    "Kill": ("q\x1b[A", "\r", "kill"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 60)])
def test_every_entry_can_be_taken(terminal: Terminal, width: int, height: int) -> None:
    terminal.run("is_used", width, height)
    terminal.see("> 2088")
    for keys, value, command in ENTRIES.values():
        open_menu(terminal)
        terminal.send(f"{keys}\r")
        if value == "\r":
            terminal.see("1 - Yes")
        elif value:
            terminal.see(": _")
        terminal.send(value)
        if command.startswith("Log"):
            terminal.see(command)
            terminal.press("\x1b", lambda: terminal.shows("? help"))
        terminal.see("? help")
    terminal.press("\x1b[4~", lambda: terminal.shows("> 2077"))
    open_menu(terminal)
    terminal.send("8\r")  # only for a run at E
    terminal.see("? help")
    open_menu(terminal)
    terminal.press("\x1b", lambda: terminal.shows("? help"))
    terminal.touch("stop")
    assert terminal.end() == 0
    said = terminal.received.decode()  # on a small screen they follow each other too fast
    assert " production retry 2077 " in said
    for _, _, command in ENTRIES.values():
        assert command in said if command.startswith("Log") else f" production {command} " in said


@pytest.mark.slow
def test_the_menu_follows_the_size_and_jobs_go_on_meanwhile(terminal: Terminal) -> None:
    terminal.run("is_used")
    terminal.see("> 2088")
    terminal.press("m", lambda: terminal.shows("q - Back"))
    terminal.read_until(lambda: terminal.lines[23] == f"└{'─' * 78}┘")
    terminal.resize(120, 40)
    terminal.read_until(lambda: terminal.lines[39] == f"└{'─' * 118}┘")
    terminal.resize(30, 8)
    terminal.read_until(lambda: terminal.lines[0] == f"┌{'─' * 28}┐")
    terminal.send("q")
    terminal.read_until(lambda: terminal.highlights("q - Back"))
    terminal.resize(80, 24)
    terminal.press("\r", lambda: terminal.shows("? help"))
    terminal.touch("stop")
    assert terminal.end() == 0


@pytest.mark.slow
def test_no_key_is_lost_while_the_terminal_takes_nothing(terminal: Terminal) -> None:
    terminal.run("is_used")
    terminal.see("> 2088")
    open_menu(terminal)
    terminal.send("\x133\r")  # on hold
    for _ in range(20):
        assert terminal.read()
    assert terminal.shows("1 - Pause")
    terminal.send("\x11")
    terminal.see("nproc: _")
    terminal.touch("stop")
    assert terminal.end() == 0


@pytest.mark.slow
def test_what_is_under_the_menu_does_not_shine_through(terminal: Terminal) -> None:
    terminal.run("is_repainted")
    terminal.see("> 2088")
    open_menu(terminal)
    before = len(terminal.received)
    for number in range(2, 10):
        terminal.send("\x1b[B")
        terminal.read_until(lambda: terminal.highlights(f"{number} - "))  # noqa: B023 - at once
    assert b"SiR2" not in terminal.received[before:]
    terminal.touch("stop")
    assert terminal.end() == 0


@pytest.mark.slow
def test_a_value_that_is_not_given_changes_nothing(terminal: Terminal) -> None:
    terminal.run("is_used")
    terminal.see("> 2088")
    for given in ("\r", "7\x7f\r"):
        terminal.press("m", lambda: terminal.shows("q - Back"))
        terminal.send("3\r")
        terminal.see("nproc: _")
        terminal.send(given)
        terminal.see("Nothing was changed")
    terminal.press("m", lambda: terminal.shows("q - Back"))
    terminal.send("3\r")
    terminal.see("nproc: _")
    terminal.press("\x1b", lambda: not terminal.shows("nproc:"))
    terminal.touch("stop")
    assert terminal.end() == 0
    assert "production set" not in "\n".join(terminal.lines)


# ------------------------------------------------------------------------------- the document


def test_the_document_tells_every_entry() -> None:
    page = (Path(__file__).parent.parent / "docs" / "display.md").read_text()
    told = re.findall(r"^\| ([^|]+) \| [^|]*`|^\| ([^|]+) \| the same as", page, re.MULTILINE)
    rows = {first or second for first, second in told}
    entries = [entry for line in (FAILED, RUNNING) for entry in main_menu(snapshot(), line).entries]
    known = {re.sub(r"\d+", "1", row) for row in rows}
    assert known == {re.sub(r"\d+", "1", entry.text) for entry in entries}
