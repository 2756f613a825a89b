"""Signals and mishaps while a manager works: all is rolled back, and the next one finishes it."""

from __future__ import annotations

import os
import pty
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from experiment import PATIENCE, RUNS, Experiment, ManagerProcess, experiment
from job_orders import until
from phases import PHASES, finishing, pending, running

from production.cli.run_command import SAME_SIGNAL

pytestmark = pytest.mark.slow

# How a manager is stopped, and what it exits with.
STOPS: dict[str, tuple[Callable[[ManagerProcess], None], int]] = {
    "Ctrl-C": (ManagerProcess.press_ctrl_c, 130),
    "SIGINT": (lambda manager: manager.send(signal.SIGINT), 130),
    "SIGTERM": (lambda manager: manager.send(signal.SIGTERM), 143),
    "SIGHUP": (lambda manager: manager.send(signal.SIGHUP), 129),
}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Experiment]:
    with experiment(tmp_path) as made:
        yield made


def report(manager: ManagerProcess) -> list[int]:
    """The runs that the report at the end names as rolled back."""
    found = re.findall(r" Aborting runs: \[(.*)\]$", manager.said, re.MULTILINE)
    assert len(found) == 1, manager.said
    return [int(run) for run in found[0].split(", ") if run]


# --------------------------------------------------------------------------- in each phase


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_rolls_back_what_is_not_finished(lab: Experiment, phase: str, stop: str) -> None:
    manager = PHASES[phase](lab)
    send, exit_code = STOPS[stop]
    send(manager)
    manager.send(signal.SIGCONT)
    assert manager.wait() == exit_code
    lab.check_nothing_under_way()
    assert "Traceback" not in manager.said
    kept = phase == "finishing"  # these jobs had ended well
    assert report(manager) == ([] if kept else list(RUNS))
    assert lab.statuses() == ("FFF" if kept else "NNN")
    assert manager.said.count("Finished run: ") == (len(RUNS) if kept else 0)

    lab.finish()
    assert all("failed" not in lab.outcomes(run) for run in RUNS)
    cancelled_late = phase == "publishing"  # the payload had ended, the job had not
    assert lab.completions() == dict.fromkeys(RUNS, 2 if cancelled_late else 1)


# --------------------------------------------------------------------------- roll-backs in trouble


def test_a_second_ctrl_c_ends_at_once_and_the_next_start_repairs(lab: Experiment) -> None:
    for run in RUNS:
        lab.trouble(run, "trap '' TERM")  # so that cancelling takes seconds
    manager = running(lab)
    manager.press_ctrl_c()
    manager.until_it_says("Cancelling job", times=len(RUNS))
    time.sleep(1.1 * SAME_SIGNAL)
    manager.press_ctrl_c()
    assert manager.wait() == 130
    assert "Stopped at once; the next start repairs what is left behind" in manager.said
    assert "Aborting runs" not in manager.said
    assert lab.statuses() == "RRR"

    second = lab.start("--max-attempts=1")  # cancelling is nobody's failure
    second.until_it_says("Repairing runs [2091, 2092, 2093]")
    second.until(lambda: len(lab.ledger("begin")) == 2 * len(RUNS), "the second attempt")
    lab.let_go("payload")
    assert second.wait() == 0
    lab.check_all_finished()
    assert lab.completions() == dict.fromkeys(RUNS, 1)


def test_a_locked_database_holds_ctrl_c_up_for_a_while_only(lab: Experiment) -> None:
    patch = "from production.manager import recovery; recovery.LOCK_SECONDS = 0.5"
    manager = pending(lab, patch=patch)
    with closing(sqlite3.connect(lab.database, isolation_level=None)) as somebody:
        somebody.execute("BEGIN EXCLUSIVE")
        manager.press_ctrl_c()
        assert manager.wait() == 130
        somebody.execute("ROLLBACK")
    assert "stayed locked" in manager.said
    assert "Runs [2091, 2092, 2093] could not be returned now" in manager.said
    assert "Traceback" not in manager.said
    assert lab.statuses() == "RRR"

    assert "Repairing runs [2091, 2092, 2093]" in lab.finish("--max-attempts=1").said
    assert lab.completions() == dict.fromkeys(RUNS, 1)


def test_a_record_that_cannot_be_read_costs_its_own_run_only(lab: Experiment) -> None:
    manager = finishing(lab)
    damaged = next(record for record in lab.records() if "run02092" in str(record))
    damaged.write_text("version=1\n")
    manager.press_ctrl_c()
    manager.send(signal.SIGCONT)
    assert manager.wait() == 130
    assert report(manager) == [2092]
    assert lab.statuses() == "FNF"
    lab.check_nothing_under_way()
    lab.finish()


def test_a_job_that_ended_before_its_submission_was_recorded_counts(lab: Experiment) -> None:
    patch = f"""
import time
from pathlib import Path
from production.batch.local import LocalSystem
submit = LocalSystem.submit
def slow(self, jobs):
    answers = submit(self, jobs)
    while not Path({str(lab.directory / "go")!r}).exists():
        time.sleep(0.02)
    return answers
LocalSystem.submit = slow
"""
    lab.open_archive()
    manager = lab.start(patch=patch)
    manager.until(lambda: lab.records() != [], "the end of a job")
    assert lab.statuses() == "CCC"
    manager.press_ctrl_c()
    manager.until_it_says("User cancelling jobs")
    (lab.directory / "go").touch()
    assert manager.wait() == 130
    lab.check_nothing_under_way()
    assert lab.statuses() == "FNN"
    assert report(manager) == [2092, 2093]
    lab.finish()
    assert lab.completions() == dict.fromkeys(RUNS, 1)


