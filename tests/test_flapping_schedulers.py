"""A thousand jobs through a batch system whose commands cannot be trusted.

A fifth of all commands fail, hang, answer nothing or half; submissions that were not answered were
accepted, or are accepted later; jobs leave the queue the moment they end, and the accounting hears
of it 15 s later.  Whatever is seen must be the truth all the same: no run is lost or executed
twice, and those attempts have failed, and no others, whose jobs have failed.

The seed is printed, and ``CAMPAIGN_SEED`` repeats it; ``CAMPAIGN_RUNS`` chooses another number of
runs (``make test-campaign``).
"""

from __future__ import annotations

import os
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from experiment import WITHOUT_INPUT, Experiment
from simulated import Cluster, End, Faults, Job, SimulatedServer, Terms

from production.model import DEFAULT_QUALITY
from production.store import datasets, migrations
from production.store.connection import Database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RUNS = int(os.environ.get("CAMPAIGN_RUNS", "250"))
SEED = int(os.environ.get("CAMPAIGN_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
DOOMED = 0.03  # of the runs: their first job really fails
TERMS = Terms(slots=8, patience=2.0, remembers=0.0, accounting_lag=15.0)
# Torque has no accounting that users could ask, so its queue must remember (keep_completed).
REMEMBERING = {"torque": 60.0}

# What is to become of the first job of a run stands in doom/RUN.
PAYLOAD = """\
attempt=${PM_SPOOL##*/}
echo "begin $attempt" >> "$EXPERIMENT/ledger"
if [[ -e $EXPERIMENT/doom/$RUN ]]; then
    read -r doom < "$EXPERIMENT/doom/$RUN"
    rm "$EXPERIMENT/doom/$RUN"
    case $doom in
        exits) exit 7 ;;
        crashes) kill -SEGV $$ ;;
        *)
            echo "$doom $$" > "$EXPERIMENT/victim/.$RUN"
            mv "$EXPERIMENT/victim/.$RUN" "$EXPERIMENT/victim/$RUN"
            exec sleep 600
            ;;
    esac
fi
echo "$RUN" > "$1"
echo "done $attempt" >> "$EXPERIMENT/ledger"
"""

# Fates of running jobs that the batch system brings about.
FATES: Mapping[str, Callable[[Cluster, Job], None]] = {
    "cancelled": lambda cluster, job: cluster.cancel(job, "root"),
    "over time": lambda cluster, job: cluster.strike(job, End.OVER_TIME),
    "over memory": lambda cluster, job: cluster.strike(job, End.OVER_MEMORY),
    "node failed": lambda cluster, job: cluster.strike(job, End.NODE_FAILED),
}
DOOMS = ("exits", "crashes", *FATES)

# A job that was told of its end leaves a record, and there is little that the record can know.
TOLD = "killed by SIG[A-Z0-9]+: ended from outside"
REASONS: Mapping[str, Mapping[str, str]] = {
    "pbs": {
        "cancelled": TOLD,
        "over time": TOLD,
        "over memory": "memory|exit status -(27|10)",
        "node failed": "node",
    },
    "torque": {
        "cancelled": TOLD,
        "over time": TOLD,
        "over memory": "memory|exit status -(27|10)",
        "node failed": "exit record",
    },
    "slurm": {
        "cancelled": f"{TOLD}.*; the batch system says: .*CANCELLED",
        "over time": f"{TOLD}.*; the batch system says: .*TIMEOUT",
        "over memory": "over the memory limit.*OUT_OF_MEMORY",
        "node failed": "node failed.*NODE_FAIL",
    },
    "sge": {
        "cancelled": TOLD,
        "over time": TOLD,
        "over memory": "killed: deleted, or over a limit",
        "node failed": "failed .while reaping job",
    },
    "htcondor": {
        "cancelled": TOLD,
        "over time": TOLD,
        "over memory": "memory limit",
        "node failed": "PeriodicRemove|removed|evicted",
    },
    "lsf": {
        "cancelled": TOLD,
        "over time": TOLD,
        "over memory": "exit record",  # the job left none, or it vanished without one
        "node failed": "exit record",
    },
}
OWN_REASONS = {
    "exits": "exit code 7: the detector was off",
    "crashes": "killed by SIGSEGV: the program crashed",
}


class Campaign(Experiment):
    """Many runs that need no input, on a simulated batch system."""

    def __init__(self, directory: Path, server: SimulatedServer, dooms: Mapping[int, str]) -> None:
        self._server = server
        self.dooms = dooms
        super().__init__(directory, range(1, RUNS + 1))

    def _build(self) -> None:
        for name in ("bin", "hold", "doom", "victim"):
            (self.directory / name).mkdir(parents=True)
        for run, doom in self.dooms.items():
            (self.directory / "doom" / str(run)).write_text(f"{doom}\n")
        (self.directory / "count.toml").write_text(WITHOUT_INPUT)
        (self.directory / "count.sh").write_text(PAYLOAD)
        self.configure(
            environment__variables="".join(
                f'{name} = "{self.environment[name]}"\n' for name in ("EXPERIMENT", "PATH")
            )
        )
        migrations.create(self.database)
        with Database(self.database) as db:
            labels = [datasets.Label(run, "A", quality=DEFAULT_QUALITY) for run in self.runs]
            datasets.add(db, labels)

    @property
    def environment(self) -> dict[str, str]:
        """Commands of the batch system, which are not waited for as long as real ones."""
        own = super().environment
        return {
            **own,
            "PATH": f"{self._server.bin}:{own['PATH']}",
            "PRODUCTION_TIMEOUT": "2",
            "SGE_ROOT": "/",
        }

    def bring_about(self) -> None:
        """Have the batch system end the jobs whose fate it is."""
        for victim in (self.directory / "victim").glob("[0-9]*"):
            doom, pid = victim.read_text().rsplit(" ", 1)
            victim.unlink()
            cluster = self._server.cluster
            FATES[doom](cluster, cluster.job_of_process(int(pid)))


@pytest.mark.parametrize(
    ("system", "arrays"), [*((system, True) for system in sorted(REASONS)), ("slurm", False)]
)
def test_nothing_is_lost_doubled_or_misjudged(system: str, arrays: bool, tmp_path: Path) -> None:
    sys.stdout.write(f"CAMPAIGN_SEED={SEED}\n")
    chance = random.Random(SEED)
    doomed = chance.sample(range(1, RUNS + 1), round(RUNS * DOOMED))
    dooms = {run: DOOMS[number % len(DOOMS)] for number, run in enumerate(sorted(doomed))}
    faults = Faults(SEED)
    terms = replace(TERMS, remembers=REMEMBERING.get(system, TERMS.remembers))
    with SimulatedServer(system, tmp_path / "server", terms=terms, faults=faults) as server:
        campaign = Campaign(tmp_path / "home", server, dooms)
        try:
            batch = server.dialect.batch or system
            words = [f"--batch={batch}", f"--nproc={RUNS // 5}", "--nprep=20"]
            manager = campaign.start(*words, *([] if arrays else ["--no-arrays"]))
            while not manager.ended:
                campaign.bring_about()
                server.cluster.wait(0.05)
            assert manager.wait() == 0, manager.said[-5000:]
            check(campaign, REASONS[system])
            sys.stdout.write(f"{system}: {figures(server, campaign)}\n")
        finally:
            campaign.close()


def check(campaign: Campaign, reasons: Mapping[str, str]) -> None:
    """Everything that must hold at the end."""
    campaign.check_nothing_under_way()
    assert campaign.statuses() == "F" * RUNS
    begun = Counter(int(attempt[3:8]) for attempt in campaign.ledger("begin"))
    assert begun == {run: 1 + (run in campaign.dooms) for run in campaign.runs}
    assert campaign.completions() == dict.fromkeys(campaign.runs, 1)
    failed = campaign.rows(
        "SELECT run, job, reason FROM attempt WHERE outcome = 'failed' ORDER BY run"
    )
    assert [run for run, _, _ in failed] == sorted(campaign.dooms), failed
    expected = {**OWN_REASONS, **reasons}
    wrong = []
    for run, job, reason in failed:
        pattern = expected[campaign.dooms[int(str(run))]]
        if str(job).startswith("count_v1."):  # its id was never told, so nobody can be asked
            pattern = f"{pattern}|{TOLD}|vanished without an exit record"
        if not re.search(pattern, str(reason)):
            wrong.append((run, campaign.dooms[int(str(run))], reason))
    assert wrong == []


def figures(server: SimulatedServer, campaign: Campaign) -> str:
    calls = Counter(call.name for call in server.calls)
    ((seconds, attempts),) = campaign.rows(
        "SELECT (julianday(max(stop)) - julianday(min(start))) * 86400, count(*) FROM attempt"
    )
    parts = [f"{RUNS} runs", f"{attempts} attempts", f"{float(str(seconds)):.0f} s"]
    parts += [f"{name} {count}" for name, count in sorted(calls.items())]
    return ", ".join([*parts, f"faults {server.faults.sown}"])
