"""A backup is whole and sound whoever writes meanwhile, and gives back exactly what was there."""

from __future__ import annotations

import difflib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from bookkeeping import (
    ANY,
    Bookkeeping,
    answer,
    bookkeeping,
    check_sound,
    failed,
    finish_all,
    processes,
    python,
    run_job,
    says,
)
from hypothesis import given
from hypothesis import strategies as st
from laboratory import PROJECT, _give_up_privileges

from production.cli import main
from production.errors import (
    BackupUnusable,
    DatabaseExists,
    DatabaseTrouble,
    FileExists,
    FileUnwritable,
)
from production.store import backup, text
from production.store.connection import SCHEMA_VERSION, Database

# What could be misread in a line of SQL.
NASTY = ["", "'", "a\nb", "\r\n", "\\n\n", "\\\\n\r\\r", "a\0b", "\u2028 \x0b", "--;\n", "é😀"]


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Bookkeeping]:
    """A bookkeeping with something of everything."""
    with bookkeeping(tmp_path) as books:
        books.label(range(1, 9))
        books.label(range(5, 12), "Al50", tranche=2, quality="silver")
        base = books.start(wanted=ANY)
        store = books.manager(base)
        one, two, three = store.claim(3, ANY)
        run_job(store, one)
        store.apply([failed(two), failed(three, max_attempts=1)])
        finish_all(books.manager(books.start()))
        books.start("rootana", base=base, wanted=ANY)
        yield books


