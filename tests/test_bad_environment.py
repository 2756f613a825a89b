"""What is wrong around the program: database, login, configuration, recipes, data directory.

As with wrong options: one line that says what is wrong and what to do, an exit code of its own, no
traceback, nothing changed.
"""

from __future__ import annotations

import re
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from laboratory import PASSWORD, Laboratory, laboratory

pytestmark = pytest.mark.slow

START = ("--production=alcapana", "--new=alcapana_v1")
# All commands that open the database; those that only read it are content with less.
READING = (
    ["status"],
    ["datasets", "list"],
    ["history", "2091"],
    ["trace", "2091", "--production=alcapana"],
    ["audit", "2091"],
    ["export", "--production=alcapana"],
    ["recover", "--dry-run"],
)
WRITING = (
    ["run", "--production=alcapana"],
    ["datasets", "add", "Al50", "2500-2510"],
    ["retry", "--production=alcapana"],
    ["release", "2091", "--production=alcapana"],
    ["recover"],
    ["vacuum"],
)
# The tables of a database of 2014 besides those of its productions.
OLD = (
    "CREATE TABLE datasets (run, dataset, quality)",
    "CREATE TABLE productions (type, version, software, start, stop)",
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """A laboratory where all is well."""
    with laboratory(tmp_path_factory.mktemp("well")) as made:
        made.finish("--production=alcapana", "--new=first")
        yield made


@pytest.fixture
def lab(template: Laboratory, tmp_path: Path) -> Laboratory:
    """One like it, to be spoilt."""
    made = Laboratory(tmp_path / "home", template.archive)
    shutil.copytree(template.home, made.home)
    made.configure()
    return made


def refused(
    lab: Laboratory, *arguments: object, command: str = "run_production.py", **keywords: object
) -> tuple[int, str]:
    """The exit code and the one line of a call that changes nothing."""
    before = lab.snapshot()
    said = lab.command(command, *arguments, **keywords)  # type: ignore[arg-type]
    assert lab.snapshot() == before
    assert said.out == ""
    assert re.fullmatch(r"ERROR: .+\n", said.err), said.err
    assert PASSWORD not in said.err
    return said.code, said.err.removeprefix("ERROR: ").rstrip("\n")


def refused_by_all(
    lab: Laboratory, *commands: list[str], plain_user: bool = False
) -> set[tuple[int, str]]:
    """The same for each of ``commands``."""
    return {
        refused(lab, *command, command="production", plain_user=plain_user) for command in commands
    }


# ------------------------------------------------------------------------------- the database


def test_a_missing_database_is_not_created(lab: Laboratory) -> None:
    lab.database.unlink()
    assert refused_by_all(lab, *READING, *WRITING, ["migrate"], ["import", "old.db"]) == {
        (
            10,
            f"Database {lab.database} does not exist. Create it with: "
            f"production init --database={lab.database}",
        ),
        (19, "old.db: No such file or directory. Nothing was imported."),
    }
    assert refused(lab, *START)[0] == 10
    assert refused(lab, *START, "--database=data/MODULES/p.db")[0] == 10
    assert refused(lab, *START, "--database=~nosuchuser/p.db")[1].startswith(
        "Database ~nosuchuser/p.db does not exist."
    )


def test_what_is_said_about_a_missing_database_helps(lab: Laboratory) -> None:
    lab.database.unlink()
    line = refused(lab, *START)[1]
    said = lab.command(*line.partition("Create it with: ")[2].split())
    assert (said.code, said.err) == (0, "")
    assert lab.production("status").code == 0


def test_a_link_that_leads_nowhere_is_a_missing_database(lab: Laboratory) -> None:
    lab.database.unlink()
    lab.database.symlink_to(lab.home / "nosuch.db")
    assert refused(lab, *START)[0] == 10
    code, line = refused(lab, "init", command="production")
    left = f"{lab.database} exists already; it was left as it is. Name another with --database."
    assert (code, line) == (15, left)


def test_a_database_that_is_only_readable(lab: Laboratory) -> None:
    lab.database.chmod(0o444)
    ((code, line),) = refused_by_all(lab, *WRITING, plain_user=True)
    assert code == 12
    assert line.startswith(f"Database {lab.database} cannot be written by ")
    assert line.endswith(
        "Ask its owner for group write on the file and on its directory (chmod g+w), or work on a "
        "private copy with --database."
    )
    assert refused(lab, *START, plain_user=True) == (code, line)
    for command in (*READING, ["run", *START, "--dry-run"]):
        said = lab.production(*command, plain_user=True)
        assert (said.code, said.err) == (0, "")


def test_a_database_in_a_directory_that_is_only_readable(lab: Laboratory) -> None:
    """SQLite needs to write its journal there."""
    shared = lab.home / "shared"
    shared.mkdir()
    lab.database.rename(shared / "production.db")
    lab.database.symlink_to(shared / "production.db")
    shared.chmod(0o555)
    assert {code for code, _ in refused_by_all(lab, *WRITING, plain_user=True)} == {12}
    assert refused(lab, *START, plain_user=True)[0] == 12
    for command in READING:
        assert lab.production(*command, plain_user=True).code == 0
    shared.chmod(0o755)


def test_a_database_that_nobody_may_read(lab: Laboratory) -> None:
    lab.database.chmod(0)
    found = refused_by_all(lab, *READING, *WRITING, plain_user=True)
    assert {code for code, _ in found} == {16}
    assert all(line.startswith(f"Database {lab.database}: ") for _, line in found)


def test_a_directory_that_nobody_may_enter(lab: Laboratory) -> None:
    lab.data.chmod(0)
    try:
        said = lab.production("status", plain_user=True)
    finally:
        lab.data.chmod(0o755)
    assert (said.code, said.out) == (16, "")
    assert said.err == (
        f"ERROR: Database {lab.database}: Permission denied. Check the filesystem (space, quota, "
        "permissions); nothing that was recorded is lost.\n"
    )


def no_sqlite(path: Path) -> None:
    path.write_text("run,dataset\n2091,SiR2\n" * 100)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_sqlite(path: Path) -> None:
    _make(path, "CREATE TABLE calibration (run, factor)")


def layout_of_2014(path: Path) -> None:
    _make(path, *OLD)


def _make(path: Path, *statements: str) -> None:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (no_sqlite, "file is not a database"),
        (empty, "it has none of its tables"),
        (other_sqlite, "it has none of its tables"),
        (layout_of_2014, "it has none of its tables"),
    ],
)
def test_a_file_that_is_no_production_database(
    lab: Laboratory, spoil: Callable[[Path], None], what: str
) -> None:
    spoil(lab.database)
    expected = (
        11,
        f"{lab.database} is not a production database: {what}. Create a new one with: production "
        "init --database=FILE (one of the 2014 or 2016 layout is taken over with: production "
        f"import {lab.database})",
    )
    assert refused_by_all(lab, *READING, *WRITING, ["migrate"]) == {expected}
    assert refused(lab, *START) == expected


