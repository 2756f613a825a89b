"""An archive that is down, comes back, or refuses the login: nothing is lost and nobody blamed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from experiment import HOST, LOGIN, RUNS, Experiment, ManagerProcess, experiment

pytestmark = pytest.mark.slow

A_FEW_TRIES = 1.5  # seconds


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Experiment]:
    with experiment(tmp_path) as made:
        yield made


def check_nobody_is_blamed(lab: Experiment, manager: ManagerProcess) -> None:
    """All finished at the first attempt, and nothing was said twice."""
    assert manager.wait() == 0
    lab.check_all_finished()
    assert [lab.outcomes(run) for run in RUNS] == [["finished"]] * len(RUNS)
    for once in ("WARNING", "Staging runs", *(f"Downloading run: {run}" for run in RUNS)):
        assert manager.said.count(once) == 1, manager.said


def test_an_archive_that_is_down_at_the_start_is_waited_for(lab: Experiment) -> None:
    manager = lab.start()
    manager.until_it_says(f"WARNING: Archive {HOST} cannot be reached: ")
    time.sleep(A_FEW_TRIES)
    assert lab.statuses() == "CCC"
    assert "Connection refused. Will try again later." in manager.said
    lab.open_archive()
    check_nobody_is_blamed(lab, manager)


def test_a_login_that_is_refused_can_be_put_right(lab: Experiment) -> None:
    lab.write_login(LOGIN[0], "wrong-password")
    lab.open_archive()
    manager = lab.start()
    manager.until_it_says(f"WARNING: Archive {HOST} refused the login: 530 ")
    time.sleep(A_FEW_TRIES)
    assert lab.statuses() == "CCC"
    assert f"Check the entry for {HOST} in the netrc file. Will try again later." in manager.said
    assert "wrong-password" not in manager.said
    lab.write_login(*LOGIN)
    check_nobody_is_blamed(lab, manager)


def test_a_transfer_in_which_the_archive_goes_down_goes_on_when_it_is_back(
    lab: Experiment,
) -> None:
    lab.open_archive(rate=100_000)
    manager = lab.start()
    manager.until_it_says("Downloading run: 2092")
    manager.until(lambda: lab.partly_downloaded() > 0, "a transfer")
    lab.close_archive()
    manager.until_it_says("cannot be reached")
    time.sleep(A_FEW_TRIES)
    lab.open_archive(stage_seconds=0.1)  # it has forgotten what it was asked for
    assert manager.wait() == 0
    lab.check_all_finished()
    assert [lab.outcomes(run) for run in RUNS] == [["finished"]] * 3
    assert manager.said.count("cannot be reached") == 1
    assert lab.completions() == dict.fromkeys(RUNS, 1)


def test_a_tape_is_asked_for_again_when_the_archive_has_forgotten(lab: Experiment) -> None:
    lab.open_archive(stage_seconds=3600)
    manager = lab.start(patch="from production.manager import intake; intake.STAGE_EVERY = 0.5")
    manager.until(lambda: len(lab.archive_log("staged")) == len(RUNS), "staging")
    lab.open_archive()
    assert manager.wait() == 0
    lab.check_all_finished()
    # One connection may have been open when the archive went down.
    assert sum(lab.outcomes(run).count("failed") for run in RUNS) <= 1


def test_a_tape_that_never_comes_ends_as_a_failure(lab: Experiment) -> None:
    lab.configure(
        archive=f'url = "{lab.archive_url}"\nstage_timeout = "1s"',
        defaults="pause = 0.2\nback_off = 0.1\nmax_attempts = 2\nspacelim = 1.0",
    )
    lab.open_archive(stage_seconds=3600)
    assert lab.start().wait() == 40
    assert lab.statuses() == "EEE"
    for run in RUNS:
        reason = f"run{run:05d}.mid is still on tape at {HOST} (450 /run{run:05d}.mid: on tape.); "
        assert lab.reasons()[run] == reason + "it did not arrive within the stage time-out"


def test_a_silent_archive_does_not_hold_up_the_jobs(tmp_path: Path) -> None:
    with experiment(tmp_path, runs=range(1, 5)) as lab:
        for run in lab.runs:
            lab.hold(f"payload.{run}")
        lab.open_archive()
        manager = lab.start("--nproc=2", "--nprep=1")
        manager.until(lambda: lab.statuses() == "RRCN", "submission")
        manager.until_it_says("Success! (run 3)")
        lab.silence_archive()
        lab.let_go("payload.1")
        manager.until_it_says("Staging runs: [4]")  # for a minute, without an answer
        for run in lab.runs:
            lab.let_go(f"payload.{run}")
        manager.until(lambda: lab.statuses() == "FFFC", "the end of the jobs")
        lab.open_archive()
        assert manager.wait() == 0
        lab.check_all_finished()
        assert [lab.outcomes(run) for run in lab.runs] == [["finished"]] * 4
