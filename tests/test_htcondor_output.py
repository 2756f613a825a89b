"""What HTCondor's commands say: recorded answers, and answers that are none."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from malformed import malformed, thorough

from production.batch.cluster import Listed
from production.batch.condor_output import parse_accepted, parse_history, parse_queue
from production.batch.together import Place
from production.commands import Completed
from production.errors import BatchError, QueryFailed, SubmissionRefused
from production.model import JobState

PENDING, RUNNING, HELD, GONE = JobState

DATA = Path(__file__).parent / "data"
QUEUE = (DATA / "htcondor_q.json").read_text()
HISTORY = (DATA / "htcondor_history.json").read_text()
ARRAY = "alcapana_v4.1.a1.t7.5e0f.x7"
JOB = '[{{"ClusterId": 7, "ProcId": 0, "ProductionJob": "x"{more}}}]'


def rows(text: str) -> dict[str, Listed]:
    return {row.id: row for row in parse_queue(text, "JobFlavour")}


# --------------------------------------------------------------------------- condor_q


def test_every_job_of_a_real_queue() -> None:
    found = rows(QUEUE)
    assert {id_: row.state for id_, row in found.items()} == {
        "1.0": RUNNING,
        "1.3": HELD,
        "1.4": PENDING,  # was evicted, and is about to be removed for that
        "1.5": RUNNING,  # suspended
        "1.6": RUNNING,
        "2.0": HELD,
        "3.0": PENDING,
    }
    assert found["1.3"].why == "held: too hot (by user prodtest)"
    assert found["2.0"].why == "held: submitted on hold at user's request"


def test_processes_count_from_0_and_indices_from_1() -> None:
    assert rows(QUEUE)["1.3"].place == Place(ARRAY, 4)
    assert rows(QUEUE)["2.0"].place == Place("alcapana_v4.8.a1.t7.5e0f")


def test_where_a_job_waits() -> None:
    assert rows(QUEUE)["2.0"].queue == "long"
    assert rows(QUEUE)["3.0"].queue == ""


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_queue(text: str) -> None:
    assert rows(text) == {}


@pytest.mark.parametrize(
    ("more", "state", "why"),
    [
        ('"JobStatus": 3', RUNNING, ""),  # is being ended
        ('"JobStatus": 6', RUNNING, ""),
        ('"JobStatus": 4, "ExitBySignal": false, "ExitCode": 2', GONE, "ended with exit code 2"),
        ('"JobStatus": 4, "ExitBySignal": true, "ExitSignal": 9', GONE, "ended by signal 9"),
        ('"JobStatus": 4', GONE, ""),
        ('"JobStatus": 5', HELD, "held"),
        (
            '"JobStatus": 5, "HoldReasonCode": 34, "HoldReason": "Error from slot1: \\n 100 MB"',
            HELD,
            "held: over the memory or disk limit of the batch system: Error from slot1: 100 MB",
        ),
        (
            '"JobStatus": 5, "HoldReasonCode": 47, "HoldReason": "too long"',
            HELD,
            "held: over the time limit of the batch system: too long",
        ),
        (
            '"JobStatus": 5, "HoldReasonCode": 21, "HoldReason": "Error from slot1: memory"',
            HELD,
            "held: by a rule of its node: Error from slot1: memory",
        ),
        (
            '"JobStatus": 5, "HoldReasonCode": 26, "HoldReason": "expression \'x\'"',
            HELD,
            "held: by a rule of the batch system: expression 'x'",
        ),
    ],
)
def test_rarer_states(more: str, state: JobState, why: str) -> None:
    row = rows(JOB.format(more=f", {more}"))["7.0"]
    assert (row.state, row.why) == (state, why)


@pytest.mark.parametrize(
    "text",
    [
        QUEUE[:-5],  # cut off
        QUEUE[: len(QUEUE) // 2],
        f"The pool is down for maintenance\n{QUEUE}",
        "Error: communication error\n",
        "{}",
        "[1]",
        "[" * 100_000,
        f"[{'9' * 5000}]",
        JOB.format(more=""),  # no JobStatus
        JOB.format(more=', "JobStatus": 8'),
        JOB.format(more=', "JobStatus": true'),
        JOB.format(more=', "JobStatus": "2"'),
        JOB.format(more=', "JobStatus": 2, "ClusterId": -7'),
        JOB.format(more=', "JobStatus": 5, "HoldReasonCode": "x"'),
    ],
)
def test_what_is_no_answer_is_not_taken_for_an_empty_queue(text: str) -> None:
    with pytest.raises(QueryFailed, match="did not answer: condor_q printed"):
        rows(text)


@thorough
@given(malformed(QUEUE, HISTORY, JOB.format(more=', "JobStatus": 2')))
def test_queue_garbage(text: str) -> None:
    with contextlib.suppress(QueryFailed):
        for id_, row in rows(text).items():
            assert id_.count(".") == 1
            row.why.encode()
            row.place.name.encode()


# --------------------------------------------------------------------------- condor_history


def test_how_jobs_ended() -> None:
    assert parse_history(HISTORY) == {
        "1.1": "ended with exit code 3",
        "1.2": "ended by signal 9",
        "1.3": "held: too hot (by user prodtest)",
        "1.4": "evicted from its node",
        "1.6": "removed via condor_rm (by user prodtest)",
    }


def test_a_job_that_the_system_removed_by_itself_has_its_own_reason() -> None:
    more = ', "RemoveReason": "PeriodicRemove evaluated to TRUE", "VacateReason": "lease expired"'
    assert parse_history(JOB.format(more=more)) == {"7.0": "evicted from its node: lease expired"}
    more = ', "RemoveReason": "PeriodicRemove evaluated to TRUE"'
    assert parse_history(JOB.format(more=more)) == {
        "7.0": "removed: PeriodicRemove evaluated to TRUE"
    }


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("via condor_rm (by user jane)", "removed via condor_rm (by user jane)"),
        (
            "The system macro SYSTEM_PERIODIC_REMOVE expression 'RunTime > 9' evaluated to TRUE",
            "removed: The system macro SYSTEM_PERIODIC_REMOVE expression 'RunTime > 9' "
            "evaluated to TRUE",
        ),
        ("out of beam (by user jane)", "removed: out of beam (by user jane)"),
    ],
)
def test_a_job_that_was_removed_says_by_what(reason: str, why: str) -> None:
    assert parse_history(JOB.format(more=f', "RemoveReason": "{reason}"')) == {"7.0": why}


def test_of_a_job_whose_end_is_not_told_nothing_is_said() -> None:
    assert parse_history(JOB.format(more="")) == {}


@thorough
@given(malformed(HISTORY, QUEUE))
def test_history_garbage(text: str) -> None:
    assert all(parse_history(text).values())


# --------------------------------------------------------------------------- condor_submit


@pytest.mark.parametrize(
    "said", ["12.0 - 12.0\n", "12.0 - 12.99\n", "Welcome to the lab\n12.0 - 12.3\n"]
)
def test_the_id_of_a_submission(said: str) -> None:
    assert parse_accepted(Completed(0, said, "WARNING: a remark\n")) == "12.0"


@pytest.mark.parametrize(
    ("stderr", "what"),
    [
        (
            "\nERROR: on Line 2 of submit file: \n"
            "\nERROR: Failed to parse command file (line 2).\n",
            "refused the job: on Line 2 of submit file:; Failed to parse command file (line 2).",
        ),
        (
            "\nERROR: Failed to commit job submission into the queue.\n"
            "ERROR: there is no flavour nowhere\n",
            "refused the job: there is no flavour nowhere",
        ),
        (
            "WARNING: the line 'x = connect' was unused\n"
            "\nERROR: Executable file /nothere does not exist\n",
            "refused the job: Executable file /nothere does not exist",
        ),
    ],
)
def test_a_refusal_says_why(stderr: str, what: str) -> None:
    with pytest.raises(SubmissionRefused) as raised:
        parse_accepted(Completed(1, "", stderr))
    assert what in str(raised.value)


@pytest.mark.parametrize(
    "answer",
    [
        Completed(0, "", ""),
        Completed(0, "12.0 - 12.", ""),
        Completed(0, "12.0 - 13.4\n", ""),
        Completed(0, "1 job(s) submitted to cluster 12.\n", ""),
        Completed(1, "", ""),
        Completed(1, "", "\nERROR: Can't find address of local schedd\n"),
        Completed(1, "", "\nERROR: Failed to connect to local queue manager\nCEDAR:6001:Failed\n"),
        Completed(1, "", "\nERROR: Failed to commit job submission into the queue.\n"),
        Completed(
            1,
            "",
            "\nERROR: Failed to create proc\n"
            "Number of submitted jobs would exceed MAX_JOBS_PER_OWNER\n",
        ),
        Completed(127, "", "condor_submit: error while loading shared libraries\n"),
    ],
)
def test_an_answer_that_leaves_open_what_happened(answer: Completed) -> None:
    with pytest.raises(BatchError) as raised:
        parse_accepted(answer)
    assert not isinstance(raised.value, SubmissionRefused)


@thorough
@given(
    malformed("12.0 - 12.99\n", "Welcome\n12.0 - 12.0\n"),
    malformed("\nERROR: on Line 2 of submit file: \n", "ERROR: Can't find address\n"),
    st.sampled_from([0, 1, 255]),
)
def test_submission_garbage(stdout: str, stderr: str, code: int) -> None:
    with contextlib.suppress(BatchError):
        assert parse_accepted(Completed(code, stdout, stderr)).endswith(".0")
