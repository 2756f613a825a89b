"""The local machine as a batch system: each job in a session of its own.

As many run at a time as there are slots, of which a job takes one for each of its cores, and
memory for those that say how much they need.  Jobs that wait for their turn wait in this process
and are forgotten with it; nobody but the fence in their spool (production/job/fence.py) tells
that they never started.  Jobs that run need nobody: they survive the manager, and any manager on
the same host finds them by the pid and start time that the wrapper wrote into its spool.  On
another host their sign of life is all that can be seen of them: the wrapper changes a file in the
spool once a minute.  A host that crashed takes its jobs along, and they must not be waited for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from production.batch.base import WRAPPER, Answer, BatchSystem
from production.batch.processes import Process, is_alive, running, session_members
from production.errors import (
    BatchError,
    ConfigurationError,
    NotSupported,
    QueryFailed,
    UsageError,
    submission_trouble,
)
from production.model import JobHandle, JobOrder, JobState, Requirements
from production.units import parse_memory

# Seconds between SIGTERM and SIGKILL.  The wrapper gives its payload 3 s of them, and needs the
# rest to clear up and write its record.
GRACE = 5.0
# Seconds that killed processes may take to disappear: they may hang in a network filesystem.
PATIENCE = 20.0
_GLANCE = 0.05  # seconds between two looks at processes that are about to end
# Seconds without a sign of life after which a job on another host is gone.  If it is not, and only
# its host was cut off, it finds that it was given up, and publishes nothing.  Between two looks no
# more than half of them counts: what kept us from looking may have kept the job from its sign.
SILENCE = 600.0

# Reasons for which no process can be started just now, whatever the job.
_MOMENTARY = (
    *(errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE),
    *(errno.ENOSPC, errno.EDQUOT),
)
# The same while a file server is away; or a file of this job is lost.
_AWAY = (errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN)
_TRIES = 3  # jobs with such trouble until it is taken for that of all

_OPTIONS = ("slots", "memory")
_LOAD = "load"  # the file in a job's spool that tells what it takes


@dataclass(frozen=True)
class Load:
    """What jobs take of the machine, or what there is."""

    slots: int
    memory: int  # bytes

    @classmethod
    def of(cls, needs: Requirements) -> Load:
        """What a job with these requirements takes."""
        return cls(needs.cores, needs.memory or 0)

    @classmethod
    def read(cls, spool: Path) -> Load:
        """What the job with this spool takes; a slot when that cannot be known."""
        try:
            slots, memory = map(int, (spool / _LOAD).read_text().split())
        except (OSError, ValueError):
            return cls(1, 0)
        return cls(slots, memory)

    def write(self, spool: Path) -> None:
        """Leave in the job's spool what ``read`` reads; raises OSError."""
        (spool / _LOAD).write_text(f"{self.slots} {self.memory}\n")

    def __add__(self, other: Load) -> Load:
        return Load(self.slots + other.slots, self.memory + other.memory)

    def fits(self, whole: Load) -> bool:
        """Whether all of it has room in ``whole``."""
        return self.slots <= whole.slots and self.memory <= whole.memory


def open_system(options: Mapping[str, object]) -> BatchSystem:
    """The local machine.

    Options ``slots``: how many cores jobs may use, default all usable ones; ``memory``: how much
    jobs may use that say what they need, default all there is.  Raises ConfigurationError.
    """

    def refuse(what: str) -> ConfigurationError:
        return ConfigurationError(where="[batch.local]", what=what)

    for name in options:
        if name not in _OPTIONS:
            raise refuse(f"{name!r} is not an option. Options: {', '.join(_OPTIONS)}")
    slots = options.get("slots", len(os.sched_getaffinity(0)))
    if not isinstance(slots, int) or isinstance(slots, bool) or slots < 1:
        raise refuse(f"slots must be a whole number from 1 on, not {slots!r}")
    memory = options.get("memory")
    if memory is None:
        return LocalSystem(slots)
    try:
        return LocalSystem(slots, parse_memory(str(memory)))
    except ValueError as problem:
        raise refuse(f"memory: {problem}") from None


