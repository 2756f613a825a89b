"""The first half of the corridor: claims runs, has them staged, fetches their input."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from production.errors import (
    ArchiveUnavailable,
    NetrcError,
    NoSpaceLeft,
    NotOnDisk,
    ProductionError,
    TransferStopped,
)
from production.job.clean import remove_tree
from production.manager import inputs
from production.manager.desk import Desk
from production.manager.rest import PlaceRests
from production.manager.room import MustWait, Room
from production.manager.work import Phase, Work
from production.staging.one_fetch import BeingFetched, Fetching
from production.staging.places import Places
from production.store import productions

# Seconds after which the tape is asked for once more: an archive may have forgotten the request,
# or have needed the place on its disk before the file's turn came.
STAGE_EVERY = 600.0

_OTHER = "waits for a download"  # by another manager
_TAPE = "waits for tape"


class Intake:
    """Runs and their input files, up to nproc + nprep at a time."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.room = Room(desk)
        self._fetching = Fetching(desk.paths.fetching)
        self._see_again = 0.0  # monotonic; whether files have come from tape
        results = desk.results
        rests = PlaceRests(
            desk.settings.pause,
            lambda error: results.put(lambda: self._place_is_down(error)),
        )
        if desk.rooms.archive is not None:
            desk.rooms.archive.watch = rests

    def look(self) -> None:
        """Once a cycle: ask for the space, and let more be claimed."""
        self._desk.may_claim = True
        self.room.look()
        self._look_for_arrivals()

    def advance(self) -> None:
        """Each turn: whatever can be done now."""
        self._desk.wake_at("fetch", None)
        downloads = bool(self._desk.paths.recipe.archive_inputs)
        if self._desk.paused or self._desk.closing:
            return
        if self.room.may_begin(downloads=downloads):
            self._claim()
            self._fetch()

    # ----------------------------------------------------------------- claim and stage

    def _claim(self) -> None:
        desk = self._desk
        free = desk.settings.nproc + desk.settings.nprep - len(desk.works)
        downloads = bool(desk.paths.recipe.archive_inputs)
        if not downloads:
            free = self.room.places(free)
        if free <= 0 or not desk.may_claim or desk.space_rest.resting:
            return
        desk.may_claim = False
        new = [
            Work(claim, desk.paths, desk.rooms.batch, desk.paths.job_name(claim))
            for claim in desk.store.claim(free, desk.settings.filter)
        ]
        for work in new:
            desk.take(work)
            desk.say(f"Claimed run: {work.run}")
        for work in new:
            self._find_base_inputs(work)
        wanted = [work for work in new if work.phase is Phase.CLAIMED]
        if wanted:
            desk.say(f"Staging runs: {[work.run for work in wanted]}")
            places = desk.rooms.archive
            for work in wanted:
                work.staging = True  # or its first download would be too early
                if places is not None:
                    usual = desk.settings.archive_file
                    work.wanted = inputs.wanted(places, work.paths.recipe, usual, work.run)
            self._stage(wanted)

    def _find_base_inputs(self, work: Work) -> None:
        desk = self._desk
        recipe = desk.paths.recipe
        if recipe.base_inputs and desk.base is not None:
            made = productions.outputs(desk.db, desk.base.id, work.run)
            for wanted in recipe.base_inputs:
                path = made.get(wanted.output)
                objection = _objection_to(path) if path else "is not recorded"
                if path is None or objection:
                    desk.fail(work, f"input {wanted.output} of {desk.base.label} {objection}")
                    return
                work.inputs[wanted.name] = path
        if not recipe.archive_inputs:
            self.room.promise(work)
            work.move(Phase.READY)

    def _look_for_arrivals(self) -> None:
        """Ask, in one go, which of the files that were on tape have come to the archive's disk."""
        on_tape = [
            work
            for work in self._desk.works.values()
            if work.phase is Phase.CLAIMED and not work.staging and work.arrived is None
        ]
        lane = self._desk.lanes["stage"]
        if on_tape and not lane.busy and time.monotonic() >= self._see_again:
            self._see(on_tape, ask=False)

    def _stage(self, works: Sequence[Work]) -> None:
        """Ask for the tapes of all of them, and see which are not needed."""
        now = time.monotonic()
        longest = self._desk.settings.stage_timeout
        for work in works:
            work.stage_again = now + min(STAGE_EVERY, longest)
            if work.waits_since is not None and now - work.waits_since >= longest:
                work.last_asked = work.last_asked or now
        self._see(works, ask=True)

    def _see(self, works: Sequence[Work], *, ask: bool) -> None:
        places = self._desk.rooms.archive
        if places is None:
            return
        runs = [(work.wanted, work.found) for work in works]
        self._desk.lanes["stage"].do(
            lambda: inputs.see(places, runs, ask=ask), lambda result: self._seen(works, result)
        )

    def _seen(self, works: Sequence[Work], result: Any) -> None:
        if isinstance(result, BaseException):
            raise result
        desk = self._desk
        self._see_again = time.monotonic() + self._patience
        for work, sight in zip(works, result, strict=True):
            work.staging = False
            if work.phase is not Phase.CLAIMED:
                continue
            work.found = sight.found
            if sight.on_tape:
                self._is_on_tape(work, sight.on_tape)
            elif isinstance(sight.trouble, ArchiveUnavailable | NetrcError):
                work.stage_again = self._see_again
            else:  # whatever else is wrong, the transfer will tell
                desk.detail(f"Run {work.run} may be fetched")
                work.arrived = time.monotonic()
                work.waits_for = ""

    def _is_on_tape(self, work: Work, trouble: NotOnDisk) -> None:
        """It was asked for again when the time-out was over, and may take as long once more."""
        now = time.monotonic()
        work.arrived = None
        if work.waits_for != _TAPE:
            work.waits_for = _TAPE
            self._desk.detail(f"Run {work.run} {_TAPE}")
        work.waits_since = work.waits_since or now
        longest = self._desk.settings.stage_timeout
        if work.last_asked is not None and now - work.last_asked >= longest:
            self._desk.fail(work, f"{trouble}; it did not arrive within the stage time-out")

    @property
    def _patience(self) -> float:
        """Seconds between two questions about the same file."""
        return max(1.0, self._desk.settings.pause)

    # ----------------------------------------------------------------- fetch

    def _fetch(self) -> None:
        """Start transfers, in the order in which files came to the archive's disk."""
        desk = self._desk
        places = desk.rooms.archive
        works = desk.works.values()
        waiting = [work for work in works if work.phase is Phase.CLAIMED and not work.staging]
        if places is None or not waiting:
            return
        now = time.monotonic()
        if overdue := [work for work in waiting if work.stage_again <= now]:
            self._stage(overdue)
        ready = [work for work in waiting if work.arrived is not None]
        later = [work.not_before for work in ready if work.not_before > now]
        desk.wake_at("fetch", min(later, default=None))
        # What was begun comes first; of those that came together from tape, the one that is needed
        # first: in the order of their claims.
        ready.sort(key=lambda work: (not work.done, work.arrived))
        free = desk.settings.transfers - sum(work.phase is Phase.FETCHING for work in works)
        for work in ready:
            if free <= 0:
                return
            if work.not_before <= now and self.room.admit(work):
                free -= 1
                self._begin(work, places)

    def _begin(self, work: Work, places: Places) -> None:
        """Start the transfer of one run's files."""
        desk = self._desk
        work.move(Phase.FETCHING)
        directory = work.paths.raw(work.claim)

        def progress(target: Path, done: int, total: int | None) -> None:
            self.room.expect(work, str(target), done, total)
            desk.results.put(lambda: self._show(work, done, total))

        def fetch() -> inputs.Got:
            try:
                return inputs.fetch(
                    places,
                    work.wanted,
                    work.found,
                    directory,
                    f"{work.paths.workspace} {work.run}",
                    self._fetching,
                    progress,
                    work.stop,
                    work.brought,
                )
            except MustWait:
                remove_tree(directory)
                raise

        desk.lanes["transfer"].do(fetch, lambda result: self._fetched(work, result))

    def _show(self, work: Work, done: int, total: int | None) -> None:
        if not done and not work.done:
            self._desk.say(f"Downloading run: {work.run}")
        work.done, work.total = done, total
        self._desk.view.progress(work.run, done, total)

    def _fetched(self, work: Work, result: Any) -> None:
        desk = self._desk
        desk.view.transferred(work.run)
        if work.after_transfer is not None:  # given up in the meantime
            work.after_transfer()
            return
        if work.phase is not Phase.FETCHING or isinstance(result, TransferStopped):
            return  # somebody else's now
        work.move(Phase.CLAIMED)
        if isinstance(result, NotOnDisk):
            work.not_before = time.monotonic() + self._patience
            self._is_on_tape(work, result)
        elif isinstance(result, ArchiveUnavailable | NetrcError):
            work.arrived = None
        elif isinstance(result, BeingFetched):
            work.not_before = time.monotonic() + self._patience
            if work.waits_for != _OTHER:
                work.waits_for = _OTHER
                desk.say(f"Run {work.run}: another manager is downloading its file")
        elif isinstance(result, MustWait):
            self.room.put_off(work)
        elif isinstance(result, NoSpaceLeft):
            desk.no_room(work, result)
        elif isinstance(result, ProductionError):
            desk.fail(work, str(result))
        elif isinstance(result, BaseException):
            raise result
        else:
            desk.say(f"... Success! (run {work.run})")
            work.inputs.update(result.paths)
            work.read = result.files
            work.fetched = True
            self.room.fetched(work)
            work.move(Phase.READY)

    def _place_is_down(self, error: ProductionError) -> None:
        """When it is back it may have forgotten what to stage."""
        for work in self._desk.works.values():
            work.stage_again, work.waits_since, work.last_asked = 0.0, None, None
        self._desk.warn(error, "Will try again later.")


def _objection_to(path: Path) -> str:
    """What keeps a job from reading a file of the base production; empty: nothing."""
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
            return f"cannot be read: {path}: {error.strerror}"
        is_file = False
    if not is_file:
        return f"is missing: {path}"
    if not os.access(path, os.R_OK):
        return f"cannot be read: {path}: {os.strerror(errno.EACCES)}"
    return ""
