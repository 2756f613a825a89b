"""Recipes are found by their name, and read with a check of everything that can be checked."""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from production import toml
from production.errors import ModulesUnreadable, RecipeError, UnknownRecipe
from production.locations import parse_locations
from production.model import Requirements
from production.recipe.model import (
    FIXED_COLUMNS,
    JOB_FIELDS,
    PATH_FIELDS,
    ArchiveInput,
    BaseInput,
    Input,
    Option,
    Output,
    Recipe,
)
from production.templates import Template, parse_path, parse_template
from production.toml import Table
from production.units import parse_duration, parse_memory

BUILTIN = Path(__file__).parent / "builtin"
SCRIPTS = Path(__file__).parent.parent / "sge_scripts"

TYPE_NAME = re.compile(r"(?!sqlite_)(?!.*_v\d+$)[A-Za-z][A-Za-z0-9_]*", re.ASCII | re.IGNORECASE)
RESERVED = (*JOB_FIELDS, "modules")
FIELD_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_NEEDS = tuple(field.name for field in fields(Requirements))


# --------------------------------------------------------------------------- finding


def find_recipe(name: str, directories: Sequence[Path]) -> Recipe:
    """The recipe ``name``: from the first of ``directories`` that has it, else the built-in one.

    Raises UnknownRecipe, or RecipeError with file and line when there is one that is broken.
    """
    recipe = _load(name, directories)
    if recipe.base is not None:
        _check_base(recipe, recipe.base, directories)
    return recipe


def check_systems(recipe: Recipe, known: Callable[[], Collection[str]]) -> None:
    """Requirements may differ on batch systems that are ``known``; RecipeError at another name."""
    if recipe.special_requirements:
        table = toml.parse(recipe.text, recipe.path, RecipeError).table("requirements")
        table.only(*_NEEDS, *known())


def known_recipes(directories: Sequence[Path]) -> tuple[str, ...]:
    """The names of all recipes that can be found, sorted."""
    files = [file for directory in (*directories, BUILTIN) for file in directory.glob("*.toml")]
    return tuple(sorted({file.stem for file in files if toml.is_file(file) and _is_recipe(file)}))


def modules_file(recipe: Recipe, directories: Sequence[Path]) -> Path | None:
    """The recipe's default modules file, or None when the type has no modules.

    A relative name is looked up beside the recipe, then in ``directories``.  Raises
    ModulesUnreadable when it is in none of them.
    """
    if recipe.modules is None:
        return None
    try:
        name = toml.expand(recipe.modules)
    except ValueError as problem:
        raise ModulesUnreadable(path=recipe.modules, what=problem) from None
    places = (recipe.path.parent, *directories)
    found = _first_file(name, places)
    if found is None:
        places_read = ", ".join(dict.fromkeys(map(str, places)))
        raise ModulesUnreadable(path=name, what=f"it is not in {places_read}")
    return found


def _load(name: str, directories: Sequence[Path]) -> Recipe:
    path = None
    if TYPE_NAME.fullmatch(name):
        path = _first_file(f"{name}.toml", (*directories, BUILTIN))
    if path is None:
        raise UnknownRecipe(name=name, known=", ".join(known_recipes(directories)))
    return parse_recipe(toml.read(path, RecipeError), path)


def _check_base(recipe: Recipe, base: str, directories: Sequence[Path]) -> None:
    """Each output of the base that the recipe reads must be one that the base makes."""
    table = toml.parse(recipe.text, recipe.path, RecipeError)
    try:
        outputs = [output.name for output in _load(base, directories).outputs]
    except UnknownRecipe:
        known = known_recipes(directories)
        table.refuse(f"there is no recipe {base!r}{toml.did_you_mean(base, known)}", "base")
    for given in recipe.base_inputs:
        if given.output not in outputs:
            hint = toml.did_you_mean(given.output, outputs)
            what = f"{base} makes no output {given.output!r}{hint}"
            table.refuse(what, "input", given.name, "output")


def _first_file(name: str, directories: Iterable[Path]) -> Path | None:
    return next(filter(toml.is_file, (directory / name for directory in directories)), None)


def _is_recipe(file: Path) -> bool:
    """Whether a TOML file calls itself a recipe: other files may lie beside the database."""
    try:
        document = toml.parse(toml.read(file, RecipeError), file, RecipeError)
    except RecipeError:
        return False
    return document.values.get("name") == file.stem


