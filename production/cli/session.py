"""From command line, configuration and recipe to a manager that is ready to start.

Everything that can be wrong is found here, before anything is changed: options, database,
recipe, datasets, modules file, login, batch system.
"""

from __future__ import annotations

import argparse
import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from production import config as configuration
from production import toml
from production.batch.base import choose, known_systems, open_batch
from production.cli.parser import expanded
from production.config import Configuration
from production.errors import (
    ConfigurationError,
    ModulesUnreadable,
    RecipeError,
    UnknownProduction,
    UnknownRecipe,
    UsageError,
)
from production.identity import current_user
from production.job.orders import render_orders
from production.manager.desk import Desk
from production.manager.inputs import wanted
from production.manager.loop import Manager
from production.manager.paths import Paths
from production.manager.plan import JobSettings, plan_job
from production.manager.settings import Rooms, Settings
from production.model import ANY_QUALITY, Claim, Production, Requirements, RunFilter
from production.notify.channels import Channel, CommandChannel, Herald, MailChannel
from production.notify.notices import NoticeRules
from production.recipe.load import check_systems, find_recipe, modules_file
from production.recipe.model import Files, Recipe
from production.space.probe import open_probe
from production.staging.archive import open_archive
from production.staging.credentials import login_if_any
from production.staging.places import Places, open_places
from production.store import datasets, productions
from production.store.connection import Database, utc_now
from production.store.runs import RunStore
from production.units import counted
from production.view.base import View

CALIBRATION = "~/data/calibration.db"


@dataclass(frozen=True)
class Session:
    """All that was found out about what the user wants."""

    options: argparse.Namespace
    db: Database
    config: Configuration
    recipe: Recipe
    production: Production | None  # None: a new one is to be started
    base: Production | None
    settings: Settings
    job: JobSettings
    rooms: Rooms

    def start(self, view: View) -> Manager:
        """Start the new production if one is wanted, and return the manager."""
        production = self.production
        if production is None:
            production, runs = productions.start(self.db, self._new(), self.settings.filter)
            view.message(f"INFO: Starting new production, version {production.version}")
            view.message(f"INFO: {counted(runs, 'run')}, software tag {production.software}")
        else:
            newest = "Most recent production version" if self.options.version is None else "Version"
            view.message(f"INFO: {newest} {production.version}")
            if productions.recipe_text(self.db, production) not in {None, self.recipe.text}:
                view.message(
                    f"Recipe {self.recipe.path} has changed since {production.label} was started",
                    level="warning",
                )
        paths = self._paths(production)
        desk = Desk(self.db, self.base, paths, self.job, self.rooms, self.settings, view)
        return Manager(desk)

    def dry_run(self) -> str:
        """The job script and the submission command for the first run, as they would be."""
        production = self.production
        if production is None:
            version = productions.next_version(self.db, self.recipe.name)
            base = self.base.version if self.base else None
            production = Production(
                0, self.recipe.name, version, self.options.new, utc_now(), None, base
            )
        claim = self._next_claim()
        if claim is None:
            return f"{production.label}: no run would be claimed"
        run = claim.run
        paths = self._paths(production)
        inputs: dict[str, Path | Files] = {}
        if self.rooms.archive is not None:
            for one in wanted(self.rooms.archive, self.recipe, self.settings.archive_file, run):
                target = one.target(paths.raw(claim), one.file)
                inputs[one.name] = Files([target]) if one.is_pattern else target
        if self.base is not None:
            made = productions.outputs(self.db, self.base.id, run)
            for given in self.recipe.base_inputs:
                if given.output not in made:
                    what = f"run {run} would fail: {self.base.label} has no {given.output} of it"
                    return f"{production.label}: {what}"
                inputs[given.name] = made[given.output]
        order = plan_job(paths, claim, inputs, self.job)
        orders = render_orders(order, paths.done)
        return f"{self.rooms.batch.describe(order)}\n# {order.spool}/orders\n{orders}"

    def _next_claim(self) -> Claim | None:
        """The claim that a manager would make first."""
        if self.production is not None:
            return RunStore(self.db, self.production, manager=0).next_claim(self.settings.filter)
        run = productions.first_run(self.db, self.base, self.settings.filter)
        return None if run is None else Claim(run, attempt=1, token=1)

    def _new(self) -> productions.NewProduction:
        names = tuple(output.name for output in self.recipe.outputs)
        return productions.NewProduction(
            self.recipe.name, self.options.new, self.recipe.text, names, self.base
        )

    def _paths(self, production: Production) -> Paths:
        return Paths(
            self.config.data.resolve(), production, self.recipe, productions.database_id(self.db)
        )


