"""Texts with ``{fields}``: file names and arguments that are completed for each run.

A template is checked when it is read, so that a misspelt field is found before any run is claimed,
and completing it cannot fail.  In paths ``%05d`` means ``{run:05d}``.
"""

from __future__ import annotations

import re
import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from production.toml import did_you_mean

NUMBERS = ("run", "version")  # only these may say how many digits: {run:05d}


@dataclass(frozen=True)
class Template:
    """A checked template: ``(literal text, field or None, number format)`` in a row."""

    parts: tuple[tuple[str, str | None, str], ...]

    @property
    def fields(self) -> frozenset[str]:
        """The fields that it names."""
        return frozenset(field for _, field, _ in self.parts if field is not None)

    @property
    def sole_field(self) -> str | None:
        """The field, where there is nothing else."""
        return self.parts[0][1] if len(self.parts) == 1 and not self.parts[0][0] else None

    @property
    def shape(self) -> str:
        """The text without number formats: two paths of one shape can be the same file."""
        return "".join(
            literal + (f"{{{field}}}" if field else "") for literal, field, _ in self.parts
        )

    def expand(self, values: Mapping[str, object]) -> str:
        """The text with each field's value; ``run`` and ``version`` must be int."""
        return "".join(
            literal + ("" if field is None else format(values[field], spec))
            for literal, field, spec in self.parts
        )


def parse_template(text: str, fields: Collection[str]) -> Template:
    """The template ``text``, which may name ``fields`` only; ValueError says what is wrong."""
    if "\0" in text:
        raise ValueError(f"{text!r} contains a NUL character")
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError as problem:
        raise ValueError(f"{text!r}: {problem} (a brace itself is written {{{{ or }}}})") from None
    parts = []
    for literal, field, spec, conversion in pieces:
        if field is not None:
            _check_field(field, spec or "", conversion, fields)
        parts.append((literal, field, spec or ""))
    return Template(tuple(parts))


def parse_path(text: str, fields: Collection[str]) -> Template:
    """The template of a relative path that names each of ``fields``, and no others.

    So two runs, and two versions, never share a file.  ValueError says what is wrong.
    """
    template = parse_template(re.sub(r"%(0\d{1,2})?d", r"{run:\1d}", text, flags=re.ASCII), fields)
    if not text.isprintable():
        raise ValueError(f"{text!r} contains a character that cannot be printed")
    if text.startswith(("/", "~")):
        raise ValueError(f"{text!r} must be relative")
    if any(part in ("", ".", "..") for part in text.split("/")):
        raise ValueError(f"{text!r} must be a plain path to a file, without '.', '..' or '//'")
    for field in fields:
        if field not in template.fields:
            raise ValueError(f"{text!r} must contain {{{field}}}, or its runs would share a file")
    between = [literal for literal, field, _ in template.parts if field][1:]
    if any(re.fullmatch(r"\d*", literal) for literal in between):
        raise ValueError(f"{text!r}: put something that is not a digit between two numbers")
    return template


def _check_field(field: str, spec: str, conversion: str | None, fields: Collection[str]) -> None:
    written = f"{{{field}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}"
    if field not in fields:
        raise ValueError(f"{written} is not a field here{did_you_mean(field, fields)}")
    if conversion or (spec and field not in NUMBERS):
        raise ValueError(f"{written}: write {{{field}}}")
    if not re.fullmatch(r"(0\d{1,2})?d?", spec, re.ASCII):
        raise ValueError(f"{written}: write {{{field}}}, or {{{field}:05d}} for five digits")
