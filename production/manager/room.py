"""Room for more: asks how much space is used, reserves what will be, and says what may be begun.

What is fetched, and what jobs will write, is reserved before (production/space/reserve.py), so that
all that is under way together stays below ``spacelim``.  A file's size is what the archive tells,
or, until it does, what the files before it had.  The size of a run's outputs is learnt from the
finished runs of the production.  What is not known counts as nothing.

Jobs of the user's other managers of this database are reserved for in the same way; what they are
fetching shows in what is used.
"""

from __future__ import annotations

import time
from collections import deque
from enum import StrEnum
from typing import Any

from production.errors import ProbeFailed
from production.identity import current_user
from production.manager.desk import Desk
from production.manager.work import Phase, Work
from production.model import Claim, Usage
from production.model import Space as Found
from production.space.reserve import NOTHING, Need, Owner, Reservations
from production.store import sizes

ASKING_SHARE = 10  # a probe that took a second is not asked again for 10
FULL = 0.98  # of a limit: what jobs write may not fit any more
SILENCE = 900.0  # seconds without an answer until a probe counts as failed; longer than any takes
LEARN_EVERY = 10.0  # seconds
REMEMBERED = 200  # files whose sizes are remembered
JOB_FILES = 12  # in a job's spool (production/job, sge_scripts/job.sh) and its logs

_BEGUN = frozenset(
    {Phase.FETCHING, Phase.READY, Phase.PREPARING, Phase.SUBMITTING, Phase.RUNNING, Phase.ENDING}
)
_OTHERS = (None, "jobs of other managers")
_INPUT, _OUTPUT = "input", "output"
_WAITS = "waits for space"


class State(StrEnum):
    """What is known about the space."""

    UNKNOWN = "unknown"  # not asked yet
    OK = "ok"
    SHORT = "short"  # over the limit: nothing new until there is room
    FAILED = "failed"  # the probe failed: nothing new until it answers


class MustWait(Exception):  # noqa: N818 - nothing is wrong
    """A file turned out to be larger than what is left; nothing of it has been fetched."""


