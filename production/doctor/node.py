"""A small job that looks around on a node: what all jobs need, tried as one of them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from production.batch.base import WRAPPER, BatchSystem, choose, open_batch
from production.config import Configuration
from production.doctor.findings import Finding, error, note, ok, warning
from production.doctor.scratch import leftovers, scratch
from production.errors import ProductionError, QueryFailed
from production.job.orders import write_orders
from production.job.record import read_record
from production.job.verdict import judge
from production.model import JobHandle, JobOrder, JobState, Requirements
from production.recipe.load import find_recipe, known_recipes
from production.recipe.model import Recipe

CHECK = "node"
SCRIPT = Path(__file__).with_name("node.sh")

_TIME = 300  # seconds that the job may run
_GLANCE = 1.0  # seconds between two looks at its spool
_ASK = 5.0  # seconds between two questions to the batch system
_RECORD = 30.0  # seconds that its record may take to appear after its end
_SKEW = 5.0  # seconds that clocks may differ by; the filesystem may be slow to tell


def check_node(
    config: Configuration,
    database: Path,
    production: str | None,
    patience: float,
    say: Callable[[str], None],
) -> Iterator[Finding]:
    """Submit the job, wait ``patience`` seconds for it, and judge what it has found.

    The job is cancelled when it does not come to its end; nothing is left in the data directory.
    """
    recipes = _recipes(config, database, production)
    try:
        batch = open_batch(
            system := choose(config.batch.system), config.batch.options.get(system, {})
        )
    except ProductionError as problem:
        yield error(CHECK, str(problem), f"Correct [batch] in {config.path}")
        return
    needs = replace(
        recipes[0].requirements_on(system) if production and recipes else Requirements(),
        time=_TIME,
        memory=None,
        cores=1,
    )
    with _made(config.data) as data, scratch(data) as own:
        if data != Path(os.path.realpath(database)).parent:  # where it has been looked already
            yield from leftovers(data)
        order = _order(own, config, recipes, needs)
        try:
            write_orders(order, own / "done")
            yield from _run(batch, order, config, patience, say)
        except ProductionError as problem:
            yield error(CHECK, str(problem), "See that jobs can be submitted by hand")
        finally:
            batch.close()


def _recipes(config: Configuration, database: Path, wanted: str | None) -> list[Recipe]:
    """The recipes whose files a node must see; broken ones are found elsewhere."""
    directories = config.recipe_directories(database)
    found = []
    for name in [wanted] if wanted else known_recipes(directories):
        with contextlib.suppress(ProductionError):
            found.append(find_recipe(name, directories))
    return found


@contextlib.contextmanager
def _made(data: Path) -> Iterator[Path]:
    """The data directory, made for the while if it is not there yet."""
    missing = [path for path in (data, *data.parents) if not path.exists()]
    data.mkdir(parents=True, exist_ok=True)
    try:
        yield data.resolve()
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


def _order(
    own: Path, config: Configuration, recipes: Sequence[Recipe], needs: Requirements
) -> JobOrder:
    token = secrets.token_hex(8)
    (own / "token").write_text(f"{token}\n")
    environment = config.environment.script
    files = [*(recipe.script for recipe in recipes), *((environment,) if environment else ())]
    return JobOrder(
        name=own.name.removeprefix(".production-"),
        run=0,
        spool=own,
        script=SCRIPT,
        arguments=(token, *map(str, files)),
        variables={**config.environment.variables, "DOCTOR_ENVIRONMENT": str(environment or "")},
        environment=None,  # the job script sources it itself, so as to tell what became of it
        outputs=(),
        stdout=own / "out",
        stderr=own / "err",
        requirements=needs,
    )


def _run(
    batch: BatchSystem,
    order: JobOrder,
    config: Configuration,
    patience: float,
    say: Callable[[str], None],
) -> Iterator[Finding]:
    batch.check(order.requirements)
    job = JobHandle(order.name, order.spool)
    over = False
    try:
        (answer,) = batch.submit([order])
        if isinstance(answer, ProductionError):
            yield error(CHECK, str(answer), "Correct what it complains about")
            return
        job = replace(job, id=answer)
        say(f"Waits up to {patience:g} s for job {answer}")
        state = _wait(batch, job, patience)
        over = state is JobState.GONE
        if over:
            yield from _judge(order, config, batch.reason_of([job]).get(job.name) or "")
        else:
            held = state is JobState.HELD
            stands = "is held" if held else f"was still {state} after {patience:g} s"
            why = batch.reason_of([job]).get(job.name)
            what = f"job {answer} {stands}{f' ({why})' if why else ''}; it was cancelled"
            remedy = "Ask why its operators hold it" if held else "Wait longer: --wait=SECONDS"
            yield warning(CHECK, what, remedy)
    finally:
        if not over:
            # In any case its spool goes next, without which it does nothing.
            with contextlib.suppress(ProductionError):
                batch.cancel([job])


def _wait(batch: BatchSystem, job: JobHandle, patience: float) -> JobState:
    """Where the job stands when it is over, held, or the patience is at its end.

    Raises QueryFailed when the batch system does not tell even then.
    """
    now = time.monotonic()
    deadline, due = now + patience, now
    while True:
        # Its record is its last word, and may be seen before the batch system tells.
        if read_record(job.spool) is not None:
            return JobState.GONE
        now = time.monotonic()
        if now >= min(due, deadline):
            due = now + _ASK
            try:
                state = batch.poll([job])[job.name]
            except QueryFailed:  # the next one may be answered
                if now >= deadline:
                    raise
            else:
                if state in (JobState.GONE, JobState.HELD) or now >= deadline:
                    return state
        time.sleep(_GLANCE)


# --------------------------------------------------------------------------- what it says


def _judge(order: JobOrder, config: Configuration, why: str) -> Iterator[Finding]:
    deadline = time.monotonic() + _RECORD
    while (record := read_record(order.spool)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    said = _report(order.spool / "report")
    if record is None and not said:
        what = f"the job left nothing in {order.spool}"
        remedy = f"See that nodes have the same {config.data} and {WRAPPER}"
        yield error(CHECK, f"{what} ({why})" if why else what, remedy)
        return
    findings = list(_troubles(said, config))
    yield from findings
    if record is None or not (verdict := judge(record, {}, order.stderr)).ok:
        reason = "it left no exit record" if record is None else verdict.reason
        yield error(CHECK, f"the job failed: {reason}", "See the other findings on the node")
    elif not findings:
        host, bash = said["host"][0], said["bash"][0]
        yield ok(CHECK, f"{host} has all that jobs need (bash {bash})")


def _troubles(said: dict[str, list[str]], config: Configuration) -> Iterator[Finding]:
    host = said.get("host", ["the node"])[0]
    for path in said.get("other", ()):
        what = f"{path} on {host} is another directory than here"
        yield error(CHECK, what, f"Set data in {config.path} to a directory that nodes share")
    for path in said.get("readonly", ()):
        what = f"in {path} nothing can be written on {host}"
        yield error(CHECK, what, f"Set data in {config.path} to a directory that nodes may write")
    for path in said.get("unreadable", ()):
        what = f"{path} cannot be read on {host}"
        yield error(CHECK, what, "Move it to a directory that all nodes share")
    for text in said.get("environment", ()):
        what = f"the environment script {config.environment.script} fails on {host}: {text}"
        yield error(CHECK, what, "Correct it: all jobs would fail with 92")
    if lacking := said.get("lacks"):
        what = f"{host} lacks {', '.join(shlex.quote(name) for name in lacking)}"
        yield error(CHECK, what, "Have coreutils 8.24 and bash 4.2 or newer on the nodes")
    for text in said.get("skew", ()):
        what = f"the clocks of {host} and of the file server differ by {text} s"
        yield note(CHECK, what, "Have both set by NTP or chrony")


def _report(path: Path) -> dict[str, list[str]]:
    """What the job reported, with the difference of the clocks in seconds as ``skew``."""
    said: dict[str, list[str]] = {}
    with contextlib.suppress(OSError):
        for line in os.fsdecode(path.read_bytes()).splitlines():
            key, _, value = line.partition(" ")
            said.setdefault(key, []).append(value)
        with contextlib.suppress(ValueError, KeyError):
            skew = path.stat().st_mtime - float(said["time"][0])
            if abs(skew) > _SKEW:
                said["skew"] = [f"{abs(skew):.0f}"]
    return said
