"""Two managers that need the same file: one fetches it, the other waits and has it then, too."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from experiment import RAW_SIZE, RECIPE, RUNS, ManagerProcess, experiment

from production.identity import this_process
from production.staging import one_fetch
from production.staging.one_fetch import BeingFetched, Fetching
from production.staging.places import Source

FILE = (Source("ftp://archive/", "run02091.mid"), Source("ftp://mirror/", "2091"))
OTHER = (Source("ftp://archive/", "run02092.mid"),)

MY, THEIR = "count_v1 2091", "weigh_v1 2091"

WEIGH = RECIPE.replace('name = "count"', 'name = "weigh"').replace("bytes/v", "weights/v")


def notes(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "fetching"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "one").mkdir()
    return tmp_path / "one" / "run02091.mid"


def leave_a_note(directory: Path, target: Path, **who: object) -> None:
    """As somebody else would who fetches the file, in his last moment."""
    with Fetching(directory).alone(FILE, target, MY):
        (name,) = notes(directory)
        note = directory / name
        user, host, boot, pid, start, thread, *more = json.loads(str(note.readlink()))
    about = {"user": user, "host": host, "boot": boot, "pid": pid, "start": start, **who}
    note.symlink_to(json.dumps([*about.values(), thread, *more]))


def a_dead_process() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


# --------------------------------------------------------------------------- the note


def test_a_file_is_fetched_by_one_at_a_time(directory: Path, target: Path) -> None:
    mine, theirs = Fetching(directory), Fetching(directory)
    second = target.parent / "second"
    with mine.alone(FILE, target, MY) as beat:
        assert beat is not None
        beat()
        for _ in range(2):
            with pytest.raises(BeingFetched), theirs.alone(FILE, second, THEIR):
                pass
        with theirs.alone(OTHER, second, THEIR) as other:
            assert other is not None
    assert notes(directory) == []
    with theirs.alone(FILE, second, THEIR) as beat:  # it was not there in the end
        assert beat is not None


def test_who_has_waited_links_what_the_other_has_fetched(directory: Path, target: Path) -> None:
    mine, theirs = Fetching(directory), Fetching(directory)
    second = target.parent / "second"
    with mine.alone(FILE, target, MY):
        with pytest.raises(BeingFetched), theirs.alone(FILE, second, THEIR):
            pass
        target.write_text("it")
    with theirs.alone(FILE, second, THEIR) as beat:
        assert beat is None
    assert second.samefile(target)
    second.unlink()
    with theirs.alone(FILE, second, THEIR) as beat:  # that was then
        assert beat is not None


def test_who_has_lost_the_run_is_not_waited_for(directory: Path, target: Path) -> None:
    """His manager stands still, say, and another one has taken over."""
    with Fetching(directory).alone(FILE, target, MY):
        with Fetching(directory).alone(FILE, target.parent / "second", MY) as beat:
            assert beat is not None
        assert notes(directory) == []
    assert notes(directory) == []


def test_a_note_that_is_ours_already_is_ours(directory: Path, target: Path) -> None:
    """A server that is asked twice, for its answer was lost, says that it is there."""
    mine = Fetching(directory)
    with mine.alone(FILE, target, MY), mine.alone(FILE, target, MY) as beat:
        assert beat is not None


def test_what_fails_leaves_no_note(directory: Path, target: Path) -> None:
    with pytest.raises(ZeroDivisionError), Fetching(directory).alone(FILE, target, THEIR):
        raise ZeroDivisionError
    assert notes(directory) == []


def test_a_file_server_that_stumbles_for_a_moment_leaves_no_note(
    directory: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink, stumbles = Path.unlink, [OSError(errno.ESTALE, "Stale file handle")]

    def stumble(path: Path, missing_ok: bool = False) -> None:
        if stumbles:
            raise stumbles.pop()
        unlink(path, missing_ok)

    with Fetching(directory).alone(FILE, target, MY):
        monkeypatch.setattr(Path, "unlink", stumble)
    assert (notes(directory), stumbles) == ([], [])


def test_the_note_of_a_dead_manager_of_this_host_is_no_obstacle(
    directory: Path, target: Path
) -> None:
    leave_a_note(directory, target, pid=a_dead_process())
    with Fetching(directory).alone(FILE, target, THEIR) as beat:
        assert beat is not None
    assert notes(directory) == []
    leave_a_note(directory, target, start=this_process().pid_start + 1)  # pids are used again
    fetching = Fetching(directory)
    with fetching.alone(OTHER, target, THEIR):
        assert len(notes(directory)) == 1  # swept away


def test_the_note_of_another_host_is_heeded_until_it_is_silent(
    directory: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_a_note(directory, target, boot="of another host")
    fetching = Fetching(directory)
    note = directory / notes(directory)[0]
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(3):
        with pytest.raises(BeingFetched), fetching.alone(FILE, target, THEIR):
            pass
        now += one_fetch.SILENCE - 1
        changed = note.lstat().st_mtime_ns + 10**9
        os.utime(note, ns=(changed, changed), follow_symlinks=False)  # a sign of life
    with pytest.raises(BeingFetched), fetching.alone(FILE, target, THEIR):
        pass
    now += one_fetch.SILENCE + 1
    with fetching.alone(FILE, target, THEIR) as beat:
        assert beat is not None
    assert notes(directory) == []


def test_nonsense_is_heeded_for_a_while_as_well(directory: Path, target: Path) -> None:
    with Fetching(directory).alone(FILE, target, THEIR):
        (name,) = notes(directory)
    (directory / name).symlink_to("nonsense")
    with pytest.raises(BeingFetched), Fetching(directory).alone(FILE, target, THEIR):
        pass
    assert str((directory / name).readlink()) == "nonsense"


# --------------------------------------------------------------------------- two real managers


@pytest.mark.slow
def test_two_productions_of_one_user_fetch_a_file_once(tmp_path: Path) -> None:
    with experiment(tmp_path, RUNS[:1]) as lab:
        (tmp_path / "weigh.toml").write_text(WEIGH)
        lab.hold("payload")  # the raw file stays until both have it
        lab.open_archive(rate=100_000)
        first = lab.start()
        first.until(lambda: lab.partly_downloaded() > 0, "a transfer")
        first.send(signal.SIGSTOP)  # or it would be over too soon
        lab.type = "weigh"
        second: ManagerProcess = lab.start("--new=w1")
        second.until_it_says("Run 2091: another manager is downloading its file")
        first.send(signal.SIGCONT)
        for manager in (first, second):
            manager.until(lambda: lab.statuses() == "RR", "both jobs")
        assert lab.archive_log("sent") == ["run02091.mid"]
        assert list((lab.data / "raw" / "fetching").iterdir()) == []
        lab.let_go("payload")
        assert first.wait() == second.wait() == 0
        for table in ("count_v1", "weigh_v1"):
            ((path,),) = lab.rows(f"SELECT bytes FROM {table}")
            assert Path(str(path)).read_text() == f"{RAW_SIZE + 2091}\n"
