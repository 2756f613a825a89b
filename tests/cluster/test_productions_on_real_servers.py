"""Whole productions through real batch systems, with managers that are killed."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping

import pytest
from on_cluster import OnCluster
from servers import Server

pytestmark = [pytest.mark.cluster, pytest.mark.site, pytest.mark.slow]

RUNS = range(1, 13)


@pytest.fixture(params=[True, False], ids=["arrays", "single"])
def lab(server: Server, request: pytest.FixtureRequest) -> Iterator[OnCluster]:
    made = OnCluster(server.new_directory(), server, RUNS, arrays=request.param)
    try:
        yield made
    finally:
        made.close()
        server.end_all_jobs()


def once() -> Mapping[int, int]:
    return dict.fromkeys(RUNS, 1)


def test_a_production_in_which_all_goes_well(lab: OnCluster) -> None:
    lab.finish()
    assert lab.completions() == once()
    jobs = [str(job) for (job,) in lab.rows("SELECT job FROM attempt")]
    submissions = {re.split("[^0-9]", job)[0] for job in jobs}
    assert (len(submissions) < len(jobs)) == lab.arrays


def test_a_manager_is_killed_in_the_middle(lab: OnCluster) -> None:
    lab.open_archive()
    lab.hold("payload.3")
    lab.hold("payload.8")
    dead = lab.start("--nproc=6")
    dead.until(lambda: len(lab.ledger("done")) >= 3, "the third run")
    dead.send(signal.SIGKILL)
    dead.wait()
    lab.finish("--nproc=6")
    assert lab.completions() == once()
    assert all(lab.outcomes(run).count("failed") == 0 for run in RUNS)


def test_ctrl_c_cancels_the_jobs(lab: OnCluster) -> None:
    lab.open_archive()
    lab.hold("payload")
    manager = lab.start("--nproc=6")
    manager.until(lambda: len(lab.ledger("begin")) == 6, "the sixth run")
    manager.press_ctrl_c()
    assert manager.wait() == 128 + signal.SIGINT
    lab.check_nothing_under_way()
    assert lab.statuses() == "N" * 12
    lab.finish()
    assert lab.completions() == once()