def test_the_database_cannot_be_a_directory(lab: Laboratory) -> None:
    code, line = refused(lab, *START, "--database=data")
    assert code == 11
    assert line.startswith("data is not a production database: it is not a file.")


def test_a_database_that_broke_off(lab: Laboratory) -> None:
    whole = lab.database.read_bytes()
    lab.database.write_bytes(whole[: len(whole) // 2])
    code, line = refused(lab, *START)
    assert code == 16
    assert line.startswith(f"Database {lab.database} is damaged: database disk image is malf")


def test_the_schema_of_a_newer_program(lab: Laboratory) -> None:
    with closing(sqlite3.connect(lab.database)) as connection:
        connection.execute("PRAGMA user_version = 99")
    ((code, line),) = refused_by_all(lab, *READING, *WRITING, ["migrate"])
    assert code == 13
    assert line.startswith(f"Database {lab.database} has schema version 99, this program knows ")
    assert line.endswith("Use the newer program that your colleagues use.")
    assert refused(lab, *START) == (code, line)


def test_the_schema_of_an_older_program(lab: Laboratory) -> None:
    with closing(sqlite3.connect(lab.database)) as connection:
        connection.execute("PRAGMA user_version = 0")
    ((code, line),) = refused_by_all(lab, *READING, *WRITING)
    assert code == 13
    assert line.endswith(f"with: production migrate --database={lab.database}")


def test_a_database_in_wal_mode(lab: Laboratory) -> None:
    with closing(sqlite3.connect(lab.database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    said = lab.run(*START)
    assert (said.code, said.out) == (10, "")
    remedy = f'sqlite3 {lab.database} "PRAGMA journal_mode=DELETE"'
    assert re.fullmatch(rf"ERROR: .*WAL mode.*: {re.escape(remedy)}\n", said.err)


# ------------------------------------------------------------------------------- the login


def close_to_nobody(path: Path) -> None:
    path.chmod(0o644)


def write(text: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.write_text(text)

    return spoil


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir(0o700)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (Path.unlink, "there is no such file. Write one with the line: machine HOST login USER"),
        (close_to_nobody, "other users may read the file. Close it with: chmod 600 {path}"),
        (make_directory, "that is not a regular file"),
        (write(""), "the file has no entry for this host. Add the line: machine 127.0.0.1 login"),
        (
            write(f"machine other.host login me password {PASSWORD}\n"),
            "the file has no entry for this host.",
        ),
        (write("machine 127.0.0.1 login me\n"), "the entry has no password; add: password ..."),
        (write(f"machine 127.0.0.1 password {PASSWORD}\n"), "the entry has no login; add: login"),
        (
            write(f"machine 127.0.0.1 login me password {PASSWORD} 4 ever\n"),
            "line 1 cannot be understood.",
        ),
        (write(f'default login me\npassword "{PASSWORD}\n'), "line 2 has a quote or a backslash"),
        (write("default login me password\n"), "the file ends after the word password"),
        (lambda path: path.write_bytes(b"default login \xff"), "line 1 is not UTF-8 text"),
    ],
)
def test_a_bad_netrc(lab: Laboratory, spoil: Callable[[Path], None], what: str) -> None:
    spoil(lab.netrc)
    code, line = refused(lab, *START)
    assert code == 21
    assert line.startswith(f"Login for 127.0.0.1 in {lab.netrc}: {what.format(path=lab.netrc)}")


def test_the_login_is_that_of_the_home_directory_by_default(lab: Laboratory) -> None:
    (lab.home / ".netrc").write_text("default login me\n")
    (lab.home / ".netrc").chmod(0o600)
    code, line = refused(lab, *START, variables={"NETRC": ""})
    assert code == 21
    assert line.startswith(f"Login for 127.0.0.1 in {lab.home}/.netrc: the entry has no password")


def test_a_type_that_needs_no_archive_needs_no_login(lab: Laboratory) -> None:
    lab.netrc.unlink()
    lab.finish("--production=rootana", "--new=rootana_v1")


# ------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[archive]\nurl = "ftp://host/\n', ":2: "),
        ('[archive]\nuri = "ftp://host/"\n', ":2: 'uri' is not a key of [archive]; did you mean "),
        ("[defaults]\nnproc = 0\n", ":2: 'nproc' must be 1 or more"),
        ('[defaults]\n\nspacelim = "very much"\n', ":3: 'spacelim': 'very much' is not a limit"),
        ("nproc = 3\n", ":1: 'nproc' is not a key of this file"),
        (
            '[modules]\nalcapana = "$DAQ_OF_NOBODY/MODULES"\n',
            ":2: 'alcapana': the environment variable $DAQ_OF_NOBODY is not set",
        ),
        ('[archive]\nfile = "run.mid"\n', ":2: 'file': 'run.mid' must contain {run}"),
        ("[batch]\nlocl = {}\n", ":2: 'locl' is not a key of [batch]; did you mean 'local'?"),
        ("[archive]\nurl = 21\n", ":2: 'url' must be text in quotes, not a whole number"),
    ],
)
def test_a_broken_configuration(lab: Laboratory, text: str, complaint: str) -> None:
    lab.configuration.write_text(text)
    code, line = refused(lab, *START)
    assert code == 3
    assert line.startswith(f"Configuration {lab.configuration}{complaint}")


def test_a_configuration_that_is_no_text(lab: Laboratory) -> None:
    lab.configuration.write_bytes(b"data = '\xff'\n")
    code, line = refused(lab, *START)
    assert (code, line) == (3, f"Configuration {lab.configuration}:1: this is not UTF-8 text")


@pytest.mark.parametrize(
    ("section", "lines", "complaint"),
    [
        ("space", 'probe = "divining rod"', "space probe: 'divining rod' is not known; known: "),
        ("batch", "local = { slots = 0 }", "[batch.local]: slots must be a whole number from 1"),
        ("batch", "local = { queue = 'x' }", "[batch.local]: 'queue' is not an option. Options: "),
        ("archive", 'url = "gopher://host/"', "archive: protocol 'gopher' is not known; known: "),
        (
            "archive",
            f'url = "ftp://me:{PASSWORD}@host/"',
            "archive: the URL must not hold a login; put user and password into ~/.netrc",
        ),
        ("archive", 'url = "ftp:///directory"', "archive: the URL names no host; write ftp://"),
    ],
)
def test_a_configuration_that_cannot_be_followed(
    lab: Laboratory, section: str, lines: str, complaint: str
) -> None:
    lab.configure(**{section: lines})
    code, line = refused(lab, *START)
    assert code == 3
    assert line.startswith(f"Configuration {lab.configuration}: {complaint}")


def test_a_type_that_needs_an_archive_of_which_nothing_is_said(lab: Laboratory) -> None:
    lab.configuration.unlink()
    code, line = refused(lab, *START)
    assert code == 3
    assert line == (
        f"Configuration {lab.configuration}: the archive of the raw files is not named. Write into "
        'this file (create it if needed): [archive] url = "ftp://HOST/DIRECTORY"'
    )


@pytest.mark.parametrize("place", ["MODULES", "MODULES/data", "closed", "closed/data"])
def test_a_data_directory_where_nothing_can_be_written(lab: Laboratory, place: str) -> None:
    (lab.data / "closed").mkdir(mode=0o555)
    lab.configuration.write_text(f'data = "{place}"\n' + lab.configuration.read_text())
    code, line = refused(lab, *START, plain_user=True)
    assert code == 3
    assert line.startswith(
        f"Configuration {lab.configuration}: in the data directory {lab.data / place} nothing can "
    )


# ------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (('"batch_alcapana.sge"', '"nosuch.sge"'), "there is no job script nosuch.sge in "),
        (('"{raw}"', '"{rwa}"'), "'arguments': {rwa} is not a field here; did you mean 'raw'?"),
        (("[output.hist]", "[output.status]"), "an output cannot be called 'status': the database"),
        (('"1h4m"', '"soon"'), "'time': 'soon' is not a time"),
        (("cores = 1", "cores = ["), ""),
        (
            ('from = "archive"', 'file = "gopher://host/run%05d.mid"\nfrom = "archive"'),
            "'file': protocol 'gopher' is not known; known: ",
        ),
        (
            ("cores = 1", "slrum.memory = '64G'\ncores = 1"),
            "'slrum' is not a key of [requirements]; did you mean 'slurm'?",
        ),
        (
            ("cores = 1", "slurm.extra.memory = '64G'\ncores = 1"),
            "'extra' is not a key of [requirements.slurm]; it knows: cores, memory, ",
        ),
        (('"alcapana"', '"other"'), "the name is 'other', but the file is called alcapana.toml"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else None,
)
def test_a_broken_recipe(lab: Laboratory, broken: tuple[str, str], complaint: str) -> None:
    import production.recipe

    builtin = Path(production.recipe.__file__).parent / "builtin" / "alcapana.toml"
    recipe = lab.data / "alcapana.toml"
    text = builtin.read_text()
    assert broken[0] in text
    recipe.write_text(text.replace(*broken, 1))
    line_number = text[: text.index(broken[0])].count("\n") + 1
    code, line = refused(lab, *START)
    assert code == 4
    assert line.startswith(f"Recipe {recipe}:{line_number}: {complaint}")


def test_a_modules_file_that_is_nowhere(lab: Laboratory) -> None:
    (lab.data / "MODULES").unlink()
    code, line = refused(lab, *START)
    assert code == 20
    assert line.startswith("Modules file MODULES cannot be read: it is not in ")
    assert line.endswith("Name a readable one with --modules=FILE.")


# ------------------------------------------------------------------------------- old databases


@pytest.mark.parametrize(
    ("statements", "complaint"),
    [
        (["CREATE TABLE t (a)"], ": it has neither the layout of 2014 nor that of 2016"),
        (
            ["CREATE TABLE datasets (run, dataset)", "CREATE TABLE productions (a)"],
            ": it has neither the layout of 2014 nor that of 2016",
        ),
        (
            [*OLD, "INSERT INTO datasets VALUES (NULL, 'SiR2', 'gold')"],
            ", table datasets: a row without run number or dataset",
        ),
        (
            [*OLD, "CREATE TABLE alcapana_v3 (run, status)"],
            ", table alcapana_v3: table productions does not mention it",
        ),
        (
            [
                *OLD,
                "INSERT INTO productions VALUES ('alcapana', 3, 'v3', NULL, NULL)",
                "CREATE TABLE alcapana_v3 (run, status)",
                "INSERT INTO alcapana_v3 VALUES (2091, 'X')",
            ],
            ", table alcapana_v3: run 2091 has status 'X'; N, C, R and F are known",
        ),
        (
            [
                *OLD,
                "INSERT INTO productions VALUES ('alcapana', 1, 'another', NULL, NULL)",
                "CREATE TABLE alcapana_v1 (run, status)",
            ],
            ": a different alcapana_v1 is in {database} already",
        ),
    ],
)
def test_a_database_that_is_no_old_one_is_not_imported(
    lab: Laboratory, statements: list[str], complaint: str
) -> None:
    old = lab.home / "old.db"
    _make(old, *statements)
    code, line = refused(lab, "import", old, command="production")
    assert code == 19
    assert line.startswith(f"{old}{complaint.format(database=lab.database)}")
    assert line.endswith("Nothing was imported.")


def test_an_archive_that_cannot_be_reached_is_no_reason_to_end(lab: Laboratory) -> None:
    """It is said once, no run fails, and the manager waits until it is stopped."""
    with closing(socket.socket()) as nobody:  # bound, but it does not listen
        nobody.bind(("127.0.0.1", 0))
        lab.configure(archive=f'url = "ftp://127.0.0.1:{nobody.getsockname()[1]}/"')
        script = """
            > out
            run_production.py "$@" > out &
            until grep -q WARNING out; do sleep 0.1; done
            sleep 1
            kill $! && wait $!"""
        said = lab.command("timeout", "100", "bash", "-c", script, "-", *START, "--pause=0.1")
    assert (said.code, said.err) == (143, "")
    (warning,) = re.findall(r"WARNING: (.*)", (lab.home / "out").read_text())
    assert warning.startswith("Archive 127.0.0.1 cannot be reached: port ")
    assert warning.endswith("Connection refused. Will try again later.")
    assert set(lab.rows("SELECT status, attempt FROM alcapana_v2")) == {("N", 1)}
