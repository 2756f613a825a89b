"""kill -9 of managers, of jobs, of both: the next start repairs; nothing is lost or done twice."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from experiment import RUNS, Experiment, experiment
from job_orders import until
from phases import PHASES, running

pytestmark = pytest.mark.slow

ONCE = dict.fromkeys(RUNS, 1)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Experiment]:
    with experiment(tmp_path) as made:
        yield made


# --------------------------------------------------------------------------- the manager alone


@pytest.mark.parametrize("phase", PHASES)
def test_the_next_manager_goes_on_where_a_killed_one_was(lab: Experiment, phase: str) -> None:
    manager = PHASES[phase](lab)
    manager.send(signal.SIGKILL)
    manager.wait()
    with_jobs = phase in {"pending", "running", "publishing", "finishing"}
    assert lab.statuses() == ("RRR" if with_jobs else "CCC")

    said = lab.finish("--max-attempts=1").said  # with nobody to blame, no attempt counts as failed
    assert re.search(
        r"Repairing runs \[2091, 2092, 2093\]: their manager \(user \S+, process", said
    )
    assert said.count("Adopted run: ") == (len(RUNS) if with_jobs else 0)
    assert lab.completions() == ONCE
    in_a_slot = {"pending": 1}.get(phase, len(RUNS)) if with_jobs else 0
    assert [lab.outcomes(run) for run in RUNS] == [
        ["finished"] if number < in_a_slot else ["rolled back", "finished"]
        for number in range(len(RUNS))
    ]


# The manager is killed between the moment when it writes down that it will submit jobs and the
# moment when it writes down that it did.
@pytest.mark.parametrize("accepted", [False, True], ids=["before", "after"])
def test_a_kill_during_the_submission_neither_loses_nor_doubles_jobs(
    lab: Experiment, accepted: bool
) -> None:
    patch = f"""
import time
from production.batch.local import LocalSystem
submit = LocalSystem.submit
def hang(self, jobs):
    if {accepted}:
        submit(self, jobs)
    print("hanging", flush=True)
    time.sleep(3600)
