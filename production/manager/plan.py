"""From a claimed run to what its job is told: nothing but putting values together.

The manager uses it for real submissions and ``--dry-run`` to show what would be submitted, so
both are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from production.manager.paths import Paths
from production.model import Claim, JobOrder, Requirements
from production.recipe.model import Files

MODULES_NAME = "modules"


@dataclass(frozen=True)
class JobSettings:
    """What all jobs of a manager have in common, from the configuration and command line."""

    environment: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    modules_text: str | None = None  # read once when the manager starts
    options: Mapping[str, str] = field(default_factory=dict)  # recipe options that were given
    requirements: Requirements = field(default_factory=Requirements)


def plan_job(
    paths: Paths, claim: Claim, inputs: Mapping[str, Path | Files], settings: JobSettings
) -> JobOrder:
    """The order for one attempt at one run; ``inputs`` by their names in the recipe."""
    recipe = paths.recipe
    spool = paths.spool(claim)
    outputs = paths.outputs(claim)
    stdout, stderr = paths.logs(claim)
    fields: dict[str, object] = {
        "run": claim.run,
        "version": paths.production.version,
        "software": paths.production.software,
        MODULES_NAME: spool / MODULES_NAME,
        **inputs,
        **{plan.name: plan.temporary for plan in outputs},
    }
    return JobOrder(
        name=paths.job_name(claim),
        run=claim.run,
        spool=spool,
        script=recipe.script,
        arguments=recipe.job_arguments(fields, settings.options),
        variables={
            **{f"INPUT_{name.upper()}": str(files) for name, files in inputs.items()},
            **settings.variables,
            **recipe.job_variables(fields),
        },
        environment=settings.environment,
        outputs=outputs,
        stdout=stdout,
        stderr=stderr,
        requirements=settings.requirements,
    )
