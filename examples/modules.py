"""The two kinds of modules files: what the programs are told to do.

alcapana reads a plain list, one module a line.  rootana reads sections: ``[ MODULES ]`` lists the
modules, and a section with a module's name holds the options of that module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_SECTION = re.compile(r"\[\s*(\w+)\s*\]")
_OPTION = re.compile(r"(\w[\w.-]*)\s*(\+?=)\s*(.*)")
_MODULE = re.compile(r"(?:(\w+)\s*=\s*)?(\w+)\s*(?:\((.*)\))?")


class ModulesError(Exception):
    """A modules file that cannot be used; the text says what is wrong and where."""


@dataclass(frozen=True)
class ModuleOrder:
    """A module to run: ``mass = PlotMass(60, 0, 120)`` and what its own section says."""

    name: str  # of what it makes; the module's if none is given
    module: str
    arguments: tuple[str, ...]
    options: Mapping[str, str]


def parse_list(text: str) -> list[str]:
    """The modules of alcapana's list in their order; ``#`` begins a comment."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def parse_sections(text: str) -> list[ModuleOrder]:
    """The modules of rootana's file in their order.

    ``key=value`` sets an option, ``key+=value`` adds to it (values then stand one a line), a bare
    ``key`` switches it on.  What stands before the first section concerns the original program
    only.  Raises ModulesError with the number of the line.
    """
    orders: list[tuple[str, str, tuple[str, ...]]] = []
    options: dict[str, dict[str, str]] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        if line.startswith("["):
            if not (match := _SECTION.fullmatch(line)):
                raise ModulesError(f"line {number}: this is no section: {line}")
            section = match[1]
        elif section == "MODULES":
            if not (match := _MODULE.fullmatch(line)):
                raise ModulesError(f"line {number}: this is no module: {line}")
            name = match[1] or match[2]
            if name in (order[0] for order in orders):
                raise ModulesError(f"line {number}: there is another module named {name}")
            arguments = tuple(a.strip() for a in (match[3] or "").split(",") if a.strip())
            orders.append((name, match[2], arguments))
        else:
            match = _OPTION.fullmatch(line)
            key, sign, value = match.groups() if match else (line, "=", "true")
            known = options.setdefault(section, {})
            known[key] = f"{known[key]}\n{value}" if sign == "+=" and key in known else value
    if not orders:
        raise ModulesError("there is no section [ MODULES ] with a module in it")
    return [ModuleOrder(*order, options.get(order[0], {})) for order in orders]
