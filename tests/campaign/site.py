"""The production of a campaign, in the directory that its hosts share.

This runs on one of the hosts, for the machine that the hosts are on may not see that directory::

    python -m campaign.site build DIRECTORY RUNS
    python -m campaign.site left DIRECTORY
    python -m campaign.site check DIRECTORY RUNS LEASE < EVENTS

``left`` prints how many of its processes there are on the host.  ``check`` reads what ``torment``
has printed, and prints what must not be, and figures.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiment import WITHOUT_INPUT, Experiment

from campaign import verdict
from production.model import DEFAULT_QUALITY
from production.store import datasets, migrations
from production.store.connection import Database

# A manager that keeps a journal.
PROGRAM = """\
from campaign import journal
journal.begin()
from production.cli import run_production
exit(run_production())"""
PIECE = "x" * 1000
DEFAULTS = """\
pause = 0.5
back_off = 0.5
spacelim = "100%"
max_attempts = 1000
max_failures = 1000000"""

# Directories, for they are made once or not at all on every filesystem; appending to one file
# from several hosts is no such thing.  The output is not whole until the last line.
PAYLOAD = f"""\
attempt=${{PM_SPOOL##*/}}
if ! mkdir "$EXPERIMENT/begun/$attempt" && [[ -d $EXPERIMENT/begun/$attempt ]]; then
    mkdir "$EXPERIMENT/twice/$attempt.$$"
fi
echo "$attempt" > "$1"
sleep "0.$((RUN * 7 % 10))"
printf '%s\\n' {PIECE} "$attempt" >> "$1"
"""


class Site(Experiment):
    """Many short runs that need no input; one that is there already is only looked at."""

    def _build(self) -> None:
        """Nothing that is there already."""
        if self.database.exists():
            return
        for name in ("bin", "hold", "begun", "twice", "journal", "orders", "said"):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "count.toml").write_text(WITHOUT_INPUT)
        (self.directory / "count.sh").write_text(PAYLOAD)
        self.configure(
            environment__variables=f'EXPERIMENT = "{self.directory}"\n',
            batch__local="slots = 2",  # fewer than a manager submits: some jobs wait in it
            # Jobs have the node's clock, not that of the manager that submits them.
            batch__slurm='options = ["--export=NONE"]',
            defaults=DEFAULTS,
        )
        migrations.create(self.database)
        with Database(self.database) as db:
            labels = [datasets.Label(run, "A", quality=DEFAULT_QUALITY) for run in self.runs]
            datasets.add(db, labels)

    def begin(self) -> None:
        """Start the production: by a manager that is told to end as soon as it has."""
        manager = self.start("--nproc=1", "--nprep=0")
        manager.until(lambda: bool(self.rows("SELECT 1 FROM productions")), "the production")
        manager.send(signal.SIGINT)
        manager.wait()

    def evidence(self, events: Sequence[verdict.Line], lease: float) -> verdict.Evidence:
        """What the bookkeeping, the journals and the payloads tell."""
        rows = self.rows("SELECT run, attempt, outcome, reason FROM attempt ORDER BY run, attempt")
        return verdict.Evidence(
            self.runs,
            [verdict.Attempt(int(str(r)), int(str(a)), str(o), str(why)) for r, a, o, why in rows],
            events,
            {
                path.name: [json.loads(line) for line in path.read_text().splitlines()]
                for path in (self.directory / "journal").iterdir()
            },
            frozenset(path.name for path in (self.directory / "begun").iterdir()),
            lease,
        )

    def complaints(self) -> Iterator[str]:
        """What is not as it must be, but for what the evidence tells."""
        try:
            self.check_nothing_under_way()
        except AssertionError:
            yield traceback.format_exc()
        for path in (self.directory / "twice").iterdir():
            yield f"executed twice: {path.name}"
        for run, status, attempt, output in self.rows(
            f"SELECT run, status, attempt, bytes FROM {self.type}_v1"
        ):
            name = f"run{run:05d}.a{attempt}"
            if status != "F" or Path(str(output)).read_text() != f"{name}\n{PIECE}\n{name}\n":
                yield f"run {run} is at {status}, and its output is not what {name} wrote"
        for path in (self.directory / "said").iterdir():
            said = path.read_text()
            if "Traceback" in said or "ERROR" in said:
                yield f"manager {path.name} said: {said[-2000:]}"
        self.production("audit", "--checksums")


def main(what: str, directory: Path, runs: str = "0", lease: str = "0") -> None:
    """See above."""
    site = Site(directory, range(1, int(runs) + 1))
    if what == "build":
        site.begin()
    elif what == "left":
        sys.stdout.write(f"{len(site.processes())}\n")
    else:
        seen = site.evidence([json.loads(line) for line in sys.stdin], float(lease))
        complaints = [*verdict.complaints(seen), *site.complaints()]
        found = {"complaints": complaints, "figures": verdict.figures(seen)}
        sys.stdout.write(f"{json.dumps(found)}\n")
    site.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
