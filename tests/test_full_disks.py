"""Disks that are full and space that cannot be found out: nobody's fault, and it passes."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from bookkeeping import GOLD, Bookkeeping
from desks import RUN, Office, end_badly
from job_orders import Workshop, until

from production.batch import local
from production.errors import NoSpaceLeft, ProbeFailed
from production.job.orders import write_orders
from production.manager import room
from production.manager.intake import Intake
from production.manager.jobs import Jobs
from production.manager.work import Phase
from production.model import Claim
from production.staging.archive import Arrived, Progress
from production.staging.one_fetch import BeingFetched
from production.staging.partfile import PartFile


@pytest.fixture
def office(books: Bookkeeping, tmp_path: Path) -> Office:
    return Office(books, tmp_path)


@pytest.fixture(autouse=True)
def _whenever_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe is asked in each cycle, however long it took to answer."""
    monkeypatch.setattr(room, "ASKING_SHARE", 0)


def probed(office: Office, intake: Intake) -> None:
    """Have the space asked for, and the answer come in."""
    intake.look()
    office.until(lambda: not office.desk.lanes["probe"].busy)


def claim_and_fetch(office: Office, intake: Intake) -> None:
    """The turns until the first transfer is under way."""
    intake.advance()
    office.until(lambda: not office.desk.lanes["stage"].busy)
    intake.advance()


def test_the_loop_sleeps_while_space_is_short_and_a_download_was_awaited(
    books: Bookkeeping, tmp_path: Path
) -> None:
    office = Office(books, tmp_path, pause=100.0)
    desk = office.open()
    intake = Intake(desk)
    office.archive.trouble = BeingFetched()
    probed(office, intake)
    claim_and_fetch(office, intake)
    office.until(lambda: desk.works[RUN].waits_for == "waits for a download")
    intake.advance()
    assert "fetch" in desk.due  # for as long as there is space
    office.probe.used = 95
    probed(office, intake)
    office.until(lambda: office.status == "N")
    intake.advance()
    assert "fetch" not in desk.due


