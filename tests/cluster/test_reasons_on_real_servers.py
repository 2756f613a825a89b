"""Why jobs fail, on real servers, as people find it in the table of the production.

Each run of one production meets another fate; what is done to it stands in ``FATES``.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest
from conftest import FURTHER_KINDS, OWN_KINDS
from experiment import ManagerProcess
from on_cluster import OnCluster
from servers import Server

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.parametrize("server", [*OWN_KINDS, *FURTHER_KINDS], indirect=True),
]

# Gives the submission of a run the further options in submit/RUN.
WITH_OPTIONS = """\
#!/usr/bin/env bash
script=$(cat)
options=()
for file in "$EXPERIMENT"/submit/*; do
    [[ $script != *"/run${{file##*/}}.a"* ]] || mapfile -t options < "$file"
done
exec {path} "$@" "${{options[@]}}" <<< "$script"
"""
# The same for HTCondor, whose options are lines of the description.
WITH_LINES = """\
#!/usr/bin/env bash
script=$(cat)
lines=''
for file in "$EXPERIMENT"/submit/*; do
    [[ $script != *"/run${{file##*/}}.a"* ]] || lines=$(< "$file")
done
exec {path} "$@" <<< "$lines"$'\\n'"$script"
"""
LASTS = "while :; do sleep 0.1; done\n"
HUNGRY = "exec perl -e '$n = 300_000_000; $x = \"x\" x $n; sleep 100'\n"

Act = Callable[[Server, str], None]  # what is done with a job that runs, or waits


def _nothing(server: Server, job: str) -> None:
    del server, job


@dataclass(frozen=True)
class Fate:
    """What happens to a run, and the reason that the table must give."""

    reason: str  # a regular expression
    payload: str = ""
    options: tuple[str, ...] = ()
    act: Act = _nothing
    waits: bool = False  # it does not start


def must(server: Server, *argv: str) -> None:
    words = (server.path_of(word) if word.startswith("condor_") else word for word in argv)
    done = server.run(*map(str, words))
    assert done.returncode == 0, (argv, done.stdout, done.stderr)


def by_user(*command: str) -> Act:
    return lambda server, job: must(server, *server.as_user([*command, job]))


def by_root(*commands: tuple[str, ...]) -> Act:
    def act(server: Server, job: str) -> None:
        for command in commands:
            must(server, *(word.format(job=job) for word in command))

    return act


PAYLOADS: Mapping[str, Fate] = {
    "exit code with a name": Fate(r"exit code 7: the detector was off", "exit 7\n"),
    "exit code": Fate(r"exit code 3; last line of its log: no beam", "echo no beam >&2; exit 3\n"),
    "crash": Fate(r"killed by SIGSEGV: ", "ulimit -c 0; kill -SEGV $$\n"),
    "killed": Fate(r"^killed by SIGKILL: killed from outside, often", "kill -KILL $$\n"),
    "no output": Fate(r"did not write ", "exit 0\n"),
}

SLURM: Mapping[str, Fate] = {
    **PAYLOADS,
    "cancelled while it ran": Fate(
        r"says: cancelled( by prodtest)? \(CANCELLED\)$", LASTS, act=by_user("scancel")
    ),
    "cancelled by another": Fate(
        r"says: cancelled( by root)? \(CANCELLED\)$", LASTS, act=by_root(("scancel", "{job}"))
    ),
    "cancelled while it waited": Fate(
        r"^the job never started; the batch system says: cancelled( by prodtest)? \(CANCELLED\)$",
        options=("--begin=now+1hour",),
        act=by_user("scancel"),
        waits=True,
    ),
    "held": Fate(
        r"held by its user \(JobHeldUser\); it was cancelled after 3 s$",
        options=("--hold",),
        waits=True,
    ),
    "over its time": Fate(
        r"says: over the time limit of the batch system \(TIMEOUT\)$",
        LASTS,
        options=("--time=1",),
        act=by_root(("scontrol", "update", "JobId={job}", "EndTime=now+1")),
    ),
    # Only the accounting knows how much it had.
    "over its memory": Fate(
        r"says: (over the memory limit of|failed, ended by signal 9 )",
        HUNGRY,
        options=("--mem=100M",),
    ),
    "pre-empted": Fate(
        r"says: stopped in favour of another job \(PREEMPTED\)$",
        LASTS,
        options=("--partition=modest",),
        act=by_root(
            (
                *("sbatch", "--nodes=1", "--nodelist=n2", "--ntasks=4"),
                *("--wrap=sleep 1", "--output=/dev/null"),
            )
        ),
    ),
    "requeued": Fate(
        r"says: put back into its queue to be started again$",
        LASTS,
        act=by_root(
            ("scontrol", "update", "JobId={job}", "Requeue=1"), ("scontrol", "requeue", "{job}")
        ),
    ),
    "not to be started": Fate(
        r"^the job never started; .* it could not be started: are there directories",
        options=("--output=/no/such/dir/x",),
    ),
}

DELETED = r"says: killed: deleted, or over a limit of its queue$"
SGE: Mapping[str, Fate] = {
    **PAYLOADS,
    "deleted while it ran": Fate(DELETED, LASTS, act=by_user("qdel")),
    "deleted by another": Fate(DELETED, LASTS, act=by_root(("qdel", "{job}"))),
    "deleted while it waited": Fate(
        r"^the job vanished from the batch system before it started: was it cancelled\?$",
        options=("-q", "closed.q"),
        act=by_user("qdel"),
        waits=True,
    ),
    "held": Fate(
        r"held by its user or an administrator \(hqw\); it was cancelled after 3 s$",
        options=("-h",),
        waits=True,
    ),
    "over its time": Fate(r"over .* for time \(h_rt=2\)$", LASTS, options=("-l", "h_rt=2")),
    "over its processor time": Fate(
        r"over .* for processor time \(h_cpu=1\)$",
        "while :; do :; done\n",
        options=("-l", "h_cpu=1"),
    ),
    "over its memory": Fate(
        r"^exit code 1; last line of its log: Out of memory!$",
        HUNGRY,
        options=("-l", "h_vmem=200M"),
    ),
    "requeued": Fate(
        r"says: put back into its queue to be started again$",
        LASTS,
        options=("-r", "y"),
        act=by_root(("qmod", "-rj", "{job}")),
    ),
    "in an error state": Fate(
        r"it could not be started: error: can't chdir to /no/such/dir",
        options=("-wd", "/no/such/dir"),
    ),
}
REMOVED = r"says: removed via condor_rm \(by user prodtest\)$"
HTCONDOR: Mapping[str, Fate] = {
    **PAYLOADS,
    "removed while it ran": Fate(REMOVED, LASTS, act=by_user("condor_rm")),
    "removed while it waited": Fate(
        f"^the job never started; the batch system {REMOVED}",
        options=("requirements = False",),
        act=by_user("condor_rm"),
        waits=True,
    ),
    "held": Fate(
        r"held: .*; it was cancelled after 3 s$",
        options=("hold = True",),
        waits=True,
    ),
    "held while it ran": Fate(
        r"says: held: via condor_hold \(by user prodtest\)$", LASTS, act=by_user("condor_hold")
    ),
    "over its time": Fate(
        r"says: held: over the time limit of the batch system: The job exceeded allowed",
        LASTS,
        options=("allowed_job_duration = 3",),
    ),
    "over the time of the pool": Fate(
        r"says: removed: .* SYSTEM_PERIODIC_REMOVE expression .* MaxRuntime",
        LASTS,
        options=("+MaxRuntime = 3",),
    ),
    "over its memory": Fate(
        r"says: held: by a rule of its node: .*: memory usage exceeded request_memory$",
        HUNGRY,
        options=("request_memory = 100",),
    ),
    "over the memory of the pool": Fate(
        r"says: held: by a rule of the batch system: .* 'ResidentSetSize > MaxMemory",
        HUNGRY,
        options=("request_memory = 2000", "+MaxMemory = 100"),
    ),
    "evicted": Fate(r"says: evicted from its node$", LASTS, act=by_user("condor_vacate_job")),
}
FATES: Mapping[str, Mapping[str, Fate]] = {"slurm": SLURM, "sge": SGE, "htcondor": HTCONDOR}


def experiment(server: Server, count: int) -> OnCluster:
    defaults = "hold_timeout = 3\nmax_attempts = 1"
    runs = range(1, count + 1)
    made = OnCluster(server.new_directory(), server, runs, arrays=False, defaults=defaults)
    (made.directory / "submit").mkdir()
    shim = WITH_LINES if server.name == "htcondor" else WITH_OPTIONS
    made.add_command(server.submission, shim.format(path=server.path_of(server.submission)))
    return made


@pytest.fixture
def lab(server: Server, request: pytest.FixtureRequest) -> Iterator[OnCluster]:
    made = experiment(server, getattr(request, "param", len(FATES[server.name]) + 1))
    try:
        yield made
    finally:
        made.close()
        server.end_all_jobs()


def prepare(lab: OnCluster, run: int, fate: Fate) -> None:
    lab.trouble(run, fate.payload)
    options = "".join(f"{option}\n" for option in fate.options)
    (lab.directory / "submit" / f"{run:05d}").write_text(options)


def until_running(lab: OnCluster, manager: ManagerProcess, run: int) -> str:
    """Its job's id."""
    attempt = f"run{run:05d}.a1"
    manager.until(lambda: attempt in lab.ledger("begin"), attempt)
    return until_submitted(lab, manager, run)


