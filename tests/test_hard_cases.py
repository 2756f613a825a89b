"""Rare moments: hand edits, late records, other users' runs, managers that freeze."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import GOLD, Bookkeeping, intended, run_job, submitted
from desks import RUN, SHA256, TIME, Office, end_well, wait
from job_orders import WRITE, Workshop
from stale_files import stale

from production import cli
from production.batch.slurm import in_words
from production.errors import Interrupted, QueryFailed, SpoolTrouble
from production.identity import Identity, this_process
from production.job.clean import discard_outputs
from production.job.fence import revoke
from production.manager import loop, recovery, settle
from production.manager.jobs import Jobs
from production.manager.loop import Manager
from production.manager.plan import plan_job
from production.manager.work import Phase, Work
from production.model import Claim, Failed, Finished, JobHandle, JobState, Released
from production.store import connection, managers
from production.store.connection import Database
from production.store.runs import RunStore
from production.view.base import Snapshot

BY_HAND = "UPDATE count_v1 SET status = 'N'"
ELSEWHERE = Identity("alice", "node9", "another boot", 4711, 1)
STOPPED = Interrupted(2)


@pytest.fixture
def office(books: Bookkeeping, tmp_path: Path) -> Office:
    return Office(books, tmp_path)


def by_hand(office: Office) -> None:
    with office.books.db.write() as tx:
        tx.execute(BY_HAND)


def left_by_a_dead_manager(office: Office, *, job: bool = True) -> RunStore:
    """The run with a job in its spool, whose manager has signed off in haste."""
    dead = office.books.manager(office.production)
    (claim,) = dead.claim(1, GOLD)
    if job:
        spool = office.paths.spool(claim)
        spool.mkdir(parents=True)
        dead.apply([replace(intended(claim), spool=spool), submitted(claim)])
    managers.sign_off(office.books.db, dead.manager)
    return dead


# --------------------------------------------------------------------------- by hand


def test_a_run_is_not_given_back_by_hand_while_its_job_is_being_submitted(office: Office) -> None:
    store = office.open().store
    (claim,) = store.claim(1, GOLD)
    store.apply([intended(claim)])
    with pytest.raises(sqlite3.IntegrityError, match="a job of this run is being submitted"):
        by_hand(office)
    assert (office.status, office.outcomes) == ("C", [None])


def test_what_is_left_of_a_lost_claim_does_not_touch_the_next_one(office: Office) -> None:
    desk = office.open()
    (first,) = desk.store.claim(1, GOLD)
    before = office.work(first, Phase.FETCHING)
    by_hand(office)
    (second,) = desk.store.claim(1, GOLD)
    now = office.work(second)
    assert before.stop.is_set()
    desk.record(Released(first, "its transfer failed at last"))
    desk.flush()
    assert desk.works == {RUN: now}
    assert not now.stop.is_set()
    assert (office.status, office.outcomes) == ("C", ["rolled back", None])


# --------------------------------------------------------------------------- runs of others


def test_runs_in_directories_closed_to_this_user_stay_where_they_are(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = left_by_a_dead_manager(office)
    desk = office.open()
    closed = office.paths.spool(dead.held()[0])
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != closed)
    for _ in range(2):
        recovery.repair(desk)
    assert (office.holder, office.status, desk.works) == (dead.manager, "R", {})
    assert office.said.count(f"Runs [{RUN}] were left by a manager of user") == 1
    assert not recovery.may_have_more(desk)  # nothing to wait for: only their user can help


def test_what_a_manager_claims_that_only_seemed_dead_is_not_called_closed(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_by_a_dead_manager(office)
    desk = office.open()
    monkeypatch.setattr(desk.store, "take_over", lambda *_: [])  # it had claimed nothing yet
    recovery.repair(desk)
    assert office.said.count("were left by a manager of user") == 0


@pytest.mark.parametrize("cleared", [False, True])
def test_runs_in_directories_that_can_be_written_are_taken_over(
    office: Office, cleared: bool
) -> None:
    dead = left_by_a_dead_manager(office)
    if cleared:
        office.paths.spool(dead.held()[0]).rmdir()
    desk = office.open()
    recovery.repair(desk)
    assert (office.holder, list(desk.works)) == (desk.store.manager, [RUN])


def test_a_claim_without_a_job_is_returned_whose_ever_it_was(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_by_a_dead_manager(office, job=False)
    desk = office.open()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    recovery.repair(desk)
    office.until(lambda: office.status == "N")


@pytest.mark.slow
def test_a_manager_stays_until_one_elsewhere_that_holds_runs_is_known_to_live_or_not(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have died with its host, which was then booted again."""
    monkeypatch.setattr(loop, "REPAIR_EVERY", 0.1)
    dead = managers.register(office.books.db, ELSEWHERE, office.production.id, lease=1)
    RunStore(office.books.db, office.production, dead).claim(1, GOLD)
    Manager(office.desk).run()
    assert (
        office.said.count("Waiting for a sign of life of the manager of user alice on node9") == 1
    )
    assert (office.status, office.outcomes) == ("F", ["rolled back", "finished"])


