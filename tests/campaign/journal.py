"""What each manager of a campaign writes down: what it was granted, what it recorded, and when.

It is loaded into the manager's process before the program, so it sees what the store is asked and
what it answers.  A line is written by one call, so a manager that is killed leaves whole lines.

It also carries out *orders* that only the manager itself can follow to the point: to be killed or
stopped in the very moment before, or after, it records that runs are finished.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from production.manager import loop, recovery
from production.manager.desk import Desk
from production.model import Change, Claim, Finished, Orphan, RunFilter
from production.store import connection
from production.store.runs import RunStore

REPAIR_EVERY = 1.0  # seconds; the product's own half minute would make campaigns long
ORDERS = ("stop before", "kill before", "kill after")


def order_file(site: Path, host: str) -> Path:
    """Where the next order for a manager of that host is laid down."""
    return site / "orders" / host


def journal_file(site: Path, manager: str) -> Path:
    """A manager's journal; it is named HOST.NUMBER."""
    return site / "journal" / manager


class Journal:
    """The journal of the manager that this process is going to be."""

    def __init__(self) -> None:
        site, name = Path(os.environ["EXPERIMENT"]), os.environ["CAMPAIGN_MANAGER"]
        self._ahead = float(os.environ["CAMPAIGN_AHEAD"])
        self._order = order_file(site, name.partition(".")[0])
        self._taken = site / "orders" / f"taken.{name}"
        self._file = journal_file(site, name).open("ab", buffering=0)

    def write(self, **what: object) -> None:
        """A line."""
        self._file.write(f"{json.dumps(what)}\n".encode())

    def now(self) -> float:
        """Seconds since the epoch by the machine's clock, whatever this host's shows."""
        return time.time() - self._ahead

    def next_order(self) -> str:
        """The order that lies here, if any; nobody else gets it."""
        try:
            self._order.rename(self._taken)
        except FileNotFoundError:
            return ""
        return self._taken.read_text()


def begin() -> None:
    """Have the manager that is about to start in this process keep a journal."""
    journal = Journal()
    loop.REPAIR_EVERY = REPAIR_EVERY
    _observe_store(journal)
    _observe_repair(journal)
    _observe_trouble(journal)


def _observe_store(journal: Journal) -> None:
    born, claim = RunStore.__init__, RunStore.claim
    take_over, apply = RunStore.take_over, RunStore.apply

    def observed_birth(self: RunStore, *arguments: Any) -> None:
        born(self, *arguments)
        journal.write(what="begin", manager=self.manager)

    def observed_claim(self: RunStore, count: int, wanted: RunFilter) -> list[Claim]:
        claims = claim(self, count, wanted)
        if claims:
            journal.write(what="granted", runs=[[c.run, c.token] for c in claims])
        return claims

    def observed_take_over(self: RunStore, dead: int, *more: Callable[..., bool]) -> list[Orphan]:
        orphans = take_over(self, dead, *more)
        if orphans:
            runs = [[orphan.claim.run, orphan.claim.token] for orphan in orphans]
            journal.write(what="granted", runs=runs, dead=dead, at=journal.now())
        return orphans

    def observed_apply(self: RunStore, changes: Sequence[Change]) -> list[Claim]:
        ends = [change.claim for change in changes if isinstance(change, Finished)]
        if not ends:
            return apply(self, changes)
        runs = [[end.run, end.token] for end in ends]
        journal.write(what="finishes", runs=runs)
        order = journal.next_order()
        _follow(order, "before")
        lost = set(apply(self, changes))
        _follow(order, "after")
        journal.write(
            what="told",
            accepted=[[end.run, end.token] for end in ends if end not in lost],
            refused=[[end.run, end.token] for end in ends if end in lost],
        )
        return [change.claim for change in changes if change.claim in lost]

    RunStore.__init__ = observed_birth  # type: ignore[method-assign, assignment]
    RunStore.claim = observed_claim  # type: ignore[method-assign]
    RunStore.take_over = observed_take_over  # type: ignore[method-assign, assignment]
    RunStore.apply = observed_apply  # type: ignore[method-assign]


def _follow(order: str, moment: str) -> None:
    if order == f"kill {moment}":
        os.kill(os.getpid(), signal.SIGKILL)
    elif order == f"stop {moment}":
        os.kill(os.getpid(), signal.SIGSTOP)


def _observe_repair(journal: Journal) -> None:
    repair = recovery.repair

    def observed_repair(desk: Desk) -> None:
        began = journal.now()
        repair(desk)
        holders = desk.db.rows("SELECT DISTINCT manager FROM run WHERE status IN ('C', 'R')")
        left = [row[0] for row in holders]
        journal.write(what="repair", began=began, ended=journal.now(), left=left)

    recovery.repair = observed_repair


def _observe_trouble(journal: Journal) -> None:
    explain = connection.explain

    def observed_explain(error: sqlite3.Error, path: Path) -> Exception:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        if "BUSY" not in name:
            journal.write(what="trouble", name=name)
        return explain(error, path)

    connection.explain = observed_explain
