"""Manual pages, made of what the parsers know, so that they tell what the program does.

The language is that of groff_man(7), and groff_char(7) for the characters.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping

from production import __version__, errors

_LITERAL = {
    "\\": r"\e",
    "-": r"\-",  # a hyphen that can be copied
    "`": r"\(ga",
    "'": r"\(aq",
    "^": r"\(ha",
    "~": r"\(ti",
}


def command_page(title: str, summary: str, parser: argparse.ArgumentParser) -> str:
    """The page of one command."""
    return "\n".join(
        [
            *_head(title, summary),
            *_body(parser),
            ".SH EXIT STATUS",
            f"0 when all is well; {_reference('production')} tells the others.",
            ".SH SEE ALSO",
            _reference("production"),
            "",
        ]
    )


def overview_page(commands: Mapping[str, str], database: str) -> str:
    """production(1), with all ``commands`` and what they do."""
    lines = [
        *_head("production", "process thousands of runs on a cluster, from one shared SQLite file"),
        ".SH SYNOPSIS",
        r".B production",
        r".I COMMAND",
        "[arguments...]",
        ".PP",
        ".B run_production.py",
        "[options]",
        ".SH DESCRIPTION",
        *_paragraphs(
            "`run_production.py` starts a manager: it claims runs in the shared database, has "
            "their raw files brought from tape, submits jobs, watches them and files the outputs. "
            "Any number of managers may work on the same production.\n\n"
            "`production COMMAND` shows and steers what they do."
        ),
        ".SH COMMANDS",
    ]
    for name, what in commands.items():
        lines += [".TP", f".BR {literal(_title(name))} (1)", literal(what)]
    lines += [
        ".SH FILES",
        ".TP",
        f".I {literal(database)}",
        "the database, unless \\-\\-database names another one",
        ".TP",
        ".I production.toml",
        "the configuration, beside the database",
        ".SH EXIT STATUS",
        *_definitions(exit_codes().items()),
        ".SH SEE ALSO",
        f"{_reference('run_production.py')}, {_reference('sqlite3')}",
        "",
    ]
    return "\n".join(lines)


def pages(
    parsers: Mapping[str, argparse.ArgumentParser], commands: Mapping[str, str], database: str
) -> dict[str, str]:
    """All pages, by title: of the ``parsers`` of ``commands``, and the overview.

    The command ``run`` has a page under either of its names.
    """
    found = {"production": overview_page(commands, database)}
    for name, parser in parsers.items():
        for title in (_title(name), *(["run_production.py"] if name == "run" else [])):
            found[title] = command_page(title, commands[name], parser)
    return found


def exit_codes() -> dict[str, str]:
    """Each exit code with the names of the errors that end so, in words."""
    names: dict[int, list[str]] = {}
    for value in vars(errors).values():
        if not inspect.isclass(value) or not issubclass(value, errors.ProductionError):
            continue
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", value.__name__).lower()
        names.setdefault(value.exit_code, []).append(words)
    found = {"0": "all is well"}
    found.update({str(code): ", ".join(names[code]) for code in sorted(names) if code < 128})
    found["128+n"] = "stopped by signal n"
    return found


def literal(text: str) -> str:
    """``text`` as it is to be read, with nothing that groff would take for its own."""
    return "".join(
        _LITERAL.get(char, char) if char.isascii() else rf"\[u{ord(char):04X}]" for char in text
    )


# --------------------------------------------------------------------------- parts


def _head(title: str, summary: str) -> list[str]:
    return [
        f'.TH "{literal(title.upper())}" 1 "" "production {literal(__version__)}"',
        ".SH NAME",
        rf"{literal(title)} \- {literal(summary)}",
    ]


def _body(parser: argparse.ArgumentParser, *, below: bool = False) -> Iterator[str]:
    """Synopsis, description, arguments and example, with headings unless ``below`` a command."""
    yield ".PP" if below else ".SH SYNOPSIS"
    yield f".B {literal(parser.prog)}"
    options = [a for a in parser._actions if a.option_strings]
    others = [a for a in parser._actions if not a.option_strings]
    yield "[options]"
    for action in others:
        yield (
            rf"\fI{literal(_metavar(action))}\fR"
            if action.required
            else (rf"[\fI{literal(_metavar(action))}\fR]")
        )
    yield ".PP" if below else ".SH DESCRIPTION"
    yield from _paragraphs(parser.description or "")
    actions = [a for a in others if isinstance(a, argparse._SubParsersAction)]
    if not below:
        yield ".SH OPTIONS"
    for action in (*others, *options):
        if action not in actions:
            yield from _definition(parser, action)
    for action in actions:
        yield ".SH ACTIONS"
        for name, deeper in action.choices.items():
            yield f".SS {literal(name)}"
            yield from _body(deeper, below=True)
    if parser.epilog:
        title, _, example = parser.epilog.partition("\n")
        yield f".PP\n{literal(title)}" if below else ".SH EXAMPLE"
        yield f".PP\n.EX\n{literal(example)}\n.EE"


def _definition(parser: argparse.ArgumentParser, action: argparse.Action) -> Iterator[str]:
    names = ", ".join(rf"\fB{literal(name)}\fR" for name in action.option_strings)
    value = "" if action.nargs == 0 else rf"\fI{literal(_metavar(action))}\fR"
    yield ".TP"
    yield f"{names}={value}" if names and value else names or value
    text = parser._get_formatter()._expand_help(action)
    yield from _paragraphs(text)


def _definitions(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, what in pairs:
        yield from (".TP", f".B {literal(name)}", literal(what))


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        name = action.metavar
    elif action.choices is not None:
        name = "|".join(map(str, action.choices))
    else:
        name = action.dest.upper()
    return f"{name} ..." if action.nargs == "+" else name


def _paragraphs(text: str) -> Iterator[str]:
    """Running text; what stands in backquotes is bold."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", inspect.cleandoc(text))):
        if number:
            yield ".PP"
        parts = re.split(r"`([^`]+)`", " ".join(paragraph.split()))
        yield "".join(
            rf"\fB{literal(part)}\fR" if place % 2 else _safe(literal(part))
            for place, part in enumerate(parts)
        )


def _safe(text: str) -> str:
    """Not a request, should it begin a line."""
    return rf"\&{text}" if text.startswith(".") else text


def _title(command: str) -> str:
    return f"production-{command}"


def _reference(title: str) -> str:
    return rf"\fB{literal(title)}\fR(1)"
