"""A command that was called, and what it says; reading of options."""

from __future__ import annotations

import getopt
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class NotSimulatedError(Exception):
    """The real command can do this, the simulated one cannot: a test must not go on from here."""


@dataclass(frozen=True)
class Call:
    """A command with all that it was called with."""

    name: str
    arguments: tuple[str, ...]
    stdin: str
    directory: str
    environment: Mapping[str, str]
    uid: int

    @property
    def user(self) -> str:
        """Who called it."""
        return pwd.getpwuid(self.uid).pw_name

    @property
    def home(self) -> str:
        """The user's home directory."""
        return self.environment.get("HOME") or pwd.getpwuid(self.uid).pw_dir


@dataclass(frozen=True)
class Answer:
    """What a command prints, and its exit code."""

    stdout: str = ""
    stderr: str = ""
    code: int = 0


class RefusedError(Exception):
    """A command that ends without having done anything."""

    def __init__(self, stderr: str, code: int = 1) -> None:
        super().__init__(stderr)
        self.answer = Answer(stderr=stderr, code=code)


@dataclass(frozen=True)
class Options:
    """The options of a command in their order, and its operands."""

    given: tuple[tuple[str, str], ...]
    operands: tuple[str, ...]

    def __contains__(self, name: str) -> bool:
        return any(name == given for given, _ in self.given)

    def get(self, name: str, default: str = "") -> str:
        """The last value of an option."""
        return next((value for given, value in reversed(self.given) if given == name), default)

    def all(self, name: str) -> list[str]:
        """Every value of an option."""
        return [value for given, value in self.given if given == name]


def getopt_options(arguments: Sequence[str], known_ones: str, *, mixed: bool = True) -> Options:
    """Options as getopt_long(3) reads them.

    ``known_ones``: names, with a sign for those that take a value and perhaps a letter:
    ``partition=,p hold,H parsable``.  An option is told by its name alone.  ``mixed``: operands
    may stand before options.  Raises getopt.GetoptError.
    """
    known = {name: letter for name, _, letter in (w.partition(",") for w in known_ones.split())}
    letters = {f"-{letter}": name.rstrip("=") for name, letter in known.items() if letter}
    short = "".join(letter + ":" * name.endswith("=") for name, letter in known.items() if letter)
    read = getopt.gnu_getopt if mixed else getopt.getopt
    pairs, operands = read(list(arguments), short, list(known))
    given = tuple(
        (letters.get(option, option.removeprefix("--")), value) for option, value in pairs
    )
    return Options(given, tuple(operands))


class UnknownOptionError(Exception):
    """An option that a command does not have, or that lacks its value."""


def dash_options(arguments: Sequence[str], known_ones: str, *, mixed: bool) -> Options:
    """Options of several letters after one dash.

    ``known_ones``: with a sign for each value that they take: ``-V -N= -pe==``.  Several values
    are told as one text, with blanks between them.  Raises UnknownOptionError.
    """
    known = {word.rstrip("="): word.count("=") for word in known_ones.split()}
    given: list[tuple[str, str]] = []
    operands: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word == "-":
            operands.append(word)
            if not mixed:
                operands += words
                break
            continue
        if word not in known or len(words) < known[word]:
            raise UnknownOptionError(word)
        values = [words.pop(0) for _ in range(known[word])]
        given.append((word, " ".join(values)))
    return Options(tuple(given), tuple(operands))


def table(text: str) -> dict[str, str]:
    """``a:1 b:2`` as what it means."""
    pairs = (word.partition(":") for word in text.split())
    return {key: value for key, _, value in pairs}
