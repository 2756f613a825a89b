"""What displays show is found out without taking the time of the loop or of the file server."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from bookkeeping import GOLD, Bookkeeping, intended, submitted
from desks import Office

from production.manager import loop, survey
from production.manager.loop import Manager
from production.manager.survey import Survey
from production.manager.work import Work
from production.store.reports.standing import ActiveRun, active_runs
from production.view.base import Snapshot


def shown(of: Survey, own: Sequence[Work] = ()) -> dict[int, str]:
    """What each run is doing."""
    return {line.run: line.phase for line in of.snapshot(own, usage=None, spacelim=0.9).lines}


@pytest.mark.parametrize("rest", [0.0, 1e9])
def test_runs_that_are_new_are_looked_up_as_often_as_it_is_cheap(
    books: Bookkeeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: float
) -> None:
    looks = 0

    def counted(*arguments: object) -> list[ActiveRun]:
        nonlocal looks
        looks += 1
        return active_runs(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(survey, "active_runs", counted)
    monkeypatch.setattr(survey, "LOOK_REST", rest)
    office = Office(books, tmp_path, runs=range(1, 6))
    known = Survey(books.db, office.production, every=1e9)
    assert shown(known) == {}
    works = [office.work(claim) for claim in office.open().store.claim(5, GOLD)]
    for number in range(1, 6):
        phases = shown(known, works[:number])
        assert all(phases[run] == "claimed" for run in range(1, number + 1))
    assert looks == (1 if rest else 2)


def test_jobs_that_wait_are_asked_for_in_turn(
    books: Bookkeeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[Path] = Counter()
    hosts: dict[Path, str] = {}

    def host_of(spool: Path) -> str:
        asked[spool] += 1
        return hosts.get(spool, "")

    monkeypatch.setattr(survey, "MOST_ASKED", 2)
    office = Office(books, tmp_path, runs=range(1, 7))
    store = books.manager(office.production)
    spools = {}
    for claim in store.claim(6, GOLD):
        spools[claim.run] = office.paths.spool(claim)
        store.apply([replace(intended(claim), spool=spools[claim.run]), submitted(claim)])
    known = Survey(books.db, office.production, every=0.0, host_of=host_of)
    assert shown(known) == dict.fromkeys(spools, "queued")
    assert asked == Counter(spools.values())  # at first all of them
    hosts[spools[3]] = "node17"
    for _ in range(3):
        phases = shown(known)
    assert phases == {**dict.fromkeys(spools, "queued"), 3: "running"}
    assert asked == Counter(dict.fromkeys(spools.values(), 2))


def test_a_display_takes_a_tenth_of_the_loop_at_most(
    books: Bookkeeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A production with many runs makes each look at it dear."""
    office = Office(books, tmp_path)

    def compute(_snapshot: Snapshot) -> None:
        began = time.thread_time()
        while time.thread_time() - began < 0.05:
            pass

    monkeypatch.setattr(office.said, "live", True)
    monkeypatch.setattr(office.said, "update", compute)
    monkeypatch.setattr(loop, "SNAPSHOT_EVERY", 0.01)
    desk = office.open()
    manager = Manager(desk)
    before = time.monotonic()
    manager._cycle()
    assert desk.due["snapshot"] - before >= 0.5
