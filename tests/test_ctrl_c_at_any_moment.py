"""Ctrl-C at any moment of a program's life, from its first line to its last: no traceback."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
FRONT_DOOR = str(PROJECT / "run_production.py")
OURS = (FRONT_DOOR, str(PROJECT / "production"))  # and not the virtual environment beside them
# What came while Python read and compiled the front door is raised before its first line.
BEFORE_OURS = f'File "{FRONT_DOOR}", line 0, in <module>'
SEED = int(os.environ.get("CTRL_C_SEED", "1"))
INTERRUPTED = 128 + signal.SIGINT
BEFORE_PYTHON_LISTENS = -signal.SIGINT

RECIPE = """
name = "made"
[job]
script = "made.sh"
arguments = ["{made}"]
[output.made]
path = "made/v{version}/made{run:05d}.txt"
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Two runs, and a production type that needs nothing from elsewhere."""
    path = tmp_path / "production.db"
    production = [sys.executable, "-m", "production"]
    subprocess.run([*production, "init", f"--database={path}"], cwd=PROJECT, check=True)
    added = ["datasets", "add", "A", "1-2", "--quality=gold", f"--database={path}"]
    subprocess.run([*production, *added], cwd=PROJECT, check=True)
    (tmp_path / "production.toml").write_text('data = "data"\n')
    (tmp_path / "made.toml").write_text(RECIPE)
    (tmp_path / "made.sh").write_text('echo made > "$1"\n')
    return path


def ended_after(moment: float, argv: list[str]) -> tuple[int, str, float]:
    """Exit code and standard error of a program that gets Ctrl-C then, and how long it lived."""
    began = time.monotonic()
    program = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0
    )
    try:
        program.wait(moment)
    except subprocess.TimeoutExpired:
        program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=120)
    return program.returncode, said, time.monotonic() - began


def interrupted(argv: list[str], moments: int, look: Callable[[], None] = lambda: None) -> None:
    """Interrupt a program at moments spread over its life, and look what it leaves."""
    code, said, life = ended_after(120, argv)
    assert (code, said) == (0, "")
    chance = random.Random(SEED)
    codes = []
    for number in range(moments):
        code, said, _ = ended_after(life * (number + chance.random()) / moments, argv)
        codes.append(code)
        seen = f"{said}\nexit code {code}, with CTRL_C_SEED={SEED}"
        # Until our first line is run, Python may say something itself: a traceback of its own
        # modules, or a "Fatal Python error" where Ctrl-C meets it between installing its handler
        # and the end of its initialization (CPython: Python/pylifecycle.c, init_interp_main).
        assert not any(path in said.replace(BEFORE_OURS, "") for path in OURS), seen
        pythons_own = "Traceback" in said or said.startswith("Fatal Python error: init_")
        assert pythons_own or code in {0, INTERRUPTED, BEFORE_PYTHON_LISTENS}, seen
        look()
    assert INTERRUPTED in codes


@pytest.mark.slow
def test_amid_the_start(database: Path) -> None:
    """All is read and checked, and nothing is begun."""
    argv = [sys.executable, FRONT_DOOR, "--production=made", "--new=x", "--dry-run"]
    interrupted([*argv, f"--database={database}"], moments=30)


@pytest.mark.slow
def test_amid_a_whole_production(database: Path) -> None:
    def nothing_is_half_done() -> None:
        with sqlite3.connect(database) as db:
            left = db.execute("SELECT status FROM run WHERE status NOT IN ('N', 'F')").fetchall()
        db.close()
        assert left == []

    argv = [sys.executable, FRONT_DOOR, "--production=made", "--new=x", "--pause=0.1", "--quiet"]
    interrupted([*argv, f"--database={database}"], moments=8, look=nothing_is_half_done)


def test_while_the_database_is_locked(database: Path) -> None:
    argv = [sys.executable, FRONT_DOOR, "--production=made", "--new=x", f"--database={database}"]
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    program = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    assert program.stdout is not None
    assert "lock" in program.stdout.readline()
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=120)
    holder.close()
    assert (program.returncode, said) == (INTERRUPTED, "")


def test_where_ctrl_c_is_ignored_it_stays_so() -> None:
    """As for a program in the background of a script."""
    code = "import signal, production.signals as b; b.end_at_once(); b.end_by_exception(); "
    code += "print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    argv = ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, code]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
