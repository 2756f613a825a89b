"""Every system with a real server: submitted, watched, cancelled, found again, judged."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from conftest import Submitter
from job_orders import WRITE, handle, leaves_pid, pid_in, until
from servers import PATIENCE

from production import commands
from production.batch import BatchSystem
from production.batch.base import Answer
from production.batch.together import NOTE
from production.errors import BatchError, QueryFailed, SubmissionRefused
from production.job.record import read_record
from production.model import JobHandle, JobOrder, JobState, Requirements

pytestmark = [pytest.mark.cluster, pytest.mark.site, pytest.mark.slow]

HELD, RUNNING, GONE = JobState.HELD, JobState.RUNNING, JobState.GONE


def waiting(submitter: Submitter, run: int) -> JobOrder:
    """A job that leaves its pid and lasts until it is told to go on."""
    pid, go = (submitter.directory / f"{name}{run}" for name in ("pid", "go"))
    return submitter.order(f"{leaves_pid(pid)}until [ -e {go} ]; do sleep 0.1; done\n{WRITE}", run)


def go_on(submitter: Submitter, run: int) -> None:
    (submitter.directory / f"go{run}").touch()


def wait_until_running(submitter: Submitter, run: int) -> int:
    return pid_in(submitter.directory / f"pid{run}")


def ids(answers: Sequence[Answer]) -> list[str]:
    assert all(isinstance(answer, str) for answer in answers), answers
    return [str(answer) for answer in answers]


def submit(system: BatchSystem, orders: Sequence[JobOrder]) -> list[JobHandle]:
    given = ids(system.submit(orders))
    return [handle(order, id_) for order, id_ in zip(orders, given, strict=True)]


def forgotten(orders: Sequence[JobOrder]) -> list[JobHandle]:
    """As a manager knows jobs whose submission was never answered."""
    return [handle(order) for order in orders]


def until_states(system: BatchSystem, jobs: Sequence[JobHandle], *wanted: JobState) -> None:
    until(lambda: tuple(system.poll(jobs)[job.name] for job in jobs) == wanted, timeout=PATIENCE)


def phases(orders: Sequence[JobOrder]) -> list[str | None]:
    return [record.phase if (record := read_record(order.spool)) else None for order in orders]


@contextmanager
def frozen(submitter: Submitter) -> Iterator[None]:
    submitter.server.freeze()
    try:
        yield
    finally:
        submitter.server.thaw()


# --------------------------------------------------------------------------- submit and watch


def test_a_job_runs_and_is_gone_when_it_has_ended(submitter: Submitter) -> None:
    system = submitter.open()
    order = waiting(submitter, 1)
    jobs = submit(system, [order])
    wait_until_running(submitter, 1)
    until_states(system, jobs, RUNNING)
    go_on(submitter, 1)
    until_states(system, jobs, GONE)
    assert phases([order]) == ["done"]
    assert order.stdout.read_text().startswith("Job ")
    assert not (order.spool / NOTE).exists()


def test_many_jobs_are_one_command(submitter: Submitter) -> None:
    system = submitter.open()
    orders = [submitter.order(f"echo this is $RUN\n{WRITE}", run) for run in range(1, 7)]
    jobs = submit(system, orders)
    assert len({job.id for job in jobs}) == 6
    until_states(system, jobs, *[GONE] * 6)
    assert phases(orders) == ["done"] * 6
    for run, order in enumerate(orders, 1):  # each has its own log
        assert f"this is {run}\n" in order.stdout.read_text()
        assert order.stdout.read_text().count("this is") == 1
    assert len(submitter.calls(submitter.server.submission)) == 1


def test_a_poll_is_one_command_while_all_jobs_are_there(submitter: Submitter) -> None:
    system = submitter.open()
    orders = [waiting(submitter, run) for run in range(1, 4)]
    jobs = submit(system, orders)
    until_states(system, jobs, *[RUNNING] * 3)
    before = len(submitter.calls(submitter.server.query))
    system.poll(jobs)
    asked = len(submitter.calls(submitter.server.query)) - before
    assert asked == submitter.server.queries_a_poll


def test_without_arrays_each_job_is_a_command(submitter: Submitter) -> None:
    system = submitter.open(arrays=False)
    orders = [submitter.order(WRITE, run) for run in (1, 2, 3)]
    until_states(system, submit(system, orders), GONE, GONE, GONE)
    assert phases(orders) == ["done"] * 3
    assert len(submitter.calls(submitter.server.submission)) == 3


def test_jobs_with_other_requirements_go_by_themselves(submitter: Submitter) -> None:
    system = submitter.open()
    needs = (Requirements(time=600, memory=10**8), Requirements(cores=1), Requirements(cores=2))
    orders = [
        submitter.order(f"echo threads $OMP_NUM_THREADS\n{WRITE}", run, requirements=needs[run % 3])
        for run in range(6)
    ]
    until_states(system, submit(system, orders), *[GONE] * 6)
    assert phases(orders) == ["done"] * 6
    assert len(submitter.calls(submitter.server.submission)) == 3
    assert "threads 2" in orders[2].stdout.read_text()


def test_what_dry_run_shows_is_what_is_done(submitter: Submitter) -> None:
    system = submitter.open(options=list(submitter.server.some_options))
    order = submitter.order(WRITE, 1)
    shown = system.describe(order)
    submit(system, [order])
    (arguments,) = submitter.calls(submitter.server.submission)
    command, _, script = shown.partition(" << 'END'\n")
    assert shlex.split(command)[1:] == arguments.split(" ")
    assert str(order.spool) in script
    assert WRITE in script


def test_an_unknown_queue_is_refused_for_each_job(submitter: Submitter) -> None:
    if "-q" in submitter.server.options:
        pytest.skip("the site's options name a queue: name it with SITE_QUEUE instead")
    system = submitter.open(queue="nowhere")
    answers = system.submit([submitter.order(WRITE, run) for run in (1, 2)])
    assert all(isinstance(answer, SubmissionRefused) for answer in answers)
    assert any(word in str(answers[0]) for word in ("nowhere", "artition", "nknown queue"))


# --------------------------------------------------------------------------- cancel


def test_cancelled_jobs_are_gone_and_the_others_go_on(submitter: Submitter) -> None:
    system = submitter.open()
    orders = [waiting(submitter, run) for run in range(1, 5)]
    jobs = submit(system, orders)
    for run in range(1, 5):
        wait_until_running(submitter, run)
    system.cancel([jobs[1], jobs[3]])
    assert [system.poll(jobs)[job.name] for job in jobs] == [RUNNING, GONE, RUNNING, GONE]
    go_on(submitter, 1)
    go_on(submitter, 3)
    until_states(system, jobs, *[GONE] * 4)
    assert phases(orders) == ["done", "payload", "done", "payload"]
    system.cancel(jobs)  # all gone: nothing to do


def test_a_job_that_waits_is_cancelled_and_says_why(submitter: Submitter) -> None:
    system = submitter.open(options=list(submitter.server.hold))
    order = waiting(submitter, 1)
    jobs = submit(system, [order])
    assert system.poll(jobs) == {order.name: HELD}
    assert str(system.reason_of(jobs)[order.name]).startswith("held")
    system.cancel(jobs)
    assert system.poll(jobs) == {order.name: GONE}
    if word := submitter.server.word_for_cancelled:
        until(lambda: word in str(system.reason_of(jobs)[order.name]), timeout=PATIENCE)
    assert not (order.spool / "started").exists()


# --------------------------------------------------------------------------- move


def test_jobs_that_wait_are_moved_and_those_that_run_are_not(submitter: Submitter) -> None:
    queue = submitter.server.other_queue
    if queue is None:
        pytest.skip("the site's other queues are not known")
    running = waiting(submitter, 1)
    jobs = submit(submitter.open(), [running])
    wait_until_running(submitter, 1)
    held = [waiting(submitter, run) for run in (2, 3)]
    jobs += submit(submitter.open(options=list(submitter.server.hold)), held)
    system = submitter.open()
    assert system.move(jobs, queue) == [order.name for order in held]
    if submitter.server.knows_its_queues:
        with pytest.raises(BatchError, match=r"\w"):
            system.move(jobs, "nowhere")
    system.cancel(jobs)


# --------------------------------------------------------------------------- found again


@pytest.mark.parametrize("count", [1, 3])
def test_a_fresh_manager_finds_jobs_by_their_names(submitter: Submitter, count: int) -> None:
    orders = [waiting(submitter, run) for run in range(1, count + 1)]
    submit(submitter.open(), orders)
    for run in range(1, count + 1):
        wait_until_running(submitter, run)
    jobs = forgotten(orders)
    assert submitter.open().poll(jobs) == dict.fromkeys((o.name for o in orders), RUNNING)
    go_on(submitter, count)
    until_states(submitter.open(), jobs, *[RUNNING] * (count - 1), GONE)
    submitter.open().cancel(jobs)
    assert submitter.open().poll(jobs) == dict.fromkeys((o.name for o in orders), GONE)


def test_jobs_that_were_never_submitted_are_gone(submitter: Submitter) -> None:
    order = submitter.order(WRITE, 1)
    assert submitter.open().poll(forgotten([order])) == {order.name: GONE}


def test_a_server_that_does_not_answer_leaves_everything_open(
    submitter: Submitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SLURM's commands give up after 10 s, those of others must be ended.
    defaults = commands.run.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "timeout", 15.0)
    system = submitter.open()
    earlier = waiting(submitter, 9)
    jobs = submit(system, [earlier])
    wait_until_running(submitter, 9)
    orders = [waiting(submitter, run) for run in (1, 2)]
    with frozen(submitter):
        for answer in system.submit(orders):
            assert isinstance(answer, BatchError | None)
            assert not isinstance(answer, SubmissionRefused)
        with pytest.raises(QueryFailed):
            system.poll(jobs)
    # It had been accepted all the same, or not at all; never in part.
    everything = [*jobs, *forgotten(orders)]
    until(lambda: system.poll(jobs) == {earlier.name: RUNNING}, timeout=PATIENCE)
    if submitter.server.takes_what_it_did_not_answer:
        until_states(submitter.open(), everything, *[RUNNING] * 3)
    for run in (1, 2, 9):
        go_on(submitter, run)
    until_states(submitter.open(), everything, *[GONE] * 3)
    assert phases([earlier]) == ["done"]
    assert len(set(phases(orders))) == 1


def test_a_job_whose_wrapper_was_killed_has_a_reason(submitter: Submitter) -> None:
    system = submitter.open()
    order = waiting(submitter, 1)
    jobs = submit(system, [order])
    payload = wait_until_running(submitter, 1)
    wrapper, _, host = (order.spool / "started" / "pid").read_text().split()
    if host != os.uname().nodename:
        pytest.skip("its node is another host")
    subprocess.run(["kill", "-9", wrapper, str(payload)], check=True)
    until_states(system, jobs, GONE)
    assert read_record(order.spool) is None
    until(lambda: system.reason_of(jobs).get(order.name) is not None, timeout=PATIENCE)


def test_a_job_in_grid_engines_error_state_is_deleted(submitter: Submitter) -> None:
    if submitter.server.name != "sge":
        pytest.skip("only Grid Engine has such a state")
    system = submitter.open(options=["-wd", "/no/such/directory"])
    orders = [submitter.order(WRITE, run) for run in (1, 2)]
    jobs = submit(system, orders)
    until_states(system, jobs, GONE, GONE)
    for reason in system.reason_of(jobs).values():
        assert str(reason).startswith("it could not be started: error: can't chdir to /no/such/")
    assert set(system.reason_of(jobs)) == {order.name for order in orders}
    listed = submitter.server.run("qstat", "-u", "*").stdout
    assert "Eqw" not in listed


def test_jobs_of_a_cluster_that_is_named(submitter: Submitter) -> None:
    if submitter.server.name != "slurm":
        pytest.skip("only SLURM has clusters to be named")
    system = submitter.open(cluster="tests")
    orders = [waiting(submitter, run) for run in (1, 2)]
    jobs = submit(system, orders)
    assert all(job.id and job.id.partition("_")[0].isdecimal() for job in jobs)
    wait_until_running(submitter, 1)
    assert submitter.open(cluster="tests").poll(forgotten(orders))[orders[0].name] is RUNNING
    system.cancel(jobs[:1])
    until(
        lambda: system.reason_of(jobs).get(orders[0].name) == "cancelled by prodtest (CANCELLED)",
        timeout=PATIENCE,
    )
    go_on(submitter, 2)
    until_states(system, jobs, GONE, GONE)
    with pytest.raises(QueryFailed):
        submitter.open(cluster="elsewhere").poll(jobs)
