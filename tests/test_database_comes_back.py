"""A manager's database that is full, gone or replaced for a while: waited for, and nothing lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bookkeeping import GOLD, Bookkeeping, bookkeeping, finished, intended, submitted
from experiment import Experiment, experiment
from job_orders import until

from production.errors import DatabaseDamaged, DatabaseTrouble, Interrupted
from production.store import connection, migrations
from production.store.lock_holder import lock_holder, writers


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bookkeeping]:
    """A manager's connection, which waits without end and soon says so."""
    monkeypatch.setattr(connection, "SLOW", 0.0)
    monkeypatch.setattr(connection, "TROUBLE_PAUSE", 0.01)
    with bookkeeping(tmp_path) as books:
        books.label([1, 2, 3])
        books.db.enduring, books.db.patience = True, float("inf")
        yield books


class Story:
    """What is said while one waits, and what happens at the third look."""

    def __init__(self, books: Bookkeeping, mend: object) -> None:
        self.said: list[str] = []
        self._looks = 0
        self._mend = mend
        books.db.on_wait = self.said.append
        books.db.check = self._look

    def _look(self) -> None:
        self._looks += 1
        if self._looks == 3:
            self._mend()  # type: ignore[operator]


def test_a_file_that_was_removed_and_comes_back(books: Bookkeeping, tmp_path: Path) -> None:
    store = books.manager(books.start())
    aside = tmp_path / "aside.db"
    books.path.rename(aside)
    story = Story(books, lambda: aside.rename(books.path))
    assert [claim.run for claim in store.claim(2, GOLD)] == [1, 2]
    assert story.said == [
        str(DatabaseTrouble(path=books.path, what="it was removed while it was in use"))
    ]


def test_a_copy_in_its_place_is_gone_on_with(books: Bookkeeping, tmp_path: Path) -> None:
    """As after a restore."""
    store = books.manager(books.start())
    (claim,) = store.claim(1, GOLD)
    copy = tmp_path / "copy.db"
    shutil.copy(books.path, copy)
    copy.replace(books.path)
    assert store.apply([intended(claim), submitted(claim), finished(claim)]) == []
    with sqlite3.connect(books.path) as other:
        assert other.execute("SELECT status FROM run WHERE run = 1").fetchone() == ("F",)
    other.close()


def test_another_database_in_its_place_is_left_alone(books: Bookkeeping, tmp_path: Path) -> None:
    store = books.manager(books.start())
    aside, other = tmp_path / "aside.db", tmp_path / "other.db"
    books.path.rename(aside)
    migrations.create(other)
    other.rename(books.path)
    before = books.path.read_bytes()

    def put_back() -> None:
        assert books.path.read_bytes() == before
        aside.replace(books.path)

    story = Story(books, put_back)
    assert [claim.run for claim in store.claim(2, GOLD)] == [1, 2]
    assert len(story.said) == 1
    assert "another database has taken its place while it was in use" in story.said[0]


def test_a_full_disk_is_waited_for(books: Bookkeeping, monkeypatch: pytest.MonkeyPatch) -> None:
    store = books.manager(books.start())
    full = True
    really_open = connection._open

    def open_(path: Path, readonly: bool) -> sqlite3.Connection:
        opened = really_open(path, readonly)
        if full:  # SQLite's own limit has the same consequence as the disk's
            pages = opened.execute("PRAGMA page_count").fetchone()[0]
            opened.execute(f"PRAGMA max_page_count = {pages}")
        return opened

    def make_room() -> None:
        nonlocal full
        full = False

    monkeypatch.setattr(connection, "_open", open_)
    books.db.rows("SELECT 1")
    books.db._sound = False  # the next use opens it anew, with the limit
    claims = store.claim(3, GOLD)
    story = Story(books, make_room)
    large = [intended(claim, modules="x" * 100_000) for claim in claims]
    assert store.apply(large) == []
    assert any("database or disk is full" in text for text in story.said)
    assert books.cell("SELECT count(*) FROM modules") == 1


