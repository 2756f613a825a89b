"""A recipe as plain values, checked when it was loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from production.locations import Location
from production.model import Requirements
from production.templates import Template

# Columns of each production's view besides the outputs: no output can have such a name.
FIXED_COLUMNS = (
    *("run", "status", "user", "start", "stop", "olog", "elog", "modules", "host", "job"),
    *("attempt", "exit_code", "reason", "cpu_seconds", "peak_memory", "dataset"),
)

# What arguments and variables can name besides inputs, outputs and, where the recipe has them,
# the modules.
JOB_FIELDS = ("run", "version", "software")
PATH_FIELDS = ("version", "run")


class Files(tuple[Path, ...]):
    """The files of an input that is a pattern; as text, one a line."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def __format__(self, _spec: str) -> str:
        return str(self)


@dataclass(frozen=True)
class ArchiveInput:
    """A file, or all that fit a pattern, fetched from the archive or from places of its own."""

    name: str
    locations: tuple[Location, ...] = ()  # tried in order; none: as the configuration says

    @property
    def is_pattern(self) -> bool:
        """Whether it stands for any number of files."""
        return any(location.is_pattern for location in self.locations)


@dataclass(frozen=True)
class BaseInput:
    """An output of the base production, at the path that is recorded there."""

    name: str
    output: str


Input = ArchiveInput | BaseInput


@dataclass(frozen=True)
class Output:
    """A file that the job makes."""

    name: str
    path: Template  # relative to the data directory


@dataclass(frozen=True)
class Option:
    """A command line option of this type: arguments that the script gets when it is given."""

    name: str
    arguments: tuple[Template, ...]

    @property
    def takes_value(self) -> bool:
        """``--name=VALUE`` rather than ``--name``: some argument contains ``{name}``."""
        return any(self.name in argument.fields for argument in self.arguments)


@dataclass(frozen=True)
class Recipe:
    """What a production type is made of."""

    name: str  # the production type
    description: str
    path: Path
    text: str  # of the file, exactly
    base: str | None  # the type of the base production, None for a primary type
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    script: Path
    arguments: tuple[Template, ...]
    variables: Mapping[str, Template]
    options: Mapping[str, Option]
    log: Template  # relative to the data directory, without .out and .err
    modules: str | None  # default modules file as written; None: the type has no modules
    requirements: Requirements
    special_requirements: Mapping[str, Requirements]  # where a batch system's differ, by its name
    exit_codes: Mapping[int, str]  # the payload's exit codes in words

    @property
    def archive_inputs(self) -> tuple[ArchiveInput, ...]:
        """The inputs that are fetched from the archive."""
        return tuple(i for i in self.inputs if isinstance(i, ArchiveInput))

    @property
    def base_inputs(self) -> tuple[BaseInput, ...]:
        """The inputs that the base production made."""
        return tuple(i for i in self.inputs if isinstance(i, BaseInput))

    def requirements_on(self, system: str) -> Requirements:
        """What a job needs on this batch system."""
        return self.special_requirements.get(system, self.requirements)

    def output_paths(self, run: int, version: int) -> dict[str, Path]:
        """Where each output of a run belongs, relative to the data directory."""
        values = {"run": run, "version": version}
        return {output.name: Path(output.path.expand(values)) for output in self.outputs}

    def log_paths(self, run: int, version: int) -> tuple[Path, Path]:
        """Standard output and standard error of a run, relative to the data directory."""
        stem = self.log.expand({"run": run, "version": version})
        return Path(f"{stem}.out"), Path(f"{stem}.err")

    def job_arguments(
        self, fields: Mapping[str, object], options: Mapping[str, str]
    ) -> tuple[str, ...]:
        """The script's arguments.

        ``fields``: run, version, software, the path of each input and output, and of the modules
        file where the recipe has one.  An argument that is an input of several files becomes
        several arguments.  ``options``: those given, each with its value ("" for one that takes
        none).
        """
        given = [option for name, option in self.options.items() if name in options]
        values = {**fields, **options}
        arguments: list[str] = []
        for template in (*self.arguments, *(a for option in given for a in option.arguments)):
            value = values.get(template.sole_field or "")
            if isinstance(value, Files):
                arguments += map(str, value)
            else:
                arguments.append(template.expand(values))
        return tuple(arguments)

    def job_variables(self, fields: Mapping[str, object]) -> dict[str, str]:
        """The payload's environment variables; ``fields`` as for ``job_arguments``."""
        return {name: template.expand(fields) for name, template in self.variables.items()}
