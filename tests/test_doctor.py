"""``production doctor`` on a healthy set-up, and on many that are deliberately broken."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from threading import Timer

import pytest
from bookkeeping import processes, python
from desks import Batch
from job_orders import leaves_pid, pid_in, until
from laboratory import Laboratory, Said, laboratory

from production.doctor import database, examine, filesystem, locks, meeting, node, surroundings
from production.doctor.findings import Finding, Level, note, ok
from production.doctor.locktest import ONE_HOST
from production.doctor.scratch import PREFIX
from production.errors import QueryFailed
from production.model import JobHandle, JobState
from production.recipe.load import BUILTIN

pytestmark = pytest.mark.slow

QUICK = "--seconds=0.1"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Laboratory]:
    with laboratory(tmp_path) as made:
        made.data.chmod(0o2770)
        made.database.chmod(0o660)
        yield made


class Report:
    """What the doctor said."""

    def __init__(self, said: Said) -> None:
        self.said = said
        self.findings: list[dict[str, str]] = json.loads(said.out)

    def of(self, check: str, level: str) -> str:
        """The text of the findings on ``check`` that have this level; there must be some."""
        texts = [
            f"{finding['what']} | {finding['remedy']}"
            for finding in self.findings
            if (finding["check"], finding["level"]) == (check, level)
        ]
        assert texts, self.said.out
        return "\n".join(texts)

    @property
    def worst(self) -> list[str]:
        """The checks with warnings or errors."""
        bad = ("warning", "error")
        return sorted({finding["check"] for finding in self.findings if finding["level"] in bad})


def doctor(lab: Laboratory, *arguments: object, **more: object) -> Report:
    """The whole program; it leaves everything as it was."""
    before = lab.snapshot()
    said = lab.production("doctor", "--output=json", QUICK, *arguments, **more)
    after = lab.snapshot()
    assert after == before
    report = Report(said)
    for finding in report.findings:
        assert finding["remedy"] or finding["level"] in ("ok", "note"), finding
        assert "\n" not in finding["what"] + finding["remedy"], finding
    errors = [finding for finding in report.findings if finding["level"] == "error"]
    assert said.code == (45 if errors else 44 if report.worst else 0)
    assert bool(said.err) == (said.code != 0)
    assert "Traceback" not in said.err
    return report


# ------------------------------------------------------------------------------- healthy


def test_a_healthy_set_up_has_no_trouble(lab: Laboratory) -> None:
    report = doctor(lab, "--node", "--production=alcapana")
    assert report.worst == []
    for check in (
        *("sqlite", "locks", "permissions", "journal", "schema", "quick_check", "managers"),
        *("clock", "netrc", "space", "data", "batch", "recipe", "config", "node"),
    ):
        assert report.of(check, "ok")


def test_it_prints_for_people(lab: Laboratory) -> None:
    said = lab.production("doctor", QUICK)
    assert (said.code, said.err) == (0, "")
    assert "ok      quick_check  the file is sound\n" in said.out


def test_quiet_shows_what_is_wrong_and_what_to_do(lab: Laboratory) -> None:
    lab.netrc.chmod(0o644)
    said = lab.production("doctor", QUICK, "--output=quiet")
    assert said.code == 45
    assert [line[:20].strip() for line in said.out.splitlines()] == ["error   netrc", ""]
    assert said.err == ("ERROR: 1 error and 0 warnings: netrc. What to do is told with each.\n")


# ------------------------------------------------------------------------------- the database


def damage(lab: Laboratory) -> None:
    """Overwrite the first page of a table."""
    ((page,),) = lab.rows("SELECT rootpage FROM sqlite_master WHERE name = 'datasets'")
    with lab.database.open("r+b") as file:
        file.seek(4096 * (int(str(page)) - 1))
        file.write(b"\xff" * 4096)


def damage_schema(lab: Laboratory) -> None:
    """Overwrite the page that tells where all others are."""
    with lab.database.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 1000)


def make_wal(lab: Laboratory) -> None:
    with closing(sqlite3.connect(lab.database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def set_version(number: int) -> Callable[[Laboratory], None]:
    def change(lab: Laboratory) -> None:
        with closing(sqlite3.connect(lab.database)) as connection:
            connection.execute(f"PRAGMA user_version = {number}")

    return change


def make_foreign(lab: Laboratory) -> None:
    lab.database.unlink()
    with closing(sqlite3.connect(lab.database)) as connection:
        connection.execute("CREATE TABLE something (else_)")


def make_directory(lab: Laboratory) -> None:
    lab.database.unlink()
    lab.database.mkdir()


def make_text(lab: Laboratory) -> None:
    lab.database.write_text("hello\n" * 999)


def make_empty(lab: Laboratory) -> None:
    lab.database.write_text("")


def remove(lab: Laboratory) -> None:
    lab.database.unlink()


BROKEN_FILES: dict[str, tuple[Callable[[Laboratory], None], str, str]] = {
    "missing": (remove, "database", "does not exist"),
    "no database": (make_text, "database", "not a"),
    "a directory": (make_directory, "database", "not a file"),
    "empty": (make_empty, "schema", "none of its tables"),
    "somebody else's": (make_foreign, "schema", "none of its tables"),
    "damaged": (damage, "quick_check", "is damaged"),
    "damaged at its root": (damage_schema, "database", "malformed"),
    "in WAL mode": (make_wal, "journal", "WAL mode, which loses data"),
    "too new": (set_version(99), "schema", "the newer program"),
    "too old": (set_version(1), "schema", "production migrate"),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_broken_database_is_found_out(lab: Laboratory, name: str) -> None:
    spoil, check, words = BROKEN_FILES[name]
    spoil(lab)
    assert words in doctor(lab).of(check, "error")


def test_a_directory_that_is_not_there(lab: Laboratory) -> None:
    report = doctor(lab, "--database=/nowhere/at/all.db")
    assert "cannot be looked at: No such file" in report.of("directory", "error")


def test_what_a_killed_writer_left_is_named_before_sqlite_puts_it_right(lab: Laboratory) -> None:
    writer = python(
        """
        import os, sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO modules VALUES (1, 'x', ?)", ("x" * 100_000,))
        connection.execute("UPDATE datasets SET quality = 'silver'")
        os.kill(os.getpid(), 9)
        """,
        lab.database,
    )
    writer.communicate(timeout=60)
    assert writer.returncode == -signal.SIGKILL
    said = lab.production("doctor", QUICK, "--output=json")
    report = Report(said)
    assert "Never remove it" in report.of("journal", "note")
    assert report.of("quick_check", "ok")
    assert lab.rows("SELECT DISTINCT quality FROM datasets") == [("gold",)]


def test_files_of_the_wal_mode_are_named(lab: Laboratory) -> None:
    (lab.data / "production.db-wal").write_bytes(b"")
    assert "Do not remove it" in doctor(lab).of("journal", "warning")


@contextmanager
def locked_after_the_schema(path: Path) -> Iterator[tuple[Iterator[Finding], sqlite3.Connection]]:
    """What the doctor finds from then on, and who has locked the file."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        findings = database.check_database(path)
        assert next(f for f in findings if f.check == "schema").level is Level.OK
        other.execute("BEGIN EXCLUSIVE")
        yield findings, other


