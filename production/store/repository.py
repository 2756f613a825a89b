"""A git repository that keeps the bookkeeping's text from day to day."""

from __future__ import annotations

import shlex
from pathlib import Path

from production import commands
from production.errors import UsageError

# Where git is told to look elsewhere, as in a hook of another repository.
_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
_FATAL = 128  # git's exit code
TIMEOUT = 600.0  # seconds; a large file takes its time


def check(repository: Path) -> None:
    """Raise UsageError, with what git says, unless ``repository`` is one's work tree."""
    words = ("rev-parse", "--is-inside-work-tree")
    answer = _ask(repository, *words, accept=(0, _FATAL))
    if answer.code == 0 and answer.stdout.strip() == "true":
        return
    said = answer.stderr.strip().partition("\n")[0].removeprefix("fatal: ")
    if said and "not a git repository" not in said:
        raise UsageError(text=f"git cannot use the repository {repository}: {said.rstrip(':')}")
    raise UsageError(
        text=f"{repository} is no git repository; make one with: "
        f"git init {shlex.quote(str(repository))}"
    )


def commit(repository: Path, file: Path, message: str) -> bool:
    """Commit ``file``, and it alone; False when nothing has changed since the last commit.

    What else is staged stays so.  Nothing is pushed.  Raises CommandError.
    """
    _git(repository, "add", "--", str(file))
    if not _git(repository, "status", "--porcelain", "--", str(file)):
        return False
    _git(repository, "commit", "--quiet", "--message", message, "--only", "--", str(file))
    return True


def _git(repository: Path, *words: str) -> str:
    return _ask(repository, *words).stdout


def _ask(repository: Path, *words: str, accept: tuple[int, ...] = (0,)) -> commands.Completed:
    argv = ["git", "-C", str(repository), *words]
    return commands.run(argv, timeout=TIMEOUT, accept=accept, unset=_ELSEWHERE)
