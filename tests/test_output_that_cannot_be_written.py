"""What is printed to a full disk, to nobody, or to a closed file: told, and no harm to the work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bookkeeping import ANY, Bookkeeping, bookkeeping
from laboratory import PROJECT

from production.view.console import Console

pytestmark = pytest.mark.slow

LOST = "ERROR: standard output cannot be written: No space left on device\n"


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Bookkeeping]:
    with bookkeeping(tmp_path) as books:
        books.label(range(2000, 2010))
        books.start(wanted=ANY)
        yield books


def shell(books: Bookkeeping, command: str, where: str) -> tuple[int, str, str]:
    """A command with its output sent somewhere, as a shell or cron starts it."""
    script = f'"$1" -m production {command} --database="$2" {where}'
    done = subprocess.run(
        ["bash", "-c", script, "-", sys.executable, str(books.path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(PROJECT), "HOME": str(books.path.parent), "PATH": "/usr/bin:/bin"},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", ["status", "export --production=alcapana", "status --help"])
def test_a_full_disk_is_told(books: Bookkeeping, command: str) -> None:
    assert shell(books, command, "> /dev/full") == (49, "", LOST)


@pytest.mark.parametrize("where", ["2> /dev/full", "> /dev/full 2>&1", ">&- 2>&- <&-"])
def test_the_exit_code_tells_what_cannot_be_printed(books: Bookkeeping, where: str) -> None:
    assert shell(books, "status --production=rootana", where) == (18, "", "")


@pytest.mark.parametrize("where", [">&-", ">&- 2>&-", ">&- 2>&- <&-"])
def test_closed_files_are_like_none(books: Bookkeeping, where: str) -> None:
    assert shell(books, "retry --production=alcapana", where) == (0, "", "")
    assert shell(books, "status", "<&-")[:2] == shell(books, "status", "")[:2]


def test_when_there_is_room_again_a_manager_goes_on_with_its_messages(tmp_path: Path) -> None:
    path = tmp_path / "messages"
    with path.open("w") as out, Path("/dev/full").open("w") as full:
        console = Console(out=out)
        console.message("before")
        room = os.dup(out.fileno())
        os.dup2(full.fileno(), out.fileno())
        console.message("lost")
        os.dup2(room, out.fileno())
        os.close(room)
        console.message("after")
        console.close()
    said = [line.split(" ", 2)[2] for line in path.read_text().splitlines()]
    assert said == ["before", "after"]
