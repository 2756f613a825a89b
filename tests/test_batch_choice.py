"""Which batch system is used, with which options, and what would be submitted to it."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Mapping
from pathlib import Path

import pytest
from job_orders import WRITE, Workshop

from production.batch import choose, known_systems, open_batch
from production.batch.together import Place, Together, divide
from production.errors import ConfigurationError, UsageError
from production.job.record import read_record
from production.model import Requirements

CLUSTERS = ("slurm", "sge", "lsf", "pbs", "htcondor")


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


# --------------------------------------------------------------------------- which one


@pytest.mark.parametrize(
    ("commands", "variables", "chosen"),
    [
        ((), {}, "local"),
        (("sbatch",), {}, "slurm"),
        (("qsub",), {"SGE_ROOT": "/opt/sge"}, "sge"),
        (("qsub",), {}, "pbs"),
        (("bsub",), {}, "lsf"),
        (("sbatch", "qsub"), {"SGE_ROOT": "/opt/sge"}, "slurm"),
        (("condor_submit",), {}, "htcondor"),
    ],
)
def test_auto_looks_at_the_commands(
    commands: tuple[str, ...],
    variables: Mapping[str, str],
    chosen: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SGE_ROOT", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in commands:
        (tmp_path / name).touch(mode=0o755)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert choose("auto") == chosen


def test_a_system_that_is_named_is_taken() -> None:
    assert [choose(name) for name in ("local", "slurm", "cray")] == ["local", "slurm", "cray"]


def test_systems_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("cray_batch")
    module.open_system = lambda options: ("cray", options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cray_batch", module)
    points = [
        importlib.metadata.EntryPoint("cray", "cray_batch", "production.batch"),
        importlib.metadata.EntryPoint("broken", "there_is_no_such_module", "production.batch"),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    assert {"local", "slurm", "sge", "cray"} <= set(known_systems())
    assert open_batch("cray", {"a": 1}) == ("cray", {"a": 1})  # type: ignore[comparison-overlap]
    with pytest.raises(UsageError, match=r"'broken' \(there_is_no_such_module\) cannot be loaded"):
        open_batch("broken", {})


# --------------------------------------------------------------------------- its options


@pytest.mark.parametrize("system", CLUSTERS)
@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"partition": "long"}, "'partition' is not an option. Options: queue, project"),
        ({"queue": 7}, "queue must be a text"),
        ({"project": ""}, "project must be a text"),
        ({"options": "-x"}, "options must be a list of texts"),
        ({"options": [1]}, "options must be a list of texts"),
        ({"arrays": "no"}, "arrays must be true or false"),
    ],
)
def test_wrong_options(system: str, options: Mapping[str, object], what: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        open_batch(system, options)
    assert f"[batch.{system}]: {what}" in str(raised.value)


@pytest.mark.parametrize(
    ("system", "option"), [("slurm", "--wait"), ("slurm", "--clusters=other"), ("sge", "-sync")]
)
def test_options_by_which_jobs_would_get_lost(system: str, option: str) -> None:
    what = f"Option {option} for {system} cannot be used: "
    with pytest.raises(UsageError, match=what):
        open_batch(system, {}).check(Requirements(options=(option,)))
    with pytest.raises(UsageError, match=what):
        open_batch(system, {"options": [option]}).check(Requirements())


def test_what_slurm_is_told(workshop: Workshop) -> None:
    needs = Requirements(time=3601, memory=3 * 10**9, cores=2)
    order = workshop.order(requirements=needs)
    options = {"queue": "long", "project": "muon", "options": ["--nice=5"]}
    shown = open_batch("slurm", options).describe(order)
    command = shlex.split(shown.partition(" << ")[0])
    assert command[0] == "sbatch"
    assert {
        "--time=61",
        "--mem=2862M",
        "--cpus-per-task=2",
        "--partition=long",
        "--account=muon",
        "--nice=5",
        f"--job-name={order.name}",
        "--no-requeue",
    } <= set(command)


def test_what_grid_engine_is_told(workshop: Workshop) -> None:
    needs = Requirements(time=3600, memory=4 * 2**30, cores=2)
    order = workshop.order(requirements=needs)
    options = {"queue": "long.q", "project": "muon", "memory_resource": "h_vmem"}
    command = open_batch("sge", options).describe(order).partition(" << ")[0]
    assert "-l h_rt=3660 -l h_vmem=2048M -pe smp 2 -q long.q -P muon " in command
    assert command.endswith(f" -r n -notify -N {order.name}")


def test_the_job_has_the_users_language(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the environment of sbatch: named after ALL, it would make SLURM log in for each job."""
    sbatch = workshop.directory / "sbatch"
    seen = workshop.directory / "seen"
    sbatch.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$LC_ALL" "$LANG" "$@" > {seen}\ncat > {seen}.script\necho 12\n'
    )
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("LC_ALL", "de_CH.UTF-8")
    monkeypatch.delenv("LANG", raising=False)
    assert open_batch("slurm", {}).submit([workshop.order()]) == ["12"]
    language, other, *words = seen.read_text().splitlines()
    assert (language, other) == ("de_CH.UTF-8", "")
    assert [word for word in words if word.startswith("--export")] == ["--export=ALL"]


