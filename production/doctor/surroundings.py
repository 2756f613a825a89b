"""What managers need around the database: configuration, login, space, batch system, recipes."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from production import commands, toml
from production import config as configuration
from production.batch.base import BatchSystem, choose, known_systems, open_batch
from production.config import FILE, Configuration
from production.doctor.findings import Finding, error, note, ok, warning
from production.errors import CommandError, ModulesUnreadable, ProductionError, RecipeError
from production.model import JobHandle, Unit
from production.recipe.load import check_systems, find_recipe, known_recipes, modules_file
from production.recipe.model import Recipe
from production.space.probe import open_probe
from production.staging.archive import open_archive
from production.staging.credentials import login_if_any, netrc_path, objection_to

_TIMEOUT = 30.0  # seconds that a command may take
_LITTLE = 100_000_000  # bytes free on the database's filesystem
_FEW = 1000  # inodes
_SKEW = 2.0  # seconds that clocks may differ by without a word
_LARGE_SKEW = 60.0
_CLOCK = "Have the clocks of hosts and file server set by NTP or chrony"

# Which commands each batch system has: those that managers cannot do without, and those that tell
# why a job failed, move or release it.
_COMMANDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "slurm": (("sbatch", "squeue", "scancel"), ("sacct", "scontrol")),
    "sge": (("qsub", "qstat", "qdel"), ("qacct", "qalter")),
    "lsf": (("bsub", "bjobs", "bkill"), ("bhist", "bswitch")),
    "pbs": (("qsub", "qstat", "qdel"), ("qmove",)),
    "htcondor": (("condor_submit", "condor_q", "condor_rm"), ("condor_history",)),
    "local": (("bash", "setsid"), ()),
}


# --------------------------------------------------------------------------- the archive's login


def check_login(config: Configuration) -> Iterator[Finding]:
    """The netrc file, for the archive of the configuration."""
    path = netrc_path()
    if not config.archive.url:
        what = f"no archive of raw files is named in {config.path}"
        yield note("archive", what, 'If you have one: [archive] url = "ftp://HOST/DIRECTORY"')
        try:
            objection = objection_to(path.stat(), path, os.geteuid())
        except OSError:
            return  # there is none, and none is needed
        if objection:
            yield warning("netrc", f"{path}: {objection}", f"chmod 600 {path}")
        return
    for url in config.archive.url:
        try:
            archive = open_archive(url, config.archive.timeout)
            archive.check()
            login = login_if_any(archive.host)
        except ProductionError as problem:
            remedy = f"Write the login into {path}, then: chmod 600 {path}"
            yield error("netrc", str(problem), remedy)
        else:
            if login is None:
                yield ok("netrc", f"no login for {archive.host} in {path}, and none is needed")
            else:
                yield ok("netrc", f"{path} has a login for {archive.host}, closed to others")


# --------------------------------------------------------------------------- space and clock


def check_space(config: Configuration, place: Path | None) -> Iterator[Finding]:
    """The quota or disk of the data directory, and room for the journal in ``place``, if any."""
    try:
        space = open_probe(config.space, config.data).probe()
    except ProductionError as problem:
        remedy = f'See [space] in {config.path}; probe = "statvfs" looks at the whole filesystem'
        yield error("space", f"{problem}: managers fetch nothing", remedy)
    else:
        usage = space.fullest
        figures = f"{usage.used / 1e9:.1f} of {usage.limit / 1e9:.1f} GB used ({usage.source})"
        if usage.unit is Unit.FILES:
            figures = f"{usage.used} of {usage.limit} files used ({usage.source})"
        if space.remark:
            figures = f"{figures}; {space.remark}"
        if usage.fraction >= config.defaults.spacelim:
            what = f"{figures}: above the limit of {config.defaults.spacelim:.0%}"
            yield warning("space", f"{what}, nothing is fetched", "Make room, or raise --spacelim")
        else:
            yield ok("space", figures)
    if place is None:
        return
    free = os.statvfs(place)
    left = free.f_bavail * free.f_frsize
    few = free.f_files > 0 and free.f_favail < _FEW
    if left < _LITTLE or few:
        room = f"{left / 1e6:.0f} MB and {free.f_favail} files"
        what = f"beside the database there is room for {room} only"
        yield warning("space", what, "Make room: without a journal nothing can be recorded")


def check_clock(own: Path) -> Iterator[Finding]:
    """The clock of this host against the file server's, by a new file in the scratch directory."""
    probe = own / "clock"
    before = time.time()
    probe.write_bytes(b"tick")
    after = time.time()
    written = probe.stat().st_mtime
    # A filesystem may cut off parts of a second.
    skew = written - before if written < before else max(written - after, 0.0)
    what = f"the clocks of this host and of the file server differ by {abs(skew):.1f} s"
    if abs(skew) <= _SKEW:
        yield ok("clock", "this host and the file server agree on the time")
    elif abs(skew) <= _LARGE_SKEW:
        yield note("clock", what, _CLOCK)
    else:
        yield warning("clock", what, _CLOCK)


# --------------------------------------------------------------------------- the batch system


