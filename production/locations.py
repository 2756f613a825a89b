"""Where a file of each run is: a name at the archive, or a URL of its own.

In the name itself, after the last slash, ``*`` stands for any characters and ``?`` for one: then
it is a pattern, and all files that it fits belong to the run, such as its subruns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from production.templates import Template, parse_path

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WILD = re.compile(r"[*?]")
_FORMAT = re.compile(r"%(?=0\d{1,2}d|d(?![0-9A-Fa-f]))")
_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Location:
    """One place where a file of each run may be."""

    name: Template  # relative to the place; completed with the run
    place: str | None = None  # a directory's URL; None: at each of the archive's

    @property
    def is_pattern(self) -> bool:
        """Whether it stands for any number of files."""
        return any(_WILD.search(literal) for literal, _, _ in self.name.parts)


def parse_location(text: str) -> Location:
    """A name, or a URL that ends in one; ValueError says what is wrong.

    The directory of a URL that all runs have in common is the place; what follows is the name.
    """
    if not _URL.match(text):
        return Location(_parse_name(text))
    address, question, query = text.partition("?")
    parts = urlsplit(_FORMAT.sub("%25", address))  # %05d is no escape
    directories = unquote(parts.path).removeprefix("/").split("/")
    fixed = 0
    while fixed < len(directories) - 1 and not re.search(r"[{*]|%(0\d+)?d", directories[fixed]):
        fixed += 1
    name = _parse_name("/".join(directories[fixed:]))
    common = "/" + "/".join(map(quote, directories[:fixed]))
    if directories[:fixed] == [""]:
        common += "/"  # the root; a single slash is where the login leads
    return Location(name, f"{parts.scheme.lower()}://{parts.netloc}{common}{question}{query}")


def parse_locations(texts: str | Iterable[str]) -> tuple[Location, ...]:
    """One location or several, of one kind: a file, or a pattern."""
    locations = tuple(map(parse_location, [texts] if isinstance(texts, str) else texts))
    if not locations:
        raise ValueError("it names no file")
    if len({location.is_pattern for location in locations}) > 1:
        raise ValueError("some of these are patterns and some are not")
    return locations


def fits(name: str, pattern: str) -> bool:
    """Whether a file's name fits a pattern."""
    escaped = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(escaped, name, re.DOTALL) is not None


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Sorted so that sub2 comes before sub10."""

    def key(name: str) -> list[tuple[int, str]]:
        return [(int(part) if part.isdecimal() else -1, part) for part in _NUMBER.split(name)]

    return sorted(set(names), key=key)


def _parse_name(text: str) -> Template:
    template = parse_path(text, ("run",))
    directory = text.rpartition("/")[0]
    if _WILD.search(directory):
        raise ValueError(f"{text!r}: only the file's name may be a pattern, not its directory")
    before = ""
    for literal, field, _ in template.parts:
        if (before and re.match(r"\d*[*?]", literal)) or (
            field and re.search(r"[*?]\d*$", literal)
        ):
            raise ValueError(
                f"{text!r}: put something that is not a digit between the run and what any "
                "characters may stand for, or files of other runs would fit"
            )
        before = field or ""
    return template
