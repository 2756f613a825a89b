"""What --dry-run prints is what is submitted, for every batch system."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from experiment import Experiment, experiment

pytestmark = pytest.mark.slow

SUBMISSIONS = {
    "slurm": "sbatch",
    "sge": "qsub",
    "lsf": "bsub",
    "htcondor": "condor_submit",
    "pbs": "qsub",
}
# Keeps what it was called with, and does not answer.
KEEPER = """\
#!/usr/bin/env python3
import json, os, sys
call = {"argv": sys.argv[1:], "stdin": sys.stdin.read()}
place = os.environ["EXPERIMENT"] + "/call"
with open(place + ".new", "w") as file:
    json.dump(call, file)
os.rename(place + ".new", place)
sys.exit("is the server there?")
"""
VERSION = "#!/bin/sh\necho 'pbs_version = 22.05.11'\n"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Experiment]:
    with experiment(tmp_path, [2091, 2092]) as lab:
        lab.open_archive()
        yield lab


@pytest.mark.parametrize("system", SUBMISSIONS)
def test_the_command_and_what_it_reads(lab: Experiment, system: str) -> None:
    name = SUBMISSIONS[system]
    lab.add_command(name, KEEPER)
    if system == "pbs":
        lab.add_command("qstat", VERSION)
    words = [f"--batch={system}", "--nproc=1", "--nprep=0", "--time=1h", "--memory=2G"]
    words += ["--queue=long", "--project=muon", "--no-arrays"]
    dry = lab.start("--dry-run", *words)
    assert dry.wait() == 0, dry.said
    assert not (lab.directory / "call").exists()
    real = lab.start(*words)
    real.until(lambda: (lab.directory / "call").exists(), "a submission")
    call = json.loads((lab.directory / "call").read_text())
    submitted = f"{shlex.join([name, *call['argv']])} << 'END'\n{call['stdin']}END\n"
    assert dry.said.startswith(submitted)
    (spool,) = lab.data.glob("spool/*/run*")
    assert dry.said.endswith(f"\n# {spool}/orders\n{(spool / 'orders').read_text()}\n")


def test_the_local_machine(lab: Experiment) -> None:
    """There it is a process."""
    dry = lab.start("--dry-run", "--nproc=1")
    assert dry.wait() == 0
    lab.hold("payload")
    real = lab.start("--nproc=1", "--nprep=0")
    real.until(lambda: len(lab.ledger("begin")) == 1, "the job")
    wrapper = lab.wrapper(2091)
    argv = Path(f"/proc/{wrapper}/cmdline").read_text().split("\0")[:-1]
    assert f" && setsid {shlex.join(argv)} < /dev/null >> " in dry.said.splitlines()[0]
    assert Path(f"/proc/{wrapper}/cwd").readlink() == Path(argv[-1])