def test_what_has_come_stays_reserved_while_another_file_of_the_run_is_awaited(
    books: Bookkeeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last probe has not seen it."""
    office = Office(books, tmp_path, runs=(RUN, RUN + 1), pause=100.0, transfers=1)
    desk = office.open()
    intake = Intake(desk)

    def fetch(file: str, target: Path, progress: Progress, _: threading.Event) -> Arrived:
        progress(0, 50)
        if str(RUN) in file:
            raise BeingFetched
        return Arrived(target.write_bytes(b"raw"))

    monkeypatch.setattr(office.archive, "fetch", fetch)

    def second() -> tuple[Phase, str]:
        intake.advance()
        work = desk.works[RUN + 1]
        return work.phase, work.waits_for

    probed(office, intake)
    claim_and_fetch(office, intake)
    office.until(lambda: desk.works[RUN].waits_for == "waits for a download")
    office.until(lambda: second() == (Phase.CLAIMED, "waits for space"))
    probed(office, intake)
    office.until(lambda: second() == (Phase.READY, ""))


def test_without_space_for_a_download_the_run_goes_back_without_blame(office: Office) -> None:
    desk = office.open()
    intake = Intake(desk)
    office.archive.trouble = NoSpaceLeft(path="/data", what="No space left on device")
    probed(office, intake)
    claim_and_fetch(office, intake)
    office.until(lambda: office.status == "N" and desk.works == {})
    assert office.outcomes == ["rolled back"]
    assert office.books.cell("SELECT failures FROM run") == 0
    assert office.said.count("No space is left for /data: No space left on device. Will try") == 1
    office.archive.trouble = None
    office.until(lambda: not desk.space_rest.resting)
    claim_and_fetch(office, intake)
    office.until(lambda: RUN in desk.works and desk.works[RUN].phase is Phase.READY)


def test_without_space_for_its_orders_the_run_goes_back_without_blame(office: Office) -> None:
    desk = office.open()
    (claim,) = desk.store.claim(1, GOLD)
    work = office.work(claim, Phase.READY)
    work.inputs["raw"] = Path("raw")
    work.spool.mkdir(parents=True)
    (work.spool / "orders.tmp").symlink_to("/dev/full")
    Jobs(desk).advance()
    office.until(lambda: office.status == "N")
    assert office.outcomes == ["rolled back"]
    assert office.books.cell("SELECT failures FROM run") == 0


def test_without_space_for_its_logs_the_run_goes_back_without_blame(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the local batch system finds out, which opens them before it takes a job."""

    def no_inode(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "log")

    desk = office.open()
    monkeypatch.setattr(local, "_open_logs", no_inode)
    monkeypatch.setattr(office.batch, "submit", local.LocalSystem(slots=1).submit)
    (claim,) = desk.store.claim(1, GOLD)
    office.work(claim, Phase.READY).inputs["raw"] = Path("raw")
    Jobs(desk).advance()
    office.until(lambda: office.status == "N")
    assert office.outcomes == ["rolled back"]
    assert office.said.count("no space left for the job's files: log: No space left") == 2


@pytest.mark.parametrize(
    ("used", "outcome", "failures"), [(10, "failed", 1), (95, "failed", 1), (98, "rolled back", 0)]
)
def test_a_job_that_fails_while_the_disk_is_full_goes_back_without_blame(
    office: Office, used: int, outcome: str, failures: int
) -> None:
    desk = office.open()
    office.batch.end = end_badly
    intake, jobs = Intake(desk), Jobs(desk)
    (claim,) = desk.store.claim(1, GOLD)
    work = office.work(claim, Phase.READY)
    work.inputs["raw"], work.fetched = Path("raw"), True
    jobs.advance()
    office.until(lambda: work.phase is Phase.RUNNING)
    office.probe.used = used
    probed(office, intake)
    jobs.look()
    office.until(lambda: desk.works == {})
    assert office.outcomes == [outcome]
    assert office.books.cell("SELECT failures FROM run") == failures


def test_with_all_of_the_disk_allowed_failing_jobs_count_unless_it_is_full(
    books: Bookkeeping, tmp_path: Path
) -> None:
    office = Office(books, tmp_path, spacelim=1.0)
    desk = office.open()
    intake = Intake(desk)
    for used, full in ((99, False), (100, True), (99, False)):
        office.probe.used = used
        probed(office, intake)
        assert desk.disk_is_full is full


def test_runs_that_find_the_disk_full_at_once_are_one_trouble(office: Office) -> None:
    desk = office.open()
    for _ in range(20):  # else the rest would grow to minutes
        desk.no_room(office.work(Claim(RUN, 1, 1)), NoSpaceLeft(path="/data", what="full"))
    until(lambda: not desk.space_rest.resting, timeout=2.0)


def test_a_full_disk_is_known_as_such(tmp_path: Path) -> None:
    (tmp_path / "raw.part").symlink_to("/dev/full")
    part = PartFile(tmp_path / "raw", "run02091.mid", "archive")
    with pytest.raises(NoSpaceLeft, match=r"for .*raw\.part: No space left on device"):  # noqa: SIM117
        with part.open(0) as sink:
            sink.write(b"data")

    workshop = Workshop(tmp_path)
    order = workshop.order()
    (order.spool / "orders.tmp").symlink_to("/dev/full")
    with pytest.raises(NoSpaceLeft):
        write_orders(order, workshop.done)


@pytest.mark.parametrize("downloads", [True, False])
def test_a_probe_that_fails_stops_downloads_only(
    books: Bookkeeping, tmp_path: Path, downloads: bool
) -> None:
    office = Office(books, tmp_path, downloads=downloads)
    desk = office.open()
    intake = Intake(desk)
    office.probe.trouble = ProbeFailed(where="GPFS", what="it is down")
    probed(office, intake)
    intake.advance()
    assert [work.phase for work in desk.works.values()] == ([] if downloads else [Phase.READY])
