"""Several places for one file, tried in order: what one does not have, the next one may have.

A place that is down is left alone for a while, and the others serve meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from production.errors import (
    ArchiveUnavailable,
    FileMissing,
    LocalTrouble,
    NetrcError,
    NotOnDisk,
    ProductionError,
    TransferError,
    TransferFailed,
    TransferStopped,
)
from production.locations import Location, fits, in_natural_order
from production.staging.archive import Archive, Arrived, Progress, open_archive
from production.staging.limit import Limit


@dataclass(frozen=True)
class Source:
    """One place where a file may be."""

    place: str  # URL
    name: str  # relative to it

    @property
    def address(self) -> str:
        """The place as it may be told to everybody: without options, and without a login."""
        parts = urlsplit(self.place)
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=host, query="", fragment="").geturl()


File = tuple[Source, ...]
"""Where one file may be, in the order in which it is looked for."""

_Down = ArchiveUnavailable | NetrcError
_Trouble = TransferError | NetrcError

_T = TypeVar("_T")


class Watch(Protocol):
    """Who keeps in mind which places are down; called from several threads at a time."""

    def is_resting(self, place: str) -> bool:
        """Whether to leave it alone."""

    def down(self, place: str, error: ProductionError) -> None:
        """It did not answer, or refused the login."""

    def up(self, place: str) -> None:
        """It knows its files."""


class Careless:
    """A ``Watch`` that tries each place each time."""

    def is_resting(self, place: str) -> bool:  # noqa: ARG002 - any
        """Never."""
        return False

    def down(self, place: str, error: ProductionError) -> None:
        """Take no notice."""

    def up(self, place: str) -> None:
        """Take no notice."""


class Places:
    """All archives that a recipe's inputs come from, by their URLs."""

    def __init__(self, archives: Mapping[str, Archive], usual: Sequence[str]) -> None:
        self.watch: Watch = Careless()
        self._archives = archives
        self._usual = tuple(usual)  # where a name without a place is looked for
        self._asked: set[Source] = set()  # for their tapes
        self._troubles: dict[str, _Down] = {}  # of the places that are down

    def check(self) -> None:
        """See that there is a login for each; raises NetrcError."""
        for archive in self._archives.values():
            archive.check()

    def of_run(self, locations: Iterable[Location], run: int) -> File:
        """Where a run's file may be, or the files that fit a pattern."""
        return tuple(
            Source(place, location.name.expand({"run": run}))
            for location in locations
            for place in ((location.place,) if location.place else self._usual)
        )

    # ----------------------------------------------------------------- before the transfer

    def find(self, pattern: File) -> tuple[File, ...]:
        """The files that fit, in natural order: of the first place that has any.

        Raises the TransferErrors and NetrcError; FileMissing when no place has one.
        """

        def names(archive: Archive, source: Source) -> list[str]:
            found = archive.names(source.name)
            if not found:
                what = "no file fits the pattern"
                raise FileMissing(file=source.name, host=archive.host, what=what)
            return found

        source, found = self._first(pattern, names)
        others = pattern[pattern.index(source) + 1 :]
        return tuple(
            (Source(source.place, name), *_same_file(name, others))
            for name in in_natural_order(found)
        )

    def stage(self, files: Iterable[File]) -> None:
        """Ask for their tapes: where each is known to be on tape, else at the first place."""
        left = list(files)
        silent: set[str] = set()
        while left:
            at: dict[str, dict[File, Source]] = {}
            for file in left:
                known = [source for source in file if source in self._asked]
                for source in (*known, *file):
                    if source.place not in silent and not self.watch.is_resting(source.place):
                        at.setdefault(source.place, {})[file] = source
                        break
            left = []
            for place, sources in at.items():
                if not self._ask(place, list(sources.values())):
                    silent.add(place)
                    left += sources

    def look(self, files: Sequence[File]) -> list[_Trouble | None]:
        """What keeps each of the files from being fetched now, as far as it is known.

        NotOnDisk: it is still on tape.  Each place is asked once for all that it may have.
        """
        troubles: dict[File, list[_Trouble]] = {file: [] for file in files}
        left = list(troubles)
        for rank in range(max(map(len, left), default=0)):
            left = [file for file in left if len(troubles[file]) == rank]
            at: dict[str, list[File]] = {}
            for file in left:
                if rank < len(file):
                    at.setdefault(file[rank].place, []).append(file)
            for place, here in at.items():
                for file, trouble in zip(
                    here, self._look(place, [file[rank] for file in here]), strict=True
                ):
                    if trouble is not None:
                        troubles[file].append(trouble)
        return [
            _all_in_one(troubles[file]) if len(troubles[file]) == len(file) else None
            for file in files
        ]

    # ----------------------------------------------------------------- the transfer

    def fetch(
        self, file: File, target: Path, progress: Progress, stop: threading.Event
    ) -> tuple[Source, Arrived]:
        """Bring it from the first place that has it; see ``Archive.fetch``."""

        def bring(archive: Archive, source: Source) -> Arrived:
            return archive.fetch(source.name, target, progress, stop)

        came = self._first(file, bring)
        self._asked.difference_update(file)
        return came

    def _first(self, file: File, do: Callable[[Archive, Source], _T]) -> tuple[Source, _T]:
        """The first source with which that can be done, and what came of it."""
        troubles: list[_Trouble] = []
        for source in file:
            if self.watch.is_resting(source.place):
                troubles.append(self._troubles[source.place])
                continue
            try:
                done = do(self._archives[source.place], source)
            except (TransferStopped, LocalTrouble):
                raise  # no other place could do better
            except (TransferError, NetrcError) as error:
                self._note(source, error)
                troubles.append(error)
            else:
                self.watch.up(source.place)
                return source, done
        raise _all_in_one(troubles)

    # ----------------------------------------------------------------- one place

    def _ask(self, place: str, sources: Sequence[Source]) -> bool:
        """Ask for tapes; False when the place is down."""
        try:
            self._archives[place].stage([source.name for source in sources])
        except (ArchiveUnavailable, NetrcError) as error:
            self._down(place, error)
            return False
        except TransferError:
            pass  # the transfer will tell
        self._asked.update(sources)
        return True

    def _look(self, place: str, sources: Sequence[Source]) -> Sequence[_Trouble | None]:
        if self.watch.is_resting(place):
            return [self._troubles[place]] * len(sources)
        try:
            found = self._archives[place].look([source.name for source in sources])
        except (ArchiveUnavailable, NetrcError) as error:
            self._down(place, error)
            return [error] * len(sources)
        self.watch.up(place)
        troubles = [found[source.name] for source in sources]
        for source, trouble in zip(sources, troubles, strict=True):
            if isinstance(trouble, FileMissing):
                self._asked.discard(source)
        new = [
            source
            for source, trouble in zip(sources, troubles, strict=True)
            if isinstance(trouble, NotOnDisk) and source not in self._asked
        ]
        if new:
            self._ask(place, new)
        return troubles

    def _note(self, source: Source, error: _Trouble) -> None:
        """Keep in mind what a failed try has told of a place and of a file."""
        if isinstance(error, ArchiveUnavailable | NetrcError):
            self._down(source.place, error)
        elif isinstance(error, FileMissing):
            self._asked.discard(source)
            self.watch.up(source.place)
        elif isinstance(error, NotOnDisk):
            self.watch.up(source.place)
            if source not in self._asked:
                self._ask(source.place, [source])

    def _down(self, place: str, error: _Down) -> None:
        self._troubles[place] = error
        self.watch.down(place, error)


