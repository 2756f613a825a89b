#!/usr/bin/env python3
"""How long the help takes, beside what Python itself takes to import argparse and sqlite3.

    python3 benchmarks/start_up.py [--rounds=40]

Both are run in turn, so that whatever else the machine does slows both.  The aim: the median is at
most 1.5 times that of the other plus 100 ms.  Exits with 1 when it is missed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

FRONT_DOOR = Path(__file__).resolve().parent.parent / "run_production.py"
FACTOR, MARGIN = 1.5, 0.1  # the aim; seconds

COMMANDS = {
    "run_production.py --help": [sys.executable, str(FRONT_DOOR), "--help"],
    "import argparse, sqlite3": [sys.executable, "-c", "import argparse, sqlite3"],
}


def seconds(argv: Sequence[str]) -> float:
    """How long one run of a command takes."""
    began = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time of the help; see the file's beginning.")
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    for argv in COMMANDS.values():
        seconds(argv)  # once for the disk cache and the compiled modules
    measured: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, argv in COMMANDS.items():
            measured[name].append(seconds(argv))
    for name, values in measured.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name:26} median {middle * 1e3:6.1f} ms  ({low * 1e3:.1f} … {high * 1e3:.1f})")
    ours, theirs = (statistics.median(values) for values in measured.values())
    aim = FACTOR * theirs + MARGIN
    print(f"ratio {ours / theirs:.2f}, difference {(ours - theirs) * 1e3:.1f} ms")
    print(f"aim: at most {aim * 1e3:.1f} ms: {'reached' if ours <= aim else 'MISSED'}")
    return int(ours > aim)


if __name__ == "__main__":
    sys.exit(main())
