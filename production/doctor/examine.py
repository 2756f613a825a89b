"""The whole examination, in the order in which one trouble explains the next."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from production import commands, config, toml
from production.doctor import database, filesystem, locks, node, scratch, surroundings
from production.doctor.findings import Finding, error, ok
from production.errors import ProductionError


@dataclass(frozen=True)
class Wishes:
    """What is to be examined."""

    database: Path
    config: Path | None = None
    production: str | None = None  # the recipe that matters; None: whatever there is
    other_host: str | None = None
    node: bool = False
    seconds: float = 5.0  # of counting in each lock test
    meet: float = 0.0  # seconds to wait for another doctor
    wait: float = 600.0  # seconds to wait for the job on a node


def examine(wishes: Wishes, say: Callable[[str], None]) -> Generator[Finding, None, None]:
    """All findings, as they come; ``say`` is told what takes its time.

    Closed before the end, it takes its scratch files away.
    """
    yield from database.check_sqlite()
    if not commands.answers(wishes.database.parent, wishes.database):
        yield _silent("directory", f"{wishes.database} or its directory")
        return  # who looks at what lies there waits for ever
    place = Path(os.path.realpath(wishes.database)).parent
    if (absent := _absent(place)) is not None:
        yield absent
        yield from _around(wishes, None, say)
        return
    yield from _safely("filesystem", filesystem.check_filesystem(place))
    try:
        with scratch.scratch(place) as own:
            yield from _safely("clock", surroundings.check_clock(own))
            yield from _safely("locks", _locks(wishes, place, own, say))
    except OSError as problem:
        what = f"{place}: a directory cannot be made there: {problem.strerror}"
        yield error("directory", what, f"Ask for: chmod g+rwx {place}; or make room")
    yield from _safely("database", database.check_database(wishes.database))
    yield from _around(wishes, place, say)


def _silent(check: str, what: str) -> Finding:
    said = f"{what} does not answer within {commands.SHOWN:g} s"
    return error(check, said, "Is its file server up? Ask its operators")


def _absent(place: Path) -> Finding | None:
    """What is wrong when the directory cannot be looked at."""
    try:
        place.stat()
    except OSError as problem:
        what = f"the database's directory {place} cannot be looked at: {problem.strerror}"
        return error("directory", what, "Name another with --database=DB, or mount it")
    if not place.is_dir():
        return error("directory", f"{place} is no directory", "Name another with --database=DB")
    return None


def _locks(wishes: Wishes, place: Path, own: Path, say: Callable[[str], None]) -> Iterator[Finding]:
    yield from scratch.leftovers(place)
    say(f"Tries locks for {wishes.seconds:g} s")
    yield from locks.on_this_host(own, wishes.seconds)
    tried = False
    if wishes.other_host:
        say(f"Tries locks with {wishes.other_host} for {wishes.seconds:g} s")
        found = list(locks.with_host(own, wishes.other_host, wishes.seconds))
        tried = locks.was_tried(found)
        yield from found
    found = list(locks.with_whoever_is_there(own, wishes.seconds, wishes.meet, say))
    yield from found
    mount = filesystem.find_mount(place)
    if mount is not None and not tried and not locks.was_tried(found):
        yield from locks.not_tried(place, filesystem.kind_of(mount))


def _around(wishes: Wishes, place: Path | None, say: Callable[[str], None]) -> Iterator[Finding]:
    """Everything but the database and its directory ``place``; None: that cannot be looked at."""
    yield from _safely("shell", surroundings.check_shell())
    try:
        settings = config.load(wishes.config, wishes.database)
    except ProductionError as problem:
        yield error("config", str(problem), "Correct it, see docs/configuration.md")
        return
    there = toml.is_file(settings.path)
    yield ok("config", f"{settings.path}" if there else "there is none: the defaults hold")
    yield from _safely(
        "recipe", surroundings.check_recipes(settings, wishes.database, wishes.production)
    )
    yield from _safely("netrc", surroundings.check_login(settings))
    yield from _safely("environment", surroundings.check_environment(settings))
    if not commands.answers(settings.data):
        yield _silent("data", f"{settings.data}")
        return  # who asks for space, or for jobs whose spools are there, waits for ever, too
    yield from _safely("data", surroundings.check_data(settings))
    yield from _safely("space", surroundings.check_space(settings, place))
    yield from _safely("batch", surroundings.check_batch(settings))
    if wishes.node:
        yield from _safely(
            node.CHECK,
            node.check_node(settings, wishes.database, wishes.production, wishes.wait, say),
        )


def _safely(check: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """A check that cannot be made is a finding as well: the doctor outlives it."""
    try:
        yield from findings
    except OSError as problem:
        what = f"{problem.filename or check}: {problem.strerror or problem}"
        yield error(check, what, "See that the filesystem is well, and permissions")
    except ProductionError as problem:
        yield error(check, str(problem), "See the other findings")
