"""``--log-file``: whoever else appends to it, renames, empties or fills it, no line is lost."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from laboratory import PROJECT, Laboratory, laboratory
from network.needs import NoFilesystemError
from network.nfs import EXPORTED, NfsNodes

from production.config import Log, parse_configuration
from production.view import logfile
from production.view.base import View
from production.view.logfile import LogFile, Rotated

WRITERS, LINES = 4, 120
FULL = Path("/dev/full")  # each write to it says that there is no space


class Inner:
    """What the view beside the file is told."""

    live = False

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def message(self, text: str, *, level: str = "info") -> None:
        self.told.append((level, text))

    def progress(self, run: int, done: int, total: int | None) -> None:
        self.told.append(("progress", f"{run} {done} {total}"))

    def transferred(self, run: int) -> None:
        self.told.append(("transferred", str(run)))

    def update(self, snapshot: Any) -> None:
        self.told.append(("update", str(snapshot)))

    def close(self) -> None:
        self.told.append(("close", ""))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "manager.log"


def open_log(log: Path, size: int = 10_000, kept: int = 5) -> tuple[LogFile, Inner]:
    inner = Inner()
    return LogFile(log, lambda: inner, size, kept), inner


def messages(*files: Path) -> list[str]:
    """What the lines say, each of which is an object of its own."""
    return [json.loads(line)["message"] for file in files for line in file.open()]


def numbered(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")


def oldest_first(log: Path) -> list[Path]:
    return [*sorted(log.parent.glob(f"{log.name}.*"), key=lambda p: -int(p.suffix[1:])), log]


# ------------------------------------------------------------------------------- one manager


def test_a_line_tells_who_says_it(log: Path) -> None:
    file, inner = open_log(log)
    file.message("news")
    file.message("trouble", level="warning")
    first, second = (json.loads(line) for line in log.read_text().splitlines())
    assert set(first) == {"time", "level", "host", "pid", "message"}
    assert (first["level"], first["pid"], first["message"]) == ("info", os.getpid(), "news")
    assert second["level"] == "warning"
    assert inner.told == [("info", "news"), ("warning", "trouble")]


def test_all_else_is_passed_on(log: Path) -> None:
    file, inner = open_log(log)
    view: View = file
    view.progress(1, 2, None)
    view.transferred(1)
    view.close()
    view.message("afterwards")
    assert [kind for kind, _ in inner.told] == ["progress", "transferred", "close", "info"]
    assert messages(log) == ["afterwards"]


def test_a_file_that_has_its_size_gets_a_number(log: Path) -> None:
    file, _ = open_log(log, size=400, kept=3)
    for number in range(40):
        file.message(f"{number:04}")
    files = oldest_first(log)
    assert [path.name for path in files] == [*(f"manager.log.{n}" for n in (3, 2, 1)), log.name]
    assert all(path.stat().st_size <= 400 for path in files)
    kept = messages(*files)
    assert kept == [f"{number:04}" for number in range(40 - len(kept), 40)]


def test_a_line_that_is_longer_than_a_file_may_be_has_one_for_itself(log: Path) -> None:
    file, _ = open_log(log, size=400)
    for text in ("first", "x" * 1000, "last"):
        file.message(text)
    assert [messages(path) for path in oldest_first(log)] == [["first"], ["x" * 1000], ["last"]]


def test_a_file_is_continued_and_its_size_counts_from_the_beginning(log: Path) -> None:
    open_log(log, size=400)[0].message("x" * 250)
    open_log(log, size=400)[0].message("y" * 250)
    assert [messages(path)[0][0] for path in oldest_first(log)] == ["x", "y"]


# ------------------------------------------------------------------------------- others


@pytest.mark.parametrize("how", ["moved", "removed", "emptied", "copied and emptied"])
def test_others_may_rotate_it(how: str, log: Path, tmp_path: Path) -> None:
    """As logrotate does, with ``create``, ``nocreate`` or ``copytruncate``."""
    file, inner = open_log(log)
    file.message("before")
    if how == "moved":
        log.rename(tmp_path / "elsewhere")
    elif how == "removed":
        log.unlink()
    else:
        os.truncate(log, 0)
    file.message("after")
    assert messages(log) == ["after"]
    assert log.read_bytes().startswith(b"{")  # no hole where the others were
    assert [level for level, _ in inner.told] == ["info", "info"]


def append(log: Path, writer: int) -> None:
    file = Rotated(log, 5000, 1000)
    for number in range(LINES):
        file.append(f"{writer} {number} {'x' * (number % 90)}\n".encode())


@pytest.mark.slow
def test_managers_that_share_a_file_lose_nothing_and_tear_nothing(log: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append, args=(log, n)) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    files = oldest_first(log)
    found = Counter(line for path in files for line in path.read_text().splitlines())
    wanted = {f"{w} {n} {'x' * (n % 90)}" for w in range(WRITERS) for n in range(LINES)}
    assert found == Counter(dict.fromkeys(wanted, 1))
    total = sum(path.stat().st_size for path in files)
    assert len(files) <= 2 * total // 5000 + 2  # none was renamed before its time
    assert len(files) > 2


WRITER = """
import sys
from pathlib import Path
from production.view import logfile

