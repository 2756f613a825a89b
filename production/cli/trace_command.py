"""Trace an output, a log or a run back to all that it came from.

Production and software tag, modules, inputs, job, node, times and checksums; then the same of the
base production whose outputs were its inputs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from production.cli.choosing import open_to_read
from production.cli.output import add_table_output, show
from production.cli.parser import (
    add_config,
    add_database,
    add_production,
    path,
    run_number,
    word,
)
from production.errors import ProductionError, UsageError

if TYPE_CHECKING:
    from production.locations import Location
    from production.model import InputFile, RecordedFile
    from production.store.connection import Database
    from production.store.trace import Provenance

TEXT = "modules text"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "what",
        metavar="WHAT",
        type=_what,
        help="an output or a log; or a run's number, with --production (./2091 is a file)",
    )
    add_production(parser, required=False)
    parser.add_argument(
        "--modules", action="store_true", help="Print the text of the modules file, too."
    )
    parser.add_argument(
        "--checksums",
        action="store_true",
        help="Read the files and see whether they still have the checksums that are recorded.",
    )
    add_config(parser)
    add_table_output(parser, quiet="production and run")
    add_database(parser)


def _what(text: str) -> str:
    if text.isdecimal():
        run_number(text)
    return word(text)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production import config as configuration

    file = configuration.load(options.config, options.database).archive.file
    with open_to_read(options.database) as db:
        found = _find(options, db)
    if options.output == "quiet":
        print(f"{found.production.label} {found.run}")
    elif options.output == "json":
        import json

        print(json.dumps(_json(found, options, file), indent=2))
    elif options.output == "table":
        print("\n".join(_lines(found, options, file)))
    else:
        rows = list(_rows(found, options, file))
        show(("production", "run", "fact", "text"), rows, options.output)
    return 0


def _find(options: argparse.Namespace, db: Database) -> Provenance:
    from production.store import productions, trace

    if not options.what.isdecimal():
        if options.production or options.version is not None:
            raise UsageError(text="a file tells its production: --production is for a run")
        # Recorded are absolute names; the data directory may be a link.
        name = os.path.abspath(path(options.what))  # noqa: PTH100 - links as they are
        return trace.of_file(db, [Path(name), Path(os.path.realpath(name))])
    if not options.production:
        raise UsageError(text=f"run {options.what} in which production? --production=PROD_TYPE")
    production = productions.find(db, options.production, options.version)
    return trace.of_run(db, production, int(options.what))


# --------------------------------------------------------------------------- what goes in


def _inputs(made: Provenance, file: Sequence[Location]) -> dict[str, str]:
    """What was read, by its name in the recipe that the production was started with."""
    from production.recipe.load import parse_recipe

    if made.recipe is None:
        return {}
    try:
        recipe = parse_recipe(made.recipe, Path(f"{made.production.type}.toml"), recorded=True)
    except ProductionError:  # of another version of this program: the rest is told all the same
        return {}
    outputs = {output.name: str(output.path) for output in made.base.outputs} if made.base else {}
    from_archive = {
        given.name: " or ".join(
            _location(location, made.run) for location in given.locations or file
        )
        for given in recipe.archive_inputs
    }
    from_base = {
        given.name: outputs[given.output] for given in recipe.base_inputs if given.output in outputs
    }
    return {**from_archive, **from_base}


def _location(location: Location, run: int) -> str:
    name = location.name.expand({"run": run})
    if location.place is None:
        return f"{name} of the archive"
    address, question, query = location.place.partition("?")
    return f"{address.rstrip('/')}/{name}{question}{query}"


def _state(file: RecordedFile, checksums: bool) -> str:
    from production.audit.files import look

    trouble = look(file, checksums)
    if trouble is not None:
        return f"{trouble.finding.upper()}: {trouble.detail}"
    return "as recorded" if checksums and file.sha256 else "there"


# --------------------------------------------------------------------------- how it is shown


def _lines(made: Provenance, options: argparse.Namespace, file: Sequence[Location]) -> list[str]:
    lines = [f"run {made.run} in {made.production.label}, which is {made.status}"]
    for fact, text in _told(made, options, file):
        if fact == TEXT:
            lines += [f"    | {line}" for line in text.splitlines()]
        else:
            lines.append(f"  {fact:10}{text}")
    if made.base is not None:
        lines.append("  made from")
        lines += [f"    {line}" for line in _lines(made.base, options, file)]
    return lines


def _rows(
    made: Provenance, options: argparse.Namespace, file: Sequence[Location]
) -> Iterator[tuple[str, int, str, str]]:
    """The same for tables: each fact with its production and run, the base's after the others."""
    yield made.production.label, made.run, "status", made.status
    last = ""
    for fact, text in _told(made, options, file):
        last = fact or last
        yield made.production.label, made.run, last, text
    if made.base is not None:
        yield from _rows(made.base, options, file)


