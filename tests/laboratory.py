"""A small laboratory: one user's home, an archive, and programs that are a few lines of bash.

For tests of the whole program: each command runs in a process of its own, as users start it.  The
database is where the program looks for it by default, so options need not be given.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ftp_server import PASSWORD, TapeArchive, tape_archive, write_netrc

PROJECT = Path(__file__).parent.parent
FRONT_DOOR = PROJECT / "run_production.py"

# Stand-ins with the originals' calling conventions: what they are given shows in their outputs.
ALCAPANA = """#!/usr/bin/env bash
while getopts i:o:T:D:m: option; do declare "$option=$OPTARG"; done
echo "analysing $i"
for output in "$o" "$T" "$D"; do cat "$i" "$m" > "$output"; done
"""
ROOTANA = """#!/usr/bin/env bash
echo "called with $*"
while getopts i:o:m:cd: option; do declare "$option=${OPTARG-}"; done
cat "$i" "$m" > "$o"
"""

_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _PR_CAPBSET_DROP = 1, 2, 24


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The messages, without their times."""
        return [line[len("2026-01-31 23:59:59 ") :] for line in self.out.splitlines()]


class Laboratory:
    """Home directory, database, archive; nothing of the real user's is seen."""

    def __init__(self, home: Path, archive: TapeArchive) -> None:
        self.home = home
        self.archive = archive
        self.data = home / "data"
        self.database = self.data / "production.db"
        self.configuration = self.data / "production.toml"
        self.netrc = home / "netrc"

    def equip(self) -> None:
        """Everything but the database."""
        bin_ = self.home / "bin"
        bin_.mkdir(parents=True)
        self.data.mkdir()
        programs = {
            "alcapana": ALCAPANA,
            "rootana": ROOTANA,
            "production": f'#!/bin/sh\nexec "{sys.executable}" -m production "$@"\n',
            "run_production.py": f'#!/bin/sh\nexec "{sys.executable}" "{FRONT_DOOR}" "$@"\n',
        }
        for name, text in programs.items():
            (bin_ / name).write_text(text)
            (bin_ / name).chmod(0o755)
        (self.data / "MODULES").write_text("common/MTreeOutput\n")
        (self.data / "production.cfg").write_text("[ MODULES ]\nPlotMass\n")
        write_netrc(self.netrc)
        self.configure()

    def build(self, runs: str) -> None:
        """Set everything up; the runs are gold ones of the dataset SiR2, with their raw files."""
        self.equip()
        self.production("init")
        self.add_runs("SiR2", runs, "--quality=gold")

    def configure(self, **sections: str) -> None:
        """Write the configuration; ``sections`` replace tables or add some."""
        tables = {
            "archive": f'url = "{self.archive.url}"',
            "environment": f'variables = {{ DAQdir = "{self.home}" }}',
            "batch": "local = { slots = 2 }",
            "space": 'probe = "statvfs"',
            **sections,
        }
        self.configuration.write_text("".join(f"[{k}]\n{v}\n" for k, v in tables.items()))

    def add_runs(self, dataset: str, runs: str, *labels: str) -> None:
        """Enter runs, with raw files on the archive."""
        said = self.production("datasets", "add", dataset, runs, *labels)
        assert said.code == 0, said.err
        for run in self.column(f"SELECT run FROM datasets WHERE dataset = '{dataset}'"):
            self.take_data(run)

    def take_data(self, run: int) -> None:
        """Have the run's raw file on the archive."""
        (self.archive.root / f"run{run:05d}.mid").write_text(f"events of run {run}\n")

    # ----------------------------------------------------------------- commands

    def run(self, *arguments: object, **keywords: object) -> Said:
        """``run_production.py``, with a short pause between its rounds."""
        fast = [] if any(str(a).startswith("--pause") for a in arguments) else ["--pause=0.1"]
        return self.command(sys.executable, FRONT_DOOR, *arguments, *fast, **keywords)  # type: ignore[arg-type]

    def finish(self, *arguments: object, **keywords: object) -> Said:
        """The same for a production that must go well."""
        said = self.run(*arguments, **keywords)
        assert said.code == 0, said
        return said

    def production(self, *arguments: object, **keywords: object) -> Said:
        """``production COMMAND``."""
        return self.command(sys.executable, "-m", "production", *arguments, **keywords)  # type: ignore[arg-type]

    def command(
        self,
        *arguments: object,
        variables: Mapping[str, str] | None = None,
        plain_user: bool = False,
        cwd: Path | None = None,
    ) -> Said:
        """Run a command; ``plain_user``: file permissions hold even for root."""
        done = subprocess.run(
            [*map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            cwd=cwd or self.home,
            env={**self.environment, **(variables or {})},
            preexec_fn=_give_up_privileges if plain_user else None,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    @property
    def environment(self) -> dict[str, str]:
        """All that a command finds in its environment."""
        return {
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "PYTHONPATH": str(PROJECT),
            "NETRC": str(self.netrc),
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "80",
        }

    # ----------------------------------------------------------------- looking

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """What people would see with the sqlite3 shell."""
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()

    def column(self, sql: str) -> list[int]:
        """The first column, of numbers."""
        return [int(str(row[0])) for row in self.rows(sql)]

    def dump(self) -> str:
        """All that the database holds, as text."""
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)) as connection:
            return "\n".join(connection.iterdump())

    def snapshot(self) -> dict[str, str]:
        """Every file and directory below the home, with what is in it."""
        return {
            str(path.relative_to(self.home)): f"{path.lstat().st_mode:o} {_digest(path)}"
            for path in sorted(self.home.rglob("*"))
        }


@contextmanager
def laboratory(directory: Path, runs: str = "2091-2093") -> Iterator[Laboratory]:
    """A laboratory that is ready for work."""
    with tape_archive(directory / "archive") as archive:
        made = Laboratory(directory / "home", archive)
        made.build(runs)
        yield made


def spoil(lab: Laboratory, program: str, *lines: str) -> None:
    """Have the stand-in do ``lines`` before its work."""
    path = lab.home / "bin" / program
    first, rest = path.read_text().split("\n", 1)
    path.write_text("\n".join([first, *lines, rest]))


def _digest(path: Path) -> str:
    if not os.access(path, os.R_OK):
        return "closed"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory"


def _give_up_privileges() -> None:
    """For root: lose the right to pass over file permissions, which would hide what is tested.

    Becoming another user would do as well, if that user could read the checkout.
    """
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
            if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl")


__all__ = ["PASSWORD", "PROJECT", "Laboratory", "Said", "laboratory", "spoil"]