# --------------------------------------------------------------------------- reading


def parse_recipe(text: str, path: Path, *, recorded: bool = False) -> Recipe:
    """The recipe ``text`` of the file ``path``; RecipeError names the line of what is wrong.

    ``recorded``: as a production was started with it; its script need not be there any more.
    """
    path = path.absolute()
    root = toml.parse(text, path, RecipeError)
    root.only(
        *("name", "description", "base", "input", "job", "output"),
        *("log", "modules", "requirements", "exit_codes"),
    )
    name = _name(root, path)
    base = _base(root, name)
    modules = _modules(root)
    outputs = _outputs(root.table("output"))
    inputs = _inputs(root.table("input"), base, [*RESERVED, *outputs])
    fields = [*JOB_FIELDS, *outputs, *(given.name for given in inputs)]
    if modules is not None:
        fields.append("modules")
    if base is not None and not any(isinstance(given, BaseInput) for given in inputs):
        root.refuse(f'no input is from the base {base!r}: give one from = "base"', "base")

    job = root.table("job")
    job.only("script", "arguments", "variables", "options")
    recipe = Recipe(
        name=name,
        description=root.get("description", str, ""),
        path=path,
        text=text,
        base=base,
        inputs=inputs,
        outputs=tuple(outputs.values()),
        script=_script(job, path, must_exist=not recorded),
        arguments=_arguments(job, "arguments", fields),
        variables=_variables(job.table("variables"), fields),
        options=_options(job.table("options"), fields),
        log=_log(root.table("log"), name),
        modules=modules,
        requirements=_general_requirements(root.table("requirements")),
        special_requirements=_special_requirements(root.table("requirements")),
        exit_codes=_exit_codes(root.table("exit_codes")),
    )
    _check_paths(root, recipe)
    _check_patterns(job, recipe)
    return recipe


def _name(root: Table, path: Path) -> str:
    name = root.need("name", str)
    if name != path.stem:
        root.refuse(f"the name is {name!r}, but the file is called {path.name}", "name")
    if not TYPE_NAME.fullmatch(name):
        what = "must be letters, digits and _, begin with a letter and not end like a version (_v3)"
        root.refuse(f"the name {name!r} {what}", "name")
    return name


def _base(root: Table, name: str) -> str | None:
    base = root.get("base", str, None)
    if base == name:
        root.refuse("a type cannot be its own base", "base")
    return base


def _modules(root: Table) -> str | None:
    table = root.table("modules")
    table.only("file")
    return table.need("file", str) if "modules" in root.values else None


def _inputs(tables: Table, base: str | None, taken: Sequence[str]) -> tuple[Input, ...]:
    return tuple(_input(tables, name, base, taken) for name in tables.values)


def _input(tables: Table, name: str, base: str | None, taken: Sequence[str]) -> Input:
    _check_name(tables, "input", name, taken)
    table = tables.table(name)
    origin = table.need("from", str)
    if origin == "archive":
        table.only("from", "file")
        files = table.one_or_more("file")
        if "file" not in table.values:
            return ArchiveInput(name)
        return ArchiveInput(name, table.convert("file", parse_locations, files))
    if origin != "base":
        table.refuse(f'\'from\' must be "archive" or "base", not {origin!r}', "from")
    table.only("from", "output")
    if base is None:
        table.refuse('an input from the base needs base = "TYPE" at the file\'s beginning', "from")
    return BaseInput(name, table.need("output", str))


def _outputs(tables: Table) -> dict[str, Output]:
    outputs = {}
    for name in tables.values:
        _check_name(tables, "output", name, RESERVED)
        if name in FIXED_COLUMNS or not _is_column(name):
            tables.refuse(f"an output cannot be called {name!r}: the database uses it", name)
        table = tables.table(name)
        table.only("path")
        outputs[name] = Output(name, table.convert("path", _data_path, table.need("path", str)))
    return outputs


def _script(job: Table, path: Path, *, must_exist: bool) -> Path:
    name = job.convert("script", toml.expand, job.need("script", str))
    found = _first_file(name, (path.parent, SCRIPTS))
    if found is None and must_exist:
        job.refuse(f"there is no job script {name} in {path.parent} or {SCRIPTS}", "script")
    return found or path.parent / name


