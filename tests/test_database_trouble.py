"""The shared file when something is wrong with it, and when others have it locked."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from bookkeeping import (
    GOLD,
    PROJECT,
    Bookkeeping,
    answer,
    bookkeeping,
    processes,
    python,
    says,
    tell,
)

from production.errors import (
    DatabaseLocked,
    DatabaseMissing,
    DatabaseReadOnly,
    DatabaseTooNew,
    DatabaseTooOld,
    DatabaseTrouble,
    Interrupted,
    NotADatabase,
    StoreError,
)
from production.store import connection
from production.store.connection import SCHEMA_VERSION, Database, utc_now, utc_text

# Somebody's session: it takes a lock by the first statement, and gives it back when told to.
SESSION = """
    import sqlite3, sys
    session = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
    session.execute("PRAGMA cache_size = 5")
    cursor = session.execute(sys.argv[2])
    for statement in sys.argv[3:]:
        cursor = session.execute(statement)
    cursor.fetchone()
    print("locked", flush=True)
    sys.stdin.readline()
    cursor.fetchall()
    if session.in_transaction:
        session.rollback()
    print("free", flush=True)
"""
READS = "SELECT run FROM datasets"
WRITES = "BEGIN IMMEDIATE"
LOCKS_ALL = "BEGIN EXCLUSIVE"


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Bookkeeping]:
    with bookkeeping(tmp_path) as books:
        books.label(range(2000, 3000))
        yield books


@contextmanager
def session(books: Bookkeeping, *statements: str) -> Iterator[subprocess.Popen[str]]:
    """Somebody's session that has the file locked."""
    process = python(SESSION, books.path, *statements)
    with processes([process]):
        says(process, "locked")
        yield process


def add_a_run(db: Database, run: int = 1) -> None:
    with db.write() as tx:
        tx.execute("INSERT INTO datasets (run, dataset) VALUES (?, 'SiR2')", (run,))


def runs(db: Database) -> int:
    return int(db.rows("SELECT count(*) FROM datasets")[0][0])


# --------------------------------------------------------------------------- opening


def missing(path: Path) -> None:
    path.unlink()


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def text(path: Path) -> None:
    path.write_text("run,dataset\n" * 1000)


