"""What happens on one host of a campaign: managers are started, killed, stopped, started again.

Runs on that host, from the standard library alone, and prints what it does, a line of JSON each.
It begins with a ``Plan`` on its command line and ends when all runs are finished and all managers
have ended by themselves.  What it does is chosen by the seed; at which moment, by the progress of
the production.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

GLANCE = 0.05  # seconds between two looks at everything
PROGRESS_EVERY = 0.5  # seconds between two looks at the database
PATIENCE = 300.0  # seconds; only for the day on which managers do not end
# Leases after which a stopped manager goes on, or managers are started again where all were killed:
# if all their runs are in other hands, and if they are not.
LATE, LATEST = 1.5, 4.0

# What may happen where there are managers, and how often.
KILLS: Mapping[str, int] = {
    "manager": 11,
    "kill before": 2,  # it records that runs are finished
    "kill after": 2,
}
STOPS: Mapping[str, int] = {"stop": 1, "stop before": 1}
ALL = "all"  # managers of the host, which then has none until others have found that out


@dataclass(frozen=True)
class Plan:
    """What is to happen on a host."""

    host: str
    seed: int
    site: str  # the experiment's directory
    runs: int  # of the production
    lease: float  # seconds
    managers: int = 0  # that work at any time
    command: Sequence[str] = ()  # that starts one
    strikes: Sequence[str] = ()  # what happens, in this order
    ahead: float = 0.0  # seconds by which the host's clock is

    @classmethod
    def read(cls, text: str) -> Plan:
        """What ``text`` made."""
        return cls(**json.loads(text))

    def text(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


def strikes(chance: random.Random, *amounts: tuple[int, Mapping[str, int]]) -> list[str]:
    """So many of each, shared among them by their weights, in any order."""
    wanted = []
    for total, weights in amounts:
        left, rest = total, sum(weights.values())
        for name, weight in weights.items():
            share = round(left * weight / rest)
            wanted += [name] * share
            left, rest = left - share, rest - weight
    chance.shuffle(wanted)
    return wanted


@dataclass
class Managed:
    """A manager of this host."""

    name: str
    process: subprocess.Popen[bytes]
    stopped: float | None = None  # since when, if it is (monotonic)


@dataclass
class Torment:
    """A host's campaign."""

    plan: Plan
    managers: list[Managed] = field(default_factory=list)
    started: int = 0
    finished: int = 0  # runs
    holders: frozenset[int] = frozenset()  # pids of managers of this host that hold runs

    def __post_init__(self) -> None:
        self._chance = random.Random(f"{self.plan.seed} {self.plan.host}")
        self._site = Path(self.plan.site)
        self._order = self._site / "orders" / self.plan.host
        self._struck = 0
        self._alone = -math.inf  # since when the host has no managers (monotonic)
        self._strike_at = {
            "manager": self._kill_manager,
            ALL: self._kill_all,
            "stop": self._stop_manager,
            "payload": self._kill_payload,
            "wrapper": self._kill_wrapper,
        }

    def run(self) -> None:
        """Everything."""
        looked = 0.0
        while self.finished < self.plan.runs:
            self._reap(restart=True)
            self._wake()
            if time.monotonic() - looked > PROGRESS_EVERY:
                self._look()
                looked = time.monotonic()
            self._strike()
            time.sleep(GLANCE)
        self._end()

    def _tell(self, what: str, **more: object) -> None:
        at = time.time() - self.plan.ahead
        line = {"host": self.plan.host, "what": what, "at": at, **more}
        sys.stdout.write(f"{json.dumps(line)}\n")
        sys.stdout.flush()

    # ----------------------------------------------------------------- managers

    def _start(self) -> None:
        self.started += 1
        name = f"{self.plan.host}.{self.started}"
        own = {"CAMPAIGN_MANAGER": name, "CAMPAIGN_AHEAD": str(self.plan.ahead)}
        with (self._site / "said" / name).open("wb") as output:
            process = subprocess.Popen(
                self.plan.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **own},
                start_new_session=True,
            )
        self.managers.append(Managed(name, process))

    def _reap(self, *, restart: bool) -> None:
        for managed in list(self.managers):
            code = managed.process.poll()
            if code is not None:
                self.managers.remove(managed)
                self._tell("ended", manager=managed.name, code=code)
        if restart and self._has_lasted(self._alone, bool(self.holders)):
            while len(self.managers) < self.plan.managers:
                self._start()

    def _wake(self, *, all_of_them: bool = False) -> None:
        for managed in self.managers:
            if managed.stopped is None:
                if _state(managed.process.pid) == "T":  # by an order, which it has followed
                    self._is_stopped(managed, "stop before")
            elif all_of_them or self._has_lasted(
                managed.stopped, managed.process.pid in self.holders
            ):
                managed.stopped = None
                managed.process.send_signal(signal.SIGCONT)
                self._tell("goes on", manager=managed.name)

    def _has_lasted(self, since: float, holding: bool) -> bool:
        """Whether it is time to go on, for managers that still hold runs or do not any more."""
        return time.monotonic() - since > self.plan.lease * (LATEST if holding else LATE)

    def _is_stopped(self, managed: Managed, how: str) -> None:
        managed.stopped = time.monotonic()
        self._tell(how, manager=managed.name)

    def _look(self) -> None:
        """See how far the production is, and who holds runs."""
        database = self._site / "production.db"
        with contextlib.suppress(sqlite3.Error):  # locked: look again later
            connection = sqlite3.connect(f"file:{database}?mode=ro", timeout=1.0, uri=True)
            with contextlib.closing(connection):
                (self.finished,) = connection.execute(
                    "SELECT count(*) FROM run WHERE status = 'F'"
                ).fetchone()
                rows = connection.execute(
                    "SELECT pid FROM manager WHERE host = ? AND id IN (SELECT manager FROM run)",
                    (self.plan.host,),
                )
                self.holders = frozenset(pid for (pid,) in rows)

    def _end(self) -> None:
        self._order.unlink(missing_ok=True)
        deadline = time.monotonic() + PATIENCE
        while self.managers and time.monotonic() < deadline:
            self._wake(all_of_them=True)
            self._reap(restart=False)
            time.sleep(GLANCE)
        for managed in self.managers:
            self._tell("does not end", manager=managed.name)
            managed.process.kill()
            managed.process.wait()

    # ----------------------------------------------------------------- strikes

    def _strike(self) -> None:
        """What is due by the progress of the production; it stays due while there is no victim."""
        total = len(self.plan.strikes)
        if self._struck == total or self.finished * total < self.plan.runs * self._struck * 0.95:
            return
        what = self.plan.strikes[self._struck]
        strike = self._strike_at.get(what, lambda: self._give_order(what))
        if strike():
            self._struck += 1

    def _awake(self) -> list[Managed]:
        return [managed for managed in self.managers if managed.stopped is None]

    def _kill_manager(self) -> bool:
        victim = self._chance.choice(self._awake() or [None])
        if victim is None:
            return False
        time.sleep(self._chance.uniform(0, GLANCE))
        victim.process.kill()
        self._tell("manager", manager=victim.name)
        return True

    def _kill_all(self) -> bool:
        self._alone = time.monotonic()
        for managed in self.managers:
            managed.process.kill()
            self._tell(ALL, manager=managed.name)
        return bool(self.managers)

    def _stop_manager(self) -> bool:
        awake = self._awake()
        if len(awake) < 2:
            return False
        victim = self._chance.choice(awake)
        victim.process.send_signal(signal.SIGSTOP)
        self._is_stopped(victim, "stop")
        return True

    def _give_order(self, order: str) -> bool:
        if self._order.exists():
            return False
        draft = self._order.with_name(f"draft.{self.plan.host}")
        draft.write_text(order)
        draft.rename(self._order)
        self._tell(f"order: {order}")
        return True

    def _kill_payload(self) -> bool:
        script = str(self._site / "count.sh")
        return self._kill_one("payload", lambda words: script in words)

    def _kill_wrapper(self) -> bool:
        spools = str(self._site / "data" / "spool")
        return self._kill_one(
            "wrapper", lambda words: len(words) > 2 and words[2].startswith(spools)
        )

    def _kill_one(self, kind: str, fits: Callable[[Sequence[str]], bool]) -> bool:
        # Leaders of their groups: not a child that has not become what it is to be.
        victims = [pid for pid, words in _processes() if fits(words) and _leads(pid)]
        pid = self._chance.choice(victims or [0])
        attempt = _attempt_of(pid)
        if not attempt:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self._tell(kind, attempt=attempt)
        return True


def _processes() -> Iterator[tuple[int, Sequence[str]]]:
    """All processes of this host with their command lines."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            yield int(entry.name), words


def _state(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text[text.rindex(")") + 2]


def _leads(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid) == pid
    return False


def _attempt_of(pid: int) -> str:
    """The name of the attempt that a process of a job works for, '' when it has just ended."""
    with contextlib.suppress(OSError, IndexError):
        for word in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if word.startswith(b"PM_SPOOL="):
                return Path(word.decode()).name
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        return Path(words[2]).name
    return ""


if __name__ == "__main__":
    Torment(Plan.read(sys.argv[1])).run()
