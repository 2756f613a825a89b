"""The documentation is complete, its links lead somewhere, and its examples do what they show."""

from __future__ import annotations

import argparse
import configparser
import dataclasses
import inspect
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ftp_server import tape_archive
from laboratory import PROJECT, Laboratory, spoil

from production import errors
from production.cli import COMMANDS, STEERING, command_parser
from production.config import Defaults
from production.identity import current_user
from production.job.verdict import WRAPPER_EXIT_CODES
from production.store.views import FIXED_COLUMNS

DOCS = PROJECT / "docs"
PAGES = sorted([*PROJECT.glob("*.md"), *DOCS.glob("*.md"), *PROJECT.glob("examples/*.md")])
EVERYWHERE = ("-h", "--help", "--usage")


def page(name: str) -> str:
    return (DOCS / name).read_text()


def table_rows(text: str) -> list[list[str]]:
    """The cells of all tables' rows, but for the lines under the headings."""
    rows = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)] for row in rows]


def in_backticks(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


# ------------------------------------------------------------------------------- commands


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command with its parser, those below ``datasets`` as well."""
    for name in COMMANDS:
        parser, _ = command_parser(name, f"production {name}")
        yield parser.prog, parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from ((below.prog, below) for below in action.choices.values())


def section(command: str) -> str:
    """What docs/commands.md says under the heading of a command."""
    if command.removeprefix("production ") in STEERING:
        command = "Steering managers"
    match = re.search(
        rf"^(##+) {command}\n(.*?)(?=^## |^### production|\Z)",
        page("commands.md"),
        re.MULTILINE | re.DOTALL,
    )
    assert match, f"docs/commands.md has no section on {command}"
    return match[2]


@pytest.mark.parametrize(
    ("command", "parser"),
    list(parsers()),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_option_is_documented(command: str, parser: argparse.ArgumentParser) -> None:
    described = {name for row in table_rows(section(command)) for name in in_backticks(row[0])}
    names = {name.split("=")[0] for name in described}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices:
                section(f"{command} {below}")
            continue
        wanted = action.option_strings or [str(action.metavar)]
        assert names >= {name for name in wanted if name not in EVERYWHERE}
        if action.option_strings and action.nargs != 0 and not action.choices:
            assert f"{wanted[0]}={action.metavar}" in described


@pytest.mark.parametrize(
    ("command", "parser"),
    list(parsers()),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_documented_option_exists(command: str, parser: argparse.ArgumentParser) -> None:
    existing = {name for action in parser._actions for name in action.option_strings}
    for row in table_rows(section(command)):
        for name in in_backticks(row[0]):
            assert not name.startswith("--") or name.split("=")[0] in existing


def test_every_command_is_in_the_overview() -> None:
    first = page("commands.md").split("\n## ")[0]
    for command in COMMANDS:
        anchor = "steering-managers" if command in STEERING else f"production-{command}"
        assert f"[`production {command}`](#{anchor})" in first


def test_what_all_commands_have_in_common_is_said_at_the_beginning() -> None:
    first = page("commands.md").split("\n## ")[0]
    assert in_backticks(first) >= {*EVERYWHERE, "--database=DB", "~/data/production.db"}


def test_there_is_an_example_of_each_command() -> None:
    commands = {command for command, _ in blocks(page("commands.md"))}
    for command, parser in parsers():
        if not any(isinstance(a, argparse._SubParsersAction) for a in parser._actions):
            program = "run_production.py" if command == "production run" else command
            assert any(text.startswith(program) for text in commands)


def test_every_default_of_the_configuration_is_documented_with_its_option() -> None:
    """What stands under [defaults] in docs/configuration.md is an option by the same name."""
    documented = {
        name: row[2]
        for row in table_rows(page("configuration.md"))
        for name in re.findall(r"`defaults\.(\w+)`", row[0])
    }
    assert set(documented) == {field.name for field in dataclasses.fields(Defaults)}
    for name in documented.keys() - {"back_off", "hold_timeout"}:  # these have none
        option = f"--{name.replace('_', '-')}"
        assert documented[name].startswith(f"`{option}`: ")
        assert f"`{option}=" in section("production run")


# ------------------------------------------------------------------------------- exit codes


def all_errors() -> list[type[errors.ProductionError]]:
    classes = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.ProductionError)
    ]
    return [value for value in classes if value is not errors.ProductionError]


def documented_errors() -> dict[str, str]:
    rows = [row for row in table_rows(page("exit-codes.md")) if len(row) == 4]
    return {name: row[0] for row in rows for name in in_backticks(row[1])}


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.__name__)
def test_every_error_is_documented_with_its_exit_code(error: type[errors.ProductionError]) -> None:
    code = "128+n" if error is errors.Interrupted else str(error.exit_code)
    assert documented_errors().get(error.__name__) == code


def test_every_documented_error_exists() -> None:
    assert set(documented_errors()) == {error.__name__ for error in all_errors()}


def test_every_error_says_what_to_do() -> None:
    for row in table_rows(page("exit-codes.md")):
        assert len(row) == 2 or all(row), row[:2]


def test_the_exit_codes_of_jobs_are_documented() -> None:
    documented = {row[0] for row in table_rows(page("jobs.md"))}
    assert documented >= {str(code) for code in WRAPPER_EXIT_CODES}


# ------------------------------------------------------------------------------- the bookkeeping


def test_every_table_is_documented() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript((PROJECT / "schema.sql").read_text())
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        names = {row[0] for row in tables}
    documented = {name for row in table_rows(page("bookkeeping.md")) for name in row[:1]}
    assert documented >= {f"`{name}`" for name in names}


def test_every_column_of_a_productions_view_is_documented() -> None:
    text = page("bookkeeping.md").partition("## The view of a production")[2]
    documented = {
        name for row in table_rows(text.split("\n## ")[0]) for name in in_backticks(row[0])
    }
    assert documented >= set(FIXED_COLUMNS)


# ------------------------------------------------------------------------------- dependencies


def required() -> dict[str, list[str]]:
    """The packages of setup.cfg: those always needed, and those of each extra."""
    setup = configparser.ConfigParser()
    setup.read(PROJECT / "setup.cfg")
    lists = {"": setup["options"]["install_requires"], **setup["options.extras_require"]}
    return {
        extra: [
            re.split(r"[ <>=~!;]", line)[0]
            for line in text.split("\n")
            if line and line not in setup["options.extras_require"].values()
        ]
        for extra, text in lists.items()
    }


def test_every_dependency_is_explained_and_no_other() -> None:
    explained = {
        name for row in table_rows(page("dependencies.md")) for name in in_backticks(row[0])
    }
    assert explained == {name for names in required().values() for name in names}


# ------------------------------------------------------------------------------- links


def anchors(path: Path) -> set[str]:
    """The names by which headings can be linked to, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue  # elsewhere in the world
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), target
        assert PROJECT in (found, *found.parents), target  # nothing outside of the checkout
        assert not anchor or anchor in anchors(found), target


