"""`production logs` prints what a job has written, and follows what it writes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from bookkeeping import processes
from experiment import Experiment, ManagerProcess, experiment

from production.view.follow import Growing

PATIENCE = 120.0
OF = ("--production=count",)


@pytest.fixture
def e(tmp_path: Path) -> Iterator[Experiment]:
    with experiment(tmp_path, runs=(2091,)) as made:
        made.open_archive()
        yield made


def logs(e: Experiment, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-m", "production", "logs", "2091", *OF, *arguments]
    return subprocess.run(
        [*argv, f"--database={e.database}"],
        env=e.environment,
        capture_output=True,
        timeout=PATIENCE,
    )


class Follower:
    """``production logs -f`` at work."""

    def __init__(self, e: Experiment, *arguments: str) -> None:
        argv = [sys.executable, "-m", "production", "logs", "2091", "-f", *OF, *arguments]
        self.process = subprocess.Popen(
            [*argv, f"--database={e.database}"],
            env=e.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.said = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while block := self.process.stdout.read1():  # type: ignore[attr-defined]
            self.said += block

    def end(self) -> str:
        """What it says at its end on standard error."""
        assert self.process.stderr is not None
        told = self.process.stderr.read().decode()
        assert self.process.wait(PATIENCE) == 0
        self._reader.join(PATIENCE)
        return told


def until(manager: ManagerProcess, follower: Follower, text: bytes) -> None:
    manager.until(lambda: text in follower.said, f"{text!r} was followed")


@pytest.mark.slow
def test_the_logs_of_each_attempt_are_printed(e: Experiment) -> None:
    once = e.directory / "once"
    e.trouble(
        2091,
        f"echo out; echo 'bad \xe9vent' >&2; printf 'a\\nb'; [[ -e {once} ]] || "
        f"{{ touch {once}; exit 7; }}",
    )
    manager = e.start("--max-attempts=2")
    assert manager.wait() == 0, manager.said
    olog, elog = (e.data / f"log/v1/count.run02091.{kind}" for kind in ("out", "err"))

    both = logs(e)
    assert (both.returncode, both.stderr) == (0, b"")
    assert both.stdout == b"==> %s <==\n%s\n==> %s <==\n%s" % (
        *(bytes(olog), olog.read_bytes(), bytes(elog), elog.read_bytes()),
    )
    assert logs(e, "--stream=err").stdout == "bad évent\n".encode()
    assert logs(e, "--stream=out", "--lines=1").stdout == b"b"
    assert logs(e, "--stream=out", "--lines=2").stdout == b"a\nb"
    first = logs(e, "--attempt=1", "--stream=out").stdout
    assert b"count_v1.2091.a1." in first
    assert logs(e, "-f", "--attempt=1", "--stream=err").stdout == "bad évent\n".encode()

    none = logs(e, "--attempt=3")
    assert none.returncode == 18
    assert b"has had no attempt 3" in none.stderr
    olog.unlink()
    olog.mkdir()
    closed = logs(e)
    assert (closed.returncode, closed.stdout) == (18, both.stdout[both.stdout.rindex(b"==> ") :])
    assert b"count.run02091.out of attempt 2 of run 2091" in closed.stderr
    assert b"cannot be read: Is a directory" in closed.stderr
    olog.rmdir()
    elog.unlink()
    gone = logs(e)
    assert gone.returncode == 18
    assert b"they are not there: " in gone.stderr
    assert b"Traceback" not in gone.stderr


@pytest.mark.slow
def test_a_run_that_was_never_tried_has_none(e: Experiment) -> None:
    e.close_archive()
    e.silence_archive()
    manager = e.start()
    manager.until_it_says("Claimed run")
    none = logs(e)
    assert none.returncode == 18
    assert b"no job was prepared for it yet" in none.stderr
    manager.press_ctrl_c()
    manager.wait()
    rows = e.rows("SELECT status, attempt FROM run")
    assert rows == [("N", 1)]
    assert b"There are no logs of attempt 1" in logs(e).stderr


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["", "exit 7"], ids=["finished", "failed"])
def test_a_job_is_followed_to_its_end(e: Experiment, ending: str) -> None:
    """From before its job exists, through the renaming of its logs, to the last word."""
    steps = " ".join(
        f"while [[ ! -e {e.directory}/step{n} ]]; do sleep 0.05; done; echo step{n}; "
        f"echo trouble{n} >&2;"
        for n in (1, 2)
    )
    e.trouble(2091, f"echo begun; {steps} {ending}")
    e.close_archive()
    e.silence_archive()
    manager = e.start("--max-attempts=1")
    manager.until_it_says("Claimed run")
    follower = Follower(e)
    with processes([follower.process]):  # type: ignore[list-item]
        assert follower.process.stderr is not None
        assert b"no job was prepared for it yet; waiting" in follower.process.stderr.readline()
        e.open_archive()
        until(manager, follower, b"begun")
        (e.directory / "step1").touch()
        until(manager, follower, b"step1")
        until(manager, follower, b"trouble1")
        assert follower.process.poll() is None
        (e.directory / "step2").touch()
        told = follower.end()
    assert manager.wait() == (40 if ending else 0)
    assert b"step2" in follower.said
    assert b"trouble2" in follower.said
    assert ("attempt 1 of run 2091 has failed: exit code 7" if ending else "has finished") in told


# ------------------------------------------------------------------------------- growing files


@pytest.mark.parametrize(
    ("text", "lines", "wanted"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\n\n\n", 2, b"\n\n"),
        (b"a\nb\n", 5, b"a\nb\n"),
        (b"a\nb\n", 0, b""),
        (b"", 3, b""),
        (b"x" * 70_000 + b"\n" + b"y" * 70_000, 1, b"y" * 70_000),
        (b"x" * 70_000 + b"\n" + b"y" * 70_000 + b"\n", 2, None),
    ],
)
def test_the_last_lines(tmp_path: Path, text: bytes, lines: int, wanted: bytes | None) -> None:
    path = tmp_path / "log"
    path.write_bytes(text)
    file = Growing(path)
    file.skip_to_last(lines)
    found = b"".join(iter(file.more, b""))
    file.close()
    assert found == (text if wanted is None else wanted)


def test_a_file_that_comes_late_grows_and_moves(tmp_path: Path) -> None:
    path, other = tmp_path / "log", tmp_path / "moved"
    file = Growing(path)
    assert not file.opens()
    assert file.more() == b""
    with path.open("ab", buffering=0) as log:
        log.write(b"one")
        assert (file.more(), file.more()) == (b"one", b"")
        path.rename(other)
        file.move(other)
        log.write(b"two")
        assert file.more() == b"two"
        file.close()  # as after an error of the filesystem
        log.write(b"three")
        assert file.more() == b"three"
    file.close()


def test_nothing_is_lost_of_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(range(256)) * 1000)
    file = Growing(path)
    assert b"".join(iter(file.more, b"")) == path.read_bytes()
    file.close()
