"""Every file name of a production, in one place.

Below the user's data directory::

    tree/v4/tree02091.root                 outputs, as the recipe's templates say
    log/v4/alcapana.run02091.out|.err      logs; of a failed attempt: .attempt2.out|.err
    raw/alcapana_v4.<db>/run02091.a2/      inputs of one attempt while it lasts
    raw/fetching/                          who is downloading which file, for all productions
    spool/alcapana_v4.<db>/run02091.a2/    what its job is told and leaves behind
    spool/alcapana_v4.<db>/done/           one empty file for each job that has ended

``<db>`` tells two databases apart that share a data directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from production.model import Claim, OutputPlan, Production, job_name
from production.recipe.model import Recipe

_ATTEMPT = re.compile(r"run([0-9]+)\.a([0-9]+)")


@dataclass(frozen=True)
class Paths:
    """File names of one production below one user's data directory."""

    data: Path
    production: Production
    recipe: Recipe
    database: str  # the database's uuid

    @property
    def workspace(self) -> str:
        """Name of the production's directories under raw/ and spool/."""
        return f"{self.production.label}.{self.database}"

    def of_spool(self, spool: Path) -> Paths:
        """The same names below the data directory that ``spool`` belongs to."""
        return Paths(spool.parents[2], self.production, self.recipe, self.database)

    def raw(self, claim: Claim) -> Path:
        """Directory for the attempt's inputs."""
        return self.data / "raw" / self.workspace / _attempt_name(claim)

    @property
    def fetching(self) -> Path:
        """Where managers tell each other what they are downloading."""
        return self.data / "raw" / "fetching"

    def spool(self, claim: Claim) -> Path:
        """The attempt's spool directory."""
        return self.data / "spool" / self.workspace / _attempt_name(claim)

    @property
    def done(self) -> Path:
        """Where jobs announce that they have ended."""
        return self.data / "spool" / self.workspace / "done"

    def job_name(self, claim: Claim) -> str:
        """What the batch system knows the claim's job by."""
        return job_name(self.production.label, claim, self.database)

    def outputs(self, claim: Claim) -> tuple[OutputPlan, ...]:
        """Where the outputs go, and what they are called while they are written.

        The temporary name keeps the suffix, by which programs tell file types apart, and is
        hidden; it stands in the final directory so that the rename stays on one filesystem.
        """
        plans = []
        relative = self.recipe.output_paths(claim.run, self.production.version)
        for name, path in relative.items():
            final = self.data / path
            owner = f"a{claim.attempt}.{self.database}"
            temporary = final.with_name(f".{final.stem}.{owner}{final.suffix}")
            plans.append(OutputPlan(name, temporary, final))
        return tuple(plans)

    def logs(self, claim: Claim) -> tuple[Path, Path]:
        """Standard output and error while the attempt lasts, and of a failed attempt."""
        return self._logs(claim.run, f".attempt{claim.attempt}")

    def final_logs(self, claim: Claim) -> tuple[Path, Path]:
        """Standard output and error of a finished run."""
        return self._logs(claim.run, "")

    def leftovers(self) -> Iterator[tuple[int, int, Path]]:
        """All attempt directories under raw/ and spool/: run, attempt, directory."""
        for kind in ("raw", "spool"):
            directory = self.data / kind / self.workspace
            if directory.is_dir():
                yield from _of_attempts(directory)

    def stale_marks(self) -> Iterator[tuple[int, int, Path]]:
        """The marks of jobs whose spool is gone: run, attempt, mark.

        A job makes its mark after its record is there, so none of them is needed any more.
        """
        for run, attempt, mark in _of_attempts(self.done):
            if not os.path.lexists(self.done.parent / mark.name):
                yield run, attempt, mark

    def _logs(self, run: int, suffix: str) -> tuple[Path, Path]:
        out, err = self.recipe.log_paths(run, self.production.version)
        return (
            self.data / out.with_name(f"{out.stem}{suffix}{out.suffix}"),
            self.data / err.with_name(f"{err.stem}{suffix}{err.suffix}"),
        )


def _attempt_name(claim: Claim) -> str:
    return f"run{claim.run:05d}.a{claim.attempt}"


def _of_attempts(directory: Path) -> Iterator[tuple[int, int, Path]]:
    """What there is named after attempts: run, attempt, path."""
    for path in sorted(directory.iterdir()):
        if match := _ATTEMPT.fullmatch(path.name):
            yield int(match[1]), int(match[2]), path