def test_a_writer_that_is_slow_makes_it_wait(lab: Laboratory) -> None:
    with locked_after_the_schema(lab.database) as (findings, other):
        slow = Timer(1.0, other.execute, ("COMMIT",))
        slow.start()
        levels = {finding.level for finding in findings}
        slow.join()
    assert levels == {Level.OK}


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_database_that_stays_locked_is_not_broken(
    lab: Laboratory, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(database, "_BUSY", 0.3)
    with locked_after_the_schema(lab.database) as (findings, _):
        if when == "before":
            findings = database.check_database(lab.database)
        *_, last = findings
    assert (last.check, last.level) == ("database", Level.WARNING)
    assert last.what == f"{lab.database} was locked for 0.3 s"
    assert "sqlite3 sessions" in last.remedy


def test_ctrl_c_amid_the_check_of_the_file_is_not_forgotten(
    lab: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's Python module forgets an exception that is raised in its callbacks."""
    monkeypatch.setattr(database, "_STEPS", 1)
    clock, readings = time.monotonic, count()

    def disturbed() -> float:
        if next(readings) == 1:  # the first one is before the check
            raise KeyboardInterrupt
        return clock()

    with locked_after_the_schema(lab.database) as (findings, other):
        other.execute("ROLLBACK")
        monkeypatch.setattr(time, "monotonic", disturbed)
        with pytest.raises(KeyboardInterrupt):
            list(findings)
    assert next(readings) > 1


def test_a_dead_manager_that_holds_runs_is_named(lab: Laboratory) -> None:
    lab.finish("--production=alcapana", "--new=v1")
    with closing(sqlite3.connect(lab.database)) as connection:
        connection.executescript("""
            INSERT INTO manager (id, user, host, boot, pid, pid_start, beat_at)
            VALUES (97, 'me', 'elsewhere', 'another', 1, 1, '2026-01-01 00:00:00.000000'),
                   (98, 'me', 'elsewhere', 'another', 1, 1, '2999-01-01 00:00:00.000000');
            INSERT INTO manager (id, user, host, stopped) VALUES (99, 'me', 'here', '2026');
            UPDATE run SET status = 'N';
            UPDATE run SET status = 'C', manager = 97 WHERE run = 2091;
            UPDATE run SET status = 'C', manager = 98 WHERE run = 2092;
            UPDATE run SET status = 'C', manager = 99 WHERE run = 2093;
            """)
    text = doctor(lab).of("managers", "note")
    assert "manager 97 (me on elsewhere) has given no sign of life since 2026-01-01" in text
    assert "manager 99 (me on here) has ended, and still holds 1 run" in text
    assert "manager 98" not in text


# ------------------------------------------------------------------------------- permissions


BAD_MODES = {
    "only the file is the group's": (0o660, 0o2750, "warning", "chmod g+rwxs"),
    "the directory is sticky": (0o660, 0o3770, "warning", "chmod -t"),
    "everybody may write": (0o666, 0o2777, "warning", "chmod o-w"),
    "the group is not inherited": (0o660, 0o770, "note", "chmod g+s"),
    "only the owner may write": (0o640, 0o2750, "note", "chmod g+rw"),
}


@pytest.mark.parametrize("name", BAD_MODES)
def test_permissions_that_are_in_a_groups_way(lab: Laboratory, name: str) -> None:
    file, directory, level, remedy = BAD_MODES[name]
    lab.database.chmod(file)
    lab.data.chmod(directory)
    assert remedy in doctor(lab).of("permissions", level)


def test_a_file_that_may_not_be_written(lab: Laboratory) -> None:
    lab.database.chmod(0o440)
    report = doctor(lab, plain_user=True)
    assert "may not read and write" in report.of("permissions", "error")


def test_a_directory_that_may_not_be_written(lab: Laboratory) -> None:
    lab.data.chmod(0o550)
    report = doctor(lab, plain_user=True)
    assert "where the journal is" in report.of("permissions", "error")
    assert "Permission denied" in report.of("directory", "error")
    lab.data.chmod(0o770)


def test_a_second_name_of_the_file(lab: Laboratory) -> None:
    (lab.data / "also.db").hardlink_to(lab.database)
    assert "2 names (hard links)" in doctor(lab).of("permissions", "error")


def test_a_database_that_is_a_link_is_looked_at_where_it_is(lab: Laboratory) -> None:
    shared = lab.home / "shared"
    shared.mkdir(mode=0o2770)
    shared.chmod(0o2770)
    lab.database.rename(shared / "production.db")
    lab.database.symlink_to(shared / "production.db")
    report = doctor(lab)
    assert report.worst == []
    assert f"{shared} is on" in report.of("filesystem", "note")


# ------------------------------------------------------------------------------- around it


def test_a_login_that_others_can_read(lab: Laboratory) -> None:
    lab.netrc.chmod(0o644)
    assert "chmod 600" in doctor(lab).of("netrc", "error")


def test_an_archive_without_a_login(lab: Laboratory) -> None:
    lab.netrc.write_text("machine elsewhere login me password secret-word\n")
    report = doctor(lab)
    assert "the file has no entry for this host" in report.of("netrc", "error")
    assert "secret-word" not in report.said.out


def test_an_open_login_file_is_named_even_without_an_archive(lab: Laboratory) -> None:
    lab.netrc.chmod(0o604)
    lab.configure(archive="")
    assert "chmod 600" in doctor(lab).of("netrc", "warning")


def test_a_configuration_with_a_mistake(lab: Laboratory) -> None:
    lab.configure(defaults='npoc = "5"')
    assert "did you mean 'nproc'" in doctor(lab).of("config", "error")


def test_a_recipe_with_a_mistake(lab: Laboratory) -> None:
    (lab.data / "mine.toml").write_text('name = "mine"\nscript = 5\n')
    assert "mine.toml:" in doctor(lab).of("recipe", "error")


def test_batch_systems_that_are_misspelt(lab: Laboratory) -> None:
    lab.configure(batch="locl = {}")
    text = (BUILTIN / "alcapana.toml").read_text()
    wrong = text.replace("cores = 1", 'slrum.memory = "64G"')
    (lab.data / "alcapana.toml").write_text(wrong)
    report = doctor(lab)
    assert "did you mean 'local'" in report.of("batch", "error")
    assert "did you mean 'slurm'" in report.of("recipe", "error")


def test_a_recipe_that_cannot_be_read_at_all(lab: Laboratory) -> None:
    (lab.data / "mine.toml").write_text("name = \n")
    assert "mine.toml:1" in doctor(lab).of("recipe", "warning")


def test_an_unknown_recipe(lab: Laboratory) -> None:
    report = doctor(lab, "--production=nonesuch")
    assert "There is no recipe for --production=nonesuch" in report.of("recipe", "error")


def test_a_modules_file_that_is_missing(lab: Laboratory) -> None:
    (lab.data / "MODULES").unlink()
    assert doctor(lab).of("modules", "note")
    assert "alcapana" in doctor(lab, "--production=alcapana").of("modules", "error")


def test_an_environment_script_that_is_missing(lab: Laboratory) -> None:
    lab.configure(environment='script = "no/such.sh"')
    assert "is missing" in doctor(lab).of("environment", "error")


def test_an_environment_script_that_is_no_bash(lab: Laboratory) -> None:
    (lab.data / "this.sh").write_text("if then\n")
    lab.configure(environment='script = "this.sh"')
    assert "syntax error" in doctor(lab).of("environment", "error")


def test_a_data_directory_that_cannot_be(lab: Laboratory) -> None:
    text = lab.configuration.read_text()
    lab.configuration.write_text(f'data = "production.db/below"\n{text}')
    assert "nothing can be written" in doctor(lab, "--node").of("data", "error")


def test_space_that_is_used_up(lab: Laboratory) -> None:
    lab.configure(defaults='spacelim = "0.001%"')
    assert "nothing is fetched" in doctor(lab).of("space", "warning")


def test_a_quota_command_that_is_not_there(lab: Laboratory) -> None:
    lab.configure(space='probe = "mmlsquota"')
    assert "mmlsquota" in doctor(lab).of("space", "error")


def test_a_batch_system_that_is_not_known(lab: Laboratory) -> None:
    lab.configure(batch='system = "loadleveler"')
    assert "loadleveler" in doctor(lab).of("batch", "error")


def fake(lab: Laboratory, name: str, text: str) -> None:
    path = lab.home / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.skipif(shutil.which("bsub") is not None, reason="this machine has LSF")
def test_a_batch_system_whose_commands_are_not_there(lab: Laboratory) -> None:
    lab.configure(batch='system = "lsf"')
    assert "not on the PATH: bsub, bjobs, bkill" in doctor(lab).of("batch", "error")


def test_a_batch_system_that_does_not_answer(lab: Laboratory) -> None:
    for name in ("sbatch", "squeue", "scancel", "sacct", "scontrol"):
        fake(lab, name, 'echo "slurm_load_jobs error: Unable to contact" >&2; exit 1')
    lab.configure(batch='system = "slurm"')
    assert "did not answer" in doctor(lab).of("batch", "error")


@pytest.mark.parametrize(
    ("wrong", "level"), [(0, Level.OK), (-30, Level.NOTE), (300, Level.WARNING)]
)
def test_a_clock_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float, level: Level
) -> None:
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + wrong)
    (finding,) = surroundings.check_clock(tmp_path)
    assert finding.level is level
    assert not wrong or f"differ by {abs(wrong)}.0 s" in finding.what


