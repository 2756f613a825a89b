"""The help answers at once, because almost nothing is imported for it.

Seconds are not measured here (benchmarks/start_up.py does that): what costs them is.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent

# All of our modules that an answer to --help may need.
OURS = {
    "production",
    "production.cli",
    "production.cli.examples",
    "production.cli.parser",
    "production.cli.run_command",
    "production.errors",
    "production.model",
    "production.signals",
    "production.units",
}

# The least that a typed program with options needs, and what that brings along by itself.
ARGPARSE = """
from __future__ import annotations
import contextlib, io, sys
import argparse, dataclasses, enum, importlib, inspect, math, pathlib, re, signal, time, typing
parser = argparse.ArgumentParser()
parser.add_argument("--pause", help="seconds")
parser.print_help(io.StringIO())
"""
OUR_HELP = """
import contextlib, io, sys
from production.cli import run_production
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    run_production({arguments})
"""


def imported_by(code: str) -> set[str]:
    """All modules that a fresh Python has in memory after ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--usage"], ["-h"]])
def test_the_help_imports_nothing_but_what_argparse_needs(arguments: list[str]) -> None:
    needed = imported_by(ARGPARSE)
    ours = imported_by(OUR_HELP.format(arguments=arguments))
    assert {name for name in ours if name.split(".")[0] == "production"} == OURS
    assert ours - needed - OURS == set()


def test_a_wrong_option_is_refused_as_fast() -> None:
    ours = imported_by(OUR_HELP.format(arguments=["--production=alcapana", "--nproc=none"]))
    assert {name for name in ours if name.split(".")[0] == "production"} == OURS


@pytest.mark.parametrize(
    "slow", ["sqlite3", "tomllib", "ftplib", "socket", "subprocess", "json", "curses", "tabulate"]
)
def test_the_check_would_notice(slow: str) -> None:
    """None of the modules that are imported later is among those that argparse brings."""
    assert slow not in imported_by(ARGPARSE)
