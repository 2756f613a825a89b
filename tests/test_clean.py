"""``production clean``: what dead managers have left goes, and nothing that is needed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from experiment import RUNS, Experiment, experiment
from phases import PHASES, downloading, running

pytestmark = pytest.mark.slow

ONCE = dict.fromkeys(RUNS, 1)
WITHOUT_JOBS = ("claimed", "downloading")
WITH_JOBS = ("running", "publishing")
NOTHING = "0 leftovers, 0 bytes (0.0 MB) freed\n"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Experiment]:
    with experiment(tmp_path) as made:
        yield made


def clean(lab: Experiment, *options: str) -> list[dict[str, Any]]:
    """What it says of each thing that it removes, or would remove."""
    found: list[dict[str, Any]] = json.loads(lab.production("clean", *options, "--output=json"))
    return found


def kinds(found: list[dict[str, Any]]) -> list[tuple[object, object]]:
    return sorted((left["run"], left["what"]) for left in found)


def disk_usage(path: Path) -> int:
    """Bytes, as du(1) counts them."""
    return int(subprocess.check_output(["du", "-s", "--block-size=1", path]).split()[0])


def kill(lab: Experiment, phase: str) -> None:
    manager = PHASES[phase](lab)
    manager.send(signal.SIGKILL)
    manager.wait()


# --------------------------------------------------------------------------- killed managers


@pytest.mark.parametrize("phase", WITHOUT_JOBS)
def test_claims_without_jobs_go_back_with_all_their_files(lab: Experiment, phase: str) -> None:
    kill(lab, phase)
    lab.production("clean", "--yes")
    assert lab.statuses() == "NNN"
    lab.check_nothing_under_way()
    assert list((lab.data / "raw").glob("*/*")) == []
    lab.finish()
    assert lab.completions() == ONCE


@pytest.mark.parametrize("phase", WITH_JOBS)
def test_jobs_of_a_dead_manager_are_left_alone(lab: Experiment, phase: str) -> None:
    kill(lab, phase)
    before = lab.files()
    assert lab.production("clean", "--yes") == NOTHING
    assert lab.files() >= before  # jobs that go on write more
    assert lab.statuses() == "RRR"
    lab.finish("--max-attempts=1")
    assert lab.completions() == ONCE
    assert lab.production("clean", "--yes") == NOTHING


def test_what_a_living_manager_works_on_stays(lab: Experiment) -> None:
    manager = running(lab)
    before = lab.files()
    assert before
    assert lab.production("clean", "--yes") == NOTHING
    assert lab.files() >= before
    lab.let_go("payload")
    assert manager.wait() == 0
    lab.check_all_finished()


def test_a_download_of_a_living_manager_goes_on(lab: Experiment) -> None:
    manager = downloading(lab)
    before = lab.files()
    assert clean(lab, "--yes") == []
    assert lab.files() >= before
    assert lab.partly_downloaded() > 0
    assert not manager.ended
    manager.press_ctrl_c()
    manager.wait()


# --------------------------------------------------------------------------- what is shown


def test_a_dry_run_shows_what_would_be_freed_and_changes_nothing(lab: Experiment) -> None:
    kill(lab, "downloading")
    before, used = lab.files(), disk_usage(workspace(lab, "raw"))
    shown = clean(lab, "--dry-run")
    assert kinds(shown) == [(RUNS[0], "raw")]
    assert shown[0]["attempt_was"] == "its manager is dead"
    assert lab.files() == before
    assert lab.statuses() == "CCC"
    (removed,) = clean(lab, "--yes")
    assert (removed["path"], removed["bytes"]) == (shown[0]["path"], shown[0]["bytes"])
    assert removed["bytes"] == used - disk_usage(workspace(lab, "raw"))
    assert removed["done"] == "removed"
    assert not Path(removed["path"]).exists()


def test_one_has_to_say_which(lab: Experiment) -> None:
    argv = [*lab.command()[:1], "-m", "production", "clean", f"--database={lab.database}"]
    result = subprocess.run(argv, env=lab.environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "one of the arguments --dry-run --yes is required" in result.stderr


# --------------------------------------------------------------------------- ended attempts


@pytest.fixture
def ended(lab: Experiment) -> Experiment:
    """The first run has failed once and is finished; the second one has failed."""
    lab.trouble(RUNS[0], "[[ $attempt != *.a1 ]] || exit 7")
    lab.trouble(RUNS[1], "exit 7")
    lab.open_archive()
    assert lab.start("--max-attempts=2").wait() == 40
    assert lab.statuses() == "FEF"
    return lab


def workspace(lab: Experiment, kind: str) -> Path:
    (database,) = (str(row[0]) for row in lab.rows("SELECT value FROM meta WHERE key = 'uuid'"))
    return lab.data / kind / f"count_v1.{database}"


def leave(directory: Path, size: int = 5000) -> Path:
    """A directory with a file."""
    directory.mkdir(parents=True)
    (directory / "file").write_bytes(bytes(size))
    return directory


def test_files_of_attempts_that_are_over_go_whatever_they_are(ended: Experiment) -> None:
    needed = ended.files()
    raw = leave(workspace(ended, "raw") / f"run{RUNS[0]:05d}.a1")
    (raw / "run.mid.part").write_bytes(bytes(10_000))
    leave(workspace(ended, "spool") / f"run{RUNS[2]:05d}.a1")
    mark = workspace(ended, "spool") / "done" / f"run{RUNS[1]:05d}.a2"
    mark.touch()
    (name,) = {path.parent for path in needed if path.name.startswith("bytes")}
    database = raw.parent.name.split(".", 1)[1]
    (name / f".bytes{RUNS[1]:05d}.a1.{database}.txt").write_text("half")
    found = clean(ended, "--yes")
    assert kinds(found) == [
        (RUNS[0], "raw"),
        (RUNS[1], "mark"),
        (RUNS[1], "temporary output"),
        (RUNS[2], "spool"),
    ]
    assert {left["attempt_was"] for left in found} == {"failed", "finished"}
    assert all(left["bytes"] >= 4 for left in found if left["what"] != "mark")
    assert ended.files() == needed
    assert ended.production("clean", "--yes") == NOTHING


def test_what_the_database_does_not_know_stays(ended: Experiment) -> None:
    unknown = [
        leave(workspace(ended, "raw") / f"run{RUNS[0]:05d}.a7"),  # made after a backup
        leave(workspace(ended, "raw") / "mine"),
        leave(workspace(ended, "raw").with_name("count_v1.another") / f"run{RUNS[0]:05d}.a1"),
    ]
    assert clean(ended, "--yes") == []
    assert all((directory / "file").exists() for directory in unknown)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_others_stay(ended: Experiment) -> None:
    theirs = leave(workspace(ended, "raw") / f"run{RUNS[0]:05d}.a1")
    os.chown(theirs, 65534, 65534)
    assert clean(ended, "--yes") == []
    assert (theirs / "file").exists()


def test_a_file_with_another_name_elsewhere_frees_nothing(ended: Experiment) -> None:
    raw = leave(workspace(ended, "raw") / f"run{RUNS[0]:05d}.a1", size=500_000)
    (ended.directory / "archived.mid").hardlink_to(raw / "file")
    (found,) = clean(ended, "--yes")
    assert found["bytes"] < 100_000
    assert (ended.directory / "archived.mid").stat().st_size == 500_000
