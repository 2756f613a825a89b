"""The TOML files that people write, read so that every mistake is named with its file and line.

``parse`` gives the document as a ``Table``, whose methods take one key each, check it, and raise
the caller's error class (RecipeError, ConfigurationError) with ``where`` = ``file:line`` when it is
missing, misspelt or of the wrong kind.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from production.errors import ProductionError

T = TypeVar("T")
D = TypeVar("D")
V = TypeVar("V")
Key = tuple[str, ...]  # ("job", "options", "calib") is the key job.options.calib

KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a decimal number",
    str: "text in quotes",
    list: "a list",
    dict: "a table",
}


# --------------------------------------------------------------------------- reading a document


@dataclass(frozen=True)
class Table:
    """One table of a document: its values, where they stand, and which error names them."""

    values: Mapping[str, Any]
    key: Key
    text: str  # of the whole document
    path: Path
    error: type[ProductionError]

    def refuse(self, what: str, *key: str) -> NoReturn:
        """Raise the error that says ``what`` is wrong, with the line of ``key`` in this table."""
        line = line_of(self.text, (*self.key, *key))
        raise self.error(where=f"{self.path}:{line}", what=what)

    def only(self, *known: str) -> None:
        """Refuse keys other than ``known``."""
        for key in self.values:
            if key not in known:
                place = f"[{'.'.join(self.key)}]" if self.key else "this file"
                self.refuse(f"{key!r} is not a key of {place}{did_you_mean(key, known)}", key)

    def need(self, key: str, kind: type[T]) -> T:
        """The value of ``key``, which must be there."""
        if key not in self.values:
            place = f" in [{'.'.join(self.key)}]" if self.key else ""
            self.refuse(f"{key!r} is missing{place}: it must be {KINDS[kind]}")
        return self._checked(self.values[key], kind, key)

    def get(self, key: str, kind: type[T], default: D) -> T | D:
        """The value of ``key``, or ``default`` when it is not there."""
        return self.need(key, kind) if key in self.values else default

    def count(self, key: str, minimum: int, default: D) -> int | D:
        """A whole number that is at least ``minimum``."""
        value = self.get(key, int, default)
        if isinstance(value, int) and value < minimum:
            self.refuse(f"{key!r} must be {minimum} or more", key)
        return value

    def items(self, key: str, kind: type[T], default: tuple[T, ...] = ()) -> tuple[T, ...]:
        """A list whose items are all of one kind."""
        if key not in self.values:
            return default
        return tuple(self._checked(item, kind, key, "a list of: ") for item in self.need(key, list))

    def one_or_more(self, key: str) -> tuple[str, ...]:
        """A text, or a list of texts; empty when it is not there."""
        if isinstance(self.values.get(key), list):
            return self.items(key, str)
        return (self.need(key, str),) if key in self.values else ()

    def parsed(self, key: str, parse: Callable[[str], T], default: D) -> T | D:
        """What ``parse`` makes of text or a number."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.refuse(f"{key!r} must be a number or text in quotes, not {_kind(value)}", key)
        return self.convert(key, parse, str(value))

    def convert(self, key: str, parse: Callable[[V], T], value: V) -> T:
        """``parse(value)``, the value of ``key``; its ValueError says what is wrong."""
        try:
            return parse(value)
        except ValueError as problem:
            self.refuse(f"{key!r}: {problem}", key)

    def table(self, key: str) -> Table:
        """The table ``key`` of this table, empty when it is not there."""
        values = self.get(key, dict, {})
        return Table(values, (*self.key, key), self.text, self.path, self.error)

    def texts(self) -> dict[str, str]:
        """The whole table, as names that the user chose and their texts."""
        return {key: self.need(key, str) for key in self.values}

    def variables(self) -> dict[str, str]:
        """The whole table, as environment variables."""
        for name in self.values:
            if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
                self.refuse(f"{name!r} is not the name of an environment variable", name)
        return self.texts()

    def _checked(self, value: object, kind: type[T], key: str, prefix: str = "") -> T:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.refuse(f"{key!r} must be {prefix}{KINDS[kind]}, not {_kind(value)}", key)
        return value


def parse(text: str, path: Path, error: type[ProductionError]) -> Table:
    """The document ``text`` of the file ``path``; raises ``error`` when it is not TOML."""
    try:
        return Table(tomllib.loads(text), (), text, path, error)
    except (ValueError, RecursionError) as problem:
        line, what = _syntax_error(text, problem)
        raise error(where=f"{path}:{line}", what=what) from None


def read(path: Path, error: type[ProductionError]) -> str:
    """The text of the file ``path``, exactly; raises ``error`` when it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise error(where=str(path), what=problem.strerror or str(problem)) from None
    try:
        return content.decode()
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise error(where=f"{path}:{line}", what="this is not UTF-8 text") from None


# --------------------------------------------------------------------------- lines


def line_of(text: str, key: Key) -> int:
    """The line of ``text``, a valid TOML document, on which ``key`` first stands.

    When it does not stand there: the line of the table that it should be in, or 1.
    """
    line, depth = 1, 0
    for first, _, document in _statements(text):
        found = _depth(document, key)
        if found > depth:
            line, depth = first, found
        if depth == len(key):
            break
    return line


def _statements(text: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Each statement's first and last line, and the document as far as its end.

    A statement ends where the lines so far are a valid document: so the TOML parser itself
    decides what is a key and what is the inside of a text of many lines.
    """
    lines = text.split("\n")
    first = 1
    for last in range(1, len(lines) + 1):
        try:
            document = tomllib.loads("\n".join(lines[:last]) + "\n")
        except (ValueError, RecursionError):
            continue
        yield first, last, document
        first = last + 1


def _depth(document: object, key: Key) -> int:
    """How many parts of ``key`` lead somewhere."""
    for depth, part in enumerate(key):
        if not isinstance(document, dict) or part not in document:
            return depth
        document = document[part]
    return len(key)


def _syntax_error(text: str, problem: Exception) -> tuple[int, str]:
    if isinstance(problem, RecursionError):
        return 1, "tables or lists are nested too deeply"
    said = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(problem))
    if said:
        return int(said[2]), f"{said[1]} (column {said[3]})"
    # Something was begun and never ended: name the line on which it begins.
    ends = [last for _, last, _ in _statements(text)]
    return (ends[-1] if ends else 0) + 1, str(problem).removesuffix(" (at end of document)")


# --------------------------------------------------------------------------- words and paths


def did_you_mean(word: str, known: Collection[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, or all of them."""
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; it knows: {', '.join(sorted(known))}" if known else ""


def expand(text: str) -> str:
    """``text`` with ~ at its beginning and $VARIABLES replaced, as a shell does.

    Raises ValueError for a variable that is not set and a user who does not exist.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise ValueError(f"the environment variable ${name} is not set")
        return os.environ[name]

    text = re.sub(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", value, text, flags=re.ASCII)
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise ValueError(f"there is no home directory {text.split('/')[0]}") from None


def is_file(path: Path) -> bool:
    """Whether there is a file, where a path that cannot be looked at counts as none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _kind(value: object) -> str:
    for kind, words in KINDS.items():  # bool stands before int, of which it is one
        if isinstance(value, kind):
            return words
    return "a date or time"