def test_what_was_recorded_without_our_knowing_is_taken_in_hand(
    books: Bookkeeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a transaction may meet an I/O error and be recorded all the same."""
    store = books.manager(books.start())
    claims = store.claim(2, GOLD)  # ... and the answer never came
    forgotten = store.take_over(store.manager, lambda orphan: orphan.claim.run != 2)
    assert [orphan.claim.run for orphan in forgotten] == [1]
    assert forgotten[0].claim.token == claims[0].token + 1
    assert books.cell("SELECT stopped FROM manager") is None
    assert store.take_over(store.manager, lambda orphan: False) == []


def test_a_damaged_file_is_not_waited_for(books: Bookkeeping) -> None:
    books.start()
    size = books.path.stat().st_size
    books.db.rows("SELECT 1")
    with books.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    books.db._sound = False
    with pytest.raises((DatabaseDamaged, DatabaseTrouble), match=r"damaged|malformed"):
        books.db.rows("SELECT * FROM run")
    shutil.copy(_fresh(books), books.path)
    books.db._sound = False


def test_a_file_that_moves_under_a_transaction_is_no_matter_of_permissions(
    books: Bookkeeping, tmp_path: Path
) -> None:
    aside = tmp_path / "aside.db"
    with pytest.raises(DatabaseTrouble, match="moved or replaced"), books.db.write() as tx:
        books.path.rename(aside)
        tx.execute("UPDATE datasets SET tranche = 7")
    aside.rename(books.path)
    assert books.cell("SELECT count(*) FROM datasets WHERE tranche = 7") == 0


class Failing:
    """A read at which SQLite has this error so many times."""

    def __init__(self, times: int, code: int, what: str) -> None:
        self.times = times
        self._code = code
        self._what = what

    def __call__(self) -> str:
        self.times -= 1
        if self.times >= 0:
            error = sqlite3.DatabaseError(self._what)
            error.sqlite_errorcode = self._code
            raise error
        return "read"


def malformed(times: int) -> Failing:
    """SQLite says that as well when the kernel says EIO."""
    return Failing(times, sqlite3.SQLITE_CORRUPT, "database disk image is malformed")


def test_an_io_error_of_a_moment_is_no_trouble_to_anybody(
    books: Bookkeeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It happens on GlusterFS while somebody plays back the journal of one who was killed."""
    failing = Failing(2, sqlite3.SQLITE_IOERR_READ, "disk I/O error")
    really_open = connection._open

    def open_later(path: Path, readonly: bool) -> sqlite3.Connection:
        failing()
        return really_open(path, readonly)

    monkeypatch.setattr(connection, "_open", open_later)
    with connection.Database(books.path) as db:
        assert db.rows("SELECT count(*) FROM datasets")
    assert failing.times < 0
    failing.times = 10**9
    monkeypatch.setattr(connection, "GLITCH", 0.1)
    with pytest.raises(DatabaseTrouble, match="disk I/O error"):
        connection.Database(books.path)


def test_what_looks_damaged_is_looked_at_again(books: Bookkeeping) -> None:
    """On a new connection; when it is damaged there as well, it is."""
    made_new: list[str] = []

    def again() -> None:
        made_new.append("connection")

    assert connection.patiently(malformed(1), books.path, on_trouble=again) == "read"
    assert made_new == ["connection"]
    with pytest.raises(DatabaseDamaged, match="malformed"):
        connection.patiently(malformed(2), books.path, on_trouble=again)
    with pytest.raises(DatabaseDamaged, match="malformed"):
        connection.patiently(malformed(1), books.path)


def test_a_file_that_its_disk_does_not_give_is_waited_for(
    books: Bookkeeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses = tmp_path / "bin" / "cksum"
    refuses.parent.mkdir()
    refuses.write_text('#!/bin/sh\necho "cksum: $2: Input/output error" >&2\nexit 1\n')
    refuses.chmod(0o755)
    monkeypatch.setenv("PATH", f"{refuses.parent}:{os.environ['PATH']}")
    assert connection.patiently(malformed(5), books.path, on_trouble=lambda: None) == "read"
    with pytest.raises(DatabaseTrouble, match="cannot be read from its disk"):
        connection.patiently(malformed(1), books.path)


def _fresh(books: Bookkeeping) -> Path:
    path = books.path.with_name("fresh.db")
    migrations.create(path)
    with sqlite3.connect(path) as session:
        session.execute("UPDATE meta SET value = ? WHERE key = 'uuid'", (books.db._uuid,))
    session.close()
    return path


def test_waiting_for_trouble_to_pass_can_be_interrupted(books: Bookkeeping) -> None:
    store = books.manager(books.start())
    aside = books.path.with_name("aside.db")
    books.path.rename(aside)

    def check() -> None:
        raise Interrupted(signal.SIGINT)

    books.db.check = check
    with pytest.raises(Interrupted):
        store.claim(1, GOLD)
    assert books.db.waiting
    aside.rename(books.path)
    books.db.check = lambda: None
    assert len(store.claim(1, GOLD)) == 1
    assert not books.db.waiting


# ------------------------------------------------------------------------------- who holds it


LOCKS = """\
1: POSIX  ADVISORY  WRITE 4711 08:01:1234 1073741824 1073742335
2: POSIX  ADVISORY  READ 4712 08:01:1234 1073741826 1073742335
3: -> POSIX  ADVISORY  WRITE 4713 08:01:1234 1073741825 1073741825
4: POSIX  ADVISORY  WRITE 4714 08:01:99 1073741825 1073741825
5: FLOCK  ADVISORY  WRITE 4715 08:01:1234 0 EOF
6: OFDLCK ADVISORY  WRITE -1 08:01:1234 1073741825 1073741825
7: POSIX  ADVISORY  WRITE 4716 08:01:1234 0 EOF
nonsense
"""


def test_the_kernels_list_of_locks() -> None:
    assert list(writers(LOCKS, 1234)) == [4711, -1]
    assert list(writers("", 1234)) == []


@pytest.mark.slow
def test_a_session_on_this_host_is_named(books: Bookkeeping) -> None:
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        ["python3", "-c", code, str(books.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as session:
        assert session.stdout is not None
        assert session.stdin is not None
        assert session.stdout.readline() == "held\n"
        assert lock_holder(books.path).startswith(f"process {session.pid} (python")
        session.stdin.write("\n")
    assert "cannot be seen from here" in lock_holder(books.path)
    assert "cannot be seen from here" in lock_holder(books.path.with_name("missing"))


# ------------------------------------------------------------------------------- whole programs


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Experiment]:
    with experiment(tmp_path, range(1, 7)) as lab:
        lab.open_archive()
        yield lab


@pytest.mark.slow
def test_a_manager_outlives_the_removal_of_its_database(lab: Experiment) -> None:
    lab.hold("payload")
    manager = lab.start("--nproc=2")
    manager.until(lambda: len(lab.ledger("begin")) == 2, "the second job")
    aside = lab.directory / "aside.db"
    lab.database.rename(aside)
    lab.let_go("payload")
    manager.until_it_says("it was removed while it was in use")
    aside.rename(lab.database)
    assert manager.wait() == 0
    lab.check_all_finished()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small filesystem needs root")
def test_a_manager_outlives_a_full_disk_under_its_database(lab: Experiment) -> None:
    small = lab.directory / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        database = small / "production.db"
        shutil.move(lab.database, database)
        lab.database = database
        for name in ("count.toml", "count.sh", "production.toml"):
            (small / name).write_bytes((lab.directory / name).read_bytes())
        text = (small / "production.toml").read_text()
        (small / "production.toml").write_text(
            text.replace('data = "data"', f'data = "{lab.data}"')
        )
        lab.hold("payload")
        manager = lab.start("--nproc=2")
        manager.until(lambda: len(lab.ledger("begin")) == 2, "the second job")
        filler = small / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        lab.let_go("payload")
        manager.until_it_says("database or disk is full")
        filler.unlink()
        assert manager.wait() == 0
        lab.check_all_finished()
    finally:
        lab.kill_everything()
        until(lambda: not lab.processes())
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.slow
def test_ctrl_c_while_the_database_is_locked(lab: Experiment) -> None:
    lab.hold("payload")
    manager = lab.start("--nproc=2")
    manager.until(lambda: len(lab.ledger("begin")) == 2, "the second job")
    shell = sqlite3.connect(lab.database, isolation_level=None, timeout=60)
    shell.execute("BEGIN IMMEDIATE")
    lab.let_go("payload")
    manager.until_it_says("The database is locked by process ")
    assert f"process {os.getpid()} (" in manager.said
    manager.press_ctrl_c()
    assert manager.wait() == 130
    shell.execute("ROLLBACK")
    shell.close()
    lab.finish()
    assert set(lab.completions().values()) <= {1, 2}
