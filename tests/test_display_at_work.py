"""The display of real managers and of those who look on: what is seen, asked for, and left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from experiment import TOTAL, Experiment, experiment
from job_orders import until
from terminal import Terminal

pytestmark = pytest.mark.slow

RUNS = range(1, 7)
DAMAGED = 'echo "bank ADC0 is damaged" > "$PM_SPOOL/reason"; exit 4'


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Experiment]:
    """Jobs that wait in their payload."""
    with experiment(tmp_path, RUNS) as lab:
        lab.open_archive()
        lab.hold("payload")
        yield lab


def may_mount() -> bool:
    """Whether a mount of one's own can be had here."""
    command = ["unshare", "--mount", "sh", "-c", "mount --bind /tmp /tmp"]
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(command, capture_output=True).returncode
    )


def watch(lab: Experiment, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "production", "watch", *arguments]
    return [*command, "--pause=0.2", f"--database={lab.database}"]


def seen(
    lab: Experiment, command: list[str], width: int = 80, height: int = 24, **variables: str
) -> Terminal:
    terminal = Terminal(lab.directory)
    terminal.start(command, width, height, **{**lab.environment, **variables})
    return terminal


def choose(terminal: Terminal, *texts: str) -> None:
    """Open the menu, and take one entry after the other."""
    terminal.press("m", lambda: terminal.shows("- Back"))
    take(terminal, *texts)


def take(terminal: Terminal, *texts: str) -> None:
    """Take one entry after the other, each from the menu that is open then."""
    for text in texts:
        terminal.see(f"- {text}")
        line = next(line for line in terminal.lines if f"- {text}" in line)
        number = int(line.strip("│ ").split(" ")[0])
        terminal.send("1")
        for _ in range(number - 1):
            terminal.send("\x1b[B")
        terminal.send("\r")


def test_a_manager_is_seen_steered_and_left(lab: Experiment) -> None:
    terminal = seen(lab, lab.command("--nproc=2", "--nprep=1", "--display"))
    terminal.see("SiR2")
    terminal.read_until(lambda: sum(" Running | on " in line for line in terminal.lines) == 2)
    terminal.see("Ready | waiting for a job")
    terminal.see("Managers: 1 ")
    terminal.press("i", lambda: terminal.shows("Its attempts (UTC):"))
    terminal.see("lasts")
    terminal.press("\x1b", lambda: terminal.shows("? help"))
    terminal.press("l", lambda: terminal.shows("==> "))
    terminal.see("Job count_v1.1.a1.t1.")
    terminal.press("\x1b", lambda: terminal.shows("? help"))
    choose(terminal, "Pause")
    terminal.see("COUNT v1 v1 PAUSED")
    choose(terminal, "Jobs at a time")
    terminal.see("nproc: _")
    terminal.send("3\r")
    terminal.see("nproc is now 3, was 2")
    choose(terminal, "Resume")
    terminal.read_until(lambda: sum(" Running | on " in line for line in terminal.lines) == 3)
    terminal.press("q", lambda: terminal.shows("Quit? r: roll back"))
    terminal.send("l")
    assert terminal.wait() == 0
    assert terminal.shows("Ended: left by user")
    assert lab.statuses().count("R") == 3
    assert sum(status in "NC" for status in lab.statuses()) == 3
    assert "C" not in lab.statuses()
    manager = lab.finish()
    assert "Adopted run: 1 " in manager.said
    assert lab.completions() == dict.fromkeys(RUNS, 1)


def test_q_rolls_back(lab: Experiment) -> None:
    terminal = seen(lab, lab.command("--nproc=2", "--nprep=0", "--display"))
    terminal.read_until(lambda: sum(" Running | on " in line for line in terminal.lines) == 2)
    terminal.press("q", lambda: terminal.shows("Quit? r: roll back"))
    terminal.send("r")
    assert terminal.wait() == 130
    terminal_says = "\n".join(terminal.lines)
    assert "User cancelling jobs... (SIGINT)" in terminal_says
    assert "Aborting runs: [1, 2]" in terminal_says
    assert set(lab.statuses()) == {"N"}
    lab.check_nothing_under_way()


def test_an_onlooker_sees_and_asks_for_the_same(lab: Experiment) -> None:
    lab.trouble(2, DAMAGED)
    manager = lab.start("--nproc=2", "--nprep=0", "--max-attempts=1")
    manager.until_it_says("Claimed run: 1")
    terminal = seen(lab, watch(lab, "count"))
    terminal.see("Error | exit code 4: bank ADC0")
    terminal.see("Running | on ")
    terminal.see("] Quota ")
    choose(terminal, "Pause", "All of your own")
    terminal.see("Paused: nothing new is begun")
    manager.until_it_says("Paused: nothing new is begun")
    choose(terminal, "Resume", "All, whoever's")
    terminal.see(": Resumed")
    choose(terminal, "Jobs at a time")
    terminal.see("nproc: _")
    terminal.send("3\r")
    take(terminal, "1: ")
    terminal.see("nproc is now 3, was 2")
    lab.trouble(2, "")
    choose(terminal, "Retry all failed runs")
    terminal.see("count_v1: 1 run will be tried again: 2")
    assert terminal.end_by("q") == 0
    lab.let_go("payload")
    assert manager.wait() == 0
    until_the_menus_commands_have_ended(lab)
    lab.check_all_finished()


