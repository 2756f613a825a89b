"""TAB completes commands, options and choices, and what the database knows; nobody waits for it."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pexpect
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laboratory import Laboratory, laboratory
from packages import need

from production.cli import COMMANDS
from production.model import RunFilter
from production.store import productions
from production.store.connection import Database
from production.store.names import Names, ranges

BASH = shutil.which("bash") or "bash"
PATIENCE = 60
TRIES = 12

# What bash does at a TAB, with the function that `complete` has been told.
BASH_DRIVER = """
source completion.bash
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
words=($1)
[[ $(complete -p "$words") =~ ' -F '([^ ]+) ]]
COMPREPLY=()
"${BASH_REMATCH[1]}" "$words"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """Two productions; runs 2091 to 2093 in one dataset, 7 and 30001 in another."""
    with laboratory(tmp_path_factory.mktemp("completion")) as made:
        made.production("datasets", "add", "Al 50", "7,30001", "--quality=gold")
        with Database(made.database) as db:
            for type_, tag in (("alcapana", "new_cuts"), ("alcapana", "newer_cuts")):
                wanted = productions.NewProduction(type_, tag, "", ("tree",))
                productions.start(db, wanted, RunFilter())
        for shell in ("bash", "zsh", "fish"):
            said = made.production("completion", shell)
            assert (said.code, said.err) == (0, "")
            (made.home / f"completion.{shell}").write_text(said.out)
        yield made


def completions(lab: Laboratory, line: str) -> list[str]:
    """What bash offers at the end of ``line``."""
    said = lab.command(BASH, "--norc", "-c", BASH_DRIVER, "bash", line)
    assert said.err == ""
    return sorted(word.strip() for word in said.out.splitlines() if word.strip())


def offers(lab: Laboratory, line: str, *expected: str) -> bool:
    """Whether bash offers that; a machine under load may not answer in time at once."""
    for _ in range(TRIES):
        found = completions(lab, line)
        if found == sorted(expected):
            return True
    pytest.fail(f"{line}: {found}, not {sorted(expected)}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("production ", [*COMMANDS]),
        ("production doc", ["doctor"]),
        ("production datasets ", ["import", "add", "list"]),
        ("production runs --reason x --sta", ["--status"]),
        ("production runs --status ", ["N", "C", "R", "F", "E"]),
        ("production runs --output=gi", ["github"]),
        ("production status --out", ["--output"]),
        ("production completion ", ["bash", "zsh", "fish"]),
        ("production nonsense ", []),
        ("production set np", ["nproc=", "nprep="]),
        ("production watch a", ["alcapana_v2", "alcapana_v1"]),
        ("run_production.py --dry", ["--dry-run"]),
        ("run_production.py --production=", ["alcapana", "rootana"]),
        ("run_production.py --dataset ", ["Al\\ 50", "SiR2"]),
        ("production datasets add ", ["Al\\ 50", "SiR2"]),
        ("production datasets add SiR2 ", []),
        ("production status --production=", ["alcapana"]),
        ("production status --production=alcapana --version=", ["2", "1"]),
        ("production status --production=rootana --version=", []),
        ("production logs 20", ["2091", "2092", "2093"]),
        ("production runs 7,2091-3", ["7,2091-30001"]),
        ("production explain --config=completion.b", ["completion.bash"]),
        ("production retry --reason ", []),
        ("production retry --status=", ["E", "F"]),
        ("production runs --columns=status,cpu", ["status,cpu_seconds"]),
        ("production runs --columns=run,r", ["run,reason"]),
        ("production runs --sort=-cpu", ["-cpu_seconds"]),
        ("production runs --sort=status,-wall", ["status,-wall_seconds"]),
        ("production export --production=alcapana --columns=run,tr", ["run,tree"]),
        ("production export --production=rootana --columns=tr", []),
        ("production history --output=la", ["latex"]),
        ("production trace --output ", ["table", "github", "latex", "csv", "json", "quiet"]),
        ("run_production.py --output=js", ["json"]),
        ("run_production.py --verb", ["--verbose"]),
    ],
)
def test_what_bash_offers(lab: Laboratory, line: str, offered: list[str]) -> None:
    assert offers(lab, line, *offered)


