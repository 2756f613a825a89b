"""Whole productions through real batch systems, with managers that are killed."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from experiment import Experiment, ManagerProcess
from servers import Server

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

RUNS = range(1, 13)

# A submission that takes its time, so that several runs are ready for the next one.
SLOW = '#!/bin/sh\nsleep 0.3\nexec /usr/bin/{name} "$@"\n'


class OnCluster(Experiment):
    """The experiment of an ordinary user of a batch system."""

    def __init__(self, directory: Path, server: Server, arrays: bool) -> None:
        self._server = server
        self.arrays = arrays
        super().__init__(directory, RUNS)
        word = str(arrays).lower()
        self.configure(
            **{
                f"batch__{server.name}": f"arrays = {word}",
                "environment__variables": "".join(
                    f'{name} = "{self.environment[name]}"\n' for name in ("EXPERIMENT", "PATH")
                ),
            }
        )
        self.add_command(server.submission, SLOW.format(name=server.submission))
        server.give_to_user(directory)

    @property
    def environment(self) -> dict[str, str]:
        """What the user's login has."""
        return {**super().environment, **self._server.environment}

    def start(self, *arguments: str, patch: str = "", prefix: Sequence[str] = ()) -> ManagerProcess:
        """A manager of the user's, with this batch system."""
        prefix = [*self._server.as_user(prefix)]
        return super().start(f"--batch={self._server.name}", *arguments, patch=patch, prefix=prefix)


@pytest.fixture(params=[True, False], ids=["arrays", "single"])
def lab(server: Server, request: pytest.FixtureRequest) -> Iterator[OnCluster]:
    made = OnCluster(server.new_directory(), server, request.param)
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
    assert any(not job.isdecimal() for job in jobs) == lab.arrays


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
