"""People steer managers that work from another shell, and a broken program stops by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from experiment import Experiment, experiment

pytestmark = pytest.mark.slow

RUNS = range(1, 9)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Experiment]:
    with experiment(tmp_path, RUNS) as lab:
        lab.open_archive()
        yield lab


def ask(lab: Experiment, *words: str) -> tuple[int, str]:
    """A steering command: its exit code, and all that it says."""
    argv = [sys.executable, "-m", "production", *words, "--production=count"]
    done = subprocess.run(
        [*argv, f"--database={lab.database}"],
        env=lab.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_manager_is_paused_changed_and_stopped(lab: Experiment) -> None:
    lab.hold("payload")
    manager = lab.start("--nproc=2", "--nprep=1")
    manager.until(lambda: len(lab.ledger("begin")) == 2, "the second job")
    code, said = ask(lab, "pause")
    assert code == 0
    assert "Paused: nothing new is begun; 2 jobs left running" in said
    code, said = ask(lab, "set", "nproc=3", "nprep=0", "--output=json")
    assert code == 0
    answers = [(row["done"], row["answer"]) for row in json.loads(said)]
    assert answers == [(True, "nproc is now 3, was 2"), (True, "nprep is now 0, was 1")]
    code, said = ask(lab, "queue", "long")
    assert code == 43
    assert "has no queue for jobs to be sent with. Nothing was changed" in said
    assert "ERROR: Not done: 1 of 1 request." in said
    code, said = ask(lab, "resume", "--everybody")
    assert (code, said.count("Resumed")) == (0, 1)
    manager.until(lambda: len(lab.ledger("begin")) == 3, "the third job")
    code, said = ask(lab, "stop")
    assert code == 0
    assert "ends after its 3 jobs" in said
    lab.let_go("payload")
    assert manager.wait() == 0
    assert "Ended: stopped by user " in manager.said
    assert sorted(lab.statuses()) == ["F"] * 3 + ["N"] * 5
    lab.check_nothing_under_way()
    lab.finish()


def test_a_manager_is_killed_by_request(lab: Experiment) -> None:
    lab.hold("payload")
    manager = lab.start("--nproc=2")
    manager.until(lambda: len(lab.ledger("begin")) == 2, "the second job")
    (number,) = lab.rows("SELECT id FROM manager")[0]
    code, said = ask(lab, "kill", f"--manager={number}")
    assert code == 0
    assert "Cancels its 2 jobs, returns its runs, and ends" in said
    assert manager.wait() == 143
    lab.check_nothing_under_way()
    assert lab.statuses() == "N" * 8
    assert ask(lab, "pause")[0] == 43


def test_a_manager_that_does_not_answer(lab: Experiment) -> None:
    lab.hold("payload")
    manager = lab.start("--nproc=2", "--pause=3600")
    manager.until(lambda: len(lab.ledger("begin")) == 2, "the second job")
    code, said = ask(lab, "stop", "--wait=0.5")
    assert code == 43
    assert "no answer yet" in said
    assert "not answered yet, and may still be done: 1." in said


def test_a_broken_program_does_not_burn_through_all_runs(lab: Experiment) -> None:
    for run in RUNS:
        lab.trouble(run, "exit 3\n")
    manager = lab.start("--nproc=2", "--max-failures=4")
    assert manager.wait() == 42
    assert "Too many have failed: 4 jobs in a row, the last one run " in manager.said
    assert len(lab.ledger("begin")) <= 4 + 2
    lab.check_nothing_under_way()
    assert manager.said.count("ERROR: ") == 1
    for run in RUNS:
        lab.trouble(run, "")
    lab.finish()


def test_what_jobs_are_told_on_the_command_line(lab: Experiment) -> None:
    words = ["--queue=long", "--project=muon", "--time=1h", "--memory=2G", "--cores=2"]
    words += ["--submit-option=--nice=5", "--batch=slurm", "--dry-run"]
    manager = lab.start(*words)
    assert manager.wait() == 0
    line = next(line for line in manager.said.splitlines() if line.startswith("sbatch "))
    for part in ("--partition=long", "--account=muon", "--time=60", "--mem=2048M", "--nice=5"):
        assert f" {part} " in line
    assert "--cpus-per-task=2" in line


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--queue=long"], "The local machine has no queue for jobs to be sent with"),
        (["--cores=9999"], "A job needs 9999 cores and 0 MB; the local machine has 3 slots"),
        (["--batch=slurm", "--submit-option=--wait"], "Option --wait for slurm cannot be used"),
    ],
)
def test_what_the_batch_system_could_never_do(lab: Experiment, words: list[str], what: str) -> None:
    manager = lab.start(*words)
    assert manager.wait() == 2
    assert f"ERROR: {what}" in manager.said
    assert lab.rows("SELECT * FROM productions") == []


def test_a_manager_leaves_its_jobs_to_the_next_one(lab: Experiment) -> None:
    lab.hold("payload")
    manager = lab.start("--nproc=2", "--nprep=1")
    manager.until(lambda: len(lab.ledger("begin")) == 2, "the second job")
    manager.until_it_says("... Success! (run 3)")
    code, said = ask(lab, "leave")
    assert code == 0
    assert "Ends, and leaves 2 jobs to the next manager" in said
    assert manager.wait() == 0
    assert "Jobs of runs [1, 2] go on" in manager.said
    assert lab.statuses() == "RRNNNNNN"
    next_one = lab.finish()
    assert "Adopted run: 1 " in next_one.said
    assert lab.completions() == dict.fromkeys(RUNS, 1)


def test_a_manager_that_leaves_breaks_its_transfers_off(lab: Experiment) -> None:
    lab.open_archive(rate=20_000)  # bytes a second
    manager = lab.start("--nproc=2", "--nprep=1")
    manager.until(lambda: lab.partly_downloaded() > 0, "a transfer")
    code, _ = ask(lab, "leave")
    assert code == 0
    assert manager.wait() == 0
    assert set(lab.statuses()) == {"N"}
    lab.check_nothing_under_way()
