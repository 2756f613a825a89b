"""What HTCondor does to jobs by itself or at its users' wish: each becomes the right reason."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from condor import HTCondor
from conftest import Submitter
from job_orders import leaves_pid, pid_in, until
from servers import PATIENCE

from production.batch import BatchSystem
from production.batch.condor_events import LOG
from production.errors import QueryFailed
from production.job.record import read_record
from production.model import JobHandle, JobOrder, JobState, Requirements

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.parametrize("server", [HTCondor.name], indirect=True),
]

PENDING, RUNNING, HELD, GONE = JobState


class Pool:
    """A job that runs for as long as a test wants, and what is done to it."""

    def __init__(self, submitter: Submitter) -> None:
        assert isinstance(submitter.server, HTCondor)
        self.submitter = submitter
        self.server = submitter.server
        self.system: BatchSystem = submitter.open()
        self.pid = submitter.directory / "pid"
        self.order = submitter.order(f"{leaves_pid(self.pid)}exec sleep 600", 1)

    def start(self, needs: Requirements | None = None) -> JobHandle:
        """Submit the job, and wait until it runs."""
        order = replace(self.order, requirements=needs or Requirements())
        (id_,) = self.system.submit([order])
        assert isinstance(id_, str)
        pid_in(self.pid)
        return JobHandle(order.name, order.spool, id_)

    def ask(self, command: str, *arguments: str) -> str:
        """A command of the pool's under the user's account, which must go well."""
        path = self.server.path_of(command)
        assert path is not None
        argv = self.server.as_user([path, *arguments])
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def until(self, job: JobHandle, state: JobState) -> None:
        def there() -> bool:
            try:
                return self.system.poll([job]) == {job.name: state}
            except QueryFailed:  # a busy machine after a restart: nothing is known
                return False

        until(there, timeout=PATIENCE)

    def reason(self, job: JobHandle) -> str:
        return str(self.system.reason_of([job])[job.name])


@pytest.fixture
def pool(submitter: Submitter) -> Pool:
    return Pool(submitter)


def signal_of(order: JobOrder) -> int | None:
    record = read_record(order.spool)
    assert record is not None
    return record.signal


def test_a_job_that_is_held_while_it_runs_ends_and_is_not_started_again(pool: Pool) -> None:
    job = pool.start()
    pool.ask("condor_hold", "-reason", "too hot", str(job.id))
    pool.until(job, GONE)  # HTCondor removes it by itself
    assert pool.reason(job) == "held: too hot (by user prodtest)"
    assert signal_of(pool.order) == signal.SIGTERM  # the wrapper had the time to clear up


def test_a_job_that_is_held_before_it_starts_goes_on_when_it_is_released(pool: Pool) -> None:
    (id_,) = pool.submitter.open(options=["hold = True"]).submit([pool.order])
    assert isinstance(id_, str)
    job = JobHandle(pool.order.name, pool.order.spool, id_)
    pool.until(job, HELD)
    assert pool.reason(job) == "held: submitted on hold at user's request"
    pool.ask("condor_release", id_)
    pid_in(pool.pid)
    pool.until(job, RUNNING)


@pytest.mark.parametrize("how", [(), ("-fast",)], ids=["gracefully", "fast"])
def test_a_job_that_is_evicted_is_not_started_again(pool: Pool, how: tuple[str, ...]) -> None:
    job = pool.start()
    pool.ask("condor_vacate_job", *how, str(job.id))
    pool.until(job, GONE)
    assert pool.reason(job).startswith("evicted from its node")
    assert (pool.order.spool / LOG).read_text().count("Job executing on host") == 1


def test_a_job_whose_shadow_was_killed_is_not_executed_twice(pool: Pool) -> None:
    job = pool.start()
    begun = pid_in(pool.pid)
    (shadow,) = pool.server.shadows(str(job.id))
    os.kill(shadow, signal.SIGKILL)
    pool.until(job, GONE)  # its second start ends at the fence in its spool
    assert pid_in(pool.pid) == begun
    assert signal_of(pool.order) == signal.SIGTERM


def test_a_suspended_job_is_waited_for(pool: Pool) -> None:
    job = pool.start()
    pool.ask("condor_suspend", str(job.id))
    until(lambda: "Job was suspended" in (pool.order.spool / LOG).read_text(), timeout=PATIENCE)
    assert pool.system.poll([job]) == {job.name: RUNNING}
    assert pool.submitter.open().poll([job]) == {job.name: RUNNING}
    pool.ask("condor_continue", str(job.id))


def test_a_job_over_its_time_is_held_and_removed_when_the_wrapper_does_nothing(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("production.batch.htcondor._MARGIN", -597)
    job = pool.start(Requirements(time=600))
    pool.until(job, GONE)
    assert pool.reason(job).startswith("held: over the time limit of the batch system: ")


def test_jobs_survive_a_schedd_that_is_killed(pool: Pool) -> None:
    job = pool.start()
    pool.until(job, RUNNING)
    pool.server.kill_brain()
    assert pool.system.poll([job]) == {job.name: RUNNING}  # as its log tells
    with pytest.raises(QueryFailed):
        pool.submitter.open().poll([job])
    pool.server.start_brain()
    log = pool.order.spool / LOG
    until(lambda: "Job reconnected" in log.read_text(), timeout=PATIENCE)
    assert pool.submitter.open().poll([job]) == {job.name: RUNNING}
    pool.system.cancel([job])
    assert log.read_text().count("Job executing on host") == 1


def test_of_jobs_without_a_log_the_history_tells_how_they_ended(pool: Pool) -> None:
    pool.system = system = pool.submitter.open(event_log="no")
    order = pool.submitter.order("exit 3", 2)
    (id_,) = system.submit([order])
    job = JobHandle(order.name, order.spool, str(id_))
    pool.until(job, GONE)
    assert not (order.spool / LOG).exists()
    # The job leaves the queue before it is in the history.
    expected = {job.name: "ended with exit code 3"}
    until(lambda: system.reason_of([job]) == expected, timeout=PATIENCE)


def test_a_spool_may_go_before_its_job_has_left_the_queue(pool: Pool) -> None:
    job = pool.start()
    subprocess.run(["mv", str(pool.order.spool), f"{pool.order.spool}.gone"], check=True)
    os.kill(pid_in(pool.pid), signal.SIGKILL)
    pool.until(job, GONE)
    assert not Path(pool.order.spool).exists()
