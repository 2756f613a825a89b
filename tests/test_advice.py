"""What messages advise is what helps, and the commands in them can be pasted into a shell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from experiment import RECIPE, TOTAL
from laboratory import Laboratory, Said, laboratory

from production.errors import DatabaseMissing, DatabaseTooOld, JournalLeft, RunsFailed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with laboratory(tmp_path_factory.mktemp("advice"), runs="2091") as made:
        (made.database.parent / "count.toml").write_text(RECIPE)
        (made.database.parent / "total.toml").write_text(TOTAL)
        (made.database.parent / "count.sh").write_text('wc -c < "$1" > "$2"\n')
        made.finish("--production=count", "--new=x")
        yield made


def advised(said: Said, before: str) -> str:
    """The command that a message ends with."""
    return (said.out + said.err).partition(before)[2].strip()


def typed(lab: Laboratory, command: str) -> Said:
    """A command as a user pastes it."""
    return lab.command("bash", "-c", command)


def test_commands_can_be_pasted_wherever_the_database_is(lab: Laboratory, tmp_path: Path) -> None:
    path = tmp_path / "Größe (neu) & $HOME's" / "produktion 1.db"
    missing = lab.production("status", f"--database={path}")
    assert missing.code == DatabaseMissing.exit_code
    created = typed(lab, advised(missing, "Create it with: "))
    assert (created.code, created.err) == (0, "")
    runs = tmp_path / "runs.csv"
    runs.write_text("run,dataset,quality\n1,A,gold\n")
    following = advised(created, "Next: ").replace("FILE.csv", str(runs))
    assert typed(lab, following).out == "1 new, 0 changed, 0 as before\n"


@pytest.mark.parametrize("kind", [DatabaseMissing, DatabaseTooOld, JournalLeft])
def test_names_in_commands_are_quoted(kind: type[DatabaseMissing]) -> None:
    error = kind(path="a b.db", user="me", found=1, known=3)
    assert "Database a b.db" in str(error)
    assert "--database='a b.db'" in str(error)


def test_after_failed_runs_both_commands_are_quoted() -> None:
    error = RunsFailed(count=1, runs="7", database="a b.db", table="t_v1", type="t", version=1)
    assert "sqlite3 'a b.db' \"SELECT" in str(error)
    assert str(error).endswith("production retry --production=t --version=1 --database='a b.db'")


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("no/such.db", 10, "does not exist"),
        ("data", 11, "is not a production database"),
        ("runs.csv", 11, "is not a production database"),
    ],
)
def test_a_wrong_database_is_named_before_the_recipe_that_is_not_beside_it(
    lab: Laboratory, tmp_path: Path, name: str, code: int, message: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "runs.csv").write_text("run,dataset\n" * 100)
    said = lab.run("--production=count", f"--database={tmp_path / name}")
    assert (said.code, said.out) == (code, "")
    assert message in said.err


def test_beside_the_right_database_the_recipes_are_listed(lab: Laboratory) -> None:
    said = lab.run("--production=coun")
    assert said.code == 4
    assert "Known recipes: alcapana, count, rootana, total. " in said.err


@pytest.mark.parametrize("more", [[], ["--new=y"]])
def test_a_quality_or_tranche_that_no_run_has_is_refused(lab: Laboratory, more: list[str]) -> None:
    before = lab.snapshot()
    misspelt = lab.run("--production=count", "--quality=gold", "--quality=god", *more)
    assert misspelt.code == 17
    assert misspelt.err == "ERROR: No run of any dataset has quality god. There are: gold\n"
    assert lab.run("--production=count", "--tranche=77", *more).code == 17
    assert lab.snapshot() == before


def test_all_qualities_can_be_asked_for(lab: Laboratory) -> None:
    assert lab.run("--production=count", "--quality=any").code == 0


def test_a_job_script_that_cannot_be_read_is_named_before_any_run_is_claimed(
    lab: Laboratory,
) -> None:
    script = lab.database.parent / "count.sh"
    script.chmod(0)
    try:
        before = lab.dump()
        said = lab.run("--production=count", "--new=y", plain_user=True)
        assert (said.code, lab.dump()) == (4, before)
        assert f"the job script {script} cannot be read: chmod a+r it" in said.err
    finally:
        script.chmod(0o644)


@pytest.mark.parametrize(
    ("where", "mode", "why"),
    [
        ("bytes", 0, "cannot be read: {file}: Permission denied"),
        ("bytes/v1/bytes02091.txt", 0, "cannot be read: {file}: Permission denied"),
        ("bytes/v1/bytes02091.txt", None, "is missing: {file}"),
    ],
)
def test_a_colleagues_file_that_is_closed_is_not_called_missing(
    lab: Laboratory, where: str, mode: int | None, why: str
) -> None:
    file, place = lab.data / "bytes/v1/bytes02091.txt", lab.data / where
    content, open_mode = file.read_bytes(), place.stat().st_mode
    try:
        if mode is None:
            place.unlink()
        else:
            place.chmod(mode)
        said = lab.run("--production=total", "--new=y", "--max-attempts=1", plain_user=True)
    finally:
        if mode is None:
            file.write_bytes(content)
        else:
            place.chmod(open_mode)
    assert said.code == RunsFailed.exit_code
    reason = f"input bytes of count_v1 {why.format(file=file)}"
    assert f"Failed run: 2091: {reason} (no attempts left)" in said.out


def test_the_doctor_names_the_recipes_that_are_sound(lab: Laboratory) -> None:
    modules = lab.data / "MODULES"
    text = modules.read_text()
    try:
        modules.unlink()
        said = lab.production("doctor", "--seconds=0.1")
        assert "ok      recipe       count, rootana, total\n" in said.out
        assert "note    modules      alcapana: " in said.out
    finally:
        modules.write_text(text)


def test_a_trace_tells_the_raw_file_also_of_a_recipe_of_ones_own(lab: Laboratory) -> None:
    said = lab.production("trace", "2091", "--production=count")
    (line,) = [line for line in said.out.splitlines() if line.startswith("  input     raw: ")]
    assert "run02091.mid" in line


def test_the_doctor_claims_no_login_that_there_is_not(lab: Laboratory) -> None:
    text = lab.configuration.read_text()
    try:
        lab.configure(archive='url = "sftp://tape.invalid/data"')
        said = lab.production("doctor", "--seconds=0.1", variables={"NETRC": "none"})
        assert "no login for tape.invalid in " in said.out
        assert "has a login for tape.invalid" not in said.out
    finally:
        lab.configuration.write_text(text)
