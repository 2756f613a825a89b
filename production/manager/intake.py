"""The first half of the corridor: claims runs, has them staged, fetches input, minds the space."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from production.errors import (
    ArchiveUnavailable,
    FileMissing,
    NetrcError,
    NoSpaceLeft,
    NotOnDisk,
    ProbeFailed,
    ProductionError,
    TransferError,
    TransferStopped,
    file_trouble,
)
from production.manager.desk import Desk
from production.manager.rest import Rest
from production.manager.work import Phase, Work
from production.model import Usage
from production.staging.archive import Archive
from production.store import productions

# Seconds after which the tape is asked for once more: an archive may have forgotten the request,
# or have needed the place on its disk before the file's turn came.
STAGE_EVERY = 600.0


class Space(StrEnum):
    """What is known about the space."""

    UNKNOWN = "unknown"  # not asked yet
    OK = "ok"
    SHORT = "short"  # over the limit: nothing new until there is room
    FAILED = "failed"  # the probe failed: nothing new until it answers


class Intake:
    """Runs and their input files, up to nproc + nprep at a time."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.usage: Usage | None = None
        self._space = Space.UNKNOWN
        self._archive_rest = Rest()

    def look(self) -> None:
        """Once a cycle: ask for the space, and let more be claimed."""
        self._desk.may_claim = True
        lane = self._desk.lanes["probe"]
        if not lane.busy:
            lane.do(self._desk.rooms.probe.probe, self._probed)

    def advance(self) -> None:
        """Each turn: whatever can be done now."""
        self._desk.wake_at("fetch", None)
        downloads = bool(self._desk.paths.recipe.archive_inputs)
        if self._desk.paused or self._desk.closing:
            return
        if self._space is Space.OK or (self._space is Space.FAILED and not downloads):
            self._claim()
            self._fetch()

    # ----------------------------------------------------------------- claim and stage

    def _claim(self) -> None:
        desk = self._desk
        free = desk.settings.nproc + desk.settings.nprep - len(desk.works)
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
            for work in wanted:
                work.staging = True  # or its first download would be too early
            self._stage(wanted)

    def _find_base_inputs(self, work: Work) -> None:
        desk = self._desk
        recipe = desk.paths.recipe
        if recipe.base_inputs and desk.base is not None:
            made = productions.outputs(desk.db, desk.base.id, work.run)
            for wanted in recipe.base_inputs:
                path = made.get(wanted.output)
                # pathlib's is_file raises where it may not look
                if path is None or not os.path.isfile(path):  # noqa: PTH113
                    what = f"is missing: {path}" if path else "is not recorded"
                    desk.fail(work, f"input {wanted.output} of {desk.base.label} {what}")
                    return
                work.inputs[wanted.name] = path
        if not recipe.archive_inputs:
            work.move(Phase.READY)

    def _archive_files(self, work: Work) -> dict[str, str]:
        """Names in the archive by the names of the recipe's inputs."""
        default = self._desk.settings.archive_file
        return {
            wanted.name: (wanted.file or default).expand({"run": work.run})
            for wanted in work.paths.recipe.archive_inputs
        }

    def _stage(self, works: Sequence[Work]) -> None:
        archive = self._desk.rooms.archive
        if archive is None:
            return
        files = [file for work in works for file in self._archive_files(work).values()]
        for work in works:
            work.stage_again = time.monotonic() + STAGE_EVERY

        def staged(result: Any) -> None:
            for work in works:
                work.staging = False
            if isinstance(result, ArchiveUnavailable | NetrcError):
                self._rest(result)
            elif isinstance(result, BaseException) and not isinstance(result, TransferError):
                raise result

        self._desk.lanes["stage"].do(lambda: archive.stage(files), staged)

    # ----------------------------------------------------------------- fetch

    def _fetch(self) -> None:
        """Start transfers: first of the runs that are not known to be on tape still."""
        desk = self._desk
        archive = desk.rooms.archive
        works = desk.works.values()
        waiting = [work for work in works if work.phase is Phase.CLAIMED and not work.staging]
        if archive is None or not waiting or self._archive_rest.resting:
            return
        now = time.monotonic()
        if overdue := [work for work in waiting if work.stage_again <= now]:
            self._stage(overdue)
        waiting.sort(key=lambda work: work.not_before)  # else in the order of their claims
        free = desk.settings.transfers - sum(work.phase is Phase.FETCHING for work in works)
        for work in waiting[: max(free, 0)]:
            if work.not_before > now:
                desk.wake_at("fetch", work.not_before)
                return
            self._begin(work, archive)

    def _begin(self, work: Work, archive: Archive) -> None:
        """Start the transfer of one run's files."""
        desk = self._desk
        work.move(Phase.FETCHING)
        files = self._archive_files(work)
        directory = work.paths.raw(work.claim)

        def progress(done: int, total: int | None) -> None:
            desk.results.put(lambda: self._show(work, done, total))

        def fetch() -> dict[str, Path]:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise file_trouble(directory, error) from None
            got = {name: directory / Path(file).name for name, file in files.items()}
            for name, file in files.items():
                archive.fetch(file, got[name], progress, work.stop)
            return got

        desk.lanes["transfer"].do(fetch, lambda result: self._fetched(work, result))

    def _show(self, work: Work, done: int, total: int | None) -> None:
        if not done and not work.done:
            self._desk.say(f"Downloading run: {work.run}")
        work.done, work.total = done, total
        self._desk.view.progress(work.run, done, total)

    def _fetched(self, work: Work, result: Any) -> None:
        desk = self._desk
        if work.after_transfer is not None:  # given up in the meantime
            work.after_transfer()
            return
        if work.phase is not Phase.FETCHING or isinstance(result, TransferStopped):
            return  # somebody else's now
        work.move(Phase.CLAIMED)
        if not isinstance(result, BaseException) or isinstance(result, NotOnDisk | FileMissing):
            self._archive_rest.over()  # it knows its files again
        if isinstance(result, NotOnDisk):
            work.waits_since = work.waits_since or time.monotonic()
            if time.monotonic() - work.waits_since > desk.settings.stage_timeout:
                desk.fail(work, f"{result}; it did not arrive within the stage time-out")
            else:
                work.not_before = time.monotonic() + max(1.0, desk.settings.pause)
        elif isinstance(result, ArchiveUnavailable | NetrcError):
            self._rest(result)
        elif isinstance(result, NoSpaceLeft):
            desk.no_room(work, result)
        elif isinstance(result, ProductionError):
            desk.fail(work, str(result))
        elif isinstance(result, BaseException):
            raise result
        else:
            desk.say(f"... Success! (run {work.run})")
            work.inputs.update(result)
            work.fetched = True
            work.move(Phase.READY)

    def _rest(self, error: ProductionError) -> None:
        """Leave the archive alone; when it is back it may have forgotten what to stage."""
        for work in self._desk.works.values():
            work.stage_again, work.waits_since = 0.0, None
        if self._archive_rest.begin(self._desk.settings.pause):
            self._desk.warn(error, "Will try again later.")

    # ----------------------------------------------------------------- space

    def _probed(self, result: Any) -> None:
        before = self._space
        say = self._desk.say
        if isinstance(result, ProbeFailed):
            self.usage, self._space = None, Space.FAILED
            if before is not Space.FAILED:
                self._desk.warn(result, "Nothing new is downloaded meanwhile.")
            return
        if isinstance(result, BaseException):
            raise result
        limit = self._desk.settings.spacelim
        self.usage = result
        self._space = Space.OK if result.fraction < limit else Space.SHORT
        if self._space is Space.SHORT:
            what = (
                f"Disk space is short: {result.fraction:.0%} of it is used "
                f"({result.source}), the limit is {limit:.0%}"
            )
            self._give_back(what)
            if before is not Space.SHORT:
                rest = "Nothing new is downloaded until there is room; running jobs go on."
                say(f"{what}. {rest}", level="warning")
        elif before is Space.SHORT:
            say("Disk space has become available.")

    def _give_back(self, reason: str) -> None:
        """Return the claims that take no space yet."""
        for work in list(self._desk.works.values()):
            if work.phase in {Phase.CLAIMED, Phase.FETCHING} or (
                work.phase is Phase.READY and not work.fetched
            ):
                self._desk.release(work, reason)
