"""The configuration: what differs from laboratory to laboratory and from user to user.

One TOML file; docs/configuration.md is its reference.  Each section is a dataclass whose fields
are the section's keys.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from production import toml
from production.errors import ConfigurationError
from production.locations import Location, parse_locations
from production.model import DEFAULT_QUALITY
from production.notify.notices import Event
from production.toml import Table
from production.units import (
    is_utf8,
    parse_duration,
    parse_failures,
    parse_fraction,
    parse_lease,
    parse_memory,
    parse_rate,
)

FILE = "production.toml"
VARIABLE = "PRODUCTION_CONFIG"
DATA = "~/data"
RUN_FILE = parse_locations("run%05d.mid")
CHECKSUMS = ("auto", "require", "off")


# --------------------------------------------------------------------------- what it says


@dataclass(frozen=True)
class Archive:
    """Where the raw files are."""

    url: tuple[str, ...] = ()  # tried in order
    file: tuple[Location, ...] = RUN_FILE  # tried in order
    checksums: str = "auto"  # one of CHECKSUMS
    timeout: float = 60.0  # seconds without an answer
    stage_timeout: float = 7200.0  # seconds that a file may stay on tape


@dataclass(frozen=True)
class Space:
    """How it is found out which space is used."""

    probe: str = "auto"
    device: str | None = None  # as the command that is asked calls the filesystem
    limit: int | None = None  # bytes that the data directory may hold
    files: int | None = None  # and files
    command: tuple[str, ...] = ()  # of the user's own, with its arguments


@dataclass(frozen=True)
class Batch:
    """Which batch system takes the jobs; each system's own table is passed on to it as it is."""

    system: str = "local"
    options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True)
class Environment:
    """What a job's payload finds around it."""

    script: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipes:
    """Where users' own recipes are."""

    directories: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Notify:
    """Who is told of what, when nobody looks."""

    command: tuple[str, ...] = ()  # with its arguments
    mail: tuple[str, ...] = ()  # addresses
    server: str = "localhost"
    port: int = 25
    sender: str | None = None  # None: user@host
    events: tuple[Event, ...] = (Event.END, Event.FAILURE, Event.PAUSE)
    every: int = 0  # finished runs; 0: never
    apart: float = 600.0  # seconds between two notices at least


@dataclass(frozen=True)
class Log:
    """How long the file of --log-file becomes, and how many older ones stay."""

    size: int = 10 << 20  # bytes
    keep: int = 5


@dataclass(frozen=True)
class Defaults:
    """What holds where the command line says nothing."""

    pause: float = 5.0  # seconds
    nproc: int = 10
    nprep: int = 5
    spacelim: float = 0.9  # fraction of the allowed space
    max_attempts: int = 3
    back_off: float = 10.0  # seconds before the second attempt; doubles
    lease: int = 600  # seconds without a sign of life after which a manager counts as dead
    hold_timeout: float = 600.0  # seconds that a job may be held by its batch system
    max_submit_rate: float | None = None  # jobs a second
    transfers: int = 2
    rate_limit: int | None = None  # bytes a second
    max_failures: int | float = 20  # in a row, or as a fraction of all
    dataset: tuple[str, ...] = ()
    tranche: tuple[int, ...] = ()
    quality: tuple[str, ...] = (DEFAULT_QUALITY,)


@dataclass(frozen=True)
class Configuration:
    """The whole configuration, all paths absolute."""

    path: Path  # the file, or, when there is none, where one would be looked for first
    data: Path
    archive: Archive
    space: Space
    batch: Batch
    environment: Environment
    recipes: Recipes
    notify: Notify
    log: Log
    modules: Mapping[str, Path]  # the modules file of each production type
    defaults: Defaults

    def recipe_directories(self, database: Path) -> tuple[Path, ...]:
        """Where users' recipes are looked for: beside the database, then as configured."""
        return (*beside(database), *self.recipes.directories)

    def archive_urls(self) -> tuple[str, ...]:
        """The archive's URLs, for a recipe that needs the archive."""
        if not self.archive.url:
            what = "the archive of the raw files is not named. Write into this file (create it if"
            line = 'url = "ftp://HOST/DIRECTORY"'
            raise ConfigurationError(where=self.path, what=f"{what} needed): [archive] {line}")
        return self.archive.url


