"""Jobs that their batch system holds: told of, waited for, never for ever."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import Bookkeeping
from desks import RUN, Office, end_badly, end_well, wait

from production.manager.desk import Desk
from production.manager.jobs import Jobs
from production.manager.work import Phase
from production.model import Claim, JobOrder, JobState


def held(books: Bookkeeping, directory: Path, **settings: Any) -> tuple[Office, Desk, Jobs]:
    """A run whose job is held from the beginning."""
    office = Office(books, directory, downloads=False, **settings)
    office.batch.end = wait
    office.batch.state, office.batch.why = JobState.HELD, "held: no disk on the node"
    desk = office.open()
    jobs = Jobs(desk)
    office.work(desk.store.claim(1, desk.settings.filter)[0], Phase.READY)
    jobs.advance()
    office.until(lambda: office.status == "R")
    return office, desk, jobs


def look(office: Office, jobs: Jobs) -> None:
    jobs.look()
    office.until(lambda: not office.desk.lanes["batch"].busy)
    office.until(lambda: not office.desk.lanes["files"].busy)


def test_it_is_said_once_and_waited_for(books: Bookkeeping, tmp_path: Path) -> None:
    office, desk, jobs = held(books, tmp_path, hold_timeout=1000.0)
    for _ in range(3):
        look(office, jobs)
    assert office.said.count(f"Run {RUN}: its job id of ") == 1
    assert office.said.count("is held: no disk on the node. It is cancelled unless it goes on") == 1
    assert office.status == "R"
    assert office.batch.cancelled == []
    office.batch.state = JobState.RUNNING  # somebody has released it
    look(office, jobs)
    end_well(office.batch.submitted[0])
    look(office, jobs)
    office.until(lambda: office.status == "F")
    assert desk.works == {}


def test_after_its_time_it_is_cancelled_and_has_failed(books: Bookkeeping, tmp_path: Path) -> None:
    office, _, jobs = held(books, tmp_path, hold_timeout=0.05, max_attempts=1)
    look(office, jobs)
    time.sleep(0.06)
    look(office, jobs)
    assert len(office.batch.cancelled) == 1
    office.batch.state, office.batch.why = JobState.GONE, "cancelled by me"
    look(office, jobs)
    office.until(lambda: office.status == "E")
    reason = books.cell("SELECT reason FROM attempt")
    assert "held: no disk on the node; it was cancelled after 0 s" in str(reason)


def test_a_job_that_is_held_again_has_its_time_again(books: Bookkeeping, tmp_path: Path) -> None:
    office, desk, jobs = held(books, tmp_path, hold_timeout=0.05)
    look(office, jobs)
    office.batch.state = JobState.PENDING
    look(office, jobs)
    assert desk.works[RUN].held_since is None
    time.sleep(0.06)
    office.batch.state = JobState.HELD
    look(office, jobs)
    assert office.batch.cancelled == []


def test_the_accounting_is_given_its_time(books: Bookkeeping, tmp_path: Path) -> None:
    office, desk, jobs = held(books, tmp_path, max_attempts=1)
    office.batch.state, office.batch.why = JobState.GONE, ""
    office.batch.accounting_lag = 1000.0
    look(office, jobs)
    look(office, jobs)
    assert office.status == "R"  # no record, and nobody says why
    office.batch.why = "over the time limit"
    look(office, jobs)
    office.until(lambda: office.status == "E")
    assert "over the time limit" in str(books.cell("SELECT reason FROM attempt"))
    assert desk.works == {}


def test_a_job_that_perhaps_never_was_needs_no_accounting(
    books: Bookkeeping, tmp_path: Path
) -> None:
    office = Office(books, tmp_path, downloads=False)
    desk = office.open()
    office.batch.accounting_lag = 1000.0
    claim: Claim = desk.store.claim(1, desk.settings.filter)[0]
    work = office.work(claim, Phase.SUBMITTING)
    work.spool.mkdir(parents=True)
    jobs = Jobs(desk)
    look(office, jobs)
    office.until(lambda: office.status == "N")
    assert "its submission was not answered" in str(books.cell("SELECT reason FROM attempt"))


def end_by_signal(job: JobOrder) -> None:
    """Leave behind what a job leaves that was ended from outside."""
    end_badly(job)
    record = job.spool / "record"
    text = record.read_text().replace("exit_code=3", "exit_code=143\nsignal=15")
    record.write_text(text.replace("reason=it is broken\n", ""))


def test_what_the_batch_system_says_of_a_job_that_it_ended(
    books: Bookkeeping, tmp_path: Path
) -> None:
    office, _, jobs = held(books, tmp_path, max_attempts=1)
    office.batch.accounting_lag = 1000.0
    end_by_signal(office.batch.submitted[0])
    office.batch.state, office.batch.why = JobState.GONE, ""
    look(office, jobs)
    look(office, jobs)
    assert office.status == "R"  # nobody has said why yet
    office.batch.why = "cancelled by bob"
    look(office, jobs)
    office.until(lambda: office.status == "E")
    reason = str(books.cell("SELECT reason FROM attempt"))
    assert reason.startswith("killed by SIGTERM: ended from outside")
    assert reason.endswith("; the batch system says: cancelled by bob")


def test_a_job_that_was_ended_is_not_waited_for_without_end(
    books: Bookkeeping, tmp_path: Path
) -> None:
    office, _, jobs = held(books, tmp_path, max_attempts=1)
    office.batch.accounting_lag = 0.05
    end_by_signal(office.batch.submitted[0])
    office.batch.state, office.batch.why = JobState.GONE, ""
    look(office, jobs)
    time.sleep(0.06)
    look(office, jobs)
    office.until(lambda: office.status == "E")
    assert "batch system says" not in str(books.cell("SELECT reason FROM attempt"))


def test_a_job_that_is_put_back_into_its_queue_is_taken_out(
    books: Bookkeeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was started, so another start would only find that."""
    office, _, jobs = held(books, tmp_path, max_attempts=1)
    office.batch.accounting_lag = 1000.0
    work = office.desk.works[RUN]
    end_by_signal(office.batch.submitted[0])
    (work.paths.done / work.spool.name).touch()
    office.batch.why = ""
    monkeypatch.setattr(office.batch, "poll", lambda _: {work.name: JobState.PENDING})
    look(office, jobs)
    office.until(lambda: office.status == "E")
    assert office.batch.cancelled == [work.name]
    reason = str(books.cell("SELECT reason FROM attempt"))
    assert reason.endswith("the batch system says: put back into its queue to be started again")
