"""What users ask of this manager while it works: taken up once a cycle, done, and answered.

Whatever door a request comes in by, it is a row of the table ``request`` (production/store/
requests.py) in the end, so that all who share the database can see who asked for what.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from production.errors import BatchError, CommandError, UsageError
from production.manager.desk import Desk
from production.manager.work import WITH_JOB
from production.store import requests
from production.store.requests import Answer, Request
from production.units import counted, parse_fraction

MOST = 100_000  # jobs or runs at a time


class Steering:
    """Does what is asked; see VERBS for what that can be."""

    def __init__(self, desk: Desk, interrupt: Callable[[int], None]) -> None:
        self._desk = desk
        self._interrupt = interrupt
        self._under_way: set[int] = set()  # requests that wait for the batch system
        self._verbs: Mapping[str, Callable[[Request], Answer | None]] = {
            "pause": self._pause,
            "resume": self._resume,
            "nproc": lambda request: self._set_count("nproc", request.argument, 1),
            "nprep": lambda request: self._set_count("nprep", request.argument, 0),
            "spacelim": self._set_space_limit,
            "queue": self._queue,
            "stop": self._stop,
            "leave": self._leave,
            "kill": self._kill,
        }

    @property
    def busy(self) -> bool:
        """Whether an answer is still owed."""
        return bool(self._under_way)

    def look(self) -> None:
        """Once a cycle: take up what has been asked since."""
        desk = self._desk
        for request in requests.unanswered(desk.db, desk.store.manager):
            if request.id in self._under_way:
                continue
            words = f"{request.verb} {request.argument}".strip()
            desk.say(f"User {request.user} on {request.host} asks for: {words}")
            verb = self._verbs.get(request.verb)
            said = verb(request) if verb else Answer(False, f"'{request.verb}' is not known here")
            if said is None:
                self._under_way.add(request.id)
            else:
                self._answer(request, said)

    def _answer(self, request: Request, said: Answer) -> None:
        self._under_way.discard(request.id)
        self._desk.say(said.text, level="info" if said.done else "warning")
        requests.answer(self._desk.db, request.id, said)

    # ----------------------------------------------------------------- what can be asked

    def _pause(self, request: Request) -> Answer:
        self._desk.paused = True
        self._desk.tell(self._desk.notices.paused(f"by user {request.user} on {request.host}"))
        return Answer(True, f"Paused: nothing new is begun; {self._jobs()} left running")

    def _resume(self, _: Request) -> Answer:
        if self._desk.closing:
            return Answer(False, f"Nothing new is begun any more: {self._desk.closing}")
        self._desk.paused = False
        return Answer(True, "Resumed")

    def _set_count(self, name: str, text: str, least: int) -> Answer:
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else -1
        if not least <= value <= MOST:
            return Answer(False, f"'{text}' is not a number from {least} to {MOST}")
        return self._set(name, value)

    def _set_space_limit(self, request: Request) -> Answer:
        try:
            return self._set("spacelim", parse_fraction(request.argument))
        except ValueError as problem:
            return Answer(False, str(problem))

    def _set(self, name: str, value: float) -> Answer:
        before = getattr(self._desk.settings, name)
        changed: dict[str, Any] = {name: value}
        self._desk.settings = replace(self._desk.settings, **changed)
        return Answer(True, f"{name} is now {value:g}, was {before:g}")

    def _stop(self, request: Request) -> Answer:
        self._desk.close(f"stopped by user {request.user} on {request.host}")
        return Answer(True, f"Begins nothing more, and ends after its {self._jobs()}")

    def _leave(self, request: Request) -> Answer:
        self._desk.leaving = True
        self._desk.closing = f"left by user {request.user} on {request.host}"
        return Answer(True, f"Ends, and leaves {self._jobs()} to the next manager")

    def _kill(self, _: Request) -> Answer:
        # After this turn, so that the answer is recorded before.
        self._desk.results.put(lambda: self._interrupt(signal.SIGTERM))
        return Answer(True, f"Cancels its {self._jobs()}, returns its runs, and ends")

    def _queue(self, request: Request) -> Answer | None:
        """Move what is pending; when the batch system does not mind, send the others after it."""
        desk = self._desk
        queue = request.argument
        needs = replace(desk.job.requirements, queue=queue)
        batch = desk.rooms.batch
        works = [work for work in desk.works.values() if work.phase in WITH_JOB]
        handles = [work.handle for work in works if work.batch is batch]

        def moved(result: Any) -> None:
            if isinstance(result, BatchError | CommandError | UsageError):
                self._answer(
                    request, Answer(False, f"{str(result).rstrip('.')}. Nothing was changed")
                )
                return
            if isinstance(result, BaseException):
                raise result
            desk.job = replace(desk.job, requirements=needs)
            went = f"{len(result)} of {counted(len(handles), 'job')}"
            text = f"Waiting in queue {queue} now: {went}; new jobs go there as well"
            self._answer(request, Answer(True, text))

        def move() -> list[str]:
            batch.check(needs)
            return batch.move(handles, queue)

        desk.lanes["batch"].do(move, moved)
        return None

    def _jobs(self) -> str:
        return counted(sum(work.phase in WITH_JOB for work in self._desk.works.values()), "job")
