"""Runs whose files are on tape: fetched as they arrive, and none holds up the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import Bookkeeping
from desks import Archive, Office

from production.errors import ArchiveUnavailable, NotOnDisk, TransferError
from production.manager.intake import Intake
from production.manager.work import Phase
from production.staging.archive import Arrived, Progress
from production.staging.places import Places

pytestmark = pytest.mark.slow

RUNS = (2091, 2092, 2093, 2094)


class Tapes(Archive):
    """An archive that tells which files are on tape, and keeps a note of all it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.on_tape = {name(run) for run in RUNS}
        self.staged: list[list[str]] = []
        self.looked: list[list[str]] = []
        self.sent: list[int] = []
        self.is_down = False
        self.tells = True

    def _up(self) -> None:
        if self.is_down:
            raise ArchiveUnavailable(host=self.host, what="it is down")

    def stage(self, files: Sequence[str]) -> None:
        self._up()
        self.staged.append(list(files))

    def look(self, files: Sequence[str]) -> dict[str, TransferError | None]:
        self._up()
        self.looked.append(list(files))
        on_tape = self.on_tape if self.tells else set()  # as it is at one moment
        return {file: self._trouble(file, on_tape) for file in files}

    def fetch(self, file: str, target: Path, progress: Progress, stop: threading.Event) -> Arrived:
        self._up()
        if trouble := self._trouble(file, self.on_tape):
            raise trouble
        self.sent.append(int(file[3:8]))
        return super().fetch(file, target, progress, stop)

    def _trouble(self, file: str, on_tape: set[str]) -> NotOnDisk | None:
        if file not in on_tape:
            return None
        return NotOnDisk(file=file, host=self.host, what="450")


class Desk:
    """A manager's intake on its own, turned until something has happened."""

    def __init__(self, office: Office) -> None:
        self.tapes = Tapes()
        places = Places({"tape": self.tapes}, ["tape"])
        self._office = office
        self.desk = office.open()
        self.desk.rooms = replace(self.desk.rooms, archive=places)
        self._intake = Intake(self.desk)

    def until(self, condition: Callable[[], bool]) -> None:
        def turned() -> bool:
            self._intake.look()
            self._intake.advance()
            return condition()

        self._office.until(turned)

    def until_asked_again(self) -> None:
        """Whatever has arrived is known then."""
        asked = len(self.tapes.looked)
        self.until(lambda: len(self.tapes.looked) > asked + 1)


def name(run: int) -> str:
    return f"run{run:05d}.mid"


def office(books: Bookkeeping, directory: Path, **settings: Any) -> Office:
    return Office(books, directory, runs=RUNS, transfers=1, **settings)


def test_all_are_asked_for_at_once_and_come_as_they_arrive(
    books: Bookkeeping, tmp_path: Path
) -> None:
    desk = Desk(office(books, tmp_path))
    tapes = desk.tapes
    desk.until(lambda: bool(tapes.looked))
    everything = [name(run) for run in RUNS]
    assert tapes.staged == [everything]
    assert tapes.looked[0] == everything
    desk.until(lambda: desk.desk.works[RUNS[0]].waits_for == "waits for tape")
    tapes.on_tape.discard(name(RUNS[2]))
    desk.until(lambda: tapes.sent == [RUNS[2]])
    desk.until_asked_again()
    assert tapes.looked[-1] == [file for file in everything if file != name(RUNS[2])]
    tapes.on_tape = {name(RUNS[1])}
    desk.until(lambda: len(tapes.sent) == 3)
    tapes.on_tape.clear()
    desk.until(lambda: len(tapes.sent) == 4)
    # Of those that arrived together, the one that was claimed first.
    assert tapes.sent == [RUNS[2], RUNS[0], RUNS[3], RUNS[1]]
    assert tapes.staged == [everything]
    desk.until(lambda: all(work.phase is Phase.READY for work in desk.desk.works.values()))


def test_an_archive_that_only_tells_when_it_is_to_send_is_no_obstacle(
    books: Bookkeeping, tmp_path: Path
) -> None:
    desk = Desk(office(books, tmp_path))
    desk.tapes.tells = False
    desk.tapes.on_tape.discard(name(RUNS[3]))
    desk.until(lambda: desk.tapes.sent == [RUNS[3]])
    desk.tapes.on_tape.clear()
    desk.until(lambda: len(desk.tapes.sent) == 4)


def test_what_does_not_come_is_asked_for_again_and_then_fails(
    books: Bookkeeping, tmp_path: Path
) -> None:
    books_of = office(books, tmp_path, stage_timeout=0.2, max_attempts=1)
    desk = Desk(books_of)
    tapes = desk.tapes
    late, never = name(RUNS[0]), name(RUNS[1])
    tapes.on_tape = {late, never}
    desk.until(lambda: sum(late in files for files in tapes.staged) == 2)
    tapes.on_tape.discard(late)
    desk.until(lambda: set(tapes.sent) | {RUNS[1]} == set(RUNS) or RUNS[0] not in desk.desk.works)
    sql = f"SELECT status FROM run WHERE run = {RUNS[1]}"
    desk.until(lambda: books.cell(sql) == "E")
    assert sum(never in files for files in tapes.staged) >= 2
    reason = books.cell(f"SELECT reason FROM attempt WHERE run = {RUNS[1]}")
    assert str(reason).endswith("(450); it did not arrive within the stage time-out")


def test_an_archive_that_was_down_is_asked_again(books: Bookkeeping, tmp_path: Path) -> None:
    work = office(books, tmp_path)
    desk = Desk(work)
    desk.until(lambda: bool(desk.tapes.looked))
    desk.tapes.is_down = True
    desk.until(lambda: work.said.count("it is down. Will try again later") == 1)
    desk.tapes.is_down = False
    desk.until(lambda: len(desk.tapes.staged) == 2)
    assert set(desk.tapes.staged[1]) == {name(run) for run in RUNS}
    desk.tapes.on_tape.clear()
    desk.until(lambda: len(desk.tapes.sent) == 4)
    assert work.said.count("it is down") == 1