def text_of(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return "".join(text.dump(connection))


def check_same(books: Bookkeeping, path: Path) -> None:
    """The database ``path`` is sound and holds what the bookkeeping holds."""
    other = Bookkeeping.__new__(Bookkeeping)
    with Database(path) as other.db:
        check_sound(other)
        # Of what is derived, rows that count nothing need not be there.
        assert other.dump(without=["tally"]) == books.dump(without=["tally"])
    assert text_of(path) == text_of(books.path)


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


# --------------------------------------------------------------------------- a copy


def test_a_copy_holds_what_the_database_holds(books: Bookkeeping, tmp_path: Path) -> None:
    done: list[int] = []
    before = books.commits()
    backup.copy(books.db, tmp_path / "copy.db", replace=False, progress=done.append)
    check_same(books, tmp_path / "copy.db")
    assert done[-1] == backup.size(books.db) == books.path.stat().st_size
    assert books.commits() == before
    assert files(tmp_path) == {"production.db", "copy.db"}


def test_a_file_that_exists_is_replaced_only_when_that_is_wanted(
    books: Bookkeeping, tmp_path: Path
) -> None:
    for name in ("copy.db", "copy.sql"):
        path = tmp_path / name
        path.write_text("precious")
        write = backup.copy if name == "copy.db" else backup.write_text
        with pytest.raises(FileExists, match="or replace it with --force"):
            write(books.db, path, replace=False)
        assert path.read_text() == "precious"
        write(books.db, path, replace=True)
        assert path.read_bytes() != b"precious"
    check_same(books, tmp_path / "copy.db")
    assert files(tmp_path) == {"production.db", "copy.db", "copy.sql"}


def test_a_damaged_database_makes_no_backup(books: Bookkeeping, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.db"
    backup.copy(books.db, damaged, replace=False)
    page = books.cell("SELECT rootpage FROM sqlite_master WHERE name = 'attempt'")
    with damaged.open("r+b") as file:
        file.seek((page - 1) * books.cell("PRAGMA page_size"))
        file.write(b"\xff" * 1000)
    with Database(damaged) as db:
        for write in (backup.copy, backup.write_text):
            with pytest.raises(DatabaseTrouble, match=r"damaged\.db: it is damaged"):
                write(db, tmp_path / "backup", replace=False)
    assert files(tmp_path) == {"production.db", "damaged.db"}


def test_a_backup_that_cannot_be_written_is_said_so(books: Bookkeeping, tmp_path: Path) -> None:
    for write in (backup.copy, backup.write_text):
        with pytest.raises(FileUnwritable, match="nowhere/backup cannot be written: "):
            write(books.db, tmp_path / "nowhere/backup", replace=False)


WRITER = """
import sys
from pathlib import Path
from production.store.connection import SCHEMA_VERSION, Database
with Database(Path(sys.argv[1])) as db:
    print("ready", flush=True)
    for number in range(10**9):
        with db.write() as tx:
            for key in ("one", "two"):
                tx.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, str(number)))
        if number == 0:
            print("writing", flush=True)
"""


@pytest.mark.slow
def test_a_copy_is_of_one_moment_while_others_write(books: Bookkeeping, tmp_path: Path) -> None:
    with books.db.write() as tx:  # large enough to be copied in several steps
        tx.executemany(
            "INSERT INTO modules (sha256, text) VALUES (?, ?)",
            [(str(number), "x" * 40_000) for number in range(1000)],
        )
    writers = [python(WRITER, books.path) for _ in range(3)]
    with processes(writers):
        for writer in writers:
            says(writer, "ready")
            says(writer, "writing")
        numbers = set()
        for count in range(5):
            path = tmp_path / f"copy{count}.db"
            backup.copy(books.db, path, replace=False)
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                pair = connection.execute("SELECT value FROM meta WHERE key IN ('one', 'two')")
                (one,), (two,) = pair.fetchall()
                assert one == two
                numbers.add(one)
        assert len(numbers) > 1  # they went on in between


def test_a_backup_waits_for_a_lock(books: Bookkeeping, tmp_path: Path) -> None:
    holder = python(
        """
        import sqlite3, sys, time
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        print("holding", flush=True)
        time.sleep(0.5)
        connection.execute("COMMIT")
        """,
        books.path,
    )
    with processes([holder]):
        says(holder, "holding")
        backup.copy(books.db, tmp_path / "copy.db", replace=False)
        answer(holder)
    check_same(books, tmp_path / "copy.db")


# --------------------------------------------------------------------------- the text


def test_the_text_has_one_row_a_line_in_order(books: Bookkeeping) -> None:
    lines = text_of(books.path).splitlines()
    rows = [line for line in lines if line.startswith("INSERT INTO ") and " VALUES(" in line]
    count = sum(
        books.cell(f"SELECT count(*) FROM {table}")
        for table in ("meta", "datasets", "productions", "manager", "modules", "lawful_change")
    ) + sum(
        books.cell(f"SELECT count(*) FROM {table}")
        for table in ("run", "attempt", "output", "place", "input")
    )
    assert len(rows) == count
    runs = [line for line in rows if line.startswith('INSERT INTO "run" ')]
    assert runs[0].startswith('INSERT INTO "run" VALUES(1,1,\'')
    keys = [tuple(map(int, line.partition("(")[2].split(",")[:2])) for line in runs]
    assert keys == sorted(keys)
    assert lines[0] == text.HEADER
    assert lines[-1] == "COMMIT;"


def test_the_text_tells_nothing_but_what_is_recorded(books: Bookkeeping) -> None:
    before = text_of(books.path)
    books.db.rows("VACUUM")
    assert text_of(books.path) == before
    store = books.manager(books.start())
    before = text_of(books.path)
    (claim,) = store.claim(1, ANY)
    run_job(store, claim)
    changed = [
        line
        for line in difflib.ndiff(before.splitlines(), text_of(books.path).splitlines())
        if line[0] in "+-"
    ]
    # The run, before and after, and its attempt.
    assert len(changed) == 3


def test_values_of_all_kinds_come_back_as_they_were() -> None:
    values = [None, 0, -(2**63), 0.1, 1e300, 1e-7, 3480.5, float("inf"), b"\0\xff'", *NASTY]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute('CREATE TABLE "odd ""name" (id INTEGER PRIMARY KEY, value, "or" TEXT)')
        connection.executemany(
            'INSERT INTO "odd ""name" (value) VALUES (?)', [(value,) for value in values]
        )
        connection.execute("""INSERT INTO "odd ""name" (value) VALUES (CAST(X'ff0a' AS TEXT))""")
        connection.commit()
        script = "".join(text.dump(connection))
    assert (
        len([line for line in script.split("\n") if line.startswith("INSERT")]) == len(values) + 1
    )
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as other:
        text.load(script.splitlines(keepends=True), other)
        found = other.execute('SELECT value FROM "odd ""name" WHERE id <= ?', (len(values),))
        assert [value for (value,) in found] == values
        last = 'SELECT typeof(value), hex(value) FROM "odd ""name" ORDER BY id DESC LIMIT 1'
        assert other.execute(last).fetchone() == ("text", "FF0A")
        assert "".join(text.dump(other)) == script


@given(st.text(st.sampled_from("\n\r\\nr'a\0;é"), max_size=12))
def test_any_text_is_written_in_one_line_and_read_back(value: str) -> None:
    literal = text._quoted(value)
    assert literal.split("\n") == [literal]
    assert "\r" not in literal
    with closing(sqlite3.connect(":memory:")) as connection:
        assert connection.execute(f"SELECT {literal}").fetchone() == (value,)


# --------------------------------------------------------------------------- the way back


@pytest.mark.parametrize("kind", ["copy", "text"])
def test_what_is_restored_is_what_was_there(books: Bookkeeping, tmp_path: Path, kind: str) -> None:
    write = backup.copy if kind == "copy" else backup.write_text
    write(books.db, tmp_path / "backup", replace=False)
    done: list[int] = []
    assert backup.restore(tmp_path / "backup", tmp_path / "new.db", done.append) == SCHEMA_VERSION
    check_same(books, tmp_path / "new.db")
    assert done[-1] == (tmp_path / "backup").stat().st_size
    assert files(tmp_path) == {"production.db", "backup", "new.db"}


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs the sqlite3 shell")
def test_the_sqlite3_shell_can_restore_a_text(books: Bookkeeping, tmp_path: Path) -> None:
    script = text_of(books.path)
    subprocess.run(["sqlite3", "-bail", tmp_path / "new.db"], input=script, text=True, check=True)
    check_same(books, tmp_path / "new.db")


def test_an_existing_database_is_never_touched(books: Bookkeeping, tmp_path: Path) -> None:
    backup.copy(books.db, tmp_path / "backup", replace=False)
    before = books.path.read_bytes()
    with pytest.raises(DatabaseExists):
        backup.restore(tmp_path / "backup", books.path)
    assert books.path.read_bytes() == before


def test_what_is_no_backup_is_refused(books: Bookkeeping, tmp_path: Path) -> None:
    script = text_of(books.path)
    newer = script.replace(f"user_version = {SCHEMA_VERSION};", "user_version = 99;")
    stolen = script.replace("BEGIN;", f"ATTACH '{tmp_path}/stolen.db' AS other;\nBEGIN;")
    orphan = script.replace("COMMIT;", "INSERT INTO output VALUES(999,'tree','/x',1,'');\nCOMMIT;")
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE datasets (run)")
    backup.copy(books.db, tmp_path / "damaged.db", replace=False)
    damaged = (tmp_path / "damaged.db").read_bytes()
    refused = {
        "not a database": b"anything at all, but for a long time\n" * 100,
        "is cut off": script[: len(script) // 2].encode(),
        "cut off": script.replace("COMMIT;\n", "").encode(),
        "schema version 99": newer.encode(),
        "not authorized": stolen.encode(),
        "rows that others refer to": orphan.encode(),
        "can't decode": script.encode() + b"\xff\n",
        "no copy of a production database": other.read_bytes(),
        "damaged|malformed": damaged[: len(damaged) // 8192 * 4096],
    }
    for why, content in refused.items():
        (tmp_path / "backup").write_bytes(content)
        with pytest.raises(BackupUnusable, match=why):
            backup.restore(tmp_path / "backup", tmp_path / "new.db")
    with pytest.raises(BackupUnusable, match="No such file"):
        backup.restore(tmp_path / "nothing", tmp_path / "new.db")
    assert files(tmp_path) == {"production.db", "other.db", "damaged.db", "backup"}


def test_the_directory_of_the_new_database_is_made(books: Bookkeeping, tmp_path: Path) -> None:
    backup.copy(books.db, tmp_path / "backup", replace=False)
    with pytest.raises(BackupUnusable):
        backup.restore(tmp_path / "nothing", tmp_path / "some/where/new.db")
    assert files(tmp_path) == {"production.db", "backup"}
    assert backup.restore(tmp_path / "backup", tmp_path / "some/where/new.db") == SCHEMA_VERSION
    check_same(books, tmp_path / "some/where/new.db")


def test_where_no_database_can_be_made_is_said_so(books: Bookkeeping, tmp_path: Path) -> None:
    backup.copy(books.db, tmp_path / "backup", replace=False)
    for place, why in {"backup/new.db": "(Not a directory|exists)", "n" * 256: "too long"}.items():
        with pytest.raises(FileUnwritable, match=f"{place} cannot be written: .*{why}"):
            backup.restore(tmp_path / "backup", tmp_path / place)
    assert files(tmp_path) == {"production.db", "backup"}


# --------------------------------------------------------------------------- the commands


def limited(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command whose files may have 64 kB: what goes beyond fails as with a full quota."""
    argv = ["sh", "-c", 'ulimit -f 128; exec "$0" -m production "$@"', sys.executable]
    return subprocess.run(
        [*argv, *map(str, arguments)],
        cwd=PROJECT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["copy", "text"])
def test_a_full_disk_is_not_the_backup_s_fault(
    books: Bookkeeping, tmp_path: Path, kind: str
) -> None:
    write = backup.copy if kind == "copy" else backup.write_text
    write(books.db, tmp_path / "backup", replace=False)
    new = tmp_path / "new.db"
    done = limited("restore", tmp_path / "backup", f"--database={new}")
    assert done.stderr.startswith(f"ERROR: {new} cannot be written: ")
    assert done.returncode == FileUnwritable.exit_code
    assert files(tmp_path) == {"production.db", "backup"}


@pytest.mark.slow
def test_where_the_text_is_prepared_is_named_when_it_is_full(
    books: Bookkeeping, tmp_path: Path
) -> None:
    (tmp_path / "scratch").mkdir()
    where = [tmp_path / "x.sql", f"--database={books.path}"]
    done = limited("backup", "--text", *where, TMPDIR=str(tmp_path / "scratch"))
    expected = f"ERROR: {tmp_path / 'scratch'} ($TMPDIR names another) cannot be written: "
    assert done.stderr.startswith(expected)
    assert done.returncode == FileUnwritable.exit_code
    assert files(tmp_path) == {"production.db", "scratch"}
    assert files(tmp_path / "scratch") == set()


@pytest.mark.slow
def test_a_text_is_utf_8_whatever_the_locale(books: Bookkeeping, tmp_path: Path) -> None:
    with books.db.write() as tx:
        tx.execute("INSERT INTO modules (sha256, text) VALUES ('x', 'Größe 😀')")
    argv = [sys.executable, "-m", "production", "backup", "--text", str(tmp_path / "x.sql")]
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [*argv, f"--database={books.path}"],
        cwd=PROJECT,
        env={**os.environ, **ascii_only},
        check=True,
    )
    assert (tmp_path / "x.sql").read_text(encoding="utf-8") == text_of(books.path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_of_a_command_that_was_stopped(
    tmp_path: Path, number: signal.Signals
) -> None:
    with begun_to_restore(tmp_path) as command:
        command.send_signal(number)
        out, err = command.communicate(timeout=120)
    assert (command.returncode, out, err) == (128 + number, "", "")
    assert files(tmp_path) == {"backup"}


@pytest.mark.slow
def test_a_command_under_nohup_outlives_the_terminal(tmp_path: Path) -> None:
    with begun_to_restore(tmp_path, "nohup") as command:
        command.send_signal(signal.SIGHUP)
        command.send_signal(signal.SIGTERM)
        command.communicate(timeout=120)
    assert command.returncode == 128 + signal.SIGTERM
    assert files(tmp_path) == {"backup"}


@contextmanager
def begun_to_restore(tmp_path: Path, *before: str) -> Iterator[subprocess.Popen[str]]:
    """A ``restore`` amid a text whose end does not come."""
    os.mkfifo(tmp_path / "backup")
    writer = os.open(tmp_path / "backup", os.O_RDWR)
    os.write(writer, text.HEADER.encode())
    argv = [sys.executable, "-m", "production", "restore", str(tmp_path / "backup")]
    command = subprocess.Popen(
        [*before, *argv, f"--database={tmp_path / 'new.db'}"],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".new.db.*.new")):
            assert time.monotonic() < deadline
            assert command.poll() is None
            time.sleep(0.01)
        yield command
    finally:
        command.kill()
        command.communicate()
        os.close(writer)


def test_a_backup_that_cannot_be_looked_at_is_no_backup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"--database={tmp_path / 'new.db'}"
    assert main(["restore", str(tmp_path / ("x" * 256)), where]) == BackupUnusable.exit_code
    assert "cannot be restored: File name too long" in capsys.readouterr().err
    assert files(tmp_path) == set()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty git repository, and a user whom git knows."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (tmp_path / "gitconfig").write_text("[user]\nname = Me\nemail = me@example.org\n")
    path = tmp_path / "history"
    git(tmp_path, "init", "--quiet", str(path))
    return path


def git(directory: Path, *words: str) -> str:
    argv = ["git", "-C", str(directory), *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_the_text_is_committed_when_it_has_changed(
    books: Bookkeeping, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "other").write_text("not ready yet")
    git(repository, "add", "other")
    command = ["backup", f"--commit={repository}", f"--database={books.path}"]
    for expected in ("committed", "nothing has changed since the last commit"):
        assert main(command) == 0
        assert capsys.readouterr().out == f"{repository}/production.sql: {expected}\n"
    books.label([99], "Al50")
    assert main(command) == 0
    assert git(repository, "log", "--format=%s").count("production.db on 20") == 2
    diff = git(repository, "show", "--format=", "--numstat", "HEAD")
    assert diff == "1\t0\tproduction.sql\n"
    assert git(repository, "status", "--porcelain") == "A  other\n"
    assert (repository / "production.sql").read_text() == text_of(books.path)


def test_a_commit_that_failed_is_made_up_for(
    books: Bookkeeping, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["backup", "run.sql", "--text", f"--commit={repository}", f"--database={books.path}"]
    hook = repository / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    hook.chmod(0o755)
    assert main(command) == 27
    assert "not today" in capsys.readouterr().err
    hook.unlink()
    assert main(command) == 0
    assert capsys.readouterr().out == f"{repository}/run.sql: committed\n"


def test_what_is_no_place_for_a_commit_is_refused(
    books: Bookkeeping, repository: Path, tmp_path: Path
) -> None:
    where = f"--database={books.path}"
    (repository / "production.sql").write_text("my notes")
    assert main(["backup", f"--commit={repository}", where]) == 15
    assert (repository / "production.sql").read_text() == "my notes"
    assert main(["backup", "../x.sql", f"--commit={repository}", where]) == 2
    (tmp_path / "plain").mkdir()
    assert main(["backup", f"--commit={tmp_path / 'plain'}", where]) == 2
    assert main(["backup", f"--commit={tmp_path / 'nowhere'}", where]) == 2


def test_git_s_own_reason_is_told(
    books: Bookkeeping,
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where = f"--database={books.path}"
    plain = tmp_path / "no repository"
    plain.mkdir()
    assert main(["backup", f"--commit={plain}", where]) == 2
    assert capsys.readouterr().err.endswith(f"make one with: git init '{plain}'\n")
    # https://git-scm.com/docs/git-config#Documentation/git-config.txt-safedirectory
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert main(["backup", f"--commit={repository}", where]) == 2
    said = capsys.readouterr().err
    assert "dubious ownership" in said
    assert "git init" not in said


def test_a_file_that_cannot_be_read_is_no_text_of_ours(
    books: Bookkeeping, repository: Path
) -> None:
    (repository / "production.sql").symlink_to("production.sql")
    command = ["backup", f"--commit={repository}", f"--database={books.path}"]
    assert main(command) == FileExists.exit_code  # as whatever is no text of ours
    (repository / "production.sql").unlink()
    (repository / "production.sql").write_text("who knows")
    (repository / "production.sql").chmod(0)
    done = subprocess.run(
        [sys.executable, "-m", "production", *command],
        cwd=PROJECT,
        preexec_fn=_give_up_privileges,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{repository}/production.sql cannot be written: it cannot be read" in done.stderr
    assert done.returncode == FileUnwritable.exit_code


def test_backups_are_made_and_restored_by_commands(
    books: Bookkeeping,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    where = f"--database={books.path}"
    assert main(["backup", where]) == 0
    (made,) = tmp_path.glob("production-20*.db")
    assert capsys.readouterr().out == f"{made}: {made.stat().st_size} bytes\n"
    assert main(["backup", where]) == 15
    assert main(["backup", where, "--force"]) == 0
    assert main(["backup", "copy.sql", "--text", where]) == 0
    assert main(["backup", "copy.sql", "--text", "--force", where]) == 0
    assert capsys.readouterr().out.endswith("copy.sql: has not changed\n")
    for name in (made.name, "copy.sql"):
        assert main(["restore", name, f"--database={tmp_path / f'{name}.new'}"]) == 0
        assert "Next: production audit --database=" in capsys.readouterr().out
        check_same(books, tmp_path / f"{name}.new")
    assert main(["restore", "copy.sql", where]) == 15
    assert main(["restore", "gitless", "--database=other.db"]) == 47
    old = (
        Path("copy.sql")
        .read_text()
        .replace(f"user_version = {SCHEMA_VERSION};", "user_version = 1;")
    )
    Path("old.sql").write_text(old)
    assert main(["restore", "old.sql", "--database=old.db"]) == 0
    assert "Next: production migrate --database=old.db" in capsys.readouterr().out
