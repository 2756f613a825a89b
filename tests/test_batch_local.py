"""The local machine as a batch system: slots, cancelling, and jobs that outlive their manager."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_orders import WRITE, Workshop, handle, leaves_pid, pid_in, until

from production.batch import BatchSystem, known_systems, local, open_batch
from production.batch.processes import Process, is_alive, running, session_members
from production.errors import (
    BatchError,
    ConfigurationError,
    QueryFailed,
    SubmissionRefused,
    UsageError,
)
from production.job.fence import revoke
from production.job.record import read_record
from production.model import JobOrder, JobState

PENDING, RUNNING, GONE = JobState.PENDING, JobState.RUNNING, JobState.GONE


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def system() -> Iterator[BatchSystem]:
    system = open_batch("local", {"slots": 2})
    yield system
    system.close()


def waiting(workshop: Workshop, run: int = 2091, prelude: str = "") -> JobOrder:
    """A job that leaves its pid and its child's, and lasts until it is told to go on."""
    pid, child, go = (workshop.directory / f"{name}{run}" for name in ("pid", "child", "go"))
    return workshop.order(
        f"{prelude}\nbash -c '{leaves_pid(child)}sleep 1000; true' &\n"
        f"{leaves_pid(pid)}until [ -e {go} ]; do sleep 0.02; done\n{WRITE}",
        run=run,
    )


def pids(workshop: Workshop, run: int = 2091) -> tuple[int, int]:
    return pid_in(workshop.directory / f"pid{run}"), pid_in(workshop.directory / f"child{run}")


def go_on(workshop: Workshop, run: int = 2091) -> None:
    (workshop.directory / f"go{run}").touch()


def state(system: BatchSystem, order: JobOrder) -> JobState:
    return system.poll([handle(order)])[order.name]


def phase(order: JobOrder) -> str | None:
    record = read_record(order.spool)
    return record.phase if record else None


# --------------------------------------------------------------------------- choosing


def test_an_unknown_system_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no batch system 'cray'\. Known .*: local"):
        open_batch("cray", {})
    assert "local" in known_systems()


def test_only_the_chosen_system_is_loaded() -> None:
    code = "import sys, production.batch; print([m for m in sys.modules if m.endswith('.local')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize("slots", [0, -1, 1.5, "2", True])
def test_slots_must_be_a_number_of_jobs(slots: object) -> None:
    with pytest.raises(ConfigurationError, match="slots must be a whole number"):
        open_batch("local", {"slots": slots})


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'queue' is not an option"):
        open_batch("local", {"queue": "long"})


# --------------------------------------------------------------------------- running


def test_jobs_run_and_are_gone_when_they_have_ended(
    workshop: Workshop, system: BatchSystem
) -> None:
    orders = [workshop.order(run=run) for run in range(10)]
    ids = system.submit(orders)
    assert ids == [f"{os.uname().nodename}:{order.name}" for order in orders]
    handles = [handle(order) for order in orders]
    until(lambda: set(system.poll(handles).values()) == {GONE})
    assert [phase(order) for order in orders] == ["done"] * 10
    assert orders[0].stdout.read_text().startswith("Job ")


def test_a_slot_that_becomes_free_is_filled_at_once(
    workshop: Workshop, system: BatchSystem
) -> None:
    orders = [waiting(workshop, run) for run in range(4)]
    system.submit(orders)
    pids(workshop, 0), pids(workshop, 1)
    states = system.poll([handle(order) for order in orders])
    assert states == dict(
        zip((o.name for o in orders), (RUNNING, RUNNING, PENDING, PENDING), strict=True)
    )
    assert not (orders[2].spool / "started").exists()
    go_on(workshop, 1)
    pids(workshop, 2)  # nobody polls
    assert state(system, orders[3]) == PENDING
    system.cancel([handle(order) for order in orders])


def test_a_job_whose_log_cannot_be_written_is_refused_alone(
    workshop: Workshop, system: BatchSystem
) -> None:
    bad, good = workshop.order(run=1), workshop.order(run=2)
    bad.stderr.mkdir(parents=True)
    refusal, accepted = system.submit([bad, good])
    assert isinstance(refusal, SubmissionRefused)
    assert str(refusal) == f"Batch system local refused the job: {bad.stderr}: Is a directory"
    assert isinstance(accepted, str)
    until(lambda: phase(good) == "done")
    assert state(system, bad) == GONE


