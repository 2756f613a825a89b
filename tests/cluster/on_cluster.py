"""The experiment of tests/experiment.py as an ordinary user of a real batch system has it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from conftest import COMMANDS
from experiment import DEFAULTS, Experiment, ManagerProcess
from servers import Server

# Seconds; a Grid Engine whose qmaster was killed while it handed a job over does so again after
# five minutes (MAX_JOB_DELIVER_TIME in its sources).
PATIENCE = 400.0

# A submission that takes its time, so that several runs are ready for the next one.
SLOW = '#!/bin/sh\nsleep 0.3\nexec {path} "$@"\n'
PLAIN = '#!/bin/sh\nexec {path} "$@"\n'


class OnCluster(Experiment):
    """The experiment of an ordinary user of a batch system."""

    def __init__(
        self,
        directory: Path,
        server: Server,
        runs: Sequence[int],
        *,
        arrays: bool,
        defaults: str = "",
    ) -> None:
        self._server = server
        self.arrays = arrays
        self.more_environment: dict[str, str] = {}
        super().__init__(directory, runs)
        queue = f"queue = {json.dumps(server.queue)}\n" if server.queue else ""
        options = f"options = {json.dumps(list(server.options))}\n"
        self.configure(
            **{
                "defaults": f"{DEFAULTS}\n{defaults}",
                f"batch__{server.name}": f"arrays = {json.dumps(arrays)}\n{queue}{options}",
                "environment__variables": "".join(
                    f'{name} = "{self.environment[name]}"\n' for name in ("EXPERIMENT", "PATH")
                ),
            }
        )
        for name in COMMANDS:
            path = server.path_of(name)
            if path is not None and not shutil.which(name):
                self.add_command(name, PLAIN.format(path=path))
        self.add_command(server.submission, SLOW.format(path=server.path_of(server.submission)))
        server.give_to_user(directory)

    @property
    def environment(self) -> dict[str, str]:
        """What the user's login has."""
        return {**super().environment, **self._server.environment, **self.more_environment}

    def job(self, run: int) -> str | None:
        """The id of the run's latest job, as soon as it is recorded."""
        ((job,),) = self.rows(
            f"SELECT job FROM attempt WHERE run = {run} ORDER BY attempt DESC LIMIT 1"
        ) or [(None,)]
        return None if job is None else str(job)

    def start(self, *arguments: str, patch: str = "", prefix: Sequence[str] = ()) -> ManagerProcess:
        """A manager of the user's, with this batch system."""
        prefix = [*self._server.as_user(prefix)]
        batch = f"--batch={self._server.name}"
        manager = super().start(batch, *arguments, patch=patch, prefix=prefix)
        manager.patience = PATIENCE
        return manager