# --------------------------------------------------------------------------- together


def test_jobs_with_the_same_requirements_go_together(workshop: Workshop) -> None:
    needs = (Requirements(), Requirements(cores=2))
    orders = [workshop.order(run=run, requirements=needs[run % 2]) for run in range(7)]
    runs = [[job.run for job in group.jobs] for group in divide(orders, 3)]
    assert runs == [[0, 2, 4], [6], [1, 3, 5]]


def test_each_element_runs_its_own_job(workshop: Workshop) -> None:
    orders = [workshop.order(f"echo this is $RUN\n{WRITE}", run=run) for run in (1, 2, 3)]
    script = Together(tuple(orders)).script("$INDEX", "trap '' USR1\n")
    for index in ("3", "1"):
        argv = ["bash", "-c", script]
        subprocess.run(argv, env={**os.environ, "INDEX": index}, check=True, timeout=60)
    assert [order.stdout.exists() for order in orders] == [True, False, True]
    assert "this is 3\n" in orders[2].stdout.read_text()
    assert read_record(orders[1].spool) is None
    assert read_record(orders[2].spool) is not None


def test_a_job_that_is_started_again_after_its_end_leaves_nothing(workshop: Workshop) -> None:
    """As SLURM may do when slurmctld was killed: the spool goes when the attempt is settled."""
    order = workshop.order()
    shutil.rmtree(order.spool)
    script = Together((order,)).script("$INDEX")
    assert subprocess.run(["bash", "-c", script], check=False, timeout=60).returncode == 98
    assert not order.stdout.exists()
    assert not order.stderr.exists()


def test_a_path_may_hold_anything(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path / "it's $HOME; `x` ü")
    workshop.directory.mkdir()
    order = workshop.order()
    subprocess.run(["bash", "-c", Together((order,)).script("$INDEX")], check=True, timeout=60)
    assert read_record(order.spool) is not None


def test_the_note_in_the_spool_names_the_place(workshop: Workshop) -> None:
    orders = [workshop.order(run=run) for run in (1, 2)]
    both = Together(tuple(orders))
    both.place(2).write(orders[1].spool)
    assert Place.read(orders[1].name, orders[1].spool) == Place(f"{orders[0].name}.x2", 2)
    alone = Together((orders[1],))
    alone.place(1).write(orders[1].spool)
    assert Place.read(orders[1].name, orders[1].spool) == Place(orders[1].name)


@pytest.mark.parametrize("note", ["", "x", " 3\n", "name x\n", "\0"])
def test_a_damaged_note_is_none(workshop: Workshop, note: str) -> None:
    order = workshop.order()
    (order.spool / "array").write_text(note)
    assert Place.read(order.name, order.spool) == Place(order.name)