def test_a_manager_elsewhere_that_lives_is_not_waited_for(office: Office) -> None:
    desk = office.open()
    other = managers.register(office.books.db, ELSEWHERE, office.production.id)
    RunStore(office.books.db, office.production, other).claim(1, GOLD)
    recovery.repair(desk)
    assert recovery.may_have_more(desk)
    managers.beat(office.books.db, other)
    recovery.repair(desk)
    assert not recovery.may_have_more(desk)


def test_a_manager_that_was_stopped_acts_on_no_answer_before_it_knows_what_it_has_lost(
    books: Bookkeeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch system's answer waited for it all the time: a job that was held for too long."""
    office = Office(books, tmp_path, hold_timeout=0.0)
    desk, office.batch.end = office.desk, wait
    looks: list[object] = []

    def poll(jobs: Sequence[JobHandle]) -> dict[str, JobState]:
        looks.append(jobs)
        if len(looks) == 2:
            with Database(books.path) as db:  # in a thread of its own, as another manager
                me = managers.register(db, this_process(), office.production.id)
                RunStore(db, office.production, me).take_over(desk.store.manager)
            desk.due["beat"] = 0.0  # as after a stop that was longer than that
        return {job.name: JobState.HELD for job in jobs}

    monkeypatch.setattr(office.batch, "poll", poll)
    Manager(desk).run()
    assert office.batch.cancelled == []
    assert office.said.count("was taken over by somebody else") == 1
    assert (office.status, office.holder) == ("R", desk.store.manager + 1)


@pytest.mark.parametrize("broken", ["SELECT 1 FROM meta", "SELECT production, claimed_us"])
def test_a_display_that_cannot_read_is_no_reason_to_end(
    books: Bookkeeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """The file server was away just then, for longer than a moment."""
    monkeypatch.setattr(connection, "GLITCH", 0.0)
    office = Office(books, tmp_path)
    shown: list[Snapshot] = []
    monkeypatch.setattr(office.said, "live", True)
    monkeypatch.setattr(office.said, "update", shown.append)
    failing = [sqlite3.SQLITE_IOERR_READ] * 2

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if failing and sql.strip().startswith(broken):
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = failing.pop()
                raise error
            return super().execute(sql, *parameters)

    def connect(*arguments: Any, **keywords: Any) -> sqlite3.Connection:
        return really_connect(*arguments, **keywords, factory=Connection)

    really_connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", connect)
    monkeypatch.setattr(loop, "SNAPSHOT_EVERY", 0.01)
    with Database(books.path) as db:
        office.desk.db = db
        Manager(office.desk).run()
    assert (office.status, failing) == ("F", [])
    assert shown


# --------------------------------------------------------------------------- roll-backs


def test_a_roll_back_keeps_off_runs_that_others_have_taken_over(office: Office) -> None:
    desk = office.open()
    (claim,) = desk.store.claim(1, GOLD)
    run_job(desk.store, claim)
    work = office.work(claim, Phase.RUNNING)
    work.submitted = True
    work.spool.mkdir(parents=True)
    heir = office.books.manager(office.production)
    heir.take_over(desk.store.manager)
    recovery.roll_back(desk, STOPPED)
    assert office.batch.cancelled == []
    assert list(work.spool.iterdir()) == []  # not revoked either
    assert (office.holder, office.status) == (heir.manager, "R")


def test_a_job_that_ends_well_before_its_submission_is_recorded_counts(office: Office) -> None:
    desk = office.open()
    (claim,) = desk.store.claim(1, GOLD)
    work = office.work(claim, Phase.READY)
    work.inputs["raw"] = office.paths.raw(claim) / "run02091.mid"
    Jobs(desk).advance()
    while work.phase is not Phase.RUNNING:
        desk.results.deliver(1.0)
    assert office.status == "C"  # what the batch system answered is to be recorded this turn
    recovery.roll_back(desk, STOPPED)
    assert (office.status, office.outcomes) == ("F", ["finished"])
    assert not work.spool.exists()


def test_an_interrupted_write_is_still_owed(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = office.open()
    (claim,) = desk.store.claim(1, GOLD)
    desk.store.apply([intended(claim)])
    desk.record(submitted(claim))

    def locked(_: object) -> None:
        raise STOPPED

    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "apply", locked)
        with pytest.raises(Interrupted):
            desk.flush()
    desk.flush()
    assert office.status == "R"


def test_a_run_whose_job_cannot_be_cancelled_is_left_to_the_next_manager(office: Office) -> None:
    desk = office.open()
    office.batch.refuses_to_cancel = True
    (claim,) = desk.store.claim(1, GOLD)
    run_job(desk.store, claim)
    work = office.work(claim, Phase.RUNNING)
    work.submitted = True
    (work.spool / "started").mkdir(parents=True)
    recovery.roll_back(desk, STOPPED)
    assert office.status == "R"
    assert office.said.count(f"Runs [{RUN}] could not be cancelled") == 1
    assert not (work.spool / "revoked").exists()


def with_running_job(office: Office) -> Work:
    desk = office.open()
    (claim,) = desk.store.claim(1, GOLD)
    run_job(desk.store, claim)
    work = office.work(claim, Phase.RUNNING)
    work.submitted = True
    (work.spool / "started").mkdir(parents=True)
    (work.spool / "started" / "pid").write_text("1 1 node1\n")
    return work


def test_a_job_is_not_given_up_when_the_data_directory_has_gone(office: Office) -> None:
    work = with_running_job(office)
    spools = work.spool.parent
    spools.rename(spools.with_name("elsewhere"))
    recovery.roll_back(office.desk, STOPPED)
    assert office.batch.cancelled == [work.name]
    assert office.status == "R"


def test_a_job_whose_spool_cannot_be_seen_is_cancelled_all_the_same(office: Office) -> None:
    work = with_running_job(office)
    with stale(work.spool):
        recovery.roll_back(office.desk, STOPPED)
    assert office.batch.cancelled == [work.name]
    assert (work.spool / "revoked").exists()
    assert office.outcomes == ["rolled back"]


def test_who_leaves_at_once_keeps_the_run_of_a_spool_that_cannot_be_seen(office: Office) -> None:
    work = with_running_job(office)
    with stale(work.spool):
        recovery.leave(office.desk)
    assert (office.status, office.outcomes) == ("R", [None])
    assert not (work.spool / "revoked").exists()


def test_a_record_that_cannot_be_seen_costs_no_finished_run(office: Office) -> None:
    work = with_running_job(office)
    end_well(plan_job(office.paths, work.claim, {"raw": Path("raw")}, office.desk.job))
    with stale(work.spool / "record"):
        recovery.roll_back(office.desk, STOPPED)
    assert (office.status, office.outcomes) == ("F", ["finished"])


def test_only_marks_of_jobs_whose_spool_is_gone_are_swept_away(office: Office) -> None:
    desk = office.open()
    done = office.paths.done
    done.mkdir(parents=True)
    for name in ("run02091.a1", "run02091.a2", "notes"):
        (done / name).touch()
    (done.parent / "run02091.a2").mkdir()
    recovery.sweep(desk)
    assert sorted(mark.name for mark in done.iterdir()) == ["notes", "run02091.a2"]


# --------------------------------------------------------------------------- how jobs ended


def test_a_record_that_shows_late_is_believed(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = Claim(RUN, 1, 1)
    work = office.work(claim, Phase.RUNNING)
    order = plan_job(office.paths, claim, {"raw": Path("raw")}, office.desk.job)

    def late(spool: Path) -> bool:
        end_well(order)  # on the network filesystem it was there long ago
        return revoke(spool)

    work.spool.mkdir(parents=True)
    monkeypatch.setattr("production.manager.settle.revoke", late)
    assert isinstance(settle.settle(work, max_attempts=3, wait=0.0), Finished)
    assert order.outputs[0].final.exists()


@pytest.mark.parametrize("error", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN])
def test_an_output_that_cannot_be_seen_now_is_looked_at_again(office: Office, error: int) -> None:
    claim = Claim(RUN, 1, 1)
    work = office.work(claim, Phase.RUNNING)
    order = plan_job(office.paths, claim, {"raw": Path("raw")}, office.desk.job)
    end_well(order)
    final = order.outputs[0].final
    with stale(final, error=error), pytest.raises(SpoolTrouble, match=str(final)):
        settle.settle(work, max_attempts=3, wait=0.0)
    assert isinstance(settle.settle(work, max_attempts=3, wait=0.0), Finished)
    assert final.exists()


def test_an_output_that_is_gone_is_a_failure(office: Office) -> None:
    claim = Claim(RUN, 1, 1)
    work = office.work(claim, Phase.RUNNING)
    order = plan_job(office.paths, claim, {"raw": Path("raw")}, office.desk.job)
    end_well(order)
    final = order.outputs[0].final
    final.unlink()
    change = settle.settle(work, max_attempts=3, wait=0.0)
    assert isinstance(change, Failed)
    assert change.reason == f"output {final} cannot be seen: No such file or directory"


@pytest.mark.parametrize(
    "told", ["ended with exit code 91", in_words("FAILED", "91:0")], ids=["sge", "slurm"]
)
def test_a_job_that_was_put_back_and_started_again_was_put_back(office: Office, told: str) -> None:
    """Batch systems may do both before anybody looks; then they tell of the second start."""
    work = office.work(Claim(RUN, 1, 1), Phase.RUNNING)
    work.spool.mkdir(parents=True)
    lines = [
        "version=1",
        "phase=payload",
        "exit_code=140",
        "signal=12",
        "host=node1",
        f"start={TIME}",
    ]
    (work.spool / "record").write_text("\n".join([*lines, f"stop={TIME}", "complete=yes", ""]))
    office.batch.accounting_lag = 1.0
    office.batch.why = told
    look = settle.look([work], ask=True)
    assert look.reasons == {work.name: "put back into its queue to be started again"}
    for other in ("deleted by root@node1", told.replace("91", "910")):
        office.batch.why = other
        assert settle.look([work], ask=True).reasons == {work.name: other}


def test_the_time_in_which_nobody_can_be_asked_for_a_reason_does_not_count(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = office.work(Claim(RUN, 1, 1), Phase.RUNNING)
    office.batch.accounting_lag = 15.0
    jobs = Jobs(office.desk)
    settled: list[str] = []
    monkeypatch.setattr(jobs, "_settle", lambda work: settled.append(work.why))
    clock = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: clock)
    silent = QueryFailed(system="slurm", what="nothing was printed")
    killed = settle.Look([work], [], [], killed=frozenset([work]))
    for _ in range(5):
        jobs._looked(replace(killed, trouble=silent))
        jobs._looked(replace(killed, asked=False))
        clock += 100.0
    assert settled == []
    jobs._looked(killed)
    clock += 5.0
    jobs._looked(replace(killed, reasons={work.name: "over its time (TIMEOUT)"}))
    assert settled == ["over its time (TIMEOUT)"]
    work.why = ""
    clock += 15.0
    # Nobody answers, or only the queue does: that it does not know was not said.
    jobs._looked(replace(killed, asked=False))
    silent_accounting = replace(killed, unexplained=frozenset([work.name]))
    jobs._looked(silent_accounting)
    assert settled[1:] == []
    jobs._looked(killed)  # it has had its time, and does not know
    assert settled[1:] == [""]
    clock += 60.0
    jobs._looked(silent_accounting)  # it is out of order, it seems
    assert settled[1:] == ["", ""]


def test_an_accounting_that_does_not_answer_is_known_as_such(office: Office) -> None:
    work = office.work(Claim(RUN, 1, 1), Phase.RUNNING)
    work.spool.mkdir(parents=True)
    office.batch.why = None
    look = settle.look([work], ask=True)
    assert (look.gone, look.reasons, look.unexplained) == ([work], {}, {work.name})


def test_a_job_that_starts_while_it_is_being_given_up_goes_on(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The local jobs of a manager that was only slow to renew its claims, for instance."""
    desk = office.open()
    (claim,) = desk.store.claim(1, GOLD)
    run_job(desk.store, claim)
    work = office.work(claim, Phase.RUNNING)
    work.submitted = True
    work.spool.mkdir(parents=True)
    jobs = Jobs(desk)
    really_settle = settle.settle

    def start_before(*arguments: Any) -> object:
        monkeypatch.setattr(settle, "settle", really_settle)
        (work.spool / "started").mkdir()
        (work.spool / "started" / "pid").write_text("1 1 elsewhere\n")
        office.batch.state = JobState.RUNNING
        return really_settle(*arguments)

    monkeypatch.setattr(settle, "settle", start_before)
    jobs.look()  # the batch system does not know it
    office.until(lambda: office.batch.state is JobState.RUNNING and work.phase is Phase.RUNNING)
    assert office.status == "R"
    assert not (work.spool / "revoked").exists()
    end_well(plan_job(office.paths, claim, {"raw": Path("raw")}, office.desk.job))
    jobs.look()
    office.until(lambda: office.status == "F")
    assert office.outcomes == ["finished"]


@pytest.mark.parametrize("ours", [True, False])
def test_only_the_very_file_of_the_attempt_is_taken_back(tmp_path: Path, ours: bool) -> None:
    """A successor's file may have the same size and the same second."""
    workshop = Workshop(tmp_path)
    order = workshop.order(WRITE)
    (plan,) = order.outputs
    plan.final.parent.mkdir(parents=True)
    plan.final.write_text("x\n")
    found = plan.final.stat()
    inode = found.st_ino + (not ours)
    facts = f"{found.st_size} {int(found.st_mtime)} {inode} {SHA256} {plan.final}\n"
    (order.spool / "manifest").write_text(facts)
    discard_outputs(order.spool, order.outputs)
    assert plan.final.exists() == (not ours)


# --------------------------------------------------------------------------- the command line


def test_an_argument_that_is_not_utf8_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["run", "--production=count", os.fsdecode(b"--new=\xff")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == r"ERROR: '--new=\udcff' is not valid UTF-8 text"