# ------------------------------------------------------------------------------- on a node


def test_an_environment_script_that_fails_on_the_node(lab: Laboratory) -> None:
    (lab.data / "this.sh").write_text("echo no such release >&2\nfalse\n")
    lab.configure(environment='script = "this.sh"')
    text = doctor(lab, "--node").of("node", "error")
    assert "exit code 1: no such release" in text


def test_an_environment_script_may_exit(lab: Laboratory) -> None:
    (lab.data / "this.sh").write_text("exit 3\n")
    lab.configure(environment='script = "this.sh"')
    assert "exit code 3" in doctor(lab, "--node").of("node", "error")


def test_a_node_without_a_command_that_jobs_need(lab: Laboratory) -> None:
    few = lab.home / "few"
    few.mkdir()
    kept = ("bash", "cat", "date", "ln", "mkdir", "mv", "rm", "setsid", "sleep", "stat", "sync")
    for name in (*kept, "tail", "uname"):
        found = shutil.which(name)
        assert found
        (few / name).symlink_to(found)
    report = doctor(lab, "--node", variables={"PATH": str(few)})
    assert "sha256sum" in report.of("node", "error")


def test_a_job_that_does_not_end_is_cancelled(lab: Laboratory) -> None:
    pid = lab.home.parent / "pid"
    (lab.data / "this.sh").write_text(f"{leaves_pid(pid)}sleep 1000\n")
    lab.configure(environment='script = "this.sh"')
    report = doctor(lab, "--node", "--wait=1")
    assert "was still running after 1 s" in report.of("node", "warning")
    until(lambda: not Path(f"/proc/{pid_in(pid)}/cwd").exists())