def check_batch(config: Configuration) -> Iterator[Finding]:
    """Its commands, and whether it answers when it is asked for a job that does not exist."""
    try:
        configuration.check_systems(config, known_systems)
        system = choose(config.batch.system)
        batch = open_batch(system, config.batch.options.get(system, {}))
    except ProductionError as problem:
        yield error("batch", str(problem), f"Correct [batch] in {config.path}")
        return
    needed, useful = _COMMANDS.get(system, ((), ()))
    remedy = f"Load the module of {system}, or correct the PATH"
    if missing := [name for name in needed if not shutil.which(name)]:
        yield error("batch", f"{system}: not on the PATH: {', '.join(missing)}", remedy)
        return
    if missing := [name for name in useful if not shutil.which(name)]:
        what = f"{system}: not on the PATH: {', '.join(missing)}; reasons of failed jobs may lack"
        yield note("batch", what, remedy)
    yield _queue(batch, config.data)


def _queue(batch: BatchSystem, data: Path) -> Finding:
    name = f"doctor-{uuid.uuid4().hex[:8]}"
    job = JobHandle(name, data / name)
    try:
        batch.poll([job])
    except ProductionError as problem:
        remedy = "Ask its operators; managers wait meanwhile"
        return error("batch", str(problem), remedy)
    finally:
        batch.close()
    return ok("batch", f"{batch.name} answers")


# --------------------------------------------------------------------------- what jobs need


def check_data(config: Configuration) -> Iterator[Finding]:
    """The data directory: there, or to be made by the first manager."""
    place = Path(os.path.realpath(config.data))
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        what = f"in the data directory {config.data} nothing can be written ({place})"
        yield error("data", what, f"Correct data in {config.path}, or: chmod u+rwx {place}")
    elif place != Path(os.path.realpath(config.data)):
        yield note("data", f"{config.data} will be made by the first manager")
    else:
        yield ok("data", f"{config.data} can be written")


def check_environment(config: Configuration) -> Iterator[Finding]:
    """The environment script that is sourced before each job's payload."""
    script = config.environment.script
    if script is None:
        return
    if not os.access(script, os.R_OK) or not script.is_file():
        what = f"the environment script {script} is missing or cannot be read"
        yield error("environment", what, f"Correct script under [environment] in {config.path}")
        return
    try:
        commands.run(["bash", "-n", str(script)], timeout=_TIMEOUT)
    except CommandError as problem:
        what = f"{script} is no bash script: {problem}"
        yield error("environment", what, "Correct it: all jobs would fail with 92")
    else:
        yield ok("environment", f"{script} can be read")


def check_recipes(config: Configuration, database: Path, wanted: str | None) -> Iterator[Finding]:
    """All recipes that can be found, or the one that is wanted, with job script and modules."""
    directories = config.recipe_directories(database)
    if wanted is None:
        yield from _unreadable(directories)
    sound = []
    for name in [wanted] if wanted else known_recipes(directories):
        try:
            recipe = find_recipe(name, directories)
            check_systems(recipe, known_systems)
        except ProductionError as problem:
            yield error("recipe", str(problem), "Correct it, see docs/recipes.md")
            continue
        findings = list(_recipe(recipe, config, directories, wanted is not None))
        if not findings:
            sound.append(name)
        yield from findings
    if sound:
        yield ok("recipe", ", ".join(sound))


def _unreadable(directories: Sequence[Path]) -> Iterator[Finding]:
    """TOML files beside the recipes that nobody can read: they may be meant as some."""
    for path in sorted({file for directory in directories for file in directory.glob("*.toml")}):
        if toml.is_file(path) and path.name != FILE:
            try:
                toml.parse(toml.read(path, RecipeError), path, RecipeError)
            except ProductionError as problem:
                yield warning("recipe", str(problem), "Correct or remove it")


def _recipe(
    recipe: Recipe, config: Configuration, directories: Sequence[Path], wanted: bool
) -> Iterator[Finding]:
    if not os.access(recipe.script, os.R_OK):
        what = f"{recipe.name}: the job script {recipe.script} cannot be read"
        yield error("recipe", what, f"chmod a+r {shlex.quote(str(recipe.script))}")
    path = config.modules.get(recipe.name)
    try:
        path = path or modules_file(recipe, directories)
        if path is not None:
            path.read_bytes().decode()
    except (ModulesUnreadable, OSError, UnicodeDecodeError) as problem:
        given = problem.fields if isinstance(problem, ModulesUnreadable) else {}
        name, why = given.get("path", path), given.get("what", problem)
        what = f"{recipe.name}: the modules file {name} cannot be read: {why}"
        remedy = f"Name one with --modules=FILE, or under [modules] in {config.path}"
        # Who has no use for a recipe that ships needs no modules file for it.
        yield (error if wanted else note)("modules", what, remedy)


def check_shell() -> Iterator[Finding]:
    """The sqlite3 shell, with which people ask the bookkeeping."""
    if shutil.which("sqlite3") is None:
        yield note("shell", "there is no sqlite3 shell here", "Install sqlite3 to ask by hand")
        return
    try:
        version = commands.run(["sqlite3", "--version"], timeout=_TIMEOUT).stdout.split()[0]
        numbers = tuple(int(part) for part in version.split(".")[:2])
    except (CommandError, IndexError, ValueError):
        return
    if numbers < (3, 31):  # generated columns
        what = f"the sqlite3 shell {version} cannot read the tables; this program has SQLite "
        remedy = "Use a newer sqlite3, for instance that of a module or of conda"
        yield warning("shell", what + sqlite3.sqlite_version, remedy)
    else:
        yield ok("shell", f"sqlite3 {version}")
