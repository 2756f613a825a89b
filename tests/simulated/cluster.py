"""A cluster without a language: jobs that wait, run as real processes, and end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

HEARTBEAT = 0.02  # seconds between two looks at all jobs


class State(Enum):
    """Where a job stands."""

    WAITING = auto()
    RUNNING = auto()
    ENDED = auto()


class End(Enum):
    """What ended a job."""

    ITSELF = auto()  # its script came to an end, or was killed behind the system's back
    CANCELLED = auto()
    OVER_TIME = auto()
    OVER_MEMORY = auto()
    EVICTED = auto()  # to make room, or to be held
    NODE_FAILED = auto()
    NOT_STARTED = auto()  # the system could not start it


@dataclass(frozen=True)
class Request:
    """What a submission asks for; the same for all elements of an array."""

    name: str
    owner: str
    uid: int
    directory: str
    environment: Mapping[str, str]
    queue: str
    script: str = ""  # a file's contents, from #! on
    command: tuple[str, ...] = ()  # instead of a script
    indices: tuple[int, ...] | None = None  # None: no array
    at_once: int | None = None  # elements that may run at the same time
    held: str = ""  # by whom it is held from the beginning
    cores: int = 1
    memory: int | None = None  # bytes
    time: float | None = None  # seconds
    project: str = ""
    output: str = "/dev/null"
    errors: str = "/dev/null"
    # The signals by which it is ended, with the cluster's patience between them.
    farewell: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGKILL)


@dataclass(eq=False)
class Job:
    """A job, or an element of an array."""

    cluster: Cluster
    number: int
    index: int | None
    request: Request
    queue: str
    held: str = ""  # by whom
    why_held: str = ""
    trouble: str = ""  # why it could not be started, when it waits all the same
    suspended: bool = False
    state: State = State.WAITING
    end: End | None = None  # what ended it, or is just ending it
    ended_by: str = ""  # who cancelled it
    status: int | None = None  # exit code, or -n for signal n; None: it never ran
    submitted: float = 0.0  # times in seconds since the epoch
    started: float = 0.0
    ended: float = 0.0
    starts: int = 0
    pid: int = 0
    extra: dict[str, object] = field(default_factory=dict)  # a dialect's own

    @property
    def name(self) -> str:
        """What its owner called it."""
        return self.request.name


@dataclass
class Terms:
    """How a cluster treats its users; may be changed while it works."""

    slots: int = 8
    queues: Sequence[str] = ("main", "short")  # the first is the default one
    largest_array: int = 1000
    memory: int = 4 * 2**30  # bytes of a node
    node_cores: int = 8
    patience: float = 5.0  # seconds between the signals that end a job
    remembers: float = 300.0  # seconds for which the queue shows jobs that have ended
    accounting: bool = True
    accounting_lag: float = 0.0  # seconds


class Policy:
    """What differs between systems in the life of a job."""

    def variables(self, job: Job) -> Mapping[str, str]:
        """What a job finds in its environment besides what its owner gave it."""
        return {}

    def may_start(self, job: Job) -> bool:
        """Whether a waiting job is allowed to start."""
        return not (job.held or job.trouble)

    def cannot_start(self, job: Job, error: OSError) -> None:
        """Do something with a job that cannot be started."""
        job.cluster.give_up(job)

    def returns(self, job: Job, how: End) -> bool:
        """Whether a job that has just ended goes back to the queue instead."""
        return False

    def happened(self, job: Job, event: str) -> None:
        """Take notice: submitted, started, returned, ended, held, released."""

    def beat(self) -> None:
        """Do what is done from time to time."""


class Cluster:
    """Slots, a queue, a clock.  Hold ``lock`` to see several things at the same moment."""

    def __init__(self, directory: Path, terms: Terms | None = None) -> None:
        self.terms = terms or Terms()
        self.lock = threading.RLock()
        self._directory = directory
        self._jobs: dict[int, list[Job]] = {}  # by number, in the order of submission
        self._waiting: dict[Job, None] = {}
        self._processes: dict[Job, subprocess.Popen[bytes]] = {}
        self._farewells: dict[Job, list[tuple[float, signal.Signals]]] = {}
        self._numbers = iter(range(70_001, 10**9))
        self._stopping = threading.Event()
        self._heart = threading.Thread(target=self._live, name="cluster")
        self.policy = Policy()

    def start(self) -> None:
        """Begin to work."""
        self._heart.start()

    def stop(self) -> None:
        """End everything."""
        self._stopping.set()
        self._heart.join()
        with self.lock:
            for job, process in self._processes.items():
                self._signal(job, signal.SIGKILL)
                process.wait()

    def wait(self, seconds: float) -> None:
        """Let some time pass."""
        self._stopping.wait(seconds)

    # ----------------------------------------------------------------- what users see

    def submit(
        self,
        request: Request,
        elements: Sequence[Request] = (),
        indices: Sequence[int | None] = (),
    ) -> list[Job]:
        """Take a job or an array; the first one's number is that of all.

        ``elements``: one request for each of ``indices``, where they are not all the same.
        """
        with self.lock:
            number = next(self._numbers)
            if request.script:
                script = self._directory / f"{number}"
                script.write_text(request.script)
                script.chmod(0o755)
            indices = indices or request.indices or (None,)
            wanted = elements or [request] * len(indices)
            now = time.time()
            jobs = [
                Job(self, number, index, own, own.queue, own.held, submitted=now)
                for index, own in zip(indices, wanted, strict=True)
            ]
            self._jobs[number] = jobs
            self._waiting.update(dict.fromkeys(jobs))
            for job in jobs:
                self.policy.happened(job, "submitted")
            return jobs

    def listed(self) -> list[Job]:
        """What the queue shows: jobs that have not ended, and those that ended a while ago."""
        with self.lock:
            horizon = time.time() - self.terms.remembers
            return [
                job
                for job in self.all()
                if job.state is not State.ENDED or (self.terms.remembers and job.ended > horizon)
            ]

    def unfinished(self) -> list[Job]:
        """The jobs that have not ended."""
        with self.lock:
            return [*self._processes, *self._waiting]

    def accounted(self) -> list[Job]:
        """The jobs whose end has come through to the accounting."""
        with self.lock:
            horizon = time.time() - self.terms.accounting_lag
            return [job for job in self.all() if job.state is State.ENDED and job.ended <= horizon]

    def all(self) -> Iterator[Job]:
        """Every job that there ever was."""
        for jobs in self._jobs.values():
            yield from jobs

    def find(self, number: int, index: int | None = None) -> list[Job]:
        """The job or, without an index, all elements of the array."""
        jobs = self._jobs.get(number, [])
        return [job for job in jobs if index is None or job.index == index]

    def job_of_process(self, pid: int) -> Job:
        """The running job that a process belongs to."""
        leader = os.getsid(pid)
        with self.lock:
            return next(job for job in self._processes if job.pid == leader)

    # ----------------------------------------------------------------- what is done with jobs

    def cancel(self, job: Job, who: str) -> None:
        """Have a job ended, as a user may."""
        self._end(job, End.CANCELLED, who)

    def strike(self, job: Job, end: End) -> None:
        """Have a running job ended by fate: a limit, the node."""
        self._end(job, end, "")

    def hold(self, job: Job, who: str, why: str = "") -> None:
        """Have a waiting job not start."""
        with self.lock:
            job.held, job.why_held = who, why
            self.policy.happened(job, "held")

    def release(self, job: Job) -> None:
        """End ``hold``, and forget that it could not be started."""
        with self.lock:
            job.held = job.why_held = job.trouble = ""
            self.policy.happened(job, "released")

    def suspend(self, job: Job) -> None:
        """Have a running job stand still."""
        with self.lock:
            job.suspended = True
            self._signal(job, signal.SIGSTOP)

    def resume(self, job: Job) -> None:
        """End ``suspend``."""
        with self.lock:
            job.suspended = False
            self._signal(job, signal.SIGCONT)

    def give_up(self, job: Job) -> None:
        """End a job that cannot be started."""
        with self.lock:
            self._over(job, End.NOT_STARTED)

    def _end(self, job: Job, how: End, who: str) -> None:
        with self.lock:
            if job.state is State.ENDED or job.end is not None:
                return
            job.ended_by = who
            if job.state is State.WAITING:
                self._over(job, how)
                return
            job.end = how
            signals: Sequence[signal.Signals] = job.request.farewell
            if how in {End.OVER_MEMORY, End.NODE_FAILED}:
                signals = [signal.SIGKILL]
            if job.suspended:
                self.resume(job)
            now = time.monotonic()
            self._farewells[job] = [
                (now + step * self.terms.patience, signum) for step, signum in enumerate(signals)
            ]
            self._say_farewell(job)

    # ----------------------------------------------------------------- how it works

    def _live(self) -> None:
        while not self._stopping.wait(HEARTBEAT):
            with self.lock:
                for job in list(self._processes):
                    self._look_at(job)
                self._start_what_can()
                self.policy.beat()

    def _look_at(self, job: Job) -> None:
        process = self._processes[job]
        if (code := process.poll()) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)  # nothing may be left of it
            del self._processes[job]
            self._farewells.pop(job, None)
            job.status = code
            self._over(job, job.end or End.ITSELF)
        elif job in self._farewells:
            self._say_farewell(job)
        elif job.request.time is not None and time.time() - job.started > job.request.time:
            self.strike(job, End.OVER_TIME)

    def _say_farewell(self, job: Job) -> None:
        left = self._farewells[job]
        while left and left[0][0] <= time.monotonic():
            self._signal(job, left.pop(0)[1])

    def _start_what_can(self) -> None:
        busy = sum(job.request.cores for job in self._processes)
        for job in list(self._waiting):
            if busy >= self.terms.slots:
                break
            if self._is_enough_of(job) or not self.policy.may_start(job):
                continue
            if busy + job.request.cores <= self.terms.slots:
                busy += job.request.cores
                self._start(job)

    def _is_enough_of(self, job: Job) -> bool:
        limit = job.request.at_once
        return limit is not None and limit <= sum(
            other.number == job.number for other in self._processes
        )

    def _start(self, job: Job) -> None:
        request = job.request
        try:
            with (
                Path(request.output).open("ab") as output,
                Path(request.errors).open("ab") as errors,
            ):
                process = subprocess.Popen(
                    request.command or [str(self._directory / f"{job.number}")],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    cwd=request.directory,
                    env={**request.environment, **self.policy.variables(job)},
                    start_new_session=True,
                )
        except OSError as error:
            self.policy.cannot_start(job, error)
            return
        del self._waiting[job]
        self._processes[job] = process
        job.state, job.started, job.pid = State.RUNNING, time.time(), process.pid
        job.starts += 1
        self.policy.happened(job, "started")

    def _over(self, job: Job, how: End) -> None:
        if job.state is State.RUNNING and self.policy.returns(job, how):
            job.state, job.end = State.WAITING, None
            self._waiting[job] = None
            self.policy.happened(job, "returned")
            return
        self._waiting.pop(job, None)
        job.state, job.end, job.ended = State.ENDED, how, time.time()
        self.policy.happened(job, "ended")

    def _signal(self, job: Job, signum: signal.Signals) -> None:
        """To all processes of the job: those of its session."""
        for pid in _session(job.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)


def _session(leader: int) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(after_name[3]) == leader:
                yield int(entry.name)