class Flaky(Batch):
    """One that does not answer the first ``silent`` questions."""

    def __init__(self, silent: int, state: JobState) -> None:
        super().__init__()
        self.silent, self.state, self.asked = silent, state, 0

    def poll(self, jobs: Sequence[JobHandle]) -> dict[str, JobState]:
        self.asked += 1
        if self.asked <= self.silent:
            raise QueryFailed(system=self.name, what="the server is busy")
        return super().poll(jobs)


def test_a_query_that_fails_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "_GLANCE", 0.01)
    monkeypatch.setattr(node, "_ASK", 0.02)
    job = JobHandle("doctor", tmp_path)
    assert node._wait(Flaky(2, JobState.HELD), job, 100.0) is JobState.HELD
    with pytest.raises(QueryFailed):
        node._wait(Flaky(10**9, JobState.HELD), job, 0.1)


def test_the_batch_system_is_asked_less_often_than_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "_GLANCE", 0.01)
    batch = Flaky(0, JobState.PENDING)
    assert node._wait(batch, JobHandle("doctor", tmp_path), 0.3) is JobState.PENDING
    assert batch.asked == 2  # at the beginning and at the end


def test_what_a_killed_doctor_left_in_the_data_directory_is_named(lab: Laboratory) -> None:
    elsewhere = lab.home / "elsewhere"
    left = elsewhere / f"{PREFIX}host-17-abcd"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    text = lab.configuration.read_text()
    lab.configuration.write_text(f'data = "{elsewhere}"\n{text}')
    assert f"rm -r {left}" in doctor(lab, "--node").of("scratch", "note")


