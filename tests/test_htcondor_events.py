"""The event log of an HTCondor job: what it tells, and when it tells nothing."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import pytest
from hypothesis import given
from malformed import malformed, thorough

from production.batch.condor_events import LOG, NOTHING, Event, EventLogs, Told, after, parse_events
from production.model import JobHandle, JobState

PENDING, RUNNING, HELD, _ = JobState

RECORDED = (Path(__file__).parent / "data" / "htcondor_events.log").read_bytes()
SUBMITTED = (
    b"000 (012.003.000) 2026-11-21 03:32:49 Job submitted from host: <127.0.0.1:9618>\n...\n"
)
EXECUTING = b"001 (012.003.000) 11/21 03:32:53 Job executing on host: <127.0.0.1:9618>\n...\n"
ON_HOLD = (
    b"012 (012.003.000) 2026-11-21 03:33:00 Job was held.\n\ttoo hot\n\tCode 1 Subcode 0\n...\n"
)
RELEASED = b"013 (012.003.000) 2026-11-21 03:33:09 Job was released.\n\tcool now\n...\n"
EVICTED = b"""\
004 (012.003.000) 2026-11-21 12:15:04 Job was evicted.
\t(0) CPU times
\t\tUsr 0 00:00:00, Sys 0 00:00:00  -  Run Remote Usage
\t\tUsr 0 00:00:00, Sys 0 00:00:00  -  Run Local Usage
\t0  -  Run Bytes Sent By Job
\t0  -  Run Bytes Received By Job
\tPartitionable Resources :    Usage  Request Allocated
\t   Cpus                 :     0.08        1         1
\t   Disk (KB)            :  1250        1250      3072
\t   Memory (MB)          :   %s
\t   TimeExecute (s)      :     5
\t   TimeSlotBusy (s)     :     5
...
"""
ENDED = (
    b"005 (012.003.000) 2026-11-21 03:33:09 Job terminated.\n"
    b"\t(1) Normal termination (return value 3)\n...\n"
)


def told(*entries: bytes) -> Told:
    events, _ = parse_events(b"".join(entries))
    return reduce(after, events, NOTHING)


# --------------------------------------------------------------------------- recorded logs


def test_how_the_jobs_of_a_real_log_ended() -> None:
    events, length = parse_events(RECORDED)
    assert length == len(RECORDED)
    assert None not in events
    jobs: dict[str, Told] = {}
    for event in events:
        assert event is not None
        jobs[event.job] = after(jobs.get(event.job, NOTHING), event)
    assert {job: log.why for job, log in jobs.items()} == {
        "1.0": "removed via condor_rm (by user prodtest)",
        "1.1": "ended with exit code 3",
        "1.2": "ended by signal 9",
        "1.3": "held: too hot (by user prodtest)",
        "1.4": "evicted from its node",
        "1.5": "removed via condor_rm (by user prodtest)",
        "1.6": "removed via condor_rm (by user prodtest)",
        "2.0": "removed via condor_rm (by user prodtest)",
    }
    assert {log.state for log in jobs.values()} == {None}  # the server has the last word


@pytest.mark.parametrize(
    ("entries", "state"),
    [
        ((), None),
        ((SUBMITTED,), PENDING),
        ((SUBMITTED, EXECUTING), RUNNING),
        ((SUBMITTED, EXECUTING, ON_HOLD), HELD),
        ((SUBMITTED, ON_HOLD, RELEASED), PENDING),
        ((SUBMITTED, EXECUTING, ENDED), None),
    ],
)
def test_where_a_job_stands(entries: tuple[bytes, ...], state: JobState | None) -> None:
    assert told(*entries).state is state
    assert told(*entries).job == ("12.3" if entries else "")


@pytest.mark.parametrize(
    ("number", "state"),
    [
        *((number, RUNNING) for number in (6, 8, 10, 11, 21, 22, 23, 28, 40, 999)),
        *((number, None) for number in (2, 4, 5, 7, 9, 24)),
    ],
)
def test_rarer_events_of_a_running_job(number: int, state: JobState | None) -> None:
    log = after(told(SUBMITTED, EXECUTING), Event(number, "12.3", ("Something",)))
    assert log.state is state


def test_a_held_job_says_why() -> None:
    assert told(SUBMITTED, ON_HOLD).why == "held: too hot"


def test_why_a_job_was_interrupted_is_not_lost_when_it_is_removed_for_that() -> None:
    lost = Event(7, "12.3", ("Shadow exception!", "Error from slot1: no route to host"))
    removed = Event(9, "12.3", ("Job was aborted.", "The PeriodicRemove expression was TRUE"))
    log = reduce(after, [lost, removed], told(SUBMITTED, EXECUTING))
    assert log.why == "interrupted: Shadow exception! Error from slot1: no route to host"


def test_a_hold_that_is_over_is_no_reason() -> None:
    evicted = Event(4, "12.3", ("Job was evicted.",))
    log = after(told(SUBMITTED, ON_HOLD, RELEASED, EXECUTING), evicted)
    assert (log.why, log.interruption) == ("", "evicted from its node")


def test_why_a_job_was_interrupted_may_be_told_after_it_was() -> None:
    evicted = Event(4, "12.3", ("Job was evicted.",))
    log = after(told(SUBMITTED, EXECUTING), evicted)
    assert (log.why, log.interruption) == ("", "evicted from its node")
    held, _ = parse_events(ON_HOLD)
    assert reduce(after, held, log).why == "held: too hot"


@pytest.mark.parametrize(
    ("memory", "why"),
    [
        (b"291           2       128", ": it used 291 MB of memory and had 128 MB"),
        (b"127           2       128", ""),
        (b"              2       128", ""),
    ],
)
def test_an_evicted_job_that_used_more_memory_than_it_had_says_so(memory: bytes, why: str) -> None:
    log = told(SUBMITTED, EXECUTING, EVICTED % memory)
    assert log.interruption == f"evicted from its node{why}"


# --------------------------------------------------------------------------- damaged ones


def test_an_entry_that_is_not_complete_yet_is_left_for_later() -> None:
    events, length = parse_events(SUBMITTED + EXECUTING[:-1])
    assert (len(events), length) == (1, len(SUBMITTED))


@pytest.mark.parametrize(
    "damage", [b"\0\0\0\0\n...\n", b"...\n", EXECUTING[5:], b"\xff" + SUBMITTED]
)
def test_after_damage_nothing_is_known_until_the_next_event(damage: bytes) -> None:
    assert told(SUBMITTED, damage).state is None
    assert told(SUBMITTED, damage, EXECUTING).state is RUNNING


@thorough
@given(malformed(RECORDED.decode()))
def test_log_garbage(text: str) -> None:
    data = text.encode()
    events, length = parse_events(data)
    assert 0 <= length <= len(data)
    assert data[:length].endswith(b"\n...\n") == bool(events)
    reduce(after, events, NOTHING).why.encode()


# --------------------------------------------------------------------------- following them


class Spool:
    """A job's directory, in which HTCondor writes."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / LOG
        self.handle = JobHandle("x", directory)

    def write(self, *entries: bytes) -> None:
        with self.log.open("ab") as log:
            log.write(b"".join(entries))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def test_a_log_is_followed_as_it_grows(spool: Spool) -> None:
    logs = EventLogs()
    assert logs.read(spool.handle) == NOTHING
    spool.write(SUBMITTED)
    assert logs.read(spool.handle).state is PENDING
    spool.write(EXECUTING[:20])
    assert logs.read(spool.handle).state is PENDING
    spool.write(EXECUTING[20:])
    assert logs.read(spool.handle, now=True).state is RUNNING


