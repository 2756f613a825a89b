"""A server that goes down in the middle of a production: managers wait, and nothing fails.

The environment variable DOWN_SECONDS says for how long; then it is not only killed but, in another
production, frozen as well.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest
from on_cluster import OnCluster
from servers import Server

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

SECONDS = float(os.environ.get("DOWN_SECONDS", "15"))
WAYS = ("killed", "frozen") if "DOWN_SECONDS" in os.environ else ("killed",)
RUNS = range(1, 13)
HELD = (2, 4, 5, 6)  # as many as may run at a time: when they do, nothing more is submitted
NOTING = 3.0  # seconds that a busy server may take to write down that jobs have started


@pytest.fixture
def lab(server: Server) -> Iterator[OnCluster]:
    made = OnCluster(server.new_directory(), server, RUNS, arrays=True)
    # Commands are given up before the server is back.
    made.more_environment["PRODUCTION_TIMEOUT"] = "6"
    try:
        yield made
    finally:
        made.close()
        server.end_all_jobs()


@pytest.mark.parametrize("how", WAYS)
def test_nothing_fails_and_nothing_runs_twice(server: Server, lab: OnCluster, how: str) -> None:
    down, up = way_down_and_up(server, how)
    lab.open_archive()
    for run in HELD:
        lab.hold(f"payload.{run}")
    manager = lab.start(f"--nproc={len(HELD)}")
    manager.until(lambda: begun(lab) >= set(HELD), "the start of all that can run")
    # Or Grid Engine kills, when it is back, what it has not noted down as started.
    time.sleep(NOTING)
    down()
    try:
        lab.let_go("payload.2")  # it ends while nobody can be asked about it
        time.sleep(SECONDS)
    finally:
        up()
    for run in HELD[1:]:
        lab.let_go(f"payload.{run}")
    manager.until_it_says("Nothing left to do here")
    assert manager.wait() == 0, manager.said
    lab.check_all_finished()
    assert lab.completions() == dict.fromkeys(RUNS, 1)
    assert all(lab.outcomes(run).count("failed") == 0 for run in RUNS)
    assert "did not answer" in manager.said


def begun(lab: OnCluster) -> set[int]:
    """The runs whose payloads have begun."""
    return {int(attempt[3:8]) for attempt in lab.ledger("begin")}


def way_down_and_up(server: Server, how: str) -> tuple[Callable[[], None], Callable[[], None]]:
    if how == "killed":
        return server.kill_brain, server.start_brain
    return server.freeze, server.thaw