# ------------------------------------------------------------------------------- another host

SSH = """
printf '%s\\n' "$*" >> {calls}
while [ "$1" != -- ]; do shift; done
[ "$2" = node2 ] || {{ echo "ssh: Could not resolve hostname $2" >&2; exit 255; }}
shift 2
exec sh -c "$*"
"""


def test_a_second_host_takes_part_by_ssh(lab: Laboratory) -> None:
    calls = lab.home.parent / "calls"
    fake(lab, "ssh", SSH.format(calls=calls))
    report = doctor(lab, "--other-host=node2")
    assert "none lost" in report.of("two hosts", "ok")
    assert "BatchMode=yes" in calls.read_text()


def test_a_host_that_cannot_be_reached(lab: Laboratory) -> None:
    fake(lab, "ssh", SSH.format(calls=lab.home.parent / "calls"))
    report = doctor(lab, "--other-host=node3")
    assert "Could not resolve hostname node3" in report.of("two hosts", "error")


def test_a_host_that_prints_something_at_each_login(lab: Laboratory) -> None:
    fake(lab, "ssh", 'echo "Welcome to node2"; cat > /dev/null')
    report = doctor(lab, "--other-host=node2")
    assert "'Welcome to node2'" in report.of("two hosts", "error")


def test_a_host_is_not_an_option(lab: Laboratory) -> None:
    said = lab.production("doctor", "--other-host=-oProxyCommand=x")
    assert said.code == 2