def test_a_production_is_started_from_the_menu(lab: Experiment) -> None:
    lab.let_go("payload")
    lab.finish()
    terminal = seen(lab, watch(lab))
    terminal.see("F 6 ")
    choose(terminal, "Start or resume a production", "New count")
    terminal.see("Software tag of the new count: _")
    terminal.send("v2\r")
    terminal.see("- [ ] SiR2")
    terminal.send("\x1b[B\r")
    terminal.see("- [x] SiR2")
    terminal.send("\r")
    terminal.see("production run --production=count --new=v2 --dataset=SiR2")
    lab_says = "SELECT count(*) FROM run JOIN productions p ON p.id = production WHERE version = 2 "
    terminal.read_until(lambda: lab.rows(f"{lab_says} AND status = 'F'") == [(6,)])
    terminal.read_until(lambda: nobody_works(lab))
    assert terminal.end_by("q") == 0
    (messages,) = (lab.database.parent / "log").glob("manager.*.out")
    assert "INFO: Starting new production, version 2" in messages.read_text()


def test_a_production_is_resumed_and_its_successor_started_from_lists(lab: Experiment) -> None:
    lab.production("datasets", "add", "Al100", "1-2", "--quality=gold")
    (lab.directory / "total.toml").write_text(TOTAL)
    lab.let_go("payload")
    first = lab.start("--dataset=Al100")
    assert first.wait() == 0, first.said
    terminal = seen(lab, watch(lab, "count"))
    terminal.see("F 2 ")
    choose(terminal, "Start or resume a production", "Resume count_v1")
    take(terminal, "[ ] Al100", "[x] Al100", "[ ] SiR2", "Begin with the chosen datasets")
    terminal.see("production run --production=count --version=1 --dataset=SiR2")
    terminal.read_until(lambda: finished(lab, "count") == list(RUNS))
    choose(terminal, "Start or resume a production", "New total")
    terminal.see("Software tag of the new total: _")
    terminal.send("t1\r")
    take(terminal, "From count_v1", "[ ] Al100", "Begin with the chosen datasets")
    terminal.see("production run --production=total --new=t1 --version=1 ")
    terminal.read_until(lambda: finished(lab, "total") == [1, 2])
    terminal.read_until(lambda: nobody_works(lab))
    assert terminal.end_by("q") == 0


def finished(lab: Experiment, type_: str) -> list[object]:
    """The runs at F of productions of this type."""
    sql = "SELECT run FROM run JOIN productions p ON p.id = production WHERE status = 'F'"
    return [run for (run,) in lab.rows(f"{sql} AND type = '{type_}' ORDER BY run")]


def nobody_works(lab: Experiment) -> bool:
    return lab.rows("SELECT * FROM manager WHERE stopped IS NULL") == []


def test_a_manager_takes_every_request_of_its_own_menu(lab: Experiment) -> None:
    lab.trouble(1, DAMAGED)
    options = ("--nproc=1", "--nprep=1", "--max-attempts=1", "--display")
    terminal = seen(lab, lab.command(*options))
    terminal.see("Error | exit code 4")
    terminal.see("Running | on ")
    lab.trouble(1, "")
    show_only(terminal, 1)
    choose(terminal, "Retry run 1")
    terminal.see("count_v1: 1 run will be tried again: 1")
    for entry, question, value, answer in (
        ("Runs to have ready", "nprep: _", "2", "nprep is now 2, was 1"),
        ("Space limit", "spacelim, such as 90%: _", "99%", "spacelim is now 0.99, was 1"),
        ("Queue of the batch system", "queue: _", "long", "The local machine has no queue"),
    ):
        choose(terminal, entry)
        terminal.see(question)
        terminal.send(f"{value}\r")
        terminal.see(answer)
    show_only(terminal, 3)
    choose(terminal, "Release run 3")
    terminal.see("3      True        was held by manager 1")
    show_only(terminal, 2)
    choose(terminal, "Show the log of run 2")
    terminal.see("==> ")
    terminal.press("\x1b", lambda: terminal.shows("? help"))
    choose(terminal, "Stop when the jobs have ended", "Yes")
    terminal.see("Begins nothing more, and ends after its 1 job")
    lab.let_go("payload")
    assert terminal.wait() == 0
    assert lab.statuses() == "NFNNNN"
    until_the_menus_commands_have_ended(lab)
    lab.check_nothing_under_way()


def until_the_menus_commands_have_ended(lab: Experiment) -> None:
    """They may do so a moment after the manager that they were about."""
    until(lambda: lab.processes() == [])


def show_only(terminal: Terminal, run: int) -> None:
    """One run in the table, which is then the chosen one."""
    terminal.send(f"/\x7f{run}\r")
    terminal.see(f"only {run}, by status 1-1/1")


