"""`production wait` tells scripts by its exit code what has become of a production."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bookkeeping import GOLD, Bookkeeping, bookkeeping, failed, finish, processes, run_job
from laboratory import PROJECT

from production.cli import main
from production.errors import DatabaseTrouble, ProductionError
from production.model import Production, Status
from production.store import connection
from production.store.connection import Database
from production.store.reports import standing as standing_module
from production.store.reports.standing import Standing, Worker
from production.store.reports.until import parse_condition

REACHED, IN_TIME, IN_VAIN = 0, 50, 51


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Bookkeeping]:
    with bookkeeping(tmp_path) as books:
        books.label(range(4))
        books.start()
        yield books


def wait(books: Bookkeeping, *arguments: str) -> int:
    return main(
        ["wait", "--production=alcapana", "--pause=0.05", *arguments, f"--database={books.path}"]
    )


def standing(counts: dict[Status, int], workers: int = 0, beating: bool = True) -> Standing:
    one = Worker(1, 1, "me", "here", 1, None, None, 600, beating, 0.0)
    production = Production(1, "alcapana", 1, "tag", None, None, None)
    return Standing(production, "me", counts, None, None, (one,) * workers)


N, C, R, F, E = Status


@pytest.mark.parametrize(
    ("text", "counts", "workers", "met", "can_come"),
    [
        ("done", {N: 1, F: 3}, 0, False, True),
        ("done", {E: 1, F: 3}, 0, True, True),
        ("done", {R: 1}, 0, False, True),
        ("finished", {F: 3}, 0, True, True),
        ("finished", {F: 3, E: 1}, 0, False, False),
        ("finished", {F: 2999, C: 1}, 1, False, True),
        ("idle", {N: 2}, 0, True, True),
        ("idle", {F: 2}, 1, False, True),
        ("failed>5", {E: 5, N: 1}, 0, False, True),
        ("failed>5", {E: 6, N: 1}, 0, True, True),
        ("failed>5", {E: 5, F: 1}, 1, False, False),
        ("finished >= 2", {F: 2, N: 1}, 0, True, True),
        ("running<2", {R: 2}, 0, False, True),
        ("claimed=0", {R: 2}, 0, True, True),
        ("new<=3", {N: 3}, 0, True, True),
        ("left=1", {N: 1, F: 9}, 0, True, True),
        ("percent>=50", {F: 1, N: 1}, 0, True, True),
        ("percent>33.3", {F: 1, N: 2}, 0, True, True),
        ("percent>=57", {F: 57, N: 43}, 0, True, True),
        ("percent<100", {}, 0, True, True),
        ("managers>1", {N: 1}, 2, True, True),
        ("managers>1", {F: 1}, 0, False, False),
        (" done ", {F: 1}, 0, True, True),
    ],
)
def test_conditions(
    text: str, counts: dict[Status, int], workers: int, met: bool, can_come: bool
) -> None:
    now = standing(counts, workers)
    condition = parse_condition(text)
    assert condition.is_met(now) == met
    assert met or condition.can_come(now) == can_come


def test_a_dead_manager_is_not_at_work() -> None:
    assert parse_condition("idle").is_met(standing({N: 1}, 1, beating=False))


@pytest.mark.parametrize("text", ["", "soon", "failed", "failed>", "failed>x", "failed!5", "E>5"])
def test_what_is_no_condition(
    books: Bookkeeping, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wait(books, f"--until={text}") == 2
    assert "is nothing to wait for" in capsys.readouterr().err


def test_not_in_time(books: Bookkeeping, capsys: pytest.CaptureFixture[str]) -> None:
    assert wait(books, "--timeout=0.2s") == IN_TIME
    said = capsys.readouterr()
    assert said.err.count("no manager is at work; waiting for one") == 1
    assert "alcapana_v1: done was not reached within 0.2 s; 4 N" in said.err
    assert said.out == ""


def test_reached(books: Bookkeeping, capsys: pytest.CaptureFixture[str]) -> None:
    store = books.manager(books_production(books))
    for claim in store.claim(3, GOLD):
        finish(store, claim)
    (last,) = store.claim(1, GOLD)
    assert wait(books, "--until=failed>0", "--until=finished>=3") == REACHED
    assert capsys.readouterr().out == "alcapana_v1: finished>=3; 1 C, 3 F\n"
    run_job(store, last)
    store.apply([failed(last, max_attempts=1)])
    assert wait(books) == REACHED
    assert capsys.readouterr().out == "alcapana_v1: done; 3 F, 1 E\n"


def test_times_are_written_in_every_form(books: Bookkeeping) -> None:
    """``0`` looks once; ``10m`` is as good as 600."""
    books_production(books)
    assert wait(books, "--timeout=0") == IN_TIME
    assert wait(books, "--timeout=0", "--pause=1m") == IN_TIME
    assert wait(books, "--timeout=0", "--pause=.5") == IN_TIME
    for wrong in ("--pause=2h", "--pause=0", "--timeout=-1", "--timeout=inf", "--timeout=soon"):
        assert wait(books, wrong) == 2
    assert main(["vacuum", "--wait=0", f"--database={books.path}"]) == 0


def locked(books: Bookkeeping) -> Callable[[], None]:
    """An SQLite shell has a transaction open; what ends it."""
    other = sqlite3.connect(books.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    return other.close


def moved_away(books: Bookkeeping) -> Callable[[], None]:
    """As a file server does that is gone for a while; what brings it back."""
    away = books.path.with_name("away")
    books.path.rename(away)
    return lambda: os.rename(away, books.path)  # noqa: PTH104


@pytest.mark.slow
@pytest.mark.parametrize("trouble", [locked, moved_away])
def test_trouble_with_the_file_is_waited_through(
    books: Bookkeeping,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[Bookkeeping], Callable[[], None]],
) -> None:
    """It is told once."""
    store = books.manager(books_production(books))
    troubles: list[str] = []

    def looked(db: Database, production: Production) -> Standing:
        db.patience = 0.1
        if not ends:
            ends.append(trouble(books))
        try:
            return look(db, production)
        except ProductionError as error:
            troubles.append(str(error))
            if len(troubles) == 3:
                ends[0]()
                for claim in store.claim(4, GOLD):
                    finish(store, claim)
            raise

    look = standing_module.standing
    monkeypatch.setattr(standing_module, "standing", looked)
    monkeypatch.setattr(connection, "GLITCH", 0.1)
    ends: list[Callable[[], None]] = []
    assert wait(books) == REACHED
    said = capsys.readouterr()
    assert said.out == "alcapana_v1: done; 4 F\n"
    assert said.err.count(". Waiting\n") == 1
    assert len(troubles) == 3


def test_trouble_that_lasts_longer_than_one_would_wait(
    books: Bookkeeping, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def trouble(_db: Database, _production: Production) -> Standing:
        nonlocal looks
        looks += 1
        raise DatabaseTrouble(path=books.path, what="disk I/O error")

    monkeypatch.setattr(standing_module, "standing", trouble)
    assert wait(books, "--timeout=0") == DatabaseTrouble.exit_code
    assert looks == 1
    assert wait(books, "--timeout=0.2") == DatabaseTrouble.exit_code
    assert looks > 2
    assert capsys.readouterr().err.count(". Waiting\n") == 1


def test_in_vain(books: Bookkeeping, capsys: pytest.CaptureFixture[str]) -> None:
    store = books.manager(books_production(books))
    for claim in store.claim(4, GOLD):
        run_job(store, claim)
        store.apply([failed(claim, max_attempts=1)])
    assert wait(books, "--until=finished", "--until=failed>4") == IN_VAIN
    said = capsys.readouterr().err
    assert "finished, failed>4 cannot be reached any more" in said
    assert "4 E" in said


def test_a_production_that_is_not_there(books: Bookkeeping) -> None:
    assert wait(books, "--version=7") == 18


@pytest.mark.slow
def test_what_comes_while_it_waits_is_noticed(books: Bookkeeping) -> None:
    argv = [sys.executable, "-m", "production", "wait", "--production=alcapana"]
    argv += ["--until=finished", "--pause=0.05", f"--database={books.path}"]
    waiting = subprocess.Popen(
        argv,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin"},
    )
    with processes([waiting]):
        assert waiting.stderr is not None
        assert "no manager is at work" in waiting.stderr.readline()
        store = books.manager(books_production(books))
        for claim in store.claim(4, GOLD):
            assert waiting.poll() is None
            finish(store, claim)
        out, err = waiting.communicate(timeout=120)
    assert (waiting.returncode, out) == (REACHED, "alcapana_v1: finished; 4 F\n"), err


def books_production(books: Bookkeeping) -> Production:
    from production.store import productions

    return productions.find(books.db, "alcapana")