def open_places(
    usual: Sequence[str],
    locations: Iterable[Location],
    *,
    timeout: float,
    rate_limit: float | None = None,
    checksums: str = "off",
) -> Places:
    """The archives at ``usual``, and those that the locations name themselves.

    All transfers together bring at most ``rate_limit`` bytes a second.  Raises ConfigurationError;
    see ``open_archive``.
    """
    limit = Limit(rate_limit)
    named = [location.place for location in locations if location.place]
    archives = {
        place: open_archive(place, timeout, limit, checksums)
        for place in dict.fromkeys((*usual, *named))
    }
    return Places(archives, usual)


def _same_file(name: str, patterns: Iterable[Source]) -> Iterable[Source]:
    """Where else a file may be that one place has."""
    file = name.rpartition("/")[2]
    for other in patterns:
        directory, slash, pattern = other.name.rpartition("/")
        if fits(file, pattern):
            yield Source(other.place, f"{directory}{slash}{file}")


def _all_in_one(troubles: Sequence[_Trouble]) -> _Trouble:
    """One error that names all places.

    Its kind says what is to be done about the file.
    """
    first = max(troubles, key=_weight)
    said = dict.fromkeys(str(trouble) for trouble in troubles)
    others = [text.rstrip(".") for text in said if text != str(first)]
    if not others:
        return first
    what = "; ".join([str(first.fields["what"]), *others])
    return type(first)(**{**first.fields, "what": what})


def _weight(trouble: _Trouble) -> int:
    # One that is on tape will come; one that failed is tried again, as often as a run may be; and
    # while a place is down, nobody knows what it has.
    if isinstance(trouble, NotOnDisk):
        return 3
    if isinstance(trouble, TransferFailed):
        return 2
    return int(not isinstance(trouble, FileMissing))
