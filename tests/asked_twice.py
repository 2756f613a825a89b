"""Databases whose tables a test asks for in two ways: by a command and by plain SQL.

One is made by real managers, one by chance; the seed of that is printed, and ``TABLES_SEED`` gives
the same again.
"""

from __future__ import annotations

import io
import json
import os
import random
import sqlite3
import sys
from contextlib import closing, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from bookkeeping import ANY, Bookkeeping, failed, finish, intended, released, run_job, submitted
from laboratory import laboratory, spoil

from production.cli import main
from production.model import Failed

Rows = list[dict[str, Any]]
REASONS = ("bank ADC{} is damaged", "no event in run{:05d}.mid", "exit code {}", "took {} s")


class Database:
    """A database that a test asks in two ways."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def table(self, *arguments: str, code: int = 0) -> Rows:
        """``production COMMAND --output=json``."""
        found: Rows = json.loads(self.printed(*arguments, "--output=json", code=code))
        return found

    def printed(self, *arguments: str, code: int = 0) -> str:
        """What a command prints that ends with ``code``."""
        out = io.StringIO()
        with redirect_stdout(out):
            assert main([*arguments, f"--database={self.path}"]) == code
        return out.getvalue()

    def sql(self, query: str) -> Rows:
        """Rows by their columns' names."""
        with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query)]


def make_real(directory: Path) -> Path:
    """Two productions by real managers: jobs that fail once, always, or never."""
    with laboratory(directory, "2091-2096") as lab:
        lab.configure(defaults="pause = 0.1\nback_off = 0.1\nmax_attempts = 2")
        lab.add_runs("Al50", "2095-2099", "--quality=gold", "--tranche=2")
        lab.add_runs("Ti", "2110", "--quality=silver")
        spoil(
            lab,
            "alcapana",
            '[[ $RUN != 2093 ]] || { echo "bank ADC0 is damaged" >&2; exit 4; }',
            f"[[ $RUN != 2095 || -e {lab.home}/tried ]] || {{ touch {lab.home}/tried; exit 5; }}",
        )
        said = lab.run("--production=alcapana", "--new=v1", "--quality=any", "--dataset=SiR2")
        assert said.code == 40, said
        assert lab.run("--production=alcapana", "--dataset=Al50").code == 40
        lab.finish("--production=rootana", "--new=v1", "--quality=any")
        return lab.database


def make_up(directory: Path) -> Path:
    """What could have become of 60 runs in five datasets, by chance."""
    seed = int(os.environ.get("TABLES_SEED", random.SystemRandom().randrange(10**9)))
    sys.stdout.write(f"TABLES_SEED={seed}\n")
    chance = random.Random(seed)
    books = Bookkeeping(directory)
    for name in ("SiR2", "Al50", "Ti", "Pb", "a,b"):
        runs = chance.sample(range(2000, 2060), 20)
        books.label(runs, name, quality=chance.choice(["gold", "silver"]))
    base = books.start(wanted=ANY)
    productions = [base, books.start(wanted=ANY)]
    stores = [books.manager(chance.choice(productions)) for _ in range(4)]
    for _ in range(chance.randrange(30, 60)):
        store = chance.choice(stores)
        for claim in store.claim(chance.randrange(1, 6), ANY):
            what = chance.randrange(8)
            if what < 3:
                finish(store, claim)
            elif what < 5:
                if chance.random() < 0.8:
                    run_job(store, claim)
                reason = chance.choice(REASONS).format(chance.choice([claim.run, 4]))
                change: Failed = replace(
                    failed(claim, max_attempts=chance.randrange(1, 4)), reason=reason
                )
                store.apply([change])
            elif what == 5:
                store.apply([released(claim)])
            elif what == 6:
                store.apply([intended(claim), submitted(claim)])
    books.start("rootana", base=base, wanted=ANY)
    books.db.close()
    return books.path


def in_order(rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


def without(rows: Rows, *names: str) -> Rows:
    return [{k: v for k, v in row.items() if k not in names} for row in rows]
