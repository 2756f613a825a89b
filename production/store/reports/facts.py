"""What the bookkeeping knows of the reasons why runs do not go on.  Nothing is decided here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from production.model import Production, RunFilter, Status
from production.store import productions
from production.store.connection import Database, utc_text
from production.store.requests import START
from production.units import parse_fraction

TAIL = 3000  # latest attempts in the database, among which those of runs that rest are
MOST = 1000  # runs of a dataset and quality that are counted


@dataclass(frozen=True)
class Asked:
    """What users have asked of a manager, and it has done: how it was started, and since then."""

    takes: RunFilter | None = None  # None: not known
    paused: bool = False
    stopping: bool = False  # stop, leave or kill
    nproc: int | None = None
    spacelim: float | None = None
    queue: str | None = None  # where its jobs go


@dataclass(frozen=True)
class Group:
    """The runs that can be claimed with the same labels; "": no dataset, or not judged."""

    dataset: str
    quality: str
    runs: int  # MOST: or more


@dataclass(frozen=True)
class Label:
    """A place of a run in a dataset."""

    dataset: str
    tranche: int | None
    quality: str | None


@dataclass(frozen=True)
class RunFacts:
    """One run in one production."""

    run: int
    status: Status | None  # None: it does not belong to the production
    attempt: int
    failures: int
    not_before: str | None
    outcome: str | None  # of the latest attempt
    reason: str | None
    user: str | None  # who claimed it for that
    stop: str | None
    labels: tuple[Label, ...]
    base: Status | None  # where it stands in the base; None: there is none, or it is not in it


def asked(db: Database, managers: Iterable[int]) -> dict[int, Asked]:
    """What each of these managers has been asked, as far as it still holds."""
    ids = list(managers)
    found: dict[int, dict[str, object]] = {id_: {} for id_ in ids}
    for manager, verb, argument in db.rows(
        "SELECT manager, verb, argument FROM request "
        "WHERE manager IN (SELECT value FROM json_each(?)) AND done = 1 ORDER BY id",
        (json.dumps(ids),),
    ):
        known = found[manager]
        if verb == START:
            how = json.loads(argument)
            chosen = (tuple(how[name]) for name in ("dataset", "tranche", "quality"))
            known |= {"takes": RunFilter(*chosen), "nproc": how["nproc"]}
            known["spacelim"] = how["spacelim"]
        elif verb in ("pause", "resume"):
            known["paused"] = verb == "pause"
        elif verb in ("stop", "leave", "kill"):
            known["stopping"] = True
        elif verb == "nproc":
            known["nproc"] = int(argument)
        elif verb == "spacelim":
            known["spacelim"] = parse_fraction(argument)
        elif verb == "queue":
            known["queue"] = argument
    return {id_: Asked(**known) for id_, known in found.items()}  # type: ignore[arg-type]


def groups(db: Database, production: Production) -> list[Group]:
    """The runs that can be claimed, now or when they have rested, by dataset and quality.

    A run in two datasets is in two groups.
    """
    found = []
    key = ("", "")
    while True:
        # One step in the index for each, where GROUP BY would read all runs.
        row = db.row(
            "SELECT dataset, quality FROM unclaimed WHERE production = ? AND dataset = ? "
            "AND quality > ? ORDER BY quality LIMIT 1",
            (production.id, *key),
        ) or db.row(
            "SELECT dataset, quality FROM unclaimed WHERE production = ? AND dataset > ? "
            "ORDER BY dataset, quality LIMIT 1",
            (production.id, key[0]),
        )
        if row is None:
            break
        key = (row[0], row[1])
        found.append(_group(db, production, *key))
    alone = _group(db, production, "", "")  # runs without any label
    return [alone, *found] if alone.runs else found


def _group(db: Database, production: Production, dataset: str, quality: str) -> Group:
    row = db.row(
        "SELECT count(*) FROM (SELECT 1 FROM unclaimed "
        "WHERE production = ? AND dataset = ? AND quality = ? LIMIT ?)",
        (production.id, dataset, quality, MOST),
    )
    return Group(dataset, quality, row[0] if row else 0)


def waiting_for_base(
    db: Database, production: Production, new: int, found: Sequence[Group]
) -> int | None:
    """How many of the ``new`` runs at N their base has not finished; None: not found out.

    Where very many can be claimed, to count them all would take long, and explain nothing.
    """
    if production.base is None:
        return 0
    if any(group.runs >= MOST for group in found):
        return None
    row = db.row("SELECT count(DISTINCT run) FROM unclaimed WHERE production = ?", (production.id,))
    return new - (row[0] if row else 0)


def resting(db: Database, production: Production, now: float) -> tuple[int, str | None]:
    """How many runs wait after a failure, and when the first may be claimed again.

    Among those of the latest attempts in the database.
    """
    row = db.row(
        """
        SELECT count(*), min(r.not_before)
        FROM attempt a NOT INDEXED CROSS JOIN run r
          ON r.production = a.production AND r.run = a.run AND r.attempt = a.attempt
        WHERE a.id > (SELECT max(id) FROM attempt) - ? AND a.production = ?
          AND r.status = 'N' AND r.not_before > ?
        """,
        (TAIL, production.id, utc_text(now)),
    )
    return (row[0], row[1]) if row else (0, None)


def base_of(db: Database, production: Production) -> Production | None:
    """The production whose outputs are the inputs of this one."""
    row = db.row("SELECT base_type, base FROM productions WHERE id = ?", (production.id,))
    if row is None or row["base"] is None or row["base_type"] is None:
        return None
    return productions.find(db, row["base_type"], row["base"])


def at_error(db: Database, production: Production) -> tuple[int, str] | None:
    """A run at E, the first one, and why it failed."""
    row = db.row(
        """
        SELECT r.run, coalesce(a.reason, 'its reason is not recorded')
        FROM run r INDEXED BY run_at_error LEFT JOIN attempt a
          ON a.production = r.production AND a.run = r.run AND a.attempt = r.attempt
        WHERE r.status = 'E' AND r.production = ? ORDER BY r.run LIMIT 1
        """,
        (production.id,),
    )
    return (row[0], row[1]) if row else None


def of_run(db: Database, production: Production, base: Production | None, run: int) -> RunFacts:
    """What is known of one run, which need not belong to the production."""
    row = db.row(
        """
        SELECT r.status, r.attempt, r.failures, r.not_before, a.outcome, a.reason, m.user, a.stop
        FROM run r LEFT JOIN attempt a
          ON a.production = r.production AND a.run = r.run AND a.attempt = r.attempt
        LEFT JOIN manager m ON m.id = a.manager
        WHERE r.production = ? AND r.run = ?
        """,
        (production.id, run),
    )
    labels = tuple(
        Label(*label)
        for label in db.rows(
            "SELECT dataset, tranche, quality FROM datasets WHERE run = ? ORDER BY dataset", (run,)
        )
    )
    below = base and db.row(
        "SELECT status FROM run WHERE production = ? AND run = ?", (base.id, run)
    )
    in_base = Status(below[0]) if below else None
    if row is None:
        return RunFacts(run, None, 0, 0, None, None, None, None, None, labels, in_base)
    facts = dict(row)
    return RunFacts(
        run=run, status=Status(facts.pop("status")), labels=labels, base=in_base, **facts
    )
