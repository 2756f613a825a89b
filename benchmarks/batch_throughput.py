#!/usr/bin/env python3
"""How long 200 jobs of ``true`` take as a production, beside one bare job array of them by hand.

    sudo python3 benchmarks/batch_throughput.py [--jobs=200] [--rounds=3] [slurm sge htcondor]

The servers are those of tests/cluster, so it needs root on a Debian machine.  Both go through the
same server in turn.  The bare array is timed from its submission until the queue is empty, the
production from its first "Submitting run" to its last "Finished run", of which each job also runs
the wrapper and is recorded.  The aim: at most 1.2 times as long.  Exits with 1 when it is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests"), str(PROJECT / "tests" / "cluster")]

from condor import HTCondor  # noqa: E402 - the path comes first
from servers import Server, ServerMissingError  # noqa: E402
from sge import GridEngine  # noqa: E402
from slurm import Slurm  # noqa: E402

SYSTEMS = {kind.name: kind for kind in (Slurm, GridEngine, HTCondor)}
AIM = 1.2
GLANCE = 0.2  # seconds between two looks at the queue
LONGEST = 600.0  # seconds for a bare array
# Seconds before each measurement, so that neither gains by what was there before: HTCondor's first
# jobs began 2 s after a submission that followed another one, 4 to 6 s after others.
REST = 6.0

RECIPE = """\
name = "nothing"
[job]
script = "nothing.sh"
"""

# What somebody would type, and how to see that nothing is left in the queue.
BY_HAND = {
    "slurm": "sbatch --array=1-{jobs} --chdir=/ --output=/dev/null --wrap=true",
    "sge": "qsub -t 1-{jobs} -b y -wd / -o /dev/null -e /dev/null true",
    "htcondor": "printf 'executable=/bin/true\\ninitialdir=/\\nqueue {jobs}\\n' | condor_submit",
}
LEFT = {
    "slurm": "squeue --noheader --array --user={user}",
    "sge": "qstat -u {user}",
    "htcondor": "condor_q -allusers -af ClusterId",
}


class Bench:
    """One system with its user's place."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._environment = {**os.environ, **server.environment, "PYTHONPATH": str(PROJECT)}
        places = {
            str(Path(path).parent)
            for name in ("sbatch", "qsub", "condor_submit", "condor_q")
            if (path := server.path_of(name))
        }
        self._environment["PATH"] = ":".join([*sorted(places), os.environ["PATH"]])

    def _try(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._server.as_user(argv),
            env=self._environment,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )

    def _user(self, argv: list[str]) -> str:
        done = self._try(argv)
        if done.returncode:
            raise SystemExit(f"{argv} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def by_hand(self, jobs: int) -> float:
        """Seconds for one bare array."""
        name, user = self._server.name, self._server.user.pw_name
        time.sleep(REST)
        began = time.monotonic()
        self._user(["sh", "-c", BY_HAND[name].format(jobs=jobs)])
        while time.monotonic() - began < LONGEST:
            left = self._try(["sh", "-c", LEFT[name].format(user=user)])
            if left.returncode == 0 and not left.stdout.strip():  # no answer is no news
                return time.monotonic() - began
            time.sleep(GLANCE)
        raise SystemExit(f"a bare array of {name} has not ended in {LONGEST:.0f} s: {left.stderr}")

    def production(self, jobs: int, pause: float) -> float:
        """Seconds for a production."""
        place = self._server.new_directory()
        (place / "nothing.toml").write_text(RECIPE)
        (place / "nothing.sh").write_text("true\n")
        (place / "production.toml").write_text('data = "data"\n[space]\nprobe = "statvfs"\n')
        self._server.give_to_user(place)
        python, database, log = sys.executable, f"--database={place}/p.db", place / "log"
        production = [python, "-m", "production"]
        self._user([*production, "init", database])
        self._user([*production, "datasets", "add", "all", f"1-{jobs}", "--quality=gold", database])
        time.sleep(REST)
        argv = [python, str(PROJECT / "run_production.py"), "--production=nothing", "--new=v1"]
        argv += [database, f"--batch={self._server.name}", f"--nproc={jobs}", f"--pause={pause}"]
        self._user([*argv, f"--log-file={log}", "--output=quiet"])
        events = [json.loads(line) for line in log.read_text().splitlines()]
        begun = [e["time"] for e in events if e["message"].startswith("Submitting run")]
        ended = [e["time"] for e in events if e["message"].startswith("Finished run")]
        if len(ended) != jobs:
            raise SystemExit(f"only {len(ended)} of {jobs} runs finished: {log.read_text()[-500:]}")
        return float(ended[-1] - begun[0])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="200 jobs of true; see the file's beginning.")
    parser.add_argument("systems", nargs="*", choices=[*SYSTEMS, []], default=[])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pause", type=float, default=1.0, help="as of run_production.py")
    options = parser.parse_args()
    missed = False
    print(f"{'system':10} {'bare array':>12} {'production':>12} {'ratio':>7}")
    for name in options.systems or SYSTEMS:
        try:
            server = SYSTEMS[name]()
            server.start()
        except ServerMissingError as error:
            print(f"{name:10} not measured: {error}")
            continue
        try:
            bench = Bench(server)
            bench.by_hand(8)  # once for the caches
            rounds = [
                (bench.by_hand(options.jobs), bench.production(options.jobs, options.pause))
                for _ in range(options.rounds)
            ]
        finally:
            server.stop()
        bare, ours = (statistics.median(values) for values in zip(*rounds, strict=True))
        missed |= ours > AIM * bare
        print(f"{name:10} {bare:10.1f} s {ours:10.1f} s {ours / bare:7.2f}", flush=True)
    print(f"aim: at most {AIM} times as long: {'MISSED' if missed else 'reached'}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