def test_a_hanging_submission_is_left_to_the_next_manager(lab: Experiment) -> None:
    patch = """
import time
from production.batch.local import LocalSystem
from production.manager import recovery
recovery.STOP_SECONDS = 0.5
LocalSystem.submit = lambda *_: time.sleep(3600)
"""
    lab.open_archive()
    manager = lab.start(patch=patch)
    manager.until_it_says("Submitting run")
    manager.press_ctrl_c()
    assert manager.wait() == 130
    assert re.search(r"Runs \[2091.*\] could not be cancelled; the next manager", manager.said)
    assert "C" in lab.statuses()

    lab.finish("--max-attempts=1")
    assert lab.completions() == dict.fromkeys(RUNS, 1)


def test_a_hanging_archive_does_not_keep_jobs_from_being_cancelled(tmp_path: Path) -> None:
    with experiment(tmp_path, runs=range(1, 5)) as lab:
        for run in lab.runs:
            lab.hold(f"payload.{run}")
        lab.configure(batch__local="slots = 1")
        lab.open_archive()
        patch = "from production.manager import recovery; recovery.STOP_SECONDS = 0.5"
        manager = lab.start("--nproc=2", "--nprep=1", patch=patch)
        manager.until(lambda: lab.statuses() == "RRCN" and lab.ledger("begin") != [], "submission")
        manager.until_it_says("Success! (run 3)")
        lab.silence_archive()
        lab.let_go("payload.1")
        manager.until_it_says("Staging runs: [4]")
        manager.press_ctrl_c()
        assert manager.wait() == 130
        assert report(manager) == [2, 3, 4]
        lab.check_nothing_under_way()
        lab.finish()


def test_a_job_that_outlives_its_cancellation_leaves_nothing(lab: Experiment) -> None:
    for run in RUNS:  # the raw files go with the attempt
        lab.trouble(run, 'cp "$1" "$EXPERIMENT/$attempt"; set -- "$EXPERIMENT/$attempt" "$2"')
    manager = running(
        lab,
        patch="from production.batch import local; local.LocalSystem.cancel = lambda *_: None",
    )
    manager.press_ctrl_c()
    assert manager.wait() == 130
    assert report(manager) == list(RUNS)
    assert lab.processes() != []
    lab.let_go("payload")
    until(lambda: lab.processes() == [])
    assert lab.completions() == dict.fromkeys(RUNS, 1)
    lab.check_nothing_under_way()
    assert lab.statuses() == "NNN"
    lab.finish()


def test_an_unforeseen_exception_rolls_back_and_exits_with_1(lab: Experiment) -> None:
    patch = f"""
from pathlib import Path
from production.space.statvfs import StatvfsProbe
probe = StatvfsProbe.probe
def explode(self):
    if Path({str(lab.directory / "explode")!r}).exists():
        raise ZeroDivisionError("nobody thought of this")
    return probe(self)
StatvfsProbe.probe = explode
"""
    manager = pending(lab, patch=patch)
    (lab.directory / "explode").touch()
    assert manager.wait() == 1
    assert "ERROR: There was an uncaught exception. Aborting..." in manager.said
    assert "nobody thought of this" in manager.said
    assert report(manager) == list(RUNS)
    assert lab.statuses() == "NNN"
    lab.check_nothing_under_way()
    lab.finish()
    assert lab.completions() == dict.fromkeys(RUNS, 1)


# --------------------------------------------------------------------------- terminals and pipes


def test_a_closed_output_does_not_stop_the_production(lab: Experiment) -> None:
    lab.open_archive()
    head = subprocess.Popen(
        ["bash", "-c", '"$@" | head -n 1; exit "${PIPESTATUS[0]}"', "head", *lab.command()],
        env=lab.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = head.communicate(timeout=PATIENCE)
    assert (head.returncode, err) == (0, "")
    assert "Starting new production" in out
    lab.check_all_finished()


def exit_code_after_closing_the_terminal(lab: Experiment, *prefix: str) -> int:
    """Of a manager that is downloading then: it gets SIGHUP, and all its output fails."""
    ours, theirs = pty.openpty()
    manager = subprocess.Popen(
        lab.command(prefix=("setsid", "--ctty", *prefix)),
        env=lab.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    until(lambda: lab.partly_downloaded() > 0)
    os.close(ours)
    return manager.wait(PATIENCE)


def test_a_terminal_that_is_closed_rolls_back(lab: Experiment) -> None:
    lab.open_archive(rate=20_000)
    assert exit_code_after_closing_the_terminal(lab) == 129
    lab.check_nothing_under_way()
    assert lab.statuses() == "NNN"
    lab.finish()


def test_who_ignores_hang_ups_goes_on_without_a_terminal(lab: Experiment) -> None:
    lab.open_archive(rate=100_000)
    ignoring = ("bash", "-c", "trap '' HUP; exec \"$@\"", "bash")
    assert exit_code_after_closing_the_terminal(lab, *ignoring) == 0
    lab.check_all_finished()


def test_nohup_outlives_the_terminal(lab: Experiment) -> None:
    manager = running(lab, prefix=("nohup",))
    manager.send(signal.SIGHUP)
    lab.let_go("payload")
    assert manager.wait() == 0
    lab.check_all_finished()


def test_nohup_is_stopped_by_other_signals(lab: Experiment) -> None:
    manager = running(lab, prefix=("nohup",))
    manager.send(signal.SIGTERM)
    assert manager.wait() == 143
    lab.check_nothing_under_way()