@contextmanager
def open_session(options: argparse.Namespace, on_wait: Callable[[str], None]) -> Iterator[Session]:
    """Check everything; the database is open as long as the context lasts.

    When it is locked it is waited for without end, and ``on_wait`` is told why.
    """
    config = configuration.load(options.config, options.database)
    directories = config.recipe_directories(options.database)
    try:
        recipe = find_recipe(options.production, directories)
    except UnknownRecipe:
        # One's own lie beside the database: perhaps that is not the one that was meant.
        with Database(options.database, readonly=True, patience=math.inf, on_wait=on_wait):
            raise
    configuration.check_systems(config, known_systems)
    check_systems(recipe, known_systems)
    _check_script(recipe)
    _check_data(config)
    _check_new(options, recipe)
    with Database(
        options.database, readonly=options.dry_run, patience=math.inf, on_wait=on_wait
    ) as db:
        settings = _settings(options, config)
        _check_choice(db, options, settings.filter)
        production, base = _productions(db, options, recipe)
        open_ = cache(lambda name: open_batch(name, _batch_options(options, config, name)))
        with _file_is_named(config):
            batch = open_(choose(options.batch or config.batch.system))
            needs = _requirements(options, recipe, batch.name)
            batch.check(needs)
            rooms = Rooms(
                batch=batch,
                probe=open_probe(config.space, config.data),
                archive=_archive(options, config, recipe),
                open_batch=open_,
                herald=_herald(config),
            )
        job = JobSettings(
            config.environment.script,
            config.environment.variables or {},
            _modules_text(options, config, recipe, directories),
            _job_options(options, recipe),
            needs,
        )
        yield Session(options, db, config, recipe, production, base, settings, job, rooms)


@contextmanager
def _file_is_named(config: Configuration) -> Iterator[None]:
    """Those who are given one table of the configuration do not know its file."""
    try:
        yield
    except ConfigurationError as error:
        table = error.fields["where"]
        if isinstance(table, Path) or str(table).startswith("$"):
            raise
        what = f"{table}: {error.fields['what']}"
        raise ConfigurationError(where=config.path, what=what) from None


def _check_script(recipe: Recipe) -> None:
    """Or each run would fail with the same."""
    if not os.access(recipe.script, os.R_OK):
        what = f"the job script {recipe.script} cannot be read: chmod a+r it"
        raise RecipeError(where=recipe.path, what=what)


def _check_data(config: Configuration) -> None:
    """The data directory is made when it is needed; refuse when that will not be possible."""
    place = config.data.resolve()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        what = f"in the data directory {config.data} nothing can be written ({place})"
        raise ConfigurationError(where=config.path, what=what)


def _check_choice(db: Database, options: argparse.Namespace, chosen: RunFilter) -> None:
    """What is misspelt chooses nothing; of the configuration's defaults, some may not be in use."""
    datasets.check_known(db, chosen.datasets)
    datasets.check_labels(db, "tranche", options.tranche or ())
    datasets.check_labels(db, "quality", {*(options.quality or ())} - {ANY_QUALITY})


def _check_new(options: argparse.Namespace, recipe: Recipe) -> None:
    if options.new is None:
        return
    if not options.new.strip():
        raise UsageError(text="--new needs the software tag: --new=TAG")
    if recipe.base is None and options.version is not None:
        raise UsageError(
            text=f"--version cannot be given with --new for {recipe.name}: it is a primary type, "
            "and the new version number is the next free one"
        )


def _productions(
    db: Database, options: argparse.Namespace, recipe: Recipe
) -> tuple[Production | None, Production | None]:
    """The production to work on (None: to be started) and its base."""
    if options.new is None:
        production = productions.find(db, recipe.name, options.version)
        if recipe.base is None:
            return production, None
        if production.base is None:
            what = f"{production.label} does not say from which {recipe.base} production it is made"
            raise UnknownProduction(what=f"{what}. Start a new one with --new=TAG.")
        return production, productions.find(db, recipe.base, production.base)
    if recipe.base is None:
        return None, None
    try:
        return None, productions.find(db, recipe.base, options.version)
    except UnknownProduction as error:
        raise UnknownProduction(what=f"{recipe.name} is made from {recipe.base}: {error}") from None