def test_a_job_whose_spool_disappears_does_not_block_the_others(
    workshop: Workshop, system: BatchSystem
) -> None:
    blockers = [waiting(workshop, run) for run in (1, 2)]
    bad, good = workshop.order(run=3), workshop.order(run=4)
    system.submit([*blockers, bad, good])
    bad.spool.rename(bad.spool.with_name("away"))
    go_on(workshop, 1)
    until(lambda: phase(good) == "done")
    assert state(system, bad) == GONE
    why = f"it could not be started: {bad.spool / 'load'}: No such file or directory"
    assert system.reason_of([handle(bad), handle(good)]) == {bad.name: why}
    assert state(system, good) == GONE
    assert system.reason_of([handle(bad)]) == {}  # it is no longer asked for
    system.cancel([handle(blockers[1])])


def test_the_job_has_no_ties_to_the_manager(workshop: Workshop, system: BatchSystem) -> None:
    order = workshop.order(
        'ls -l /proc/self/fd > "$OUTPUT_TREE"; ps -o sid= -p $$ >> "$OUTPUT_TREE"'
    )
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    system.submit([order])
    until(lambda: phase(order) == "done")
    os.close(read_end)
    os.close(write_end)
    text = order.outputs[0].final.read_text()
    assert "pipe:" not in text
    assert "0 -> /dev/null" in text
    assert f"1 -> {order.outputs[0].temporary}" in text
    assert f"2 -> {order.stderr}" in text
    assert int(text.split()[-1]) != os.getsid(0)


def test_no_zombie_is_left(workshop: Workshop, system: BatchSystem) -> None:
    order = workshop.order()
    system.submit([order])
    until(lambda: phase(order) == "done")
    pid = (order.spool / "started" / "pid").read_text().split()[0]
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_what_would_be_done(workshop: Workshop, system: BatchSystem) -> None:
    order = workshop.order("echo the job script\n")
    text = system.describe(order)
    command, *_ = text.splitlines()
    assert "echo the job script" in text
    subprocess.run(["bash", "-c", command.replace("setsid", "setsid -w")], check=False)
    assert order.stdout.read_text().endswith("UTC\nthe job script\n")
    assert phase(order) == "publish"


# --------------------------------------------------------------------------- cancelling


def test_a_cancelled_job_leaves_a_record_and_no_process(
    workshop: Workshop, system: BatchSystem
) -> None:
    order = waiting(workshop)
    system.submit([order])
    processes = pids(workshop)
    system.cancel([handle(order)])
    assert [running(pid) for pid in processes] == [None, None]
    record = read_record(order.spool)
    assert record is not None
    assert record.signal == signal.SIGTERM
    until(lambda: state(system, order) == GONE)


def test_a_pending_job_that_is_cancelled_never_starts(
    workshop: Workshop, system: BatchSystem
) -> None:
    orders = [waiting(workshop, run) for run in range(3)]
    system.submit(orders)
    system.cancel([handle(orders[2])])
    assert state(system, orders[2]) == GONE
    assert state(system, orders[0]) == RUNNING
    system.cancel([handle(order) for order in orders])
    assert not (orders[2].spool / "started").exists()


def test_cancelling_what_is_gone_does_no_harm(workshop: Workshop, system: BatchSystem) -> None:
    order = workshop.order()
    system.submit([order])
    until(lambda: state(system, order) == GONE)
    system.cancel([handle(order), handle(workshop.order(run=7))])
    assert phase(order) == "done"


@pytest.mark.slow
def test_a_job_that_resists_is_killed_with_all_its_processes(
    workshop: Workshop, system: BatchSystem
) -> None:
    order = waiting(workshop, prelude="trap '' TERM")
    system.submit([order])
    processes = pids(workshop)
    wrapper = int((order.spool / "started" / "pid").read_text().split()[0])
    os.kill(wrapper, signal.SIGSTOP)  # neither does it pass the signal on
    system.cancel([handle(order)])
    assert [running(pid) for pid in (*processes, wrapper)] == [None, None, None]
    assert session_members({wrapper}) == {}
    assert read_record(order.spool) is None