def _told(
    made: Provenance, options: argparse.Namespace, file: Sequence[Location]
) -> Iterator[tuple[str, str]]:
    """What there is to tell of a run in one production; without a name, more of the one before."""
    yield from _facts(made)
    if made.modules is not None:
        yield "modules", f"{len(made.modules.encode())} bytes, sha256 {made.modules_sha256}"
        if options.modules:
            yield TEXT, made.modules
    for output in made.outputs:
        about = "" if output.size is None else f", {output.size} bytes, sha256 {output.sha256}"
        yield "output", f"{output.name}: {output.path}"
        yield "", f"{_state(output, options.checksums)}{about}"
    for log in made.logs:
        yield log.name, f"{log.path}, {_state(log, checksums=False)}"
    for given in made.inputs:
        yield "input", f"{given.name}: {_source(given)}"
        check = given.checksum
        yield "", f"{given.size} bytes{f', {check.kind} {check.value}' if check else ''}"
    known = {given.name for given in made.inputs}
    for name, text in _inputs(made, file).items():
        if name not in known:
            yield "input", f"{name}: {text}"


def _source(given: InputFile) -> str:
    """Where a file has come from."""
    if given.place is None:
        return f"{given.file} (fetched by another manager)"
    return f"{given.place}{'' if given.place.endswith('/') else '/'}{given.file}"


def _facts(made: Provenance) -> Iterator[tuple[str, str]]:
    yield "software", made.production.software
    if made.attempt is None:
        yield "attempt", "none so far"
        return
    ending = made.outcome or "goes on"
    yield "attempt", f"{made.attempt}: {ending}{f': {made.reason}' if made.reason else ''}"
    if made.redone:
        yield "", f"done again since, by attempt {made.redone}: these files may be those"
    yield "claimed", _words(made.claimed, ("by", made.user), ("on", made.manager_host))
    if made.job_name:
        yield "job", _words(made.batch, ("", made.job), ("", made.job_name))
        yield "submitted", _words(made.start)
    if made.job_start:
        yield "ran", _words(made.job_start, ("to", made.job_stop), ("on", made.host))
        cpu = None if made.cpu_seconds is None else f"{made.cpu_seconds:g} s CPU"
        memory = None if made.peak_memory is None else f"{made.peak_memory / 1e6:.1f} MB"
        yield "", ", ".join(filter(None, (f"exit code {made.exit_code}", cpu, memory)))


def _words(first: str | None, *others: tuple[str, str | None]) -> str:
    found = [f"{word} {text}".strip() for word, text in others if text is not None]
    return " ".join([first or "(not known)", *found])


def _json(
    made: Provenance, options: argparse.Namespace, file: Sequence[Location]
) -> dict[str, object]:
    from dataclasses import asdict

    def files(recorded: Sequence[RecordedFile], checksums: bool) -> list[dict[str, object]]:
        return [{**asdict(f), "path": str(f.path), "state": _state(f, checksums)} for f in recorded]

    values = asdict(made)
    del values["recipe"], values["base_type"]
    if not options.modules:
        del values["modules"]
    return {
        **values,
        "production": made.production.label,
        "software": made.production.software,
        "outputs": files(made.outputs, options.checksums),
        "logs": files(made.logs, checksums=False),
        "inputs": _inputs(made, file),
        "input_files": values["inputs"],
        "base": None if made.base is None else _json(made.base, options, file),
    }