@pytest.mark.slow
def test_options_are_offered_where_nothing_else_can_stand(lab: Laboratory) -> None:
    assert {"--production", "--version", "--output", "--database", "--help"} <= set(
        completions(lab, "production status ")
    )


@pytest.mark.slow
def test_the_named_database_is_asked(lab: Laboratory) -> None:
    other = lab.home / "other.db"
    assert lab.production("init", f"--database={other}").code == 0
    lab.production("datasets", "add", "Pb", "5", f"--database={other}")
    assert offers(lab, f"production runs --database={other} --dataset=", "Pb")


# ------------------------------------------------------------------------------- real terminals


TYPED = (
    ("production runs --dataset Si", "production runs --dataset SiR2 "),
    ("production runs --columns=run,exit_", "production runs --columns=run,exit_code "),
    ("production runs --output gi", "production runs --output github "),
)


def line_after_tab(lab: Laboratory, shell: list[str], typed: str, becomes: str, *setup: str) -> str:
    """What ``typed`` becomes in an interactive shell; waits for ``becomes``."""
    child = pexpect.spawn(
        shell[0],
        shell[1:],
        env={**lab.environment, "TERM": "dumb", "INPUTRC": "/dev/null"},
        cwd=str(lab.home),
        encoding="utf-8",
        timeout=PATIENCE,
        dimensions=(24, 200),
    )
    child.delaybeforesend = None
    try:
        for line in setup:
            child.sendline(line)
        child.sendline("x=ready; echo it_is_$x")  # echoed, this is another text than printed
        child.expect("it_is_ready")
        child.send(typed)
        for _ in range(TRIES):
            child.send("\t")
            if child.expect([re.escape(becomes), pexpect.TIMEOUT], timeout=5) == 0:
                return str(child.match[0])
        pytest.fail(str(child.before))
    finally:
        child.close(force=True)


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "becomes"), TYPED)
def test_tab_in_bash(lab: Laboratory, typed: str, becomes: str) -> None:
    shell = [BASH, "--norc", "--noprofile"]
    assert line_after_tab(lab, shell, typed, becomes, "source completion.bash")


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "becomes"), TYPED)
def test_tab_in_zsh(lab: Laboratory, typed: str, becomes: str) -> None:
    zsh = need("zsh", "zsh")
    setup = ("autoload -U compinit; compinit -u -D", "source completion.zsh")
    assert line_after_tab(lab, [zsh, "-f"], typed, becomes, *setup)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("production doc", {"doctor\tcheck all that the work depends on, and tell what to do"}),
        ("production runs --dataset ", {"Al 50", "SiR2"}),
        ("run_production.py --production=a", {"--production=alcapana"}),
        ("production runs --status ", set("NCRFE")),
        ("production runs --columns=run,exit", {"--columns=run,exit_code"}),
        ("production stats --output la", {"latex"}),
        ("production status --production alcapana --version ", {"2\tnewer_cuts", "1\tnew_cuts"}),
    ],
)
def test_what_fish_offers(lab: Laboratory, line: str, offered: set[str]) -> None:
    fish = need("fish", "fish")
    # As documented: fish reads the file when it meets the command.
    place = lab.home / ".config" / "fish" / "completions"
    place.mkdir(parents=True, exist_ok=True)
    for program in ("production", "run_production.py"):
        shutil.copy(lab.home / "completion.fish", place / f"{program}.fish")
    for _ in range(TRIES):
        said = lab.command(fish, "-c", f"complete --do-complete '{line}'")
        assert said.err == ""
        found = {text.rstrip() for text in said.out.splitlines()}
        if found == offered:
            return
    pytest.fail(f"{found}, not {offered}")


# ------------------------------------------------------------------------------- trouble


@pytest.mark.slow
def test_a_missing_database_completes_nothing(lab: Laboratory) -> None:
    line = f"production runs --database={lab.home / 'none.db'} --dataset="
    assert completions(lab, line) == []
    assert not (lab.home / "none.db").exists()