def pragma(text: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with closing(sqlite3.connect(path)) as session:
            session.execute(f"PRAGMA {text}").fetchall()

    return spoil


@pytest.mark.parametrize(
    ("spoil", "error", "what"),
    [
        (missing, DatabaseMissing, r"does not exist. Create it with: production init"),
        (directory, NotADatabase, r"it is not a file"),
        (pipe, NotADatabase, r"it is not a file"),
        (text, NotADatabase, r"file is not a database"),
        (pragma("application_id = 7"), NotADatabase, r"it has none of its tables"),
        (
            pragma(f"user_version = {SCHEMA_VERSION + 1}"),
            DatabaseTooNew,
            rf"version {SCHEMA_VERSION + 1}, this program knows .* {SCHEMA_VERSION}\.",
        ),
        (
            pragma("user_version = 1"),
            DatabaseTooOld,
            rf"version 1, this program needs {SCHEMA_VERSION}\.",
        ),
        (pragma("journal_mode = WAL"), StoreError, r'WAL mode.*"PRAGMA journal_mode=DELETE"'),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("readonly", [False, True])
def test_what_is_wrong_is_said_when_the_file_is_opened(
    tmp_path: Path,
    spoil: Callable[[Path], None],
    error: type[StoreError],
    what: str,
    readonly: bool,
) -> None:
    books = Bookkeeping(tmp_path)
    books.db.close()
    spoil(books.path)
    with pytest.raises(error, match=what) as raised:
        Database(books.path, readonly=readonly)
    assert type(raised.value) is error
    assert str(books.path) in str(raised.value)


def test_a_name_that_looks_like_options_is_a_name(tmp_path: Path) -> None:
    strange = tmp_path / "a?mode=memory&x#y%41 µ"
    strange.mkdir()
    with bookkeeping(strange) as books:
        books.label([1])
        assert [*strange.iterdir()] == [books.path]


def test_reading_only_changes_nothing(books: Bookkeeping) -> None:
    commits = books.commits()
    with Database(books.path, readonly=True) as db:
        assert runs(db) == 1000
        with pytest.raises(DatabaseReadOnly):
            add_a_run(db)
    assert books.commits() == commits


def test_closing_twice_is_harmless(books: Bookkeeping) -> None:
    with Database(books.path) as db:
        db.close()


# --------------------------------------------------------------------------- transactions


def test_a_transaction_is_recorded_as_a_whole_or_not_at_all(books: Bookkeeping) -> None:
    for trouble in (ValueError(), KeyboardInterrupt(), Interrupted(signal.SIGTERM)):
        with pytest.raises(type(trouble)), books.db.write() as tx:
            tx.execute("DELETE FROM datasets")
            raise trouble
        with pytest.raises(sqlite3.IntegrityError), books.db.write() as tx:
            tx.execute("DELETE FROM datasets")
            tx.execute("INSERT INTO datasets (run, dataset) VALUES (1, '')")
    assert runs(books.db) == 1000
    add_a_run(books.db)
    assert runs(books.db) == 1001


def test_what_is_read_is_read_to_its_end(books: Bookkeeping) -> None:
    """An unfinished SELECT would keep writers out."""
    assert books.db.row("SELECT run FROM datasets ORDER BY run") is not None
    assert books.db.row("SELECT run FROM datasets WHERE run < 0") is None
    with closing(sqlite3.connect(books.path, timeout=0)) as other, other:
        other.execute("DELETE FROM datasets WHERE run = 2000")
    assert runs(books.db) == 999


def test_a_full_disk_loses_nothing(books: Bookkeeping) -> None:
    with books.db.write() as tx:
        pages = tx.execute("PRAGMA page_count").fetchone()[0]
        tx.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DatabaseTrouble, match=r"is full. Check the filesystem"):
        books.label(range(10_000, 20_000))
    assert runs(books.db) == 1000
    with books.db.write() as tx:
        tx.execute("PRAGMA max_page_count = 1000000")
    books.label(range(10_000, 20_000))
    assert runs(books.db) == 11_000


def test_times_are_utc_with_microseconds_as_sqlite_reads_them(books: Bookkeeping) -> None:
    assert utc_text(1391212799.25) == "2014-01-31 23:59:59.250000"
    assert utc_text(1391212799) == "2014-01-31 23:59:59.000000"
    assert books.cell("SELECT abs(julianday(?) - julianday('now')) < 0.01", utc_now()) == 1
    assert books.cell("SELECT strftime('%s', ?)", utc_text(1391212799.25)) == "1391212799"


# --------------------------------------------------------------------------- locked by others


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lock", "action"),
    [
        pytest.param([WRITES], add_a_run, id="a write behind a write"),
        pytest.param([LOCKS_ALL], add_a_run, id="a write behind an exclusive lock"),
        pytest.param([LOCKS_ALL], runs, id="reading behind an exclusive lock"),
        pytest.param([READS], add_a_run, id="a commit behind a reader"),
        pytest.param(
            [WRITES, "UPDATE datasets SET tranche = 5"], runs, id="reading behind a large write"
        ),
    ],
)
def test_whoever_waits_for_a_lock_goes_on_when_it_is_free(
    books: Bookkeeping, lock: list[str], action: Callable[[Database], object]
) -> None:
    looks = 0
    with session(books, *lock) as other:

        def check() -> None:
            nonlocal looks
            looks += 1
            if looks == 3:
                tell(other)

        books.db.check = check
        books.db.patience = math.inf
        action(books.db)
        says(other, "free")
    assert looks >= 3
    assert books.cell("SELECT count(*) FROM datasets WHERE tranche IS NOT NULL") == 0


@pytest.mark.slow
def test_a_long_wait_is_said_once(books: Bookkeeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SLOW", 0.1)
    said = looks = 0

    def on_wait(cause: str) -> None:
        nonlocal said
        assert cause.startswith("The database is locked by process ")
        said += 1

    for wait in (1, 2):
        looks = 0
        with session(books, WRITES) as other:

            def check(other: subprocess.Popen[str] = other) -> None:
                nonlocal looks
                looks += 1
                if looks == 30:
                    tell(other)

            books.db.check, books.db.on_wait = check, on_wait
            add_a_run(books.db, wait)
        assert said == wait
    add_a_run(books.db, 3)
    assert said == 2


def test_where_asking_is_slow_it_is_asked_seldom(tmp_path: Path) -> None:
    """Else those who wait keep a file server busy that the one who has the lock waits for."""
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        time.sleep(0.01)
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    with pytest.raises(DatabaseLocked):
        connection.patiently(ask, tmp_path, patience=0.9)
    assert 2 < asked < 18  # twice as often when every pause is the shortest


@pytest.mark.parametrize(
    ("tries", "cost", "seconds"),
    [
        pytest.param(1, 0.0001, 0.003, id="a disk of one's own, soon again"),
        pytest.param(50, 0.0001, 0.03, id="a disk of one's own, after many others"),
        pytest.param(1, 0.01, 0.02, id="a file server, soon again"),
        pytest.param(10, 0.01, 0.2, id="a file server, after many others"),
        pytest.param(10, 3.0, 0.6, id="a file server that hardly answers"),
    ],
)
def test_pauses_between_questions(tries: int, cost: float, seconds: float) -> None:
    assert connection.pause(tries, cost) == pytest.approx(seconds)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lock", "action"), [(WRITES, add_a_run), (LOCKS_ALL, runs), (READS, add_a_run)]
)
def test_patience_has_an_end(
    books: Bookkeeping, lock: str, action: Callable[[Database], object]
) -> None:
    books.db.patience = 0.5
    with session(books, lock) as other:
        with pytest.raises(DatabaseLocked, match=r"stayed locked for \d+ s.*nothing is lost"):
            action(books.db)
        tell(other)
        says(other, "free")
    assert runs(books.db) == 1000
    add_a_run(books.db)


@pytest.mark.parametrize(
    ("lock", "action"), [(WRITES, add_a_run), (LOCKS_ALL, runs), (READS, add_a_run)]
)
def test_waiting_can_be_interrupted(
    books: Bookkeeping, lock: str, action: Callable[[Database], object]
) -> None:
    def check() -> None:
        raise Interrupted(signal.SIGTERM)

    books.db.check, books.db.patience = check, math.inf
    with session(books, lock) as other:
        with pytest.raises(Interrupted):
            action(books.db)
        tell(other)
        says(other, "free")
    books.db.check = lambda: None
    add_a_run(books.db)
    assert runs(books.db) == 1001


@pytest.mark.slow
def test_ctrl_c_ends_a_command_that_waits(books: Bookkeeping) -> None:
    with session(books, WRITES):
        command = subprocess.Popen(
            [
                *(sys.executable, "-m", "production", "datasets", "add", "SiR2", "1-9"),
                f"--database={books.path}",
            ],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A background job of a shell ignores it, and its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        with processes([command]):
            assert command.stderr is not None
            assert "The database is locked by" in command.stderr.readline()
            command.send_signal(signal.SIGINT)
            out, err = command.communicate(timeout=30)
    assert (command.returncode, out, err) == (130, "", "")
    assert runs(books.db) == 1000


OPENER = """
    import sys
    from pathlib import Path
    from production.store.connection import Database
    from production.store.migrations import migrate

    print("opening", flush=True)
    path = Path(sys.argv[1])
    if sys.argv[2] == "migrate":
        migrate(path)
    else:
        Database(path, readonly=sys.argv[2] == "read").close()
    print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["read", "write", "migrate"])
def test_opening_waits_as_well(books: Bookkeeping, how: str) -> None:
    with session(books, LOCKS_ALL) as other:
        opener = python(OPENER, books.path, how)
        with processes([opener]):
            says(opener, "opening")
            time.sleep(1)  # longer than SQLite itself waits
            assert opener.poll() is None
            tell(other)
            assert answer(opener) == "done\n"


# --------------------------------------------------------------------------- killed writers


@pytest.mark.slow
@pytest.mark.parametrize("readonly", [True, False])
def test_what_a_killed_writer_left_half_done_is_undone(books: Bookkeeping, readonly: bool) -> None:
    with session(books, LOCKS_ALL, "UPDATE datasets SET tranche = 5") as other:
        other.kill()
        other.wait()
    assert books.path.with_name("production.db-journal").exists()
    with Database(books.path, readonly=readonly) as db:
        assert db.rows("SELECT count(*) FROM datasets WHERE tranche IS NULL")[0][0] == 1000
    assert not books.path.with_name("production.db-journal").exists()


WORKER = """
    import sys
    from pathlib import Path
    from production.model import Failed, Finished, JobRecord, Released, RunFilter, Submitted
    from production.store import managers, productions
    from production.store.connection import Database
    from production.identity import this_process
    from production.store.runs import RunStore

    with Database(Path(sys.argv[1])) as db:
        production = productions.find(db, "alcapana")
        me = managers.register(db, this_process(), production.id)
        store = RunStore(db, production, me)
        watch = managers.LeaseWatch()
        print("begun", flush=True)
        while True:
            for dead in watch.dead(managers.holders(db, production.id, me)):
                store.apply([Released(o.claim, "orphan") for o in store.take_over(dead.id)])
            claims = store.claim(3, RunFilter())
            if not claims and not managers.holders(db, production.id, me):
                break
            record = JobRecord("done", 0, None, "node1", "", "", "", None, None, ())
            for make in (
                lambda claim: Submitted(claim, f"job {claim.token}"),
                lambda claim: Finished(claim, record, Path("o"), Path("e")),
            ):
                assert store.apply([make(claim) for claim in claims]) == []
        managers.sign_off(db, me)
"""


@pytest.mark.slow
def test_kills_at_any_moment_lose_and_double_nothing(books: Bookkeeping) -> None:
    production = books.start()
    started: list[subprocess.Popen[str]] = []
    with processes(started):
        for kill in range(12):
            started.append(python(WORKER, books.path))
            says(started[-1], "begun")
            time.sleep(0.003 * kill)
            started[-1].kill()
            started[-1].wait()
            assert books.rows("PRAGMA quick_check") == [("ok",)]
        last = [python(WORKER, books.path) for _ in range(2)]
        started += last
        for process in last:
            answer(process)
    assert books.rows("SELECT status, count(*) FROM run GROUP BY 1") == [("F", 1000)]
    assert (
        books.cell("SELECT count(*) FROM attempt WHERE outcome = 'finished'") == 1000
    )  # each run once; what a killed one held was rolled back
    assert books.cell("SELECT stop FROM productions") is not None
    assert books.manager(production).claim(1, GOLD) == []
