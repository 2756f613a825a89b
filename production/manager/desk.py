"""What all parts of a manager share: the runs in hand, the view, and how changes are recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from production.errors import NoSpaceLeft, ProductionError, SpoolTrouble
from production.manager import settle
from production.manager.lanes import Lane, Results
from production.manager.paths import Paths
from production.manager.plan import JobSettings
from production.manager.rest import LONGEST_WAIT, Rest
from production.manager.settings import Rooms, Settings
from production.manager.work import BEFORE_JOB, Phase, Work
from production.model import (
    Change,
    Failed,
    Finished,
    Intended,
    Production,
    Released,
    Status,
    Submitted,
)
from production.notify.notices import Notice, Notices
from production.store import managers, productions
from production.store.connection import Database
from production.store.runs import RunStore
from production.view.base import View


class Desk:
    """The state of one manager; everything here belongs to the loop's thread."""

    def __init__(
        self,
        db: Database,
        base: Production | None,
        paths: Paths,
        job: JobSettings,
        rooms: Rooms,
        settings: Settings,
        view: View,
    ) -> None:
        self.db = db
        self.production = paths.production
        self.base = base
        self.paths = paths
        self.job = job
        self.rooms = rooms
        self.settings = settings
        self.view = view
        self.works: dict[int, Work] = {}
        self.may_claim = True  # whether it is worth asking the database for more runs
        self.paused = False  # nothing new is begun
        self.closing = ""  # why nothing new will be begun any more
        self.leaving = False  # its jobs are left to the next manager
        self.trouble: ProductionError | None = None  # what the manager's end is to tell
        self.results = Results()
        self.lanes = {
            name: Lane(name, self.results)
            for name in ("stage", "batch", "files", "probe", "notify")
        }
        self.lanes["transfer"] = Lane("transfer", self.results, settings.transfers)
        self.lease_watch = managers.LeaseWatch()
        self.space_rest = Rest()
        self.disk_is_full = False  # as the last probe tells: jobs cannot write what they make
        self.notices = Notices(self.production.label, settings.notices)
        self.said_of_notices = ""  # the last trouble with sending them
        self.said_to_wait: set[int] = set()  # managers that were named as still holding runs
        self.store: RunStore  # from the registration on
        self.due: dict[str, float] = {}  # when the loop is to turn at the latest (monotonic)
        self._said_about: dict[str, str] = {}  # the last detail about each thing
        self._changes: list[tuple[Change, Callable[[], None]]] = []

    # ----------------------------------------------------------------- telling

    def say(self, text: str, *, level: str = "info") -> None:
        """Tell the user."""
        self.view.message(text, level=level)

    def detail(self, text: str, about: str = "") -> None:
        """Tell the user who wants to know everything; the same ``about`` one thing once only."""
        if self.settings.verbose and (not about or self._said_about.get(about) != text):
            self.say(text, level="detail")
            if about:
                self._said_about[about] = text

    def warn(self, trouble: ProductionError, outlook: str) -> None:
        """Tell the user of trouble that concerns more than one run, and what is done about it."""
        self.say(f"{str(trouble).rstrip('.')}. {outlook}", level="warning")

    def tell(self, notice: Notice | None) -> None:
        """Have those told who do not look; trouble with that is told once, and is no more."""

        def told(result: Any) -> None:
            trouble = "" if result is None else str(result)
            if trouble and trouble != self.said_of_notices:
                self.say(trouble, level="warning")
            self.said_of_notices = trouble

        if notice is not None:
            self.lanes["notify"].do(lambda: self.rooms.herald.send(notice), told)

    def wake_at(self, what: str, when: float | None) -> None:
        """Have the loop turn at ``when`` (monotonic) at the latest; None: no more for ``what``."""
        self.due.pop(what, None)
        if when is not None:
            self.due[what] = when

    def counts(self) -> dict[Status, int]:
        """Where the production's runs stand."""
        return productions.counts(self.db, self.production.id)

    # ----------------------------------------------------------------- recording

    def record(self, change: Change, then: Callable[[], None] = lambda: None) -> None:
        """Have ``change`` recorded with the others of this turn; ``then`` if it was accepted."""
        self._changes.append((change, then))

    def flush(self) -> None:
        """Record what has been collected, which may lead to more."""
        while self._changes:
            changes = list(self._changes)
            lost = set(self.store.apply([change for change, _ in changes]))
            del self._changes[: len(changes)]  # only now: an interrupted write is still owed
            for change, then in changes:
                if change.claim not in lost:
                    self.detail(_course(change))
                    then()
                    continue
                work = self.works.get(change.claim.run)
                if work is not None and work.claim == change.claim:
                    self.drop(work)

    def take(self, work: Work) -> None:
        """Take a run in hand."""
        if before := self.works.get(work.run):  # given back by hand, and claimed again
            self.drop(before)
        self.works[work.run] = work

    def drop(self, work: Work) -> None:
        """Let go of a run that somebody else has taken over, and touch nothing that is theirs."""
        self.say(f"Run {work.run} was taken over by somebody else", level="warning")
        work.stop.set()
        del self.works[work.run]

    def close(self, why: str) -> None:
        """Begin nothing more: return what has no job yet, and end when the last job has ended."""
        self.closing = why
        for work in list(self.works.values()):
            if work.phase in BEFORE_JOB:
                self.release(work, why)

    # ----------------------------------------------------------------- how attempts end

    def fail(self, work: Work, reason: str) -> None:
        """End an attempt that got into trouble before its job ran."""
        self._give_up(work, self.failure(work, reason))

    def release(self, work: Work, reason: str) -> None:
        """Return a claim that has no job, without blame."""
        self._give_up(work, Released(work.claim, reason))

    def no_room(self, work: Work, trouble: NoSpaceLeft) -> None:
        """Return a claim for which there is no space, and claim nothing for a while."""
        # Runs that fail while it rests were on their way before: one trouble, not many.
        if not self.space_rest.resting and self.space_rest.begin(self.settings.pause):
            self.warn(trouble, "Will try again later.")
        self.release(work, str(trouble))

    def failure(self, work: Work, reason: str) -> Failed:
        """The change that ends an attempt as failed."""
        return Failed(work.claim, reason, self.wait_after(work), self.settings.max_attempts)

    def wait_after(self, work: Work) -> float:
        """Seconds before a run that fails now is tried again."""
        first = self.settings.back_off
        return float(min(first * 2**work.claim.failures, max(first, LONGEST_WAIT)))

    def _give_up(self, work: Work, change: Change) -> None:
        def tidy() -> None:
            self._tidy(lambda: settle.discard(work), lambda: self.conclude(work, change))

        if work.phase is Phase.FETCHING:  # no file is to appear after its directory is gone
            work.after_transfer = tidy
        work.move(Phase.ENDING)
        work.stop.set()
        if work.after_transfer is None:
            tidy()

    def conclude(self, work: Work, change: Change) -> None:
        """Record how the attempt ended, tell the user, and remove the spool."""

        def recorded() -> None:
            if isinstance(change, Failed):
                last = work.claim.failures + 1 >= change.max_attempts
                again = "no attempts left" if last else f"next try in {change.wait:.0f} s"
                self.say(f"Failed run: {work.run}: {change.reason} ({again})", level="warning")
                self.tell(self.notices.failed(work.run, change.reason))
            elif isinstance(change, Released):
                self.say(f"Released run: {work.run}: {change.reason}")
            else:
                self.say(f"Finished run: {work.run}")
                self.tell(self.notices.finished())
            if self.works.get(work.run) is work:
                del self.works[work.run]
            self.may_claim = True
            self._tidy(lambda: settle.discard_spool(work))

        self.record(change, recorded)

    def _tidy(self, action: Callable[[], None], then: Callable[[], None] = lambda: None) -> None:
        """Remove files; one that cannot be removed is worth a word, not a failure."""

        def done(result: Any) -> None:
            if isinstance(result, SpoolTrouble):
                self.say(str(result), level="warning")
            elif isinstance(result, BaseException):
                raise result
            then()

        self.lanes["files"].do(action, done)


def _course(change: Change) -> str:
    """What was recorded."""
    match change:
        case Intended():
            what = f"a job is about to be submitted by {change.batch}, spool {change.spool}"
        case Submitted():
            what = f"C to R, job {change.job}"
        case Finished():
            what = f"R to F, on {change.record.host}"
        case Failed():
            what = f"failed, to N or, from failure {change.max_attempts} on, to E"
        case Released():
            what = "back to N, without blame"
    return f"Recorded: run {change.claim.run}, attempt {change.claim.attempt}: {what}"