def until_submitted(lab: OnCluster, manager: ManagerProcess, run: int) -> str:
    manager.until(lambda: lab.job(run) is not None, f"the job of run {run}")
    return str(lab.job(run))


def finished(lab: OnCluster, manager: ManagerProcess) -> Mapping[object, object]:
    """When the manager has ended: why which run failed."""
    manager.until_it_says("Nothing left to do here")
    manager.wait()
    begun = lab.ledger("begin")
    assert len(begun) == len(set(begun)), "an attempt ran twice"
    return lab.reasons()


def test_each_reason_stands_in_the_table(server: Server, lab: OnCluster) -> None:
    fates = dict(enumerate(FATES[server.name].values(), 1))
    for run, fate in fates.items():
        prepare(lab, run, fate)
    server.give_to_user(lab.directory)
    lab.open_archive()
    manager = lab.start(f"--nproc={len(lab.runs)}", "--max-failures=1000")
    for run, fate in fates.items():
        if fate.act is not _nothing:
            wait = until_submitted if fate.waits else until_running
            fate.act(server, wait(lab, manager, run))
    reasons = finished(lab, manager)
    wrong = {
        name: reasons[run]
        for run, (name, fate) in enumerate(FATES[server.name].items(), 1)
        if not re.search(fate.reason, str(reasons[run]))
    }
    assert wrong == {}
    assert lab.statuses() == "E" * len(fates) + "F"  # to the last one nothing was done


ON_NODE: Mapping[str, Fate] = {
    "slurm": Fate(r"says: its node failed \(NODE_FAIL\)", LASTS, options=("--nodelist=n1",)),
    "sge": Fate(r"says: its node failed, or what watches over jobs there \(", LASTS),
}


@pytest.mark.parametrize("lab", [2], indirect=True, ids=["two runs"])
def test_a_node_that_fails(server: Server, lab: OnCluster) -> None:
    if server.name not in ON_NODE:
        pytest.skip(f"{server.name} has one node here")
    prepare(lab, 1, ON_NODE[server.name])
    server.give_to_user(lab.directory)
    lab.open_archive()
    manager = lab.start("--nproc=1")
    until_running(lab, manager, 1)
    server.crash_node()
    os.kill(lab.wrapper(1), signal.SIGKILL)
    server.repair_node()
    reason = str(finished(lab, manager)[1])
    assert re.search(ON_NODE[server.name].reason, reason), reason
    assert lab.statuses() == "EF"