def _arguments(table: Table, key: str, fields: Sequence[str]) -> tuple[Template, ...]:
    def parse(texts: Iterable[str]) -> tuple[Template, ...]:
        return tuple(parse_template(text, fields) for text in texts)

    return table.convert(key, parse, table.items(key, str))


def _variables(table: Table, fields: Sequence[str]) -> dict[str, Template]:
    def parse(text: str) -> Template:
        return parse_template(text, fields)

    return {name: table.convert(name, parse, text) for name, text in table.variables().items()}


def _options(table: Table, fields: Sequence[str]) -> dict[str, Option]:
    options = {}
    for name in table.values:
        _check_name(table, "option", name, [*RESERVED, *fields])
        options[name] = Option(name, _arguments(table, name, [*fields, name]))
    return options


def _log(table: Table, name: str) -> Template:
    table.only("path")
    default = f"log/v{{version}}/{name}.run{{run:05d}}"
    return table.convert("path", _data_path, table.get("path", str, default))


def _general_requirements(table: Table) -> Requirements:
    return _requirements(table, Requirements(), _systems(table))


def _special_requirements(table: Table) -> dict[str, Requirements]:
    general = _general_requirements(table)
    return {name: _requirements(table.table(name), general) for name in _systems(table)}


def _systems(table: Table) -> list[str]:
    """The tables in the table: a system's own requirements."""
    return [name for name, value in table.values.items() if isinstance(value, dict)]


def _requirements(table: Table, default: Requirements, systems: Sequence[str] = ()) -> Requirements:
    table.only(*_NEEDS, *systems)
    time = table.parsed("time", parse_duration, default.time)
    return Requirements(
        time=None if time is None else math.ceil(time),
        memory=table.parsed("memory", parse_memory, default.memory),
        cores=table.count("cores", 1, default.cores),
        queue=table.get("queue", str, default.queue),
        project=table.get("project", str, default.project),
        options=table.items("options", str, default.options),
    )


def _exit_codes(table: Table) -> dict[int, str]:
    for code in table.values:
        if not re.fullmatch(r"[1-9]\d{0,2}", code, re.ASCII) or int(code) > 255:
            table.refuse(f"{code!r} is not an exit code of a failure (1 to 255)", code)
    return {int(code): words for code, words in table.texts().items()}


# --------------------------------------------------------------------------- checks


def _data_path(text: str) -> Template:
    return parse_path(text, PATH_FIELDS)


def _check_name(table: Table, what: str, name: str, taken: Sequence[str]) -> None:
    if not FIELD_NAME.fullmatch(name):
        rule = "small letters, digits and _, beginning with a letter"
        table.refuse(f"the {what} name {name!r} must be {rule}", name)
    if name in taken:
        table.refuse(f"the {what} name {name!r} is already used for something else", name)


def _is_column(name: str) -> bool:
    """Whether SQLite takes ``name``, unquoted, for a column and for nothing else."""
    database = sqlite3.connect(":memory:")
    try:
        database.execute(f"CREATE TABLE t ({name})")
        database.execute("INSERT INTO t VALUES ('a value')")
        rows = database.execute(f"SELECT {name} FROM t").fetchall()
    except sqlite3.Error:
        return False
    finally:
        database.close()
    return rows == [("a value",)]


def _check_patterns(job: Table, recipe: Recipe) -> None:
    """An input of several files is an argument of its own."""
    several = {given.name for given in recipe.archive_inputs if given.is_pattern}
    options = [(("options", option.name), option.arguments) for option in recipe.options.values()]
    for key, arguments in ((("arguments",), recipe.arguments), *options):
        for template in arguments:
            if template.sole_field is None and (fields := several & template.fields):
                what = f"{{{min(fields)}}} is several files: it must be an argument of its own"
                job.refuse(what, *key)


def _check_paths(root: Table, recipe: Recipe) -> None:
    """No file of a run stands in for another."""
    owners = {f"{recipe.log.shape}{suffix}": "the log" for suffix in (".out", ".err")}
    for output in recipe.outputs:
        if output.path.shape in owners:
            what = f"output {output.name!r} has the same path as {owners[output.path.shape]}"
            root.refuse(what, "output", output.name, "path")
        owners[output.path.shape] = f"output {output.name!r}"
