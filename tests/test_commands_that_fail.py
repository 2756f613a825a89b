"""Commands that cannot be started, fail or hang end as one error that names them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from production import commands
from production.errors import CommandError, CommandMissing, CommandTimeout

PROJECT = Path(__file__).parent.parent


def error_of(argv: Sequence[str]) -> CommandError:
    with pytest.raises(CommandError) as caught:
        commands.run(argv, timeout=0.3)
    return caught.value


def test_one_that_is_not_there() -> None:
    error = error_of(["no-such-command", "--version"])
    assert isinstance(error, CommandMissing)
    assert str(error) == "Command `no-such-command` was not found; is it on the PATH?"


def test_one_that_may_not_be_started(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("")
    error = error_of([str(tmp_path / "text")])
    assert str(error) == f"Command `{tmp_path}/text` failed: Permission denied"


def test_one_that_fails_is_told_with_its_first_words() -> None:
    error = error_of(["sh", "-c", "echo no such queue >&2; echo usage >&2; exit 3"])
    assert str(error).endswith("` failed: exit code 3: no such queue")


def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path}/pid; wait"
    error = error_of(["sh", "-c", script])
    assert isinstance(error, CommandTimeout)
    child = (tmp_path / "pid").read_text().strip()
    state = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True)
    assert state.stdout.strip() in {"", "Z"}


def test_an_argument_that_no_command_can_have() -> None:
    assert "null byte" in str(error_of(["echo", "a\0b"]))


def test_an_argument_that_the_locale_cannot_say() -> None:
    code = "from production import commands; commands.run(['echo', 'M\\u00fcnchen'])"
    environment = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "production.errors.CommandError: Command `echo M" in said.stderr
