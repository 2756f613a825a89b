"""Orders for real jobs, for the tests of the wrapper and of the batch systems."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from production.batch import WRAPPER
from production.job.orders import write_orders
from production.job.record import read_record
from production.model import JobHandle, JobOrder, JobRecord, OutputPlan, Requirements

# Seconds; only for the day on which something does not happen, and for a site's queues.
PATIENCE = float(os.environ.get("SITE_PATIENCE", "60"))

# The job script of most tests: the output's contents are its arguments.
WRITE = 'printf "%s\\n" "$@" > "$OUTPUT_TREE"\n'


class Workshop:
    """A directory in which jobs are made and run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.done = directory / "spool" / "done"

    def order(
        self,
        script: str = WRITE,
        *,
        run: int = 2091,
        arguments: Sequence[str] = ("one", "two"),
        outputs: Sequence[str] = ("tree",),
        environment: str | None = None,
        variables: Mapping[str, str] | None = None,
        requirements: Requirements | None = None,
        data: Path | None = None,
        write: bool = True,
    ) -> JobOrder:
        """Orders for a job whose script is ``script``, written to its spool."""
        scripts = self.directory / "scripts"
        scripts.mkdir(exist_ok=True)
        path = scripts / f"run{run}.sh"
        path.write_text(script)
        environment_path = None
        if environment is not None:
            environment_path = scripts / f"environment{run}.sh"
            environment_path.write_text(environment)
        data = data or self.directory / "data"
        plans = [
            OutputPlan(
                name,
                temporary=data / name / f".{name}{run:05d}.a1.root",
                final=data / name / f"{name}{run:05d}.root",
            )
            for name in outputs
        ]
        order = JobOrder(
            name=f"alcapana_v4.{run}.a1.t7.{self.directory.name}",
            run=run,
            spool=self.directory / "spool" / f"run{run:05d}.a1",
            script=path,
            arguments=tuple(arguments),
            variables=variables or {},
            environment=environment_path,
            outputs=tuple(plans),
            stdout=self.directory / "log" / f"run{run}.out",
            stderr=self.directory / "log" / f"run{run}.err",
            requirements=requirements or Requirements(),
        )
        if write:
            write_orders(order, self.done)
        return order

    def start(self, order: JobOrder, **environment: str) -> subprocess.Popen[bytes]:
        """The wrapper at work, in a session of its own like on a cluster."""
        with order.stdout.open("ab") as out, order.stderr.open("ab") as err:
            return subprocess.Popen(
                ["bash", str(WRAPPER), str(order.spool)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                env={**os.environ, **environment},
            )

    def run(self, order: JobOrder, **environment: str) -> JobRecord:
        """Run a job to its end; its record, which its exit code must agree with."""
        code = self.start(order, **environment).wait(timeout=120)
        record = read_record(order.spool)
        assert record is not None, order.stderr.read_text()
        assert record.exit_code == code
        assert (self.done / order.spool.name).exists()
        return record


def handle(order: JobOrder, job_id: str | None = None) -> JobHandle:
    return JobHandle(order.name, order.spool, job_id)


def until(condition: Callable[[], bool], *, timeout: float = PATIENCE) -> None:
    """Wait for something that must happen."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def leaves_pid(path: Path) -> str:
    """Shell text that leaves the pid of its process in ``path``, as a whole or not at all."""
    quoted = shlex.quote(str(path))
    return f"echo $$ > {quoted}.tmp && mv {quoted}.tmp {quoted}\n"


def pid_in(path: Path) -> int:
    until(path.exists)
    return int(path.read_text())