def test_every_page_is_in_the_index() -> None:
    index = set(re.findall(r"\]\(([^)#]+\.md)\)", page("README.md")))
    assert index >= {path.name for path in DOCS.glob("*.md")} - {"README.md"}


# ------------------------------------------------------------------------------- examples


def blocks(text: str) -> list[tuple[str, list[str]]]:
    """The commands of the console blocks, each with the lines that it prints."""
    commands: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            else:
                commands[-1][1].append(line)
    return commands


def with_nothing(lab: Laboratory) -> None:
    """A run list, raw files, an old database; no database yet."""
    lab.equip()
    lab.configure(defaults="pause = 0.1")
    (listed,) = re.findall(r"```csv\n(.*?)```", page("commands.md"), re.DOTALL)
    (lab.home / "runs.csv").write_text(listed)
    for run in (2091, 2092, 2093, 2101, 2102, 2103, 2119):
        lab.take_data(run)
    with closing(sqlite3.connect(lab.home / "old.db")) as connection:
        connection.executescript("""
            CREATE TABLE datasets (run, dataset, quality);
            INSERT INTO datasets VALUES (2201, 'Al100', 'gold');
            CREATE TABLE productions (type, version, software, start, stop);
            INSERT INTO productions VALUES ('alcapana', 3, 'v3', '2014-06-16', '2014-06-20');
            CREATE TABLE alcapana_v3 (run, status, user, start, stop, tree);
            INSERT INTO alcapana_v3 VALUES (2201, 'F', 'me', '2014', '2014', '/tree02201.root');
            """)


