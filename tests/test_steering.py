"""What people ask of running managers through the database is done, and truthfully answered."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from bookkeeping import Bookkeeping
from desks import Office, end_well, wait

from production.cli import main
from production.errors import Interrupted
from production.identity import this_process
from production.manager import loop
from production.manager.loop import Manager
from production.model import JobState
from production.store import interventions, managers, requests
from production.store.choice import RunChoice
from production.store.connection import Database
from production.store.reports.standing import workers
from production.store.requests import Answer

T = TypeVar("T")
RUNS = range(1, 21)
LONGEST = 60.0  # seconds; only for the day on which something does not happen


@pytest.fixture
def office(books: Bookkeeping, tmp_path: Path) -> Office:
    """Twenty runs, three at a time, whose jobs wait in the queue until a test ends them."""
    office = Office(books, tmp_path, downloads=False, runs=RUNS, nproc=3, nprep=2, pause=0.02)
    office.batch.end = wait
    office.batch.state = JobState.PENDING
    return office


class Colleague:
    """Somebody else's session with the same database, beside a manager that works."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.db = Database(office.books.path)

    def ask(self, verb: str, argument: str = "") -> Answer:
        """Ask the manager, and wait for what it says."""
        (manager,) = self.until(lambda: workers(self.db, self.office.production))
        (asked,) = requests.ask(self.db, [manager.id], verb, argument, this_process())
        return self.until(lambda: requests.answers(self.db, [asked]))[asked]

    def until_submitted(self, jobs: int) -> None:
        """Wait until so many jobs have been submitted."""
        self.until(lambda: len(self.office.batch.submitted) >= jobs)

    def let_all_end(self) -> None:
        """Have all jobs end well, now and from now on."""
        self.office.batch.end = end_well
        for job in list(self.office.batch.submitted):
            # One that was submitted only now has ended by itself, and may be cleared away.
            with contextlib.suppress(FileNotFoundError):
                if not (job.spool / "record").exists():
                    end_well(job)
        self.office.batch.state = JobState.GONE  # only now: none is gone that left no record

    def until(self, look: Callable[[], T]) -> T:
        """Wait for what ``look`` finds."""
        deadline = time.monotonic() + LONGEST
        while not (found := look()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return found


def beside(office: Office, story: Callable[[Colleague], None]) -> None:
    """Let a manager work to its end while somebody does something else."""
    troubles: list[BaseException] = []
    manager = Manager(office.desk)

    def tell() -> None:
        colleague = Colleague(office)
        try:
            story(colleague)
        except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
            troubles.append(error)
            office.desk.results.put(lambda: manager.interrupt(15))
        finally:
            colleague.db.close()

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        manager.run()
    finally:
        thread.join()
        if troubles:
            raise troubles[0]


# ------------------------------------------------------------------------------- what can be asked


def test_a_pause_and_its_end(office: Office) -> None:
    def story(colleague: Colleague) -> None:
        colleague.until_submitted(3)
        what = "Paused: nothing new is begun; 3 jobs left running"
        assert colleague.ask("pause") == Answer(True, what)
        colleague.let_all_end()
        books = colleague.db
        colleague.until(lambda: books.rows("SELECT 1 FROM run WHERE status = 'F' LIMIT 1 OFFSET 2"))
        time.sleep(0.1)
        assert len(office.batch.submitted) == 3
        assert colleague.ask("resume") == Answer(True, "Resumed")

    beside(office, story)
    assert office.books.cell("SELECT count(*) FROM run WHERE status = 'F'") == len(RUNS)


def test_more_jobs_at_a_time(office: Office) -> None:
    def story(colleague: Colleague) -> None:
        colleague.until_submitted(3)
        assert colleague.ask("nproc", "7") == Answer(True, "nproc is now 7, was 3")
        assert colleague.ask("nprep", "0") == Answer(True, "nprep is now 0, was 2")
        assert colleague.ask("spacelim", "80%") == Answer(True, "spacelim is now 0.8, was 0.9")
        colleague.until_submitted(7)
        time.sleep(0.1)
        assert len(office.batch.submitted) == 7
        colleague.let_all_end()

    beside(office, story)


@pytest.mark.parametrize(
    ("verb", "argument", "what"),
    [
        ("nproc", "0", "'0' is not a number from 1 to 100000"),
        ("nproc", "many", "'many' is not a number"),
        ("nproc", "1" * 400, "is not a number"),
        ("nprep", "-1", "'-1' is not a number from 0"),
        ("spacelim", "200%", "'200%' is not a limit"),
        ("dance", "", "'dance' is not known here"),
        ("queue", "nowhere", "there is no queue nowhere"),
    ],
)
def test_what_makes_no_sense_changes_nothing(
    office: Office, verb: str, argument: str, what: str
) -> None:
    before = office.desk.settings

    def story(colleague: Colleague) -> None:
        colleague.until_submitted(1)
        said = colleague.ask(verb, argument)
        assert not said.done
        assert what in said.text
        assert office.desk.settings == before
        colleague.let_all_end()

    beside(office, story)
    assert {job.requirements.queue for job in office.batch.submitted} == {None}
    assert office.books.cell("SELECT count(*) FROM run WHERE status = 'F'") == len(RUNS)


def test_another_queue_for_waiting_and_future_jobs(office: Office) -> None:
    office.batch.queues = ("long",)

    def story(colleague: Colleague) -> None:
        colleague.until_submitted(3)
        said = colleague.ask("queue", "long")
        what = "Waiting in queue long now: 3 of 3 jobs; new jobs go there as well"
        assert said == Answer(True, what)
        colleague.let_all_end()

    beside(office, story)
    queues = [job.requirements.queue for job in office.batch.submitted]
    assert queues == [None] * 3 + ["long"] * 17


def test_jobs_that_run_cannot_be_moved_and_that_is_said(office: Office) -> None:
    office.batch.queues = ("long",)
    office.batch.state = JobState.RUNNING

    def story(colleague: Colleague) -> None:
        colleague.until_submitted(3)
        said = colleague.ask("queue", "long")
        assert said.text.startswith("Waiting in queue long now: 0 of 3 jobs")
        colleague.let_all_end()

    beside(office, story)


def test_a_manager_that_is_to_stop_ends_with_its_last_job(office: Office) -> None:
    def story(colleague: Colleague) -> None:
        colleague.until_submitted(3)
        said = colleague.ask("stop")
        what = "Begins nothing more, and ends after its 3 jobs"
        assert said == Answer(True, what)
        assert not colleague.ask("resume").done
        colleague.let_all_end()

    beside(office, story)
    assert office.books.cell("SELECT count(*) FROM run WHERE status = 'F'") == 3
    assert office.books.cell("SELECT count(*) FROM run WHERE status = 'N'") == 17
    assert office.desk.closing.startswith("stopped by user ")
    assert office.books.cell("SELECT count(*) FROM attempt WHERE outcome = 'failed'") == 0


def test_a_manager_that_is_to_die_rolls_back(office: Office) -> None:
    def story(colleague: Colleague) -> None:
        colleague.until_submitted(3)
        said = colleague.ask("kill")
        assert said == Answer(True, "Cancels its 3 jobs, returns its runs, and ends")

    with pytest.raises(Interrupted) as ended:
        beside(office, story)
    assert ended.value.exit_code == 143
    assert len(office.batch.cancelled) == 3
    assert office.books.cell("SELECT count(*) FROM run WHERE status = 'N'") == len(RUNS)


def test_a_run_that_somebody_gives_back_does_not_stay(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "REPAIR_EVERY", 0.1)
    whose = "SELECT run FROM run WHERE status = 'C' ORDER BY run DESC LIMIT 1"

    def story(colleague: Colleague) -> None:
        colleague.until_submitted(3)
        run = colleague.until(lambda: colleague.db.rows(whose))[0][0]  # waits for a job's end
        (asked,) = interventions.release(
            colleague.db, office.production, RunChoice(runs=(run,)), this_process()
        )
        assert asked.released
        colleague.until(lambda: any(f"Run {run} was " in said for said in office.said.messages))
        colleague.let_all_end()

    beside(office, story)
    assert office.books.cell("SELECT count(*) FROM run WHERE status = 'F'") == len(RUNS)
    assert office.books.cell("SELECT count(*) FROM attempt WHERE outcome = 'rolled back'") == 1


def test_who_asked_for_what_is_kept(office: Office) -> None:
    def story(colleague: Colleague) -> None:
        colleague.until_submitted(1)
        colleague.ask("nproc", "5")
        colleague.let_all_end()

    beside(office, story)
    who = this_process()
    sql = "SELECT verb, argument, user, host, done, answer, answered IS NOT NULL FROM request"
    start = '{"dataset": [], "tranche": [], "quality": ["gold"], "nproc": 3, "spacelim": 0.9}'
    assert office.books.rows(sql) == [
        ("start", start, who.user, who.host, 1, "Started", 1),
        ("nproc", "5", who.user, who.host, 1, "nproc is now 5, was 3", 1),
    ]
    assert office.said.count(f"User {who.user} on {who.host} asks for: nproc 5") == 1


def test_what_was_asked_of_a_manager_that_has_ended_stays_unanswered(office: Office) -> None:
    office.batch.end = end_well
    office.batch.state = JobState.GONE
    Manager(office.desk).run()
    assert workers(office.books.db, office.production) == []


def test_a_manager_of_a_host_that_went_down_is_asked_only_by_its_number(
    books: Bookkeeping, capsys: pytest.CaptureFixture[str]
) -> None:
    """It cannot answer, so whoever asks all managers would wait for it, and be told of failure."""
    books.label(RUNS)
    production = books.start()
    gone = replace(this_process(), host="lxplus7", boot="before it went down")
    number = managers.register(books.db, gone, production.id)
    with books.db.write() as tx:
        tx.execute("UPDATE manager SET beat_at = '2026-01-01 00:00:00.000000'")
    words = ["pause", f"--production={production.type}", f"--database={books.path}", "--wait=0"]
    assert main([*words, "--everybody"]) == 43
    assert "No such manager is at work" in capsys.readouterr().err
    assert books.cell("SELECT count(*) FROM request") == 0
    assert main([*words, f"--manager={number}"]) == 43
    assert books.column("SELECT manager FROM request") == [number]