@pytest.mark.slow
def test_another_programs_file_completes_nothing(lab: Laboratory) -> None:
    other = lab.home / "letter.txt"
    other.write_text("Dear colleagues,\n" * 100)
    assert completions(lab, f"production logs --database={other} ") == []


@pytest.mark.slow
def test_a_locked_database_completes_nothing_and_is_not_waited_for(lab: Laboratory) -> None:
    with closing(sqlite3.connect(lab.database, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert completions(lab, "production runs --dataset ") == []
        assert offers(lab, "production runs --output=j", "json")
        holder.execute("ROLLBACK")
    assert offers(lab, "production runs --dataset=Si", "SiR2")


@pytest.mark.slow
def test_a_file_that_never_answers_completes_nothing(lab: Laboratory) -> None:
    """As on a file server that is away: who opens a pipe without a writer waits for ever."""
    pipe = lab.home / "pipe.db"
    os.mkfifo(pipe)
    line = f"production runs --database={pipe} --dataset="
    assert completions(lab, line) == []
    pipe.unlink()


@pytest.mark.slow
def test_nothing_is_written(lab: Laboratory) -> None:
    before = lab.snapshot()
    assert offers(lab, "production runs 20", "2091", "2092", "2093")
    assert lab.snapshot() == before


# ------------------------------------------------------------------------------- what is asked


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A database without anything."""
    schema = Path(__file__).parent.parent / "schema.sql"
    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        connection.executescript(schema.read_text())
        yield connection


@pytest.mark.parametrize("longer", [[], [20_500, 290_000]])
def test_what_all_run_numbers_have_in_common_is_seen_in_those_that_are_named(
    empty: sqlite3.Connection, longer: list[int]
) -> None:
    """A shell fills in what its choices have in common: it must not fill in what some lack."""
    runs = [*range(2000, 2999, 3), *longer]
    empty.executemany("INSERT INTO datasets (run, dataset) VALUES (?, 'A')", [(r,) for r in runs])
    for prefix in ("", "2", "20", "201", "29", "2000", "3"):
        named = Names(empty).runs(prefix, None, None)
        meant = [str(run) for run in runs if str(run).startswith(prefix)]
        assert set(named) <= set(meant)
        assert _beginning(named) == _beginning(meant)
        assert len(named) == len(meant) or len(named) >= 20


def _beginning(words: list[str]) -> str:
    return os.path.commonprefix(words)  # noqa: RUF071 - they are no paths


@given(st.integers(0, 10**10 - 1), st.integers(0, 11))
def test_the_ranges_hold_all_numbers_that_begin_so_and_no_others(run: int, length: int) -> None:
    prefix = str(run)[:length]
    assert any(low <= run <= high for low, high in ranges(prefix))
    for low, high in ranges(prefix):
        assert str(low).startswith(prefix) and str(high).startswith(prefix)
        assert len(str(low)) == len(str(high))


@pytest.mark.parametrize("prefix", ["x", "007", "-", "²", "00"])
def test_what_is_no_number_begins_none(prefix: str) -> None:
    assert list(ranges(prefix)) == []


@pytest.mark.parametrize("ask", ["datasets", "runs"])
def test_no_question_reads_all_runs(empty: sqlite3.Connection, ask: str) -> None:
    statements: list[str] = []
    empty.set_trace_callback(statements.append)
    empty.execute("INSERT INTO productions (type, version, software) VALUES ('a', 1, '')")
    if ask == "datasets":
        Names(empty).datasets()
    else:
        Names(empty).runs("20", None, None)
    empty.set_trace_callback(None)
    asked = [text for text in statements if "datasets" in text or "FROM run" in text]
    assert asked
    for statement in asked:
        plan = [row[3] for row in empty.execute(f"EXPLAIN QUERY PLAN {statement}")]
        assert any(step.startswith("SEARCH") for step in plan), plan
        assert not [step for step in plan if step.startswith(("SCAN run", "SCAN datasets"))], plan


def test_completion_costs_the_programs_start_nothing() -> None:
    """Neither the library nor the module is imported unless a shell asks."""
    code = (
        "import sys; from production.cli import main; main(['--version']); "
        "sys.exit(any(name.startswith(('argcomplete', 'production.cli.completion')) "
        "for name in sys.modules))"
    )
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
