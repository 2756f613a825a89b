"""A broken program does not burn through all runs, and submissions keep to their rate."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from bookkeeping import Bookkeeping
from desks import Office, end_badly, end_well

from production.batch.base import Answer
from production.errors import SubmissionRefused, TooManyFailures
from production.manager import throttle
from production.manager.loop import Manager
from production.manager.throttle import FailureWatch, RateLimit
from production.model import JobOrder, JobState
from production.units import parse_failures, parse_rate

RUNS = range(1, 41)


def office(books: Bookkeeping, directory: Path, **settings: object) -> Office:
    """Forty runs, three at a time."""
    chosen = {"nproc": 3, "nprep": 2, "pause": 0.01, **settings}
    return Office(books, directory, downloads=False, runs=RUNS, **chosen)


# ------------------------------------------------------------------------------- failures


def test_many_failures_in_a_row_end_submission(books: Bookkeeping, tmp_path: Path) -> None:
    broken = office(books, tmp_path, max_failures=5)
    broken.batch.end = end_badly
    Manager(broken.desk).run()
    trouble = broken.desk.trouble
    assert isinstance(trouble, TooManyFailures)
    assert trouble.exit_code == 42
    assert "Too many have failed: 5 jobs in a row, the last one run " in str(trouble)
    assert "it is broken" in str(trouble)
    failed = books.cell("SELECT count(*) FROM attempt WHERE outcome = 'failed'")
    assert 5 <= failed <= 5 + 3  # those that had been submitted
    assert len(broken.batch.submitted) == failed
    assert books.cell("SELECT count(*) FROM run WHERE status = 'N'") == len(RUNS)
    assert broken.said.count("Nothing more was submitted.") == 1
    assert broken.said.count("Jobs that run go on.") == 1


def test_jobs_that_run_go_on_after_too_many_failures(books: Bookkeeping, tmp_path: Path) -> None:
    mixed = office(books, tmp_path, max_failures=2)
    mixed.batch.state = JobState.RUNNING

    def end(job: JobOrder) -> None:
        if job.run == 1:
            threading.Timer(0.5, end_well, [job]).start()
        else:
            end_badly(job)

    mixed.batch.end = end
    Manager(mixed.desk).run()
    assert mixed.desk.trouble is not None
    assert books.cell("SELECT status FROM run WHERE run = 1") == "F"


def test_refused_submissions_count_as_well(books: Bookkeeping, tmp_path: Path) -> None:
    refused = office(books, tmp_path, max_failures=4)

    def submit(jobs: list[JobOrder]) -> list[SubmissionRefused]:
        return [SubmissionRefused(system="local", what="no such queue") for _ in jobs]

    refused.batch.submit = submit  # type: ignore[method-assign,assignment]
    Manager(refused.desk).run()
    assert "no such queue" in str(refused.desk.trouble)
    assert 4 <= books.cell("SELECT count(*) FROM attempt WHERE outcome = 'failed'") <= 7


def test_a_failed_run_now_and_then_is_no_matter(books: Bookkeeping, tmp_path: Path) -> None:
    well = office(books, tmp_path, max_failures=3, max_attempts=1)
    well.batch.end = lambda job: end_badly(job) if job.run % 3 == 0 else end_well(job)
    Manager(well.desk).run()
    assert well.desk.trouble is None
    assert books.cell("SELECT count(*) FROM run WHERE status = 'E'") == 13
    assert books.cell("SELECT count(*) FROM run WHERE status = 'F'") == 27


def test_a_share_is_looked_at_when_enough_jobs_have_ended() -> None:
    watch = FailureWatch(0.25)
    for ended in range(1, throttle.ENOUGH):
        watch.count(ok=False)
        assert not watch.verdict, ended
    watch.count(ok=False)
    assert watch.verdict == f"{throttle.ENOUGH} of {throttle.ENOUGH} jobs"
    few = FailureWatch(0.25)
    for number in range(100):
        few.count(ok=number % 4 != 3)
        assert not few.verdict


@pytest.mark.parametrize(("text", "limit"), [("1", 1), ("20", 20), ("25%", 0.25), ("0.5 %", 0.005)])
def test_limits_of_failures(text: str, limit: float) -> None:
    assert parse_failures(text) == limit


@pytest.mark.parametrize("text", ["", "0", "-1", "100%", "0%", "0.5", "many", "1e3", "٣"])
def test_what_is_no_limit_of_failures(text: str) -> None:
    with pytest.raises(ValueError, match="is no limit of failures: write a number"):
        parse_failures(text)


# ------------------------------------------------------------------------------- rates


def test_no_more_jobs_than_the_rate_allows(
    books: Bookkeeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = office(books, tmp_path, max_submit_rate=40.0, nproc=40, nprep=0)
    times: list[float] = []
    submit = slow.batch.submit

    def timed(jobs: list[JobOrder]) -> list[Answer]:
        times.extend(time.monotonic() for _ in jobs)
        return submit(jobs)

    monkeypatch.setattr(slow.batch, "submit", timed)
    monkeypatch.setattr(throttle.RateLimit, "__init__", _small_start(RateLimit.__init__))
    Manager(slow.desk).run()
    assert len(times) == len(RUNS)
    # The first at once, each other one a fortieth of a second later than the one before.
    assert times[-1] - times[0] >= (len(RUNS) - 1) / 40 - 0.1


def _small_start(init: object) -> object:
    """Of a rate limit that lets one job go at once instead of a second's worth."""

    def start(self: RateLimit, rate: float | None) -> None:
        init(self, rate)  # type: ignore[operator]
        self._saved = self._most = 1.0

    return start


def test_a_seconds_worth_goes_at_once_and_then_no_more() -> None:
    limit = RateLimit(5.0)
    assert limit.allowed(100) == 5
    limit.take(5)
    assert limit.allowed(100) == 0
    assert limit.next > time.monotonic()


def test_slow_rates_let_one_go() -> None:
    limit = RateLimit(1 / 3600)
    assert limit.allowed(100) == 1
    limit.take(1)
    assert limit.allowed(100) == 0
    assert limit.next - time.monotonic() > 3000


def test_without_a_limit_all_go() -> None:
    limit = RateLimit(None)
    limit.take(1000)
    assert limit.allowed(1000) == 1000


@pytest.mark.parametrize(
    ("text", "rate"),
    [("5", 5.0), ("0.5/s", 0.5), ("30/m", 0.5), ("1800 / H", 0.5), ("1/d", 1 / 86400)],
)
def test_rates(text: str, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "0", "-1", "5/y", "/m", "fast", "1e3"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate: write 5"):
        parse_rate(text)
