"""What Grid Engine's commands say: recorded answers, and answers that are none."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from malformed import malformed, thorough

from production.batch.sge import (
    Row,
    parse_accepted,
    parse_error_reasons,
    parse_qacct,
    parse_qstat,
)
from production.batch.together import Place
from production.commands import Completed
from production.errors import BatchError, QueryFailed, SubmissionRefused
from production.model import JobState

PENDING, RUNNING, HELD = JobState.PENDING, JobState.RUNNING, JobState.HELD

DATA = Path(__file__).parent / "data"
QSTAT = (DATA / "sge_qstat.xml").read_text()
QSTAT_R = (DATA / "sge_qstat_r.xml").read_text()
REASONS = (DATA / "sge_qstat_j.txt").read_text()
QACCT = (DATA / "sge_qacct.txt").read_text()
ENTRY = """\
<job_info><queue_info/><job_info><job_list state="pending"><JB_job_number>{job}</JB_job_number>
<JB_name>x</JB_name><state>{state}</state><tasks>{tasks}</tasks></job_list></job_info></job_info>
"""

# --------------------------------------------------------------------------- qstat


def test_every_entry_of_a_real_queue() -> None:
    rows = parse_qstat(QSTAT)
    assert Row("5", "badwd", "Eqw") in rows
    assert Row("19", "broken.x3", "Eqw", "1-3:1") in rows
    assert Row("20", "held", "hqw") in rows
    states = {row.tasks: row.state for row in rows if row.job == "21"}
    assert states == {"1": "s", "2": "dr", **dict.fromkeys("345678", "r"), "9": "hqw"}
    assert len(rows) == QSTAT.count("<JB_job_number>")


def test_what_jobs_of_a_real_queue_wait_for() -> None:
    rows = {row.name: row for row in parse_qstat(QSTAT_R)}
    assert rows["wrongq"].queue == "closed.q"
    assert rows["manyq"].queue == "closed.q,all.q"
    assert rows["fit"].queue == ""
    assert rows["harr"] == Row("7", "harr", "hqw", "1-3:1", "closed.q")
    states = {name: row.meaning for name, row in rows.items()}
    assert states["held"] is states["harr"] is HELD
    assert states["dep"] is states["arr"] is PENDING


def test_an_answer_in_the_dialect_of_univa() -> None:
    # With further elements, and a name that is cut off but for the full one.
    text = ENTRY.format(job="7", state="qw", tasks="").replace(
        "</JB_name>",
        "</JB_name><jclass_name></jclass_name><full_job_name>xyz</full_job_name>",
    )
    assert parse_qstat(text) == [Row("7", "xyz", "qw")]


@pytest.mark.parametrize(
    ("tasks", "indices"),
    [("8-12:1", [8, 9, 10, 11, 12]), ("8,9,12", [8, 9, 12]), ("1-7:3,9", [1, 4, 7, 9]), ("4", [4])],
)
def test_elements_of_an_array(tasks: str, indices: list[int]) -> None:
    expected = [(f"7.{index}", Place("x", index)) for index in indices]
    assert list(Row("7", "x", "qw", tasks).places()) == expected


def test_a_job_that_is_no_array() -> None:
    assert list(Row("7", "x", "qw", "").places()) == [("7", Place("x"))]


@pytest.mark.parametrize("tasks", ["1-9999999:1", "a", "1-", "1-3:0", "1;2"])
def test_tasks_that_make_no_sense(tasks: str) -> None:
    with pytest.raises(QueryFailed):
        list(Row("7", "x", "qw", tasks).places())


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        *((word, PENDING) for word in ("qw", "Rq", "Eqw", "Ehqw", "EhRqw")),
        *((word, HELD) for word in ("hqw", "hRwq", "hRq")),
        *((word, RUNNING) for word in ("r", "t", "Rr", "Rt", "hr", "s", "ts", "S", "T", "tT")),
        *((word, RUNNING) for word in ("dr", "dt", "dRr", "ds", "dS", "P", "N")),
    ],
)
def test_states(state: str, expected: JobState) -> None:
    assert Row("7", "x", state).meaning is expected


def test_an_empty_queue() -> None:
    assert parse_qstat("<job_info><queue_info/><job_info/></job_info>") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "error: commlib error: got select error (Connection refused)\n",
        QSTAT[: len(QSTAT) // 2],
        QSTAT[:-14],
        "<html><body>maintenance</body></html>",
        "<!DOCTYPE a [<!ENTITY b 'c'>]><job_info>&b;</job_info>",
        ENTRY.format(job="", state="qw", tasks=""),
        ENTRY.format(job="7", state="", tasks=""),
    ],
)
def test_what_is_no_answer_is_not_taken_for_an_empty_queue(text: str) -> None:
    with pytest.raises(QueryFailed, match="sge did not answer: qstat"):
        parse_qstat(text)


@thorough
@given(malformed(QSTAT, QSTAT_R, ENTRY.format(job="7", state="qw", tasks="1-7:3,9")))
def test_qstat_garbage(text: str) -> None:
    with contextlib.suppress(QueryFailed):
        for row in parse_qstat(text):
            assert all(id_ for id_, _ in row.places())


# --------------------------------------------------------------------------- qsub


@pytest.mark.parametrize("said", ["12\n", "12.1-9:1\n", "Welcome to the lab\n12\n"])
def test_the_id_of_a_submission(said: str) -> None:
    assert parse_accepted(Completed(0, said, "")) == "12"


@pytest.mark.parametrize(
    "said",
    [
        'Unable to run job: Job was rejected because job requests unknown queue "nope"\nExiting.\n',
        'Unable to run job: job rejected: the requested project "nope" does not exist\nExiting.\n',
        'Unable to run job: unknown resource "nope"\nExiting.\n',
        'qsub: invalid option argument "--foo"\n',
    ],
)
def test_what_grid_engine_refuses(said: str) -> None:
    with pytest.raises(SubmissionRefused, match=r"nope|foo") as raised:
        parse_accepted(Completed(1, "", said))
    assert "Exiting" not in str(raised.value)


@pytest.mark.parametrize(
    "answer",
    [
        Completed(
            1,
            "",
            "Unable to run job: unable to send message to qmaster using port 36187 on host "
            '"vm": got send error\nExiting.\n',
        ),
        Completed(
            1,
            "",
            "Unable to run job: job rejected: Only 10 jobs are allowed per user (current job "
            "count: 10)\nExiting.\n",
        ),
        Completed(1, "", ""),
        Completed(127, "", "qsub: command not found in the image: timeout\n"),
        Completed(0, "", ""),
        Completed(0, "Your job has been submitted\n", ""),
        Completed(0, "12", ""),  # of 1234
    ],
)
def test_what_leaves_open_whether_there_is_a_job(answer: Completed) -> None:
    with pytest.raises(BatchError) as raised:
        parse_accepted(answer)
    assert not isinstance(raised.value, SubmissionRefused)


@given(st.integers(0, 255), st.text(), st.text() | st.text().map("qsub: ".__add__))
def test_qsub_garbage(code: int, stdout: str, stderr: str) -> None:
    with contextlib.suppress(BatchError):
        assert parse_accepted(Completed(code, stdout, stderr)).isdecimal()


# --------------------------------------------------------------------------- reasons


def test_why_a_job_is_in_an_error_state() -> None:
    assert parse_error_reasons(REASONS) == {
        "5": "error: can't chdir to /no/such/dir: No such file or directory"
    }


def test_an_error_state_without_a_reason() -> None:
    stamp = "11/21/2026 07:23:36 [1001:574]: "
    assert parse_error_reasons(f"job_number: 5\nerror reason 1: {stamp}\n") == {}
    assert parse_error_reasons(
        f"job_number: 5\nerror reason 1:  \nerror reason 2: {stamp}no\n"
    ) == {"5": "no"}


@thorough
@given(malformed(REASONS))
def test_error_reasons_garbage(text: str) -> None:
    assert all(parse_error_reasons(text).values())


def test_how_jobs_ended() -> None:
    assert parse_qacct(QACCT) == {
        "2.3": "killed: deleted, or over a limit of its queue",
        "6": "ended with exit code 3",
    }


UNWATCHED = "its node failed, or what watches over jobs there ({})"


@pytest.mark.parametrize(
    ("failed", "status", "words"),
    [
        (
            "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit",
            "137",
            "over a limit of the batch system (qmaster enforced h_rt, h_cpu, or h_vmem limit)",
        ),
        ("28  : changing into working directory", "0", "failed (changing into working directory)"),
        ("0", "139", "ended by signal 11"),
        ("19  : before writing exit_status", "0", UNWATCHED.format("before writing exit_status")),
        ("21", "0", UNWATCHED.format(21)),
        ("8", "0", "failed (8)"),
    ],
)
def test_failed_codes(failed: str, status: str, words: str) -> None:
    text = QACCT.replace("100 : assumedly after job", failed).replace("137  ", status)
    assert parse_qacct(text)["2.3"] == words


UNIVA = """\
qname        all.q
jobname      count_v1.2091.a1.t7.5e0f
jobnumber    7
taskid       undefined
qsub_time    11/21/2026 11:26:55.707
failed       100 : assumedly after job
deleted_by   {who}
exit_status  137
"""


def test_who_deleted_a_job_is_told_by_univa() -> None:
    assert parse_qacct(UNIVA.format(who="ann@login1")) == {"7": "deleted by ann@login1"}
    words = "killed: deleted, or over a limit of its queue"
    assert parse_qacct(UNIVA.format(who="NONE")) == {"7": words}


def test_a_job_that_was_started_again_has_not_ended() -> None:
    first = UNIVA.format(who="NONE").replace("100 : assumedly after job", "25  : rescheduling")
    assert parse_qacct(first) == {}
    last = UNIVA.format(who="NONE").replace("100 : assumedly after job", "0")
    again = f"{'=' * 62}\n{first}{'=' * 62}\n{last.replace('137', '91')}"
    assert parse_qacct(again) == {"7": "ended with exit code 91"}


@thorough
@given(malformed(QACCT, UNIVA))
def test_qacct_garbage(text: str) -> None:
    assert all(parse_qacct(text).values())