def test_what_was_read_is_not_read_again(spool: Spool) -> None:
    logs = EventLogs()
    spool.write(SUBMITTED, ON_HOLD)
    logs.read(spool.handle)
    with spool.log.open("r+b") as log:
        log.write(b"9" * len(SUBMITTED))
    spool.write(RELEASED)
    assert logs.read(spool.handle).state is PENDING


@pytest.mark.parametrize("what", ["truncated", "replaced"])
def test_another_log_under_the_same_name_is_read_from_its_beginning(
    spool: Spool, what: str
) -> None:
    logs = EventLogs()
    spool.write(SUBMITTED, EXECUTING)
    logs.read(spool.handle)
    if what == "replaced":
        spool.log.rename(spool.log.with_name("old"))
    spool.log.write_bytes(SUBMITTED)
    assert logs.read(spool.handle).state is PENDING


def test_a_log_that_cannot_be_read_tells_nothing(spool: Spool) -> None:
    spool.log.mkdir()
    assert EventLogs().read(spool.handle) == NOTHING
    assert EventLogs().read(spool.handle, now=True) == NOTHING


def test_a_log_without_any_entry_is_given_up_in_pieces(spool: Spool) -> None:
    logs = EventLogs()
    spool.write(b"x" * 1_500_000)
    assert logs.read(spool.handle).state is None
    spool.write(b"\n...\n", SUBMITTED)
    logs.read(spool.handle)
    assert logs.read(spool.handle).state is PENDING


def test_jobs_that_are_no_longer_asked_for_are_forgotten(spool: Spool) -> None:
    logs = EventLogs()
    spool.write(SUBMITTED, ON_HOLD)
    logs.read(spool.handle)
    spool.log.write_bytes(b"9" * len(SUBMITTED + ON_HOLD))  # would not be understood
    logs.keep({"x"})
    assert logs.read(spool.handle).why == "held: too hot"
    logs.keep(set())
    assert logs.read(spool.handle) == NOTHING
