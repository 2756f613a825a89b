"""What Grid Engine's commands say: recorded answers, and answers that are none."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from production.batch.sge import (
    Row,
    meaning,
    parse_accepted,
    parse_error_reasons,
    parse_qacct,
    parse_qstat,
)
from production.batch.together import Place
from production.commands import Completed
from production.errors import BatchError, QueryFailed, SubmissionRefused
from production.model import JobState

PENDING, RUNNING = JobState.PENDING, JobState.RUNNING

DATA = Path(__file__).parent / "data"
QSTAT = (DATA / "sge_qstat.xml").read_text()
REASONS = (DATA / "sge_qstat_j.txt").read_text()
QACCT = (DATA / "sge_qacct.txt").read_text()
ENTRY = """\
<job_info><queue_info/><job_info><job_list state="pending"><JB_job_number>{job}</JB_job_number>
<JB_name>x</JB_name><state>{state}</state><tasks>{tasks}</tasks></job_list></job_info></job_info>
"""

# --------------------------------------------------------------------------- qstat


def test_every_entry_of_a_real_queue() -> None:
    rows = parse_qstat(QSTAT)
    assert Row("5", "badwd", "Eqw", "") in rows
    assert Row("19", "broken.x3", "Eqw", "1-3:1") in rows
    assert Row("20", "held", "hqw", "") in rows
    states = {row.tasks: row.state for row in rows if row.job == "21"}
    assert states == {"1": "s", "2": "dr", **dict.fromkeys("345678", "r"), "9": "hqw"}
    assert len(rows) == QSTAT.count("<JB_job_number>")


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
        *((word, PENDING) for word in ("qw", "hqw", "hRwq", "Rq", "Eqw", "Ehqw", "EhRqw")),
        *((word, RUNNING) for word in ("r", "t", "Rr", "Rt", "hr", "s", "ts", "S", "T", "tT")),
        *((word, RUNNING) for word in ("dr", "dt", "dRr", "ds", "dS")),
    ],
)
def test_states(state: str, expected: JobState) -> None:
    assert meaning(state) is expected


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


ENTRIES = st.builds(
    lambda job, state, tasks: ENTRY.format(job=job, state=state, tasks=tasks),
    job=st.text() | st.just("7"),
    state=st.sampled_from(["qw", "?"]),
    tasks=st.text() | st.text("0123456789-:,"),
)
INSIDE = st.text().map(lambda text: f"<job_info>{text}</job_info>")
CUT = st.integers(0, len(QSTAT)).map(lambda cut: QSTAT[:cut])


@given(st.text() | INSIDE | CUT | ENTRIES)
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


@given(st.text() | st.text().map(REASONS.__add__))
def test_error_reasons_garbage(text: str) -> None:
    assert all(parse_error_reasons(text))


def test_how_jobs_ended() -> None:
    assert parse_qacct(QACCT) == {
        "2.3": "killed: deleted, or over a limit of the batch system",
        "6": "ended with exit code 3",
    }


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
        ("21", "0", "failed (21)"),
    ],
)
def test_failed_codes(failed: str, status: str, words: str) -> None:
    text = QACCT.replace("100 : assumedly after job", failed).replace("137  ", status)
    assert parse_qacct(text)["2.3"] == words


@given(st.text() | st.text().map(QACCT.__add__))
def test_qacct_garbage(text: str) -> None:
    assert all(parse_qacct(text).values())
