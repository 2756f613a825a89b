"""Tables only read: beside a writer, without the right to write, on a mount that is read-only."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import ANY, Bookkeeping, answer, bookkeeping, finish, processes, python, says, tell
from laboratory import PROJECT, _give_up_privileges

COMMANDS = [
    ["status"],
    ["runs"],
    ["failures", "--all"],
    ["stats"],
    ["explain", "--production=alcapana", "--quick"],
    ["wait", "--production=alcapana", "--until=finished>0"],
]
EVERY_COMMAND = pytest.mark.parametrize("command", COMMANDS, ids=" ".join)


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Bookkeeping]:
    with bookkeeping(tmp_path) as books:
        books.label(range(2000, 2010))
        store = books.manager(books.start(wanted=ANY))
        for claim in store.claim(3, ANY):
            finish(store, claim)
        store.claim(1, ANY)
        yield books


def ask(path: Path, *command: str, plain_user: bool = False) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own; ``plain_user``: without root's rights."""
    return subprocess.run(
        [*python_command(), *command, f"--database={path}"],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(PROJECT), "HOME": str(path.parent), "PATH": "/usr/bin:/bin"},
        preexec_fn=_give_up_privileges if plain_user else None,
    )


def python_command() -> list[str]:
    import sys

    return [sys.executable, "-m", "production"]


def asked(path: Path, *command: str, plain_user: bool = False) -> str:
    """The same, which must go well and print something."""
    done = ask(path, *command, plain_user=plain_user)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    return done.stdout


@contextmanager
def another_writes(path: Path) -> Iterator[None]:
    """Another process is in the midst of a transaction: it holds RESERVED."""
    code = """
        import sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE productions SET software = 'changed'")
        print("writing", flush=True)
        input()
        connection.execute("ROLLBACK")
    """
    writer = python(code, path)
    with processes([writer]):
        says(writer, "writing")
        yield
        tell(writer)
        answer(writer)


@pytest.mark.slow
@EVERY_COMMAND
def test_tables_are_read_in_the_midst_of_anothers_transaction(
    books: Bookkeeping, command: list[str]
) -> None:
    with another_writes(books.path):
        assert "Waiting" not in ask(books.path, *command).stderr
        asked(books.path, *command)