# --------------------------------------------------------------------------- finding


def load(explicit: Path | None, database: Path) -> Configuration:
    """The configuration that holds for work with ``database``.

    From ``explicit`` (--config), else $PRODUCTION_CONFIG, else production.toml beside the
    database, else ~/.config/production/config.toml, else all defaults.  Raises ConfigurationError.
    """
    named = os.environ.get(VARIABLE)
    if explicit is not None:
        path = _named(explicit, "--config=FILE")
    elif named:
        path = _named(Path(named), f"${VARIABLE}")
    else:
        shared = [directory / FILE for directory in beside(database)]
        own = os.path.expanduser("~/.config/production/config.toml")  # noqa: PTH111 (never fails)
        found = next(filter(toml.is_file, (*shared, Path(own))), None)
        if found is None:
            return parse_configuration("", shared[0])
        path = found
    return parse_configuration(toml.read(path, ConfigurationError), path)


def beside(database: Path) -> tuple[Path, ...]:
    """The directory of the database, and, when it is a link, that of the file it leads to."""
    here = database.absolute()
    return tuple(dict.fromkeys((here.parent, Path(os.path.realpath(here)).parent)))


def check_systems(config: Configuration, known: Callable[[], Collection[str]]) -> None:
    """The tables of [batch] are those of batch systems that are ``known``.

    Raises ConfigurationError with the line of another name.
    """
    if config.batch.options:
        text = toml.read(config.path, ConfigurationError)
        table = toml.parse(text, config.path, ConfigurationError).table("batch")
        table.only("system", *known())


def _named(path: Path, where: str) -> Path:
    try:
        path = Path(toml.expand(str(path))).absolute()
    except ValueError as problem:
        raise ConfigurationError(where=path, what=f"{problem} ({where})") from None
    if not toml.is_file(path):
        raise ConfigurationError(where=path, what=f"there is no such file ({where} names it)")
    return path


# --------------------------------------------------------------------------- reading


def parse_configuration(text: str, path: Path) -> Configuration:
    """The configuration ``text`` of the file ``path``; ConfigurationError names file and line."""
    root = toml.parse(text, path.absolute(), ConfigurationError)
    root.only(*(key for key in _keys(Configuration) if key != "path"))
    modules = root.table("modules")
    return Configuration(
        path=root.path,
        data=_path(root, "data", root.get("data", str, DATA)),
        archive=_archive(root.table("archive")),
        space=_space(root.table("space")),
        batch=_batch(root.table("batch")),
        environment=_environment(root.table("environment")),
        recipes=_recipes(root.table("recipes")),
        notify=_notify(root.table("notify")),
        log=_log(root.table("log")),
        modules={name: _path(modules, name, text) for name, text in modules.texts().items()},
        defaults=_defaults(root.table("defaults")),
    )


def _archive(table: Table) -> Archive:
    table.only(*_keys(Archive))
    default = Archive()
    file = table.one_or_more("file")
    checksums = table.get("checksums", str, default.checksums)
    if checksums not in CHECKSUMS:
        what = f"must be one of {', '.join(CHECKSUMS)}, not {checksums!r}"
        table.refuse(f"'checksums' {what}", "checksums")
    return Archive(
        url=tuple(table.convert("url", toml.expand, url) for url in table.one_or_more("url")),
        file=table.convert("file", parse_locations, file) if "file" in table.values else RUN_FILE,
        checksums=checksums,
        timeout=table.parsed("timeout", parse_duration, default.timeout),
        stage_timeout=table.parsed("stage_timeout", parse_duration, default.stage_timeout),
    )