def test_a_pid_that_was_used_again_is_left_alone(workshop: Workshop, system: BatchSystem) -> None:
    innocent = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    process = running(innocent.pid)
    assert process is not None
    order = workshop.order()
    (order.spool / "started").mkdir()
    pid_file = order.spool / "started" / "pid"
    pid_file.write_text(f"{process.pid} {process.start - 1} {os.uname().nodename}\n")
    assert state(system, order) == GONE
    system.cancel([handle(order)])
    assert is_alive(process)
    assert not is_alive(Process(process.pid, process.start - 1))
    innocent.kill()
    innocent.wait()


# --------------------------------------------------------------------------- several managers

SUBMITTER = """
import sys, time
sys.path[:0] = sys.argv[1].split(":")
from pathlib import Path
from production.batch import open_batch
from test_batch_local import Workshop, waiting
workshop = Workshop(Path(sys.argv[2]))
open_batch("local", {"slots": 1}).submit([waiting(workshop, run) for run in (1, 2)])
print("submitted", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def submitter(workshop: Workshop) -> Iterator[subprocess.Popen[bytes]]:
    """Another manager's process, with a running job 1 and a pending job 2."""
    path = ":".join((str(Path(__file__).parent), *filter(None, sys.path)))
    process = subprocess.Popen(
        [sys.executable, "-c", SUBMITTER, path, str(workshop.directory)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout
    assert process.stdout.readline() == b"submitted\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_jobs_survive_their_manager(
    workshop: Workshop,
    system: BatchSystem,
    submitter: subprocess.Popen[bytes],
    number: signal.Signals,
) -> None:
    processes = pids(workshop, 1)
    os.killpg(submitter.pid, number)
    submitter.wait()
    first, second = waiting(workshop, 1), waiting(workshop, 2)
    assert state(system, first) == RUNNING
    assert all(running(pid) for pid in processes)
    # The pending one is known to nobody; whether it can still start is for the fence to say.
    assert state(system, second) == GONE
    assert revoke(second.spool)
    assert state(system, second) == GONE
    assert not revoke(first.spool)
    (first.spool / "revoked").unlink()
    go_on(workshop, 1)
    until(lambda: state(system, first) == GONE)
    assert phase(first) == "done"


def test_an_adopted_job_can_be_cancelled(
    workshop: Workshop, system: BatchSystem, submitter: subprocess.Popen[bytes]
) -> None:
    processes = pids(workshop, 1)
    submitter.kill()
    submitter.wait()
    order = waiting(workshop, 1)
    system.cancel([handle(order)])
    assert [running(pid) for pid in processes] == [None, None]
    record = read_record(order.spool)
    assert record is not None
    assert record.signal == signal.SIGTERM
    assert state(system, order) == GONE


def test_an_adopted_job_holds_a_slot(
    workshop: Workshop, submitter: subprocess.Popen[bytes]
) -> None:
    pids(workshop, 1)
    submitter.kill()
    submitter.wait()
    theirs, ours = waiting(workshop, 1), workshop.order(run=3)
    system = open_batch("local", {"slots": 1})
    assert state(system, theirs) == RUNNING
    system.submit([ours])
    assert system.poll([handle(theirs), handle(ours)])[ours.name] == PENDING
    go_on(workshop, 1)
    until(lambda: state(system, theirs) == GONE)
    until(lambda: phase(ours) == "done")


def elsewhere(workshop: Workshop) -> JobOrder:
    """A job that has started on another host."""
    order = workshop.order()
    (order.spool / "started").mkdir()
    (order.spool / "started" / "pid").write_text(f"{os.getpid()} 1 elsewhere\n")
    return order


def test_a_start_that_a_network_filesystem_hides_is_found(
    workshop: Workshop, system: BatchSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an NFS client does, which learns of others' changes in a directory with its own."""
    order = elsewhere(workshop)
    known = order.spool.stat().st_mtime_ns
    really_read = local._read_pid

    def read(spool: Path) -> tuple[Process, str]:
        if spool.stat().st_mtime_ns == known:
            raise FileNotFoundError
        return really_read(spool)

    monkeypatch.setattr(local, "_read_pid", read)
    before = list(order.spool.iterdir())
    assert state(system, order) == RUNNING
    assert list(order.spool.iterdir()) == before


def test_a_job_on_another_host_is_believed_to_run_until_it_leaves_its_record(
    workshop: Workshop, system: BatchSystem
) -> None:
    order = elsewhere(workshop)
    assert state(system, order) == RUNNING
    with pytest.raises(BatchError, match="they run on another host"):
        system.cancel([handle(order)])
    (order.spool / "record").touch()
    system.cancel([handle(order)])
    assert state(system, order) == GONE


def test_a_job_whose_host_has_fallen_silent_is_gone(
    workshop: Workshop, system: BatchSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = elsewhere(workshop)
    beat = order.spool / "started" / "beat"
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    beat.write_text("0\n")
    for sign in range(60, 3600, 60):  # it lives for an hour
        assert state(system, order) == RUNNING
        clock += 60
        beat.write_text(f"{sign}\n")
    for _ in range(10):
        assert state(system, order) == RUNNING
        clock += 61
    assert state(system, order) == GONE
    assert "elsewhere has given no sign of life" in str(
        system.reason_of([handle(order)])[order.name]
    )
    beat.write_text("4000\n")
    assert state(system, order) == RUNNING
    assert system.reason_of([handle(order)]) == {}


def test_silence_counts_only_while_one_listens(
    workshop: Workshop, system: BatchSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = elsewhere(workshop)
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    assert state(system, order) == RUNNING
    clock += 3600  # the file server was away, or this host asleep
    assert state(system, order) == RUNNING


def test_whoever_listens_seldom_hears_a_silence_as_well(
    workshop: Workshop, system: BatchSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = elsewhere(workshop)
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    for _ in range(3):
        assert state(system, order) == RUNNING
        clock += 1800
    assert state(system, order) == GONE


@pytest.mark.parametrize(
    "number", [errno.EAGAIN, errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN]
)
def test_it_is_told_when_no_process_can_be_started(
    workshop: Workshop, system: BatchSystem, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """And when that has passed, the job that waited is started."""
    order = workshop.order()
    start = local._start
    trouble = OSError(number, os.strerror(number))

    def cannot(_: JobOrder) -> subprocess.Popen[bytes]:
        raise trouble

    monkeypatch.setattr(local, "_start", cannot)
    assert system.submit([order]) == [f"{os.uname().nodename}:{order.name}"]
    for _ in range(2):
        with pytest.raises(QueryFailed, match=f"cannot start a process.*{trouble.strerror}"):
            system.poll([handle(order)])
    monkeypatch.setattr(local, "_start", start)
    until(lambda: state(system, order) == GONE)
    assert phase(order) == "done"


def test_a_job_whose_files_are_lost_keeps_no_others_from_starting(
    workshop: Workshop, system: BatchSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, *others = (workshop.order(run=run) for run in range(2091, 2094))
    start = local._start

    def cannot(job: JobOrder) -> subprocess.Popen[bytes]:
        if job is lost:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(job.stdout))
        return start(job)

    monkeypatch.setattr(local, "_start", cannot)
    system.submit([lost, others[0]])
    assert state(system, lost) == PENDING  # it may pass
    system.submit([others[1]])
    assert system.poll([handle(lost)])[lost.name] == GONE
    assert system.reason_of([handle(lost)]) == {
        lost.name: f"it could not be started: {lost.stdout}: Input/output error"
    }
    until(lambda: [phase(order) for order in others] == ["done", "done"])


def test_a_running_job_gives_signs_of_life(workshop: Workshop, system: BatchSystem) -> None:
    order = waiting(workshop)
    system.submit([order])
    pids(workshop)
    until((order.spool / "started" / "beat").exists)
    go_on(workshop)
    until(lambda: state(system, order) == GONE)


def test_after_close_nothing_is_started_and_what_runs_goes_on(workshop: Workshop) -> None:
    system = open_batch("local", {"slots": 1})
    orders = [waiting(workshop, run) for run in range(2)]
    system.submit(orders)
    pids(workshop, 0)
    system.close()
    go_on(workshop, 0)
    until(lambda: phase(orders[0]) == "done")
    until(lambda: state(system, orders[0]) == GONE)
    assert state(system, orders[1]) == GONE
    assert not (orders[1].spool / "started").exists()