LocalSystem.submit = hang
"""
    lab.hold("payload")
    lab.open_archive()
    manager = lab.start(patch=patch)
    manager.until_it_says("hanging")
    manager.until(lambda: bool(lab.ledger("begin")) or not accepted, "the payload")
    manager.send(signal.SIGKILL)
    manager.wait()
    assert lab.statuses() == "CCC"
    lab.finish("--max-attempts=1")
    assert lab.completions() == ONCE
    if accepted:
        assert lab.outcomes(RUNS[0]) == ["finished"]


@pytest.mark.parametrize("seed", range(3))
def test_kills_at_any_moment_change_nothing_in_the_end(tmp_path: Path, seed: int) -> None:
    moments = random.Random(seed)
    with experiment(tmp_path, runs=range(1, 11)) as lab:
        for run in lab.runs:
            lab.trouble(run, "sleep 0.3")
        for _ in range(8):
            lab.open_archive(stage_seconds=0.1, rate=2_000_000)
            manager = lab.start("--nprep=2", "--nproc=4")
            manager.until_it_says("Claimed run")
            time.sleep(moments.uniform(0.0, 1.0))
            manager.send(signal.SIGKILL)
            manager.wait()
            assert lab.rows("PRAGMA integrity_check") == [("ok",)]
        lab.finish("--max-attempts=1")
        assert lab.completions() == dict.fromkeys(lab.runs, 1)


# --------------------------------------------------------------------------- jobs


def test_jobs_that_die_with_their_manager_are_tried_again(lab: Experiment) -> None:
    manager = running(lab)
    lab.kill_everything()
    manager.wait()
    assert lab.statuses() == "RRR"
    said = lab.finish().said
    for run in RUNS:
        assert f"Failed run: {run}: the job vanished without an exit record" in said
        assert lab.outcomes(run) == ["failed", "finished"]
    assert lab.completions() == ONCE


def test_a_wrapper_that_is_killed_takes_its_payload_along(lab: Experiment) -> None:
    manager = running(lab)
    victim = lab.wrapper(RUNS[1])
    os.kill(victim, signal.SIGKILL)
    manager.until_it_says(f"Failed run: {RUNS[1]}: the job vanished without an exit record")
    manager.until(lambda: f"run{RUNS[1]:05d}.a2" in lab.ledger("begin"), "the second attempt")
    lab.let_go("payload")
    assert manager.wait() == 0
    lab.check_all_finished()
    assert lab.completions() == ONCE
    assert [lab.outcomes(run) for run in RUNS] == [
        ["finished"],
        ["failed", "finished"],
        ["finished"],
    ]


# --------------------------------------------------------------------------- several managers


def test_two_managers_share_the_work(tmp_path: Path) -> None:
    with experiment(tmp_path, runs=range(1, 9)) as lab:
        lab.open_archive()
        lab.hold("payload")
        options = ("--nproc=1", "--nprep=1")
        first = lab.start(*options)
        first.until(lambda: lab.statuses().count("N") == 6, "its share")
        second = lab.start(*options)
        second.until(lambda: lab.statuses().count("N") == 4, "its share")
        lab.let_go("payload")
        assert (first.wait(), second.wait()) == (0, 0)
        lab.check_all_finished()
        assert lab.completions() == dict.fromkeys(lab.runs, 1)
        assert [lab.outcomes(run) for run in lab.runs] == [["finished"]] * 8
        assert lab.rows("SELECT count(DISTINCT manager) FROM attempt") == [(2,)]
        assert sorted(re.findall(r"Finished run: (\d+)", first.said + second.said)) == sorted(
            map(str, lab.runs)
        )


def test_a_manager_takes_over_from_a_dead_one_while_it_works(tmp_path: Path) -> None:
    with experiment(tmp_path, runs=range(1, 5)) as lab:
        lab.open_archive()
        lab.hold("payload")
        first = lab.start("--nproc=1", "--nprep=0")
        first.until(lambda: lab.statuses() == "RNNN", "its share")
        second = lab.start(patch="from production.manager import loop; loop.REPAIR_EVERY = 0.2")
        second.until(lambda: lab.statuses() == "RRRR", "its share")
        first.send(signal.SIGKILL)
        first.wait()
        second.until_it_says("Adopted run: 1 ")
        lab.let_go("payload")
        assert second.wait() == 0
        lab.check_all_finished()
        assert lab.completions() == dict.fromkeys(lab.runs, 1)


def test_a_manager_that_was_stopped_for_long_finds_its_run_in_other_hands(tmp_path: Path) -> None:
    patch = "from production.manager import loop; loop.REPAIR_EVERY = 0.2"
    with experiment(tmp_path, runs=range(1, 5)) as lab:
        lab.open_archive()
        lab.hold("payload")
        first = lab.start("--nproc=1", "--nprep=0", "--lease=10", patch=patch)
        first.until(lambda: lab.statuses() == "RNNN", "its share")
        second = lab.start(patch=patch)
        second.until(lambda: lab.statuses() == "RRRR", "its share")
        first.send(signal.SIGSTOP)
        second.until_it_says("Adopted run: 1 ")
        first.send(signal.SIGCONT)
        assert first.wait() == 0
        assert "WARNING: Run 1 was taken over by somebody else" in first.said
        lab.let_go("payload")
        assert second.wait() == 0
        lab.check_all_finished()
        assert lab.completions() == dict.fromkeys(lab.runs, 1)


def test_a_dead_managers_claim_does_not_wait_for_a_long_download(lab: Experiment) -> None:
    lab.open_archive(rate=20_000)
    first = lab.start("--nproc=1", "--nprep=0")
    first.until(lambda: lab.statuses() == "CNN", "its share")
    second = lab.start(patch="from production.manager import loop; loop.REPAIR_EVERY = 0.2")
    second.until_it_says("Downloading run: 2092")
    first.send(signal.SIGKILL)
    first.wait()
    second.until_it_says("Released run: 2091: its manager is gone")
    assert lab.archive_log("sent") == []


def test_each_run_has_one_heir(lab: Experiment) -> None:
    dead = running(lab)
    dead.send(signal.SIGKILL)
    dead.wait()
    heirs = [lab.start(), lab.start()]
    until(lambda: sum(heir.said.count("Adopted run") for heir in heirs) == len(RUNS))
    lab.let_go("payload")
    assert [heir.wait() for heir in heirs] == [0, 0]
    lab.check_all_finished()
    assert lab.completions() == ONCE
    news = "".join(heir.said for heir in heirs)
    for run in RUNS:
        assert news.count(f"Adopted run: {run} ") == news.count(f"Finished run: {run}") == 1
