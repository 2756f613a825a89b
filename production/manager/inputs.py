"""The files that a run is made from: which they are, how they stand at the archive, where they go.

What asks the archive runs in the manager's lanes; nothing here touches the manager's state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from production.errors import NetrcError, NotOnDisk, TransferError, file_trouble
from production.locations import Location
from production.model import InputFile
from production.recipe.model import Files, Recipe
from production.staging.archive import Arrived, Progress
from production.staging.one_fetch import Fetching
from production.staging.places import File, Places, Source

Found = Mapping[str, tuple[File, ...]]
"""The files of each input, by its name."""


@dataclass(frozen=True)
class Wanted:
    """One input of a run from the archive."""

    name: str
    file: File  # where it may be, or the files that fit a pattern
    is_pattern: bool

    def target(self, directory: Path, file: File) -> Path:
        """Where a file of it goes: those of a pattern are by themselves."""
        name = file[0].name.rpartition("/")[2]
        return directory / self.name / name if self.is_pattern else directory / name


@dataclass(frozen=True)
class Got:
    """The files of a run that are here."""

    paths: Mapping[str, Path | Files]  # by the input's name
    files: tuple[InputFile, ...]  # what is known of them


@dataclass(frozen=True)
class Sight:
    """How a run's files stand at the archive."""

    found: Found | None = None  # None: it is not known yet which they are
    trouble: TransferError | NetrcError | None = None  # what keeps them from being fetched

    @property
    def on_tape(self) -> NotOnDisk | None:
        """Why the run has to wait for its tapes, if it has."""
        return self.trouble if isinstance(self.trouble, NotOnDisk) else None


def wanted(
    places: Places, recipe: Recipe, usual: Sequence[Location], run: int
) -> tuple[Wanted, ...]:
    """What a run needs of the archive; ``usual``: where the recipe names no file."""
    found = []
    for given in recipe.archive_inputs:
        locations = given.locations or tuple(usual)
        pattern = any(location.is_pattern for location in locations)
        found.append(Wanted(given.name, places.of_run(locations, run), pattern))
    return tuple(found)


def find(places: Places, inputs: Sequence[Wanted]) -> Found:
    """Which files they are; raises as ``Places.find``."""
    return {one.name: places.find(one.file) if one.is_pattern else (one.file,) for one in inputs}


def see(
    places: Places, runs: Sequence[tuple[Sequence[Wanted], Found | None]], *, ask: bool
) -> list[Sight]:
    """How the files of many runs stand, in one go; ``ask`` for their tapes before."""
    found: list[Found | None] = []
    troubles: list[TransferError | NetrcError | None] = []
    for inputs, known in runs:
        trouble = None
        if known is None:
            try:
                known = find(places, inputs)
            except (TransferError, NetrcError) as error:
                trouble = error
        found.append(known)
        troubles.append(trouble)
    files = [[file for one in (known or {}).values() for file in one] for known in found]
    every = [file for one in files for file in one]
    if ask:
        places.stage(every)
    states = dict(zip(every, places.look(every), strict=True))
    return [
        Sight(known, trouble or _of_all([states[file] for file in one]))
        for known, one, trouble in zip(found, files, troubles, strict=True)
    ]


def _of_all(
    troubles: Sequence[TransferError | NetrcError | None],
) -> TransferError | NetrcError | None:
    """What keeps a run from being fetched: its tapes before all."""
    there = [trouble for trouble in troubles if trouble is not None]
    return next((one for one in there if isinstance(one, NotOnDisk)), there[0] if there else None)


def fetch(
    places: Places,
    inputs: Sequence[Wanted],
    found: Found | None,
    directory: Path,
    owner: str,
    fetching: Fetching,
    progress: Callable[[Path, int, int | None], None],
    stop: threading.Event,
    brought: dict[Path, InputFile],
) -> Got:
    """Bring all files of a run into the directory; those that are there already stay.

    ``owner``: the run, for ``Fetching.alone``.  ``progress`` is told the target besides.
    ``brought``: what is known of those that are there, by target; what comes is added.  Raises as
    ``Places.fetch``, SpoolTrouble, and BeingFetched when another manager is at one of them.
    """
    if found is None:
        found = find(places, inputs)
    paths: dict[str, Path | Files] = {}
    files: list[InputFile] = []
    for one in inputs:
        targets = [one.target(directory, file) for file in found[one.name]]
        for file, target in zip(found[one.name], targets, strict=True):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                is_here = target.exists()
            except OSError as error:
                raise file_trouble(target.parent, error) from None
            if not is_here:
                brought.pop(target, None)
                with fetching.alone(file, target, owner) as beat:
                    if beat is not None:
                        came = places.fetch(file, target, _told(progress, target, beat), stop)
                        brought[target] = _input(one.name, *came)
            files.append(brought.get(target) or _of_others(one.name, file, target))
        paths[one.name] = Files(targets) if one.is_pattern else targets[0]
    return Got(paths, tuple(files))


def _input(name: str, source: Source, came: Arrived) -> InputFile:
    return InputFile(name, source.name, came.size, source.address, came.checksum)


def _of_others(name: str, file: File, target: Path) -> InputFile:
    """A file that another manager has fetched: nobody here knows from which place."""
    try:
        return InputFile(name, file[0].name, target.stat().st_size)
    except OSError as error:
        raise file_trouble(target, error) from None


def _told(
    progress: Callable[[Path, int, int | None], None], target: Path, beat: Callable[[], None]
) -> Progress:
    def told(done: int, total: int | None) -> None:
        beat()
        progress(target, done, total)

    return told