def _settings(options: argparse.Namespace, config: Configuration) -> Settings:
    defaults = config.defaults

    def chosen(name: str) -> object:
        given = getattr(options, name)
        return getattr(defaults, name) if given is None else given

    qualities = tuple(options.quality or defaults.quality)
    return Settings(
        filter=RunFilter(
            tuple(options.dataset or defaults.dataset),
            tuple(options.tranche or defaults.tranche),
            () if ANY_QUALITY in qualities else qualities,
        ),
        archive_file=config.archive.file,
        stage_timeout=(
            config.archive.stage_timeout if options.stage_timeout is None else options.stage_timeout
        ),
        back_off=defaults.back_off,
        hold_timeout=defaults.hold_timeout,
        notices=NoticeRules(config.notify.events, config.notify.every, config.notify.apart),
        verbose=options.verbose,
        **{
            name: chosen(name)  # type: ignore[arg-type]
            for name in (
                *("pause", "nproc", "nprep", "spacelim", "max_attempts"),
                *("lease", "max_submit_rate", "max_failures", "transfers"),
            )
        },
    )


def _batch_options(
    options: argparse.Namespace, config: Configuration, system: str
) -> dict[str, object]:
    """The configuration's table for this batch system, and what the command line says of it."""
    chosen = dict(config.batch.options.get(system, {}))
    if options.no_arrays and system != "local":
        chosen["arrays"] = False
    if system == "htcondor":
        given = {"name": options.condorname, "pool": options.condorpool}
        chosen |= {name: value for name, value in given.items() if value is not None}
    return chosen


def _requirements(options: argparse.Namespace, recipe: Recipe, system: str) -> Requirements:
    """What jobs need: as the recipe says, or the command line."""
    needs = recipe.requirements_on(system)
    names = ("time", "memory", "cores", "queue", "project")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return replace(needs, **given, options=(*needs.options, *options.submit_option))


def _herald(config: Configuration) -> Herald:
    told = config.notify
    channels: list[Channel] = [CommandChannel(told.command)] if told.command else []
    if told.mail:
        sender = told.sender or f"{current_user()}@{socket.gethostname()}"
        channels.append(MailChannel(told.mail, sender, told.server, told.port, _mail_login))
    return Herald(channels)


def _mail_login(server: str) -> tuple[str, str] | None:
    login = login_if_any(server)
    return None if login is None else (login.user, login.password)


def _archive(options: argparse.Namespace, config: Configuration, recipe: Recipe) -> Places | None:
    if not recipe.archive_inputs:
        return None
    _check_places(recipe)
    limit = config.defaults.rate_limit if options.rate_limit is None else options.rate_limit
    locations = [
        location
        for given in recipe.archive_inputs
        for location in given.locations or config.archive.file
    ]
    usual = config.archive_urls() if any(not one.place for one in locations) else ()
    places = open_places(
        usual,
        locations,
        timeout=config.archive.timeout,
        rate_limit=limit,
        checksums=config.archive.checksums,
    )
    places.check()
    return places


def _check_places(recipe: Recipe) -> None:
    """What is wrong with a URL of the recipe's own is to be corrected there."""
    for given in recipe.archive_inputs:
        for place in filter(None, (location.place for location in given.locations)):
            try:
                open_archive(place)
            except ConfigurationError as error:
                table = toml.parse(recipe.text, recipe.path, RecipeError).table("input")
                table.refuse(f"'file': {error.fields['what']}", given.name, "file")


def _modules_text(
    options: argparse.Namespace,
    config: Configuration,
    recipe: Recipe,
    directories: tuple[Path, ...],
) -> str | None:
    if options.modules and recipe.modules is None:
        raise UsageError(text=f"--modules: the recipe of {recipe.name} has no modules file")
    path = options.modules or config.modules.get(recipe.name) or modules_file(recipe, directories)
    if path is None:
        return None
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ModulesUnreadable(path=path, what=error.strerror or str(error)) from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ModulesUnreadable(path=path, what="it is not a UTF-8 text file")
    return text


def _job_options(options: argparse.Namespace, recipe: Recipe) -> dict[str, str]:
    """The options of the recipe that were given, each with its value."""
    given: dict[str, str] = {}
    if options.calib:
        given["calib"] = ""
    calibration = options.calibdatabase
    if calibration is None and options.calib and "calibdatabase" in recipe.options:
        default = expanded(CALIBRATION)
        calibration = default if default.is_file() else None
    if calibration is not None:
        if not calibration.is_file():
            raise UsageError(text=f"--calibdatabase={calibration}: there is no such file")
        given["calibdatabase"] = str(calibration.resolve())
    for text in options.option:
        name, _, value = text.partition("=")
        given[name] = value
    for name, value in given.items():
        if name not in recipe.options:
            known = ", ".join(recipe.options) or "none"
            raise UsageError(text=f"{recipe.name} has no option {name}; its options: {known}")
        if recipe.options[name].takes_value != bool(value):
            needs = "needs a value" if recipe.options[name].takes_value else "takes no value"
            raise UsageError(text=f"option {name} of {recipe.name} {needs}")
    return given