class LocalSystem:
    """The batch system ``local``."""

    name = "local"

    accounting_lag = 0.0

    def __init__(self, slots: int, memory: int | None = None) -> None:
        self._whole = Load(slots, _all_memory() if memory is None else memory)
        self._host = os.uname().nodename
        self._lock = threading.Lock()
        # Under the lock; orders wait in the order of their submission.
        self._pending: dict[str, JobOrder] = {}
        self._running: dict[str, Process] = {}
        self._loads: dict[str, Load] = {}  # of those that run
        self._adopted = Load(0, 0)  # of jobs of other managers that we watch
        # The last sign of life of each job on another host, and the seconds without one since.
        self._signs: dict[str, tuple[str, float]] = {}
        self._silent: dict[str, str] = {}  # the hosts of jobs that are gone for want of one
        self._unstarted: dict[str, str] = {}  # why jobs could not be started, gone or waiting
        self._looked = time.monotonic()
        self._stuck = ""  # why nothing can be started just now

    def check(self, needs: Requirements) -> None:
        """See BatchSystem."""
        for name in ("queue", "project", "options"):
            if getattr(needs, name):
                raise UsageError(text=f"The local machine has no {name} for jobs to be sent with")
        if not Load.of(needs).fits(self._whole):
            has = f"{self._whole.slots} slots and {self._whole.memory >> 20} MB"
            asked = f"{needs.cores} cores and {(needs.memory or 0) >> 20} MB"
            raise UsageError(text=f"A job needs {asked}; the local machine has {has} for jobs")

    def submit(self, jobs: Sequence[JobOrder]) -> list[Answer]:
        """See BatchSystem; a job is refused when its log files cannot be opened."""
        answers: list[Answer] = []
        with self._lock:
            for job in jobs:
                try:
                    with _open_logs(job):
                        pass
                except OSError as error:
                    answers.append(submission_trouble(self.name, error))
                else:
                    self._pending[job.name] = job
                    answers.append(f"{self._host}:{job.name}")
            self._fill_slots()
        return answers

    def poll(self, jobs: Sequence[JobHandle]) -> dict[str, JobState]:
        """See BatchSystem.

        Fails only to tell that this machine can start no process.  Where nothing can be known, a
        job is RUNNING: on another host, until it leaves its record or falls silent; in a spool
        that cannot be read just now.
        """
        states: dict[str, JobState] = {}
        now = time.monotonic()  # before looking, which takes as long as the file server is away
        with self._lock:
            since, self._looked = now - self._looked, now
            for name in self._unstarted.keys() - {job.name for job in jobs}:
                del self._unstarted[name]
            for job in jobs:
                if job.name in self._pending:
                    states[job.name] = JobState.PENDING
                elif job.name in self._running:
                    states[job.name] = JobState.RUNNING
            self._adopted = Load(0, 0)
            for job in jobs:
                if job.name not in states:
                    states[job.name] = self._state_of_other(job, since)
            self._fill_slots()
            if self._stuck:
                what = f"{self._host} cannot start a process for the next job: {self._stuck}"
                raise QueryFailed(system=self.name, what=what)
        return states

    def cancel(self, jobs: Sequence[JobHandle]) -> None:
        """See BatchSystem; when it returns, nothing of the jobs runs any more on this host."""
        names: dict[int, str] = {}  # by session, which has the wrapper's pid
        started, elsewhere = self._withdraw(jobs)
        for process, job in started:
            if is_alive(process):
                names[process.pid] = job.name
                _send(signal.SIGTERM, group=process.pid)
        left = _wait_for(names, GRACE)
        deadline = time.monotonic() + PATIENCE
        while left and time.monotonic() < deadline:
            # The payload has a process group of its own in the wrapper's session.
            for pid in (pid for members in left.values() for pid in members):
                _send(signal.SIGKILL, pid=pid)
            left = _wait_for(left, _GLANCE)
        if left:
            what = "; ".join(f"{names[s]} (pids {_listed(pids)})" for s, pids in left.items())
            raise BatchError(system=self.name, what=f"jobs could not be ended: {what}")
        if elsewhere:
            what = f"they run on another host: {', '.join(elsewhere)}"
            raise BatchError(system=self.name, what=f"jobs could not be ended: {what}")

    def move(self, jobs: Sequence[JobHandle], queue: str) -> list[str]:  # noqa: ARG002
        """See BatchSystem."""
        raise NotSupported(system=self.name, what="the local machine has no queues")

    def reason_of(self, jobs: Sequence[JobHandle]) -> dict[str, str | None]:
        """See BatchSystem; of jobs that could not be started, and of jobs on lost hosts."""
        with self._lock:
            known = {
                **{
                    name: f"its host {host} has given no sign of life of it for {SILENCE:.0f} s"
                    for name, host in self._silent.items()
                },
                **self._unstarted,
            }
        return {job.name: known[job.name] for job in jobs if job.name in known}

    def describe(self, job: JobOrder) -> str:
        """See BatchSystem."""
        spool, out, err = (shlex.quote(str(p)) for p in (job.spool, job.stdout, job.stderr))
        command = shlex.join(_command(job))
        try:
            script = job.script.read_text(errors="replace")
        except OSError as error:
            script = f"(unreadable: {error.strerror})\n"
        return (
            f"cd {spool} && setsid {command} < /dev/null >> {out} 2>> {err}\n"
            f"\n# {job.script}\n{script}"
        )

    def close(self) -> None:
        """See BatchSystem; jobs that still wait are never started."""
        with self._lock:
            self._pending.clear()

    # ------------------------------------------------------------------ under the lock

    def _fill_slots(self) -> None:
        self._stuck = ""
        before = frozenset(self._unstarted)
        troubled: list[str] = []  # jobs whose files are out of reach
        started = False
        for job in list(self._pending.values()):
            if not self._has_room(Load.of(job.requirements)) or len(troubled) == _TRIES:
                break
            try:
                self._begin(job)
            except OSError as error:
                what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
                if error.errno in _MOMENTARY:
                    self._stuck = what
                    return  # the next poll tries again
                if error.errno in _AWAY:
                    troubled.append(job.name)
                else:
                    del self._pending[job.name]
                self._unstarted[job.name] = f"it could not be started: {what}"
            else:
                started = True
        if started:
            for name in before.intersection(troubled):  # twice, while others can be started
                del self._pending[name]
        elif troubled and (len(troubled) == _TRIES or not self._running):
            self._stuck = what

    def _has_room(self, load: Load) -> bool:
        taken = sum(self._loads.values(), start=self._adopted)
        # A job that is larger than the machine has it alone.
        return (load + taken).fits(self._whole) or not taken.slots

    def _begin(self, job: JobOrder) -> None:
        """Start a job that has waited for a slot; raises OSError, and it waits on."""
        load = Load.of(job.requirements)
        load.write(job.spool)
        child = _start(job)
        self._unstarted.pop(job.name, None)
        del self._pending[job.name]
        # The child cannot be reaped yet, so its pid is still its own.
        self._running[job.name] = running(child.pid) or Process(child.pid, 0)
        self._loads[job.name] = load
        threading.Thread(target=self._reap, args=(job.name, child), daemon=True).start()

    def _state_of_other(self, job: JobHandle, since: float) -> JobState:
        """The state of a job that is no child of ours, counting those that hold a slot here.

        ``since``: how many seconds ago it was looked at before.
        """
        try:
            process, host = _see_pid(job.spool)
            if host != self._host:
                return self._state_elsewhere(job, host, since)
        except (FileNotFoundError, ValueError):
            # It never started, or its host crashed just then.
            return JobState.GONE
        except OSError:
            return JobState.RUNNING
        if is_alive(process):
            self._adopted += Load.read(job.spool)
            return JobState.RUNNING
        return JobState.GONE

    def _state_elsewhere(self, job: JobHandle, host: str, since: float) -> JobState:
        """The state of a job on another host; raises OSError."""
        if (job.spool / "record").exists():
            return JobState.GONE
        try:
            # Opening it has a network filesystem ask its server, which looking at it has not.
            sign = (job.spool / "started" / "beat").read_text()
        except FileNotFoundError:
            sign = ""
        before, silence = self._signs.get(job.name, (None, 0.0))
        if sign == before:
            silence += min(since, SILENCE / 2)
        else:
            silence = 0.0
            self._silent.pop(job.name, None)
        self._signs[job.name] = (sign, silence)
        if silence <= SILENCE:
            return JobState.RUNNING
        self._silent[job.name] = host
        return JobState.GONE

    # ------------------------------------------------------------------ on their own

    def _reap(self, name: str, child: subprocess.Popen[bytes]) -> None:
        """Wait for a child, and give its slot to the next; runs in a thread a child."""
        child.wait()
        with self._lock:
            del self._running[name], self._loads[name]
            self._fill_slots()

    def _withdraw(
        self, jobs: Iterable[JobHandle]
    ) -> tuple[list[tuple[Process, JobHandle]], list[str]]:
        """Forget those that are pending; the wrappers of those that have started on this host.

        And the names of those that have started, and not ended, on another.
        """
        started: list[tuple[Process, JobHandle]] = []
        elsewhere: list[str] = []
        with self._lock:
            for job in jobs:
                if self._pending.pop(job.name, None):
                    continue
                process = self._running.get(job.name)
                if process is None:
                    with contextlib.suppress(OSError, ValueError):
                        process, host = _read_pid(job.spool)
                        if host != self._host:
                            if not (job.spool / "record").exists():
                                elsewhere.append(job.name)
                            continue
                if process is not None:
                    started.append((process, job))
        return started, elsewhere