def test_two_doctors_in_two_shells_meet(lab: Laboratory) -> None:
    argv = [sys.executable, "-m", "production", "doctor", QUICK, "--output=json", "--meet=60"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [
        subprocess.Popen(argv, env=lab.environment, cwd=lab.home, text=True, **pipes)  # type: ignore[call-overload]
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in both]
    for out, err in said:
        report = Report(Said(0, out, err))
        assert "none lost" in report.of("two hosts", "ok")
    assert list(lab.data.glob(f"{PREFIX}*")) == []


def start_and_kill(lab: Laboratory) -> Path:
    """The directory that a doctor leaves behind which is killed while it waits for another."""
    argv = [sys.executable, "-m", "production", "doctor", QUICK, "--meet=600"]
    process = subprocess.Popen(
        argv, env=lab.environment, cwd=lab.home, stdout=subprocess.PIPE, text=True
    )
    with processes([process]):
        assert process.stdout is not None
        assert any(" locks " in line for line in process.stdout)
        process.kill()
    (left,) = lab.data.glob(f"{PREFIX}*")
    return left


def test_a_doctor_that_was_killed_on_this_host_is_nobody_to_meet(lab: Laboratory) -> None:
    left = start_and_kill(lab)
    report = doctor(lab)
    assert f"rm -r {left}" in report.of("scratch", "note")
    assert report.worst == []
    assert "two hosts" not in {finding["check"] for finding in report.findings}


@pytest.mark.parametrize(("patience", "level"), [(0.0, Level.NOTE), (0.1, Level.WARNING)])
@pytest.mark.parametrize("name", ["0-first", "zzz-last"])
def test_a_doctor_that_does_not_take_part_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, patience: float, level: Level
) -> None:
    """It was killed on another host, or is busy with a longer test of its own."""
    other, own = (tmp_path / f"{PREFIX}{who}-17-abcd" for who in (name, "node2"))
    other.mkdir()
    own.mkdir()
    monkeypatch.setattr(locks, "_LATE", 0.2)
    monkeypatch.setattr(meeting, "_FAREWELL", 0.1)
    (finding,) = locks.with_whoever_is_there(own, 0.1, patience, lambda _: None)
    assert (finding.check, finding.level) == (locks.TWO_HOSTS, level)
    assert "did not take part" in finding.what
    assert str(other) in finding.remedy


def test_only_two_hosts_show_what_two_hosts_can_rely_on(
    lab: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = filesystem.Mount(lab.data, "fuse.glusterfs", "v", "0:1", frozenset({"rw"}))
    doubtful = filesystem.kind_of(mount)
    monkeypatch.setattr(filesystem, "kind_of", lambda _: doubtful)
    untried = "whether locks in"
    partners = {
        "nobody": [],
        "one that does not come": [note(locks.TWO_HOSTS, "it did not take part")],
        "one on this host": [note(ONE_HOST, "both"), ok(locks.TWO_HOSTS, "none lost")],
        "one on another": [ok(locks.TWO_HOSTS, "none lost")],
    }
    told = {}
    for name, found in partners.items():
        monkeypatch.setattr(locks, "with_whoever_is_there", lambda *_, found=found: found)
        wishes = examine.Wishes(lab.database, seconds=0.1)
        told[name] = any(
            finding.level is Level.WARNING and untried in finding.what
            for finding in examine.examine(wishes, lambda _: None)
        )
    assert told == {name: name != "one on another" for name in partners}


def test_nobody_comes(lab: Laboratory) -> None:
    report = doctor(lab, "--meet=0.2")
    assert "no other production doctor came" in report.of("two hosts", "warning")


# ------------------------------------------------------------------------------- leaving


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_when_it_is_stopped(lab: Laboratory, number: signal.Signals) -> None:
    before = lab.snapshot()
    process = subprocess.Popen(
        [sys.executable, "-m", "production", "doctor", "--seconds=60"],
        env=lab.environment,
        cwd=lab.home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(lab.data.glob(f"{PREFIX}*/locks.db")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err == ""
    assert lab.snapshot() == before


def test_what_a_killed_doctor_left_is_named(lab: Laboratory) -> None:
    left = lab.data / f"{PREFIX}host-17-abcd"
    left.mkdir()
    os.utime(left, (0, 0))
    assert f"rm -r {left}" in doctor(lab).of("scratch", "note")