def test_jobs_are_left_and_killed_from_the_menu(lab: Experiment) -> None:
    terminal = seen(lab, lab.command("--nproc=1", "--nprep=0", "--display"))
    terminal.see("Running | on ")
    choose(terminal, "Leave the jobs to the next start", "Yes")
    assert terminal.wait() == 0
    assert lab.statuses() == "RNNNNN"
    terminal = seen(lab, lab.command("--nproc=1", "--nprep=0", "--display"))
    terminal.see("Running | on ")
    choose(terminal, "Kill: cancel the jobs, roll back", "Yes")
    assert terminal.wait() == 128 + signal.SIGTERM
    assert lab.statuses() == "NNNNNN"
    until_the_menus_commands_have_ended(lab)
    lab.check_nothing_under_way()


def test_ctrl_c_and_a_signal_end_an_onlooker(lab: Experiment) -> None:
    lab.let_go("payload")
    lab.finish()
    terminal = seen(lab, watch(lab, "count_v1"))
    terminal.see("No run is held now.")
    terminal.send("\x03")
    assert terminal.wait() == 0
    terminal = seen(lab, ["sh", "-c", 'echo $$ >pid; exec "$@"', "sh", *watch(lab)])
    terminal.see("No run is held now.")
    os.kill(int((lab.directory / "pid").read_text()), signal.SIGTERM)
    assert terminal.wait() == 128 + signal.SIGTERM
    assert not terminal.screen.cursor.hidden


@pytest.mark.parametrize("term", ["dumb", "linux"])
def test_where_nothing_can_be_drawn_an_onlooker_prints_once(lab: Experiment, term: str) -> None:
    lab.let_go("payload")
    lab.finish()
    if term == "dumb":
        terminal = seen(lab, watch(lab), 100, 24, TERM=term)
        assert terminal.wait() == 0
        said = terminal.lines
        assert said[0].startswith("The display cannot be shown: TERM=dumb")
        del said[0]
    else:
        said = subprocess.run(
            watch(lab), env=lab.environment, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    assert said[0].startswith("COUNT v1 v1 [")
    assert said[1].startswith("N 0  C 0  R 0  F 6  E 0 [=====")
    assert said[2] == "Nobody is at work on it"
    for which in (["count_v1"], ["--production=count"], ["--production=count", "--version=1"]):
        assert said_by(lab, *which)[0].startswith("COUNT v1 v1 [")


def said_by(lab: Experiment, *arguments: str) -> list[str]:
    """What ``watch`` prints where there is no terminal, or as what it complains."""
    command = watch(lab, *arguments)
    done = subprocess.run(command, env=lab.environment, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).splitlines()


def test_an_onlooker_is_told_what_does_not_fit_together(lab: Experiment) -> None:
    assert "one of the two is enough" in said_by(lab, "count_v1", "--version=1")[0]
    assert "--version is of a production" in said_by(lab, "--version=1")[0]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_an_onlooker_takes_no_write_lock_and_writes_nothing(lab: Experiment) -> None:
    lab.let_go("payload")
    lab.finish()
    before = lab.database.read_bytes()
    trace = lab.directory / "trace"
    terminal = seen(lab, ["strace", "-f", "-e", "fcntl,pwrite64", "-o", str(trace), *watch(lab)])
    terminal.see("No run is held now.")
    assert terminal.end_by("q") == 0
    assert lab.database.read_bytes() == before
    calls = trace.read_text()
    assert "F_RDLCK" in calls
    # A shared lock is had by way of a read lock on one byte; writing needs one for writing.
    assert "F_WRLCK" not in calls
    assert "pwrite64" not in calls


def test_jobs_go_on_while_a_menu_is_open(lab: Experiment) -> None:
    terminal = seen(lab, lab.command("--nproc=2", "--nprep=0", "--display"))
    terminal.see("Running | on ")
    terminal.press("m", lambda: terminal.shows("- Back"))
    lab.hold("payload.6")
    lab.let_go("payload")
    terminal.see("F 5 ")  # under the menu's title
    assert terminal.shows("- Back")
    lab.let_go("payload.6")
    assert terminal.wait() == 0
    assert terminal.shows("Nothing left to do here. count_v1: 6 F")
    until_the_menus_commands_have_ended(lab)
    lab.check_all_finished()


@pytest.mark.skipif(not may_mount(), reason="needs the right to mount")
def test_an_onlooker_of_a_mount_that_is_read_only(lab: Experiment) -> None:
    lab.let_go("payload")
    lab.finish()
    directory = lab.database.parent
    mount = f'mount --bind "{directory}" "{directory}" && mount -o remount,bind,ro "{directory}"'
    refused = f'! touch "{directory}/file"'
    script = f'{mount} && {refused} 2>/dev/null && exec "$@"'
    terminal = seen(lab, ["unshare", "--mount", "sh", "-c", script, "sh", *watch(lab)])
    terminal.see("No run is held now.")
    terminal.see("F 6 ")
    assert terminal.end_by("q") == 0