# ---------------------------------------------------------------------- jobs and their processes


def _all_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _command(job: JobOrder) -> list[str]:
    return ["bash", str(WRAPPER), str(job.spool)]


def _start(job: JobOrder) -> subprocess.Popen[bytes]:
    with _open_logs(job) as (out, err):
        return subprocess.Popen(
            _command(job),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=job.spool,
            start_new_session=True,
        )


@contextlib.contextmanager
def _open_logs(job: JobOrder) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    with job.stdout.open("ab") as out, job.stderr.open("ab") as err:
        yield out, err


def _read_pid(spool: Path) -> tuple[Process, str]:
    """The wrapper's process and host, which it wrote when it took the attempt.

    Raises FileNotFoundError when it did not, ValueError when the file makes no sense.
    """
    pid, start, host = (spool / "started" / "pid").read_text().split()
    return Process(int(pid), int(start)), host


def _see_pid(spool: Path) -> tuple[Process, str]:
    """The same, and what is not there is surely not there."""
    try:
        return _read_pid(spool)
    except FileNotFoundError:
        # An NFS client keeps in mind for up to a minute that there was no such name (nfs(5),
        # acdirmax), unless it learns by a change of its own that the directory has changed.
        probe = spool / f"looking.{uuid.uuid4().hex}"
        probe.mkdir()
        probe.rmdir()
        return _read_pid(spool)


def _send(number: signal.Signals, *, pid: int = 0, group: int = 0) -> None:
    # Gone already, or another user's: what is left in the end tells.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if group:
            os.killpg(group, number)
        else:
            os.kill(pid, number)


def _wait_for(sessions: Iterable[int], seconds: float) -> dict[int, list[int]]:
    """Wait until all processes of these sessions are gone; those left when the time is over."""
    deadline = time.monotonic() + seconds
    wanted = set(sessions)
    while (left := session_members(wanted)) and time.monotonic() < deadline:
        time.sleep(_GLANCE)
    return left


def _listed(pids: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(pids)))