def test_nothing_is_written(books: Bookkeeping) -> None:
    commits, before = books.commits(), books.path.stat().st_mtime_ns
    for command in COMMANDS:
        asked(books.path, *command)
    assert (books.commits(), books.path.stat().st_mtime_ns) == (commits, before)
    assert [path.name for path in books.path.parent.iterdir()] == [books.path.name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "done"),
    [
        (["status"], "alcapana_v1"),
        (["retry", "--production=alcapana"], "0 runs will be tried again"),
        (["recover"], "alcapana_v1"),
        (["datasets", "add", "new", "1"], "1 new"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_lock_of_seconds_is_waited_for_and_told_of(
    books: Bookkeeping, command: list[str], done: str
) -> None:
    code = """
        import sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        print("locked", flush=True)
        input()
    """
    holder = python(code, books.path)
    with processes([holder]):
        says(holder, "locked")
        other = subprocess.Popen(
            [*python_command(), *command, f"--database={books.path}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin"},
        )
        with processes([other]):
            assert other.stderr is not None
            assert "The database is locked by" in other.stderr.readline()
            tell(holder)
            answer(holder)
            assert done in answer(other)


@pytest.mark.slow
@EVERY_COMMAND
def test_read_permission_is_enough(books: Bookkeeping, command: list[str]) -> None:
    books.db.close()
    books.path.chmod(0o444)
    books.path.parent.chmod(0o555)
    try:
        assert not ask(books.path, "retry", "--production=alcapana", plain_user=True).stdout
        asked(books.path, *command, plain_user=True)
    finally:
        books.path.parent.chmod(0o755)
        books.path.chmod(0o644)
        books.db = type(books.db)(books.path)


@contextmanager
def mounted_read_only(directory: Path, place: Path) -> Iterator[Path]:
    """The directory once more, where nobody can write."""
    place.mkdir()
    try:
        done = subprocess.run(["mount", "--bind", directory, place], capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def readonly_mount(books: Bookkeeping, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = books.path.parent
    with mounted_read_only(directory, tmp_path_factory.mktemp("readonly") / "here") as place:
        yield place / books.path.name


@pytest.mark.slow
@EVERY_COMMAND
def test_a_mount_that_is_read_only_is_enough(readonly_mount: Path, command: list[str]) -> None:
    with pytest.raises(OSError, match="Read-only"):
        (readonly_mount.parent / "file").touch()
    asked(readonly_mount, *command)


# ------------------------------------------------------------------------------- a hot journal


@pytest.fixture
def hot(books: Bookkeeping) -> Path:
    """A writer was killed in the midst of its COMMIT: its journal must be played back."""
    directory = books.path.parent / "hot"
    directory.mkdir()
    path = directory / "production.db"
    code = """
        import os, sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("PRAGMA cache_size = 2")  # so that pages are written before COMMIT
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE productions SET software = hex(zeroblob(100000))")
        connection.execute("UPDATE attempt SET spool = hex(zeroblob(3000)) WHERE outcome IS NULL")
        print("written", flush=True)
        input()
    """
    writer = python(code, books.path)
    with processes([writer]):
        says(writer, "written")
        for name in ("production.db", "production.db-journal"):
            shutil.copyfile(books.path.parent / name, directory / name)
        tell(writer)
        answer(writer)
    journal = path.with_name("production.db-journal")
    assert journal.stat().st_size > 0
    return path


@pytest.mark.slow
def test_who_may_write_plays_a_hot_journal_back(hot: Path) -> None:
    rows: list[dict[str, Any]] = json.loads(asked(hot, "status", "--output=json"))
    assert [row["software"] for row in rows] == ["alcapana-tag"]
    with closing(sqlite3.connect(hot)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.slow
def test_who_may_not_write_is_told_what_a_hot_journal_needs(hot: Path) -> None:
    hot.chmod(0o444)
    hot.with_name("production.db-journal").chmod(0o444)
    hot.parent.chmod(0o555)
    try:
        done = ask(hot, "status", plain_user=True)
    finally:
        hot.parent.chmod(0o755)
    assert done.returncode in (12, 16), done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "killed in the midst of a change" in done.stderr
    assert "who may write" in done.stderr


@pytest.mark.slow
def test_a_read_only_mount_does_not_hide_what_a_hot_journal_needs(hot: Path) -> None:
    with mounted_read_only(hot.parent, hot.parent.parent / "mounted") as place:
        done = ask(place / hot.name, "status")
    assert (done.returncode, done.stdout) == (12, "")
    assert "killed in the midst of a change" in done.stderr


# ------------------------------------------------------------------------------- side by side


@pytest.mark.slow
def test_readers_and_eight_writers_do_not_keep_each_other_from_working(
    books: Bookkeeping,
) -> None:
    """All of them come to an end, and none of them meets an error."""
    code = """
        import sys
        from pathlib import Path
        from production.model import Released, RunFilter
        from production.store import managers, productions
        from production.store.connection import Database
        from production.identity import this_process
        from production.store.runs import RunStore
        with Database(Path(sys.argv[1])) as db:
            production = productions.find(db, "alcapana")
            manager = managers.register(db, this_process(), production.id)
            store = RunStore(db, production, manager)
            print("ready", flush=True)
            input()
            for _ in range(10):
                claims = store.claim(1, RunFilter())
                store.apply([Released(claim, "enough") for claim in claims])
    """
    writers = [python(code, books.path) for _ in range(8)]
    with processes(writers):
        for writer in writers:
            says(writer, "ready")
        for writer in writers:
            tell(writer)
        reads = 0
        while reads < 4 or any(writer.poll() is None for writer in writers):
            asked(books.path, *COMMANDS[reads % len(COMMANDS)])
            reads += 1
            time.sleep(0.01)
        for writer in writers:
            answer(writer)