def _space(table: Table) -> Space:
    table.only(*_keys(Space))
    default = Space()
    return Space(
        probe=table.get("probe", str, default.probe),
        device=table.get("device", str, default.device),
        limit=table.parsed("limit", parse_memory, default.limit),
        files=table.count("files", 1, default.files),
        command=tuple(
            table.convert("command", toml.expand, word) for word in table.items("command", str)
        ),
    )


def _batch(table: Table) -> Batch:
    options = {name: table.table(name).values for name in table.values if name != "system"}
    return Batch(system=table.get("system", str, Batch().system), options=options)


def _environment(table: Table) -> Environment:
    table.only(*_keys(Environment))
    script = table.get("script", str, None)
    variables = table.table("variables")
    return Environment(
        script=None if script is None else _path(table, "script", script),
        variables={
            name: variables.convert(name, toml.expand, text)
            for name, text in variables.variables().items()
        },
    )


def _recipes(table: Table) -> Recipes:
    table.only(*_keys(Recipes))
    names = table.items("directories", str)
    return Recipes(directories=tuple(_path(table, "directories", name) for name in names))


def _notify(table: Table) -> Notify:
    table.only(*_keys(Notify))
    default = Notify()

    def parse_events(words: tuple[str, ...]) -> tuple[Event, ...]:
        known = [event.value for event in Event if event is not Event.PROGRESS]
        for word in words:
            if word not in known:
                raise ValueError(f"{word!r} is not one of {', '.join(known)}")
        return tuple(Event(word) for word in words)

    events = table.items("events", str, tuple(event.value for event in default.events))
    return Notify(
        command=tuple(
            table.convert("command", toml.expand, word) for word in table.items("command", str)
        ),
        mail=table.one_or_more("mail"),
        server=table.get("server", str, default.server),
        port=table.count("port", 1, default.port),
        sender=table.get("sender", str, default.sender),
        events=table.convert("events", parse_events, events),
        every=table.count("every", 0, default.every),
        apart=table.parsed("apart", parse_duration, default.apart),
    )


def _log(table: Table) -> Log:
    table.only(*_keys(Log))
    return Log(
        size=table.parsed("size", parse_memory, Log().size),
        keep=table.count("keep", 1, Log().keep),
    )


def _defaults(table: Table) -> Defaults:
    table.only(*_keys(Defaults))
    default = Defaults()
    tranches = table.items("tranche", int)
    if any(tranche < 1 for tranche in tranches):
        table.refuse("'tranche': tranches are counted from 1", "tranche")
    return Defaults(
        pause=table.parsed("pause", parse_duration, default.pause),
        nproc=table.count("nproc", 1, default.nproc),
        nprep=table.count("nprep", 0, default.nprep),
        spacelim=table.parsed("spacelim", parse_fraction, default.spacelim),
        max_attempts=table.count("max_attempts", 1, default.max_attempts),
        back_off=table.parsed("back_off", parse_duration, default.back_off),
        lease=table.parsed("lease", parse_lease, default.lease),
        hold_timeout=table.parsed("hold_timeout", parse_duration, default.hold_timeout),
        max_submit_rate=table.parsed("max_submit_rate", parse_rate, default.max_submit_rate),
        transfers=table.count("transfers", 1, default.transfers),
        rate_limit=table.parsed("rate_limit", parse_memory, default.rate_limit),
        max_failures=table.parsed("max_failures", parse_failures, default.max_failures),
        dataset=table.items("dataset", str),
        tranche=tranches,
        quality=table.items("quality", str, default.quality),
    )


# --------------------------------------------------------------------------- values


def _path(table: Table, key: str, text: str) -> Path:
    """An absolute path; a relative one counts from the configuration's directory."""

    def parse(text: str) -> Path:
        if not text or "\0" in text:
            raise ValueError(f"{text!r} is not a path")
        path = table.path.parent / toml.expand(text)
        if not is_utf8(str(path)):  # the name of a directory above may be anything
            raise ValueError(f"{str(path)!a} is not UTF-8 text, and could not be recorded")
        return path

    return table.convert(key, parse, text)


def _keys(section: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(section))
