"""A git repository that keeps the bookkeeping's text from day to day."""

from __future__ import annotations

from pathlib import Path

from production import commands
from production.errors import UsageError

# Where git is told to look elsewhere, as in a hook of another repository.
_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
TIMEOUT = 600.0  # seconds; a large file takes its time


def check(repository: Path) -> None:
    """Raise UsageError unless ``repository`` is the work tree of a git repository."""
    answer = _git(repository, "rev-parse", "--is-inside-work-tree", accept=(0, 128))
    if answer.strip() != "true":
        raise UsageError(
            text=f"{repository} is no git repository; make one with: git init {repository}"
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


def _git(repository: Path, *words: str, accept: tuple[int, ...] = (0,)) -> str:
    argv = ["git", "-C", str(repository), *words]
    return commands.run(argv, timeout=TIMEOUT, accept=accept, unset=_ELSEWHERE).stdout