class Room:
    """The space that one manager may still use."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.usage: Usage | None = None  # the fullest limit, as it was told last
        self._state = State.UNKNOWN
        self._remark = ""
        self._reservations = Reservations()
        self._asked = 0.0  # monotonic
        self._ask_again = 0.0  # monotonic
        self._learnt = 0.0  # monotonic; when
        self._outputs = 0  # expected bytes of one run's outputs
        self._inputs: deque[int] = deque(maxlen=REMEMBERED)  # bytes of one run's files each
        self._waiting: set[Claim] = set()

    # ----------------------------------------------------------------- asking

    def look(self) -> None:
        """Once a cycle: ask, not too often where the answer takes long."""
        lane = self._desk.lanes["probe"]
        now = time.monotonic()
        if lane.busy:
            if now - self._asked > SILENCE and self._state is not State.FAILED:
                what = f"there was no answer within {SILENCE:.0f} s"
                self._failed(ProbeFailed(where=self._desk.paths.data, what=what))
            return
        if now < self._ask_again:
            return
        self._waiting &= {work.claim for work in self._desk.works.values()}
        self._learn(now)
        self._reservations.begin_probe(self._written())
        self._asked = now
        lane.do(self._desk.rooms.probe.probe, self._probed)

    def _probed(self, result: Any) -> None:
        now = time.monotonic()
        self._ask_again = now + ASKING_SHARE * (now - self._asked)
        if isinstance(result, ProbeFailed):
            self._failed(result)
        elif isinstance(result, BaseException):
            raise result
        else:
            self._found(result)

    def _failed(self, trouble: ProbeFailed) -> None:
        before, self._state = self._state, State.FAILED
        self.usage, self._desk.disk_is_full = None, False
        self._reservations.end_probe((), 0.0)  # no limit is known
        if before is not State.FAILED:
            self._desk.warn(trouble, "Nothing new is downloaded meanwhile.")

    def _found(self, space: Found) -> None:
        before, say = self._state, self._desk.say
        limit = self._desk.settings.spacelim
        self._reservations.end_probe(space.limits, limit)
        fullest = self.usage = space.fullest
        self._state = State.OK if fullest.fraction < limit else State.SHORT
        used = f"{fullest.fraction:.0%} of the space is used ({fullest.source})"
        self._desk.detail(used, about="space")
        # Not unless nothing new is begun: what fails then for another reason would never count.
        self._desk.disk_is_full = self._state is State.SHORT and fullest.fraction >= FULL
        if space.remark != self._remark:
            self._remark = space.remark
            if space.remark:
                say(space.remark)
        if self._state is State.SHORT:
            what = (
                f"Disk space is short: {fullest.fraction:.0%} of it is used "
                f"({fullest.source}), the limit is {limit:.0%}"
            )
            self._give_back(what)
            if before is not State.SHORT:
                rest = "Nothing new is downloaded until there is room; running jobs go on."
                say(f"{what}. {rest}", level="warning")
                self._desk.tell(self._desk.notices.paused(what))
        elif before is State.SHORT:
            say("Disk space has become available.")

    def _give_back(self, reason: str) -> None:
        """Return the claims that take no space yet."""
        for work in list(self._desk.works.values()):
            if work.phase in {Phase.CLAIMED, Phase.FETCHING} or (
                work.phase is Phase.READY and not work.fetched
            ):
                self._desk.release(work, reason)

    # ----------------------------------------------------------------- what may be begun

    def may_begin(self, *, downloads: bool) -> bool:
        """Whether anything new may be begun; ``downloads``: whether that brings files here."""
        return self._state is State.OK or (self._state is State.FAILED and not downloads)

    def places(self, most: int) -> int:
        """How many runs without downloads may be claimed: those whose outputs have room."""
        return self._reservations.places(self._outputs_of_one(), most)

    def promise(self, work: Work) -> None:
        """Reserve for the outputs of a run that needs no download."""
        self._reservations.hold((work.claim, _OUTPUT), self._outputs_of_one())

    def admit(self, work: Work) -> bool:
        """Reserve for a run that is about to be fetched; False: it has to wait for room."""
        needs: dict[Owner, Need] = {
            (work.claim, _INPUT): self._input_of(work),
            (work.claim, _OUTPUT): self._outputs_of_one(),
        }
        fits = self._reservations.take(needs)
        if fits:
            self._waiting.discard(work.claim)
            if work.waits_for == _WAITS:
                work.waits_for = ""
        else:
            self._must_wait(work, sum(needs.values(), NOTHING))
        return fits

    def expect(self, work: Work, file: str, done: int, size: int | None) -> None:
        """In the transfer's thread: so much of a file has come, and this is its size.

        Raises MustWait when it turns out, before any of it has come, to be more than what is left.
        """
        if size is None or work.sizes.get(file) == size:
            return
        work.sizes[file] = size if done < size else 0  # a link, which takes no space
        if not self._reservations.take({(work.claim, _INPUT): self._input_of(work)}):
            raise MustWait

    def put_off(self, work: Work) -> None:
        """Nothing of the run's files has stayed.

        Of a transfer that failed, parts may have: its share ends with the next probe.
        """
        for part in (_INPUT, _OUTPUT):
            self._reservations.drop((work.claim, part))

    def fetched(self, work: Work) -> None:
        """All of the run's files have come."""
        if work.sizes:
            self._inputs.append(sum(work.sizes.values()))

    def _must_wait(self, work: Work, need: Need) -> None:
        work.waits_for = _WAITS
        left = self._reservations.left()
        if not self._waiting and left is not None:
            self._desk.say(
                f"Run {work.run} and those after it wait for space: {need.bytes / 1e6:.1f} MB are "
                f"needed for its files and outputs, {left.used / 1e6:.1f} MB are left below the "
                f"limit ({left.source}); jobs and transfers that are under way go on"
            )
        self._waiting.add(work.claim)

    # ----------------------------------------------------------------- what things need

    def _input_of(self, work: Work) -> Need:
        files = len(work.paths.recipe.archive_inputs)
        if work.found is not None:
            files = sum(map(len, work.found.values()))
        size = sum(work.sizes.values())
        if len(work.sizes) < files:
            size = max(size, sizes.expected(sorted(self._inputs)))
        return Need(size, files + 1)

    def _outputs_of_one(self) -> Need:
        return Need(self._outputs, len(self._desk.paths.recipe.outputs) + JOB_FILES)

    def _written(self) -> list[Owner]:
        """For whom nothing more will be written; what jobs in hand will write is reserved."""
        begun = {work.claim: work for work in self._desk.works.values() if work.phase in _BEGUN}
        for claim in begun:
            self._reservations.hold((claim, _OUTPUT), self._outputs_of_one())
        over = []
        for owner in self._reservations.owners():
            if owner == _OTHERS:
                continue
            whom, part = owner
            work = begun.get(whom) if isinstance(whom, Claim) else None
            if work is None or (part == _INPUT and work.phase is not Phase.FETCHING):
                over.append(owner)
        return over

    def _learn(self, now: float) -> None:
        if self._learnt and now - self._learnt < LEARN_EVERY:
            return
        self._learnt = now
        desk = self._desk
        if found := sizes.output_sizes(desk.db, desk.production.id):
            self._outputs = sizes.expected(found)
        others = NOTHING
        for production, jobs in sizes.jobs_of_others(
            desk.db, current_user(), desk.store.manager
        ).items():
            others += Need(sizes.expected(sizes.output_sizes(desk.db, production)), 0) * jobs
        self._reservations.hold(_OTHERS, others)