def with_a_failed_run(lab: Laboratory) -> None:
    """Two productions of four runs, of which one has failed."""
    lab.build("2091-2094")
    lab.configure(defaults="pause = 0.1\nback_off = 0.1")
    reason = 'echo "bank ADC0 is damaged" > "$PM_SPOOL/reason"'
    spoil(lab, "alcapana", f"[[ $RUN != 2093 ]] || {{ {reason}; exit 4; }}")
    assert lab.run("--production=alcapana", "--new=alcapana_v1").code == 40
    lab.finish("--production=rootana", "--new=rootana_v2.1")


SITUATIONS: dict[str, Callable[[Laboratory], None]] = {
    "commands.md": with_nothing,
    "bookkeeping.md": with_a_failed_run,
    "jobs.md": with_a_failed_run,
}


def test_all_examples_are_tried() -> None:
    for path in DOCS.glob("*.md"):
        assert bool(blocks(path.read_text())) == (path.name in SITUATIONS), path.name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs the sqlite3 shell")
@pytest.mark.parametrize("name", SITUATIONS)
def test_examples_do_what_they_show(name: str, tmp_path: Path) -> None:
    with tape_archive(tmp_path / "archive") as archive:
        lab = Laboratory(tmp_path / "home", archive)
        SITUATIONS[name](lab)
        for command, shown in blocks(page(name)):
            said = lab.command("bash", "-c", command)
            printed = neutral(said.out + said.err, lab)
            assert is_as(shown, printed), f"$ {command}\n{printed}"


def is_as(shown: list[str], printed: str) -> bool:
    """Runs go side by side: what is told of one may come before what is told of another."""
    lines = neutral("".join(f"{line}\n" for line in shown)).splitlines()
    return sorted(lines) == sorted(printed.splitlines()) or bool(
        re.fullmatch(pattern(shown), printed)
    )


def pattern(shown: list[str]) -> str:
    """``...`` stands for anything, alone in a line or within one; the rest is to be the same."""
    text = neutral("".join(f"{line}\n" for line in shown))
    text = re.sub(r"^\.\.\.\n", "......", text, flags=re.MULTILINE)
    exact = [re.escape(part) for part in re.split(r"(?:\.\.\.)+", text)]
    return "(?s:.*)".join(exact)


def neutral(text: str, lab: Laboratory | None = None) -> str:
    """Without what differs from one day and place to another."""
    if lab is not None:
        text = text.replace(str(lab.home), "/home/me").replace(str(PROJECT), "/shared")
        text = text.replace(f"|{current_user()}|", "|me|")
    text = text.replace("/shared/production/sge_scripts", "/shared/sge_scripts")
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{6})?", "TIME", text)
    text = re.sub(r'"time": [\d.]+', '"time": TIME', text)
    text = re.sub(r"\b(?=[a-f]*\d)[0-9a-f]{8}\b|\b[0-9a-f]{64}\b", "ID", text)
    # The sqlite3 shell words its errors differently from version to version.
    text = re.sub(
        r"^(?:Runtime e|E)rror.*?[:,] (?:stepping, )?(only .*?|this .*?)(?: \(19\))?$",
        r"Error: \1",
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r"-{3,}", "---", text)
    return re.sub(r"[ \t]+", " ", text).rstrip("\n")