logfile.PATIENCE = 100.0  # however busy the machine is
file = logfile.Rotated(Path(sys.argv[1]), 1500, 1000)
for number in range(40):
    file.append(f"{sys.argv[2]} {number} {'x' * number}.\\n".encode())
"""


@pytest.mark.slow
def test_hosts_that_share_a_file_lose_nothing_and_tear_nothing(tmp_path: Path) -> None:
    """A file server cannot append: without the lock, one host's lines stand on another's."""
    here = {"PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        with NfsNodes(tmp_path / "nodes") as nodes:
            log = nodes.clients[0].shared / "manager.log"
            writers = [
                subprocess.Popen(
                    node.command(
                        *(sys.executable, "-c", WRITER, log, f"{node.name}.{number}"),
                        environment={"PATH": os.environ["PATH"], "HOME": "/root", **here},
                    )
                )
                for node in nodes.clients
                for number in range(2)
            ]
            assert [writer.wait(timeout=250) for writer in writers] == [0] * 4
            names = [f"{node.name}.{number}" for node in nodes.clients for number in range(2)]
            found = nodes.server.run("sh", "-c", f"cat {EXPORTED}/manager.log*").splitlines()
            files = nodes.server.run("sh", "-c", f"ls {EXPORTED}/manager.log*").splitlines()
    except NoFilesystemError as error:
        pytest.skip(str(error))
    wanted = [f"{name} {number} {'x' * number}." for name in names for number in range(40)]
    assert sorted(found) == sorted(wanted)
    assert len(files) > 1


def test_a_manager_that_stands_still_with_the_lock_holds_others_up_once(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "PATIENCE", 0.2)
    log.write_text("x" * 500 + "\n")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(log)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"locked\n"
    file, inner = open_log(log, size=400)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    file.message("news")
    first = len(waits)
    assert first > 0
    file.message("further news")
    assert len(waits) == first
    assert log.read_text().splitlines()[1:] != []  # written without the lock
    assert not numbered(log, 1).exists()  # but nothing was renamed
    holder.communicate()
    file.message("more news")
    assert messages(log) == ["more news"]
    assert [text for _, text in inner.told] == ["news", "further news", "more news"]


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


def test_where_there_are_no_locks_lines_are_written_all_the_same(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    file, _ = open_log(log, size=400)
    for number in range(10):
        file.message(str(number))
    assert messages(log) == [str(number) for number in range(10)]


# ------------------------------------------------------------------------------- trouble


def test_a_full_disk_is_told_once_and_stops_nothing(log: Path) -> None:
    log.symlink_to(FULL)
    file, inner = open_log(log)
    for number in range(3):
        file.message(str(number))
    trouble = f"Log file {log} cannot be written: No space left on device. Work goes on without it"
    assert inner.told == [("warning", trouble), *(("info", str(number)) for number in range(3))]
    log.unlink()  # there is room again
    file.message("3")
    what = "3 messages before this could not be written"
    assert messages(log) == [what, "3"]
    assert inner.told[4:] == [("info", f"Log file {log} is written again: {what}"), ("info", "3")]
    log.unlink()
    log.symlink_to(FULL)
    file.message("4")
    assert inner.told[6][1] == trouble  # it is another time


def test_half_a_line_does_not_stay(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, inner = open_log(log)
    file.message("before")
    real, calls = os.write, []

    def half(fd: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) == 1:
            return real(fd, data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "write", half)
        file.message("lost")
    file.message("after")
    assert messages(log) == ["before", "1 message before this could not be written", "after"]
    assert [level for level, _ in inner.told] == ["info", "warning", "info", "info", "info"]


def test_a_directory_in_which_nothing_may_be_renamed_lets_the_file_grow(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    file, inner = open_log(log, size=400)
    file.message("first")
    monkeypatch.setattr(Path, "replace", closed)  # root may rename everywhere
    for number in range(10):
        file.message(str(number))
    assert messages(log) == ["first", *map(str, range(10))]
    assert {level for level, _ in inner.told} == {"info"}


# ------------------------------------------------------------------------------- as users have it


def test_the_configuration_tells_how_long_it_gets(tmp_path: Path) -> None:
    def configured(text: str) -> Log:
        return parse_configuration(text, tmp_path / "production.toml").log

    assert configured("") == Log(10 << 20, 5)
    assert configured('[log]\nsize = "2M"\nkeep = 3\n').keep == 3
    assert configured('[log]\nsize = "2M"\n').size == 2 << 20


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Laboratory]:
    with laboratory(tmp_path, "2091-2096") as made:
        yield made


@pytest.mark.slow
def test_a_production_with_a_short_log_and_one_with_a_full_disk(lab: Laboratory) -> None:
    lab.configure(log='size = "1k"\nkeep = 20')
    log = lab.home / "manager.log"
    said = lab.finish("--production=alcapana", "--new=v1", f"--log-file={log}")
    assert len(oldest_first(log)) > 2
    assert messages(*oldest_first(log)) == said.lines
    full = lab.finish("--production=rootana", "--new=v1", f"--log-file={FULL}", "--quiet")
    assert full.lines[0].startswith(f"WARNING: Log file {FULL} cannot be written: No space left")
    assert full.lines[-1] == "Nothing left to do here. rootana_v1: 6 F"
    assert sum("Log file" in line for line in full.lines) == 1
