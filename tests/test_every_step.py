"""The life of one run, disturbed at each single step: killed there, or the step fails.

Each life takes about a second, and there are thousands.  A seed, which is printed, chooses some of
them; ``STEPS_SEED`` repeats the choice, ``STEPS=all`` takes all, ``STEPS=9`` as many of each test.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from steps import jobs, lives, syscalls
from steps.injector import Injection, Kind, Step, read_log
from steps.jobs import JobKill
from steps.syscalls import ERRORS, CallInjection

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * 3600)]

SEED = int(os.environ.get("STEPS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
MANY = os.environ.get("STEPS", "")
WHOLE = 10**6

# Which steps can fail how.
FAILURES = [
    *((kind, "EIO") for kind in (Kind.READ, Kind.WRITE, Kind.COMMAND)),
    *((kind, "ESTALE") for kind in (Kind.READ, Kind.WRITE)),
    (Kind.WRITE, "ENOSPC"),
    (Kind.WRITE, "EDQUOT"),
    (Kind.COMMAND, "EAGAIN"),
    (Kind.ANSWER, "timeout"),
    (Kind.STATEMENT, "SQLITE_BUSY"),
    (Kind.STATEMENT, "SQLITE_FULL"),
    (Kind.STATEMENT, "SQLITE_IOERR"),
    (Kind.COMMITTED, "SQLITE_IOERR"),  # and was recorded all the same
]
Plan = TypeVar("Plan", Injection, CallInjection, JobKill)
HOW_LONG = pytest.mark.parametrize("lasting", [False, True], ids=["once", "for ever"])


def live(
    directory: Path,
    plans: Sequence[Plan],
    life: Callable[[Path, Plan], bool],
    sample: int,
) -> None:
    """Live ``sample`` lives of all that are planned, or as many as is asked for."""
    number = WHOLE if MANY == "all" else int(MANY or sample)
    chosen = random.Random(f"{SEED} {plans[0]}").sample(plans, min(number, len(plans)))
    failed, hits = [], 0
    for plan in chosen:
        where = directory / "life"
        where.mkdir()
        try:
            hits += life(where, plan)
        except Exception:  # noqa: BLE001 - all of them are to be told
            failed.append(f"{plan}: {traceback.format_exc()[-4000:]}")
        shutil.rmtree(where, ignore_errors=True)
    sys.stdout.write(f"STEPS_SEED={SEED}\n")
    told = "\n".join(failed)
    assert not failed, f"{len(failed)} of {len(chosen)} lives:\n{told}"
    # Steps that repeat while a job is waited for may be fewer than in the life that was counted.
    assert hits >= len(chosen) // 4


def undisturbed(directory: Path, batch: str) -> list[Step]:
    """The steps of a life to which nothing happens."""
    with lives.stage(directory, batch) as lab:
        lives.go_on(lab, f"--batch={batch}")
        return read_log(lab.directory)


def numbers(steps: Sequence[Step], kind: Kind) -> range:
    """The numbers of the steps of a kind."""
    return range(1, 1 + sum(step.kind is kind for step in steps))


# ------------------------------------------------------------------------------- Python's steps


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), "local")


def test_killed_at_every_step(tmp_path: Path, steps: Sequence[Step]) -> None:
    plans = [Injection(at) for at in range(1, len(steps) + 1)]
    live(tmp_path, plans, lives.is_killed, 20)


@HOW_LONG
@pytest.mark.parametrize(("kind", "error"), FAILURES)
def test_every_step_fails(
    tmp_path: Path, steps: Sequence[Step], kind: Kind, error: str, lasting: bool
) -> None:
    plans = [Injection(at, error, kind, lasting) for at in numbers(steps, kind)]
    live(tmp_path, plans, lives.meets_trouble, 1)


# ------------------------------------------------------------------------------- a batch system


@pytest.fixture(scope="module")
def with_slurm(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), "slurm")


@pytest.mark.parametrize("kind", [Kind.COMMAND, Kind.ANSWER])
def test_killed_at_every_command_of_a_batch_system(
    tmp_path: Path, with_slurm: Sequence[Step], kind: Kind
) -> None:
    plans = [Injection(at, kind=kind) for at in numbers(with_slurm, kind)]
    live(tmp_path, plans, partial(lives.is_killed, batch="slurm"), 1)


@HOW_LONG
@pytest.mark.parametrize(
    ("kind", "error"), [(Kind.COMMAND, "EIO"), (Kind.COMMAND, "EAGAIN"), (Kind.ANSWER, "timeout")]
)
def test_every_command_of_a_batch_system_fails(
    tmp_path: Path, with_slurm: Sequence[Step], kind: Kind, error: str, lasting: bool
) -> None:
    plans = [Injection(at, error, kind, lasting) for at in numbers(with_slurm, kind)]
    live(tmp_path, plans, partial(lives.meets_trouble, batch="slurm"), 1)


# ------------------------------------------------------------------------------- the kernel's calls


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How often an undisturbed manager does each call."""
    if why := syscalls.why_not():
        pytest.skip(why)
    with lives.stage(tmp_path_factory.mktemp("undisturbed")) as lab:
        prefix = syscalls.watching(lab.directory / syscalls.TRACE, lives.written(lab))
        assert lab.start(patch=Injection().patch, prefix=prefix).wait() == 0
        return syscalls.counts(lab.directory)


def test_killed_at_every_call_about_the_database(tmp_path: Path, calls: dict[str, int]) -> None:
    changing = ("fcntl", "openat", "pwrite64", "fdatasync", "unlink")
    plans = [CallInjection(call, at) for call in changing for at in range(1, calls[call] + 1)]
    live(tmp_path, plans, lives.is_killed, 10)


@HOW_LONG
@pytest.mark.parametrize("call", ERRORS)
def test_every_call_fails(tmp_path: Path, calls: dict[str, int], call: str, lasting: bool) -> None:
    plans = [
        CallInjection(call, at, error, lasting)
        for error in ERRORS[call]
        for at in range(1, calls[call] + 1)
    ]
    live(tmp_path, plans, lives.meets_trouble, 1)


# ------------------------------------------------------------------------------- the job's steps


def test_a_job_is_killed_at_each_of_its_steps(tmp_path: Path) -> None:
    where = tmp_path / "undisturbed"
    where.mkdir()
    with lives.stage(where) as lab:
        JobKill().arm(lab)
        lives.go_on(lab)
        number = jobs.count(lab.directory)
    plans = [JobKill(at) for at in range(1, number + 1)]
    live(tmp_path, plans, lives.has_its_job_killed, 8)
