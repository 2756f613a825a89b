"""What SLURM's commands say: recorded answers, and answers that are none."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from production.batch.cluster import Listed
from production.batch.slurm import in_words, parse_accepted, parse_sacct, parse_squeue
from production.batch.together import Place
from production.commands import Completed
from production.errors import BatchError, QueryFailed, SubmissionRefused
from production.model import JobState

PENDING, RUNNING, GONE = JobState.PENDING, JobState.RUNNING, JobState.GONE

RECORDED = (Path(__file__).parent / "data" / "slurm_squeue.txt").read_text()
HEADER = "JOBID|STATE|REASON|NAME\n"
SACCT = """\
20|TIMEOUT|0:0
21|FAILED|3:0
22|COMPLETED|0:0
23|FAILED|0:9
24_3|CANCELLED by 0|0:0
24_4|OUT_OF_MEMORY|0:125
25|RUNNING|0:0
26|NODE_FAIL|1:0
"""
SOCKET = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"


def rows(text: str = RECORDED) -> dict[str, Listed]:
    return {row.id: row for row in parse_squeue(text)}


# --------------------------------------------------------------------------- squeue


def test_every_state_of_a_real_queue() -> None:
    found = rows()
    assert found["25"] == Listed("25", Place("held"), PENDING)
    assert found["27"].state is PENDING
    assert found["32"] == Listed("32", Place("suspended"), RUNNING)
    assert found["22"].state is GONE
    assert found["20"].why == "over the time limit of the batch system (TIMEOUT)"
    assert found["21"].why == found["23"].why == "failed (FAILED)"
    assert len(found) == RECORDED.count("\n") - 1


def test_each_element_of_an_array_has_its_own_state() -> None:
    found = rows()
    states = [found[f"31_{index}"].state for index in range(1, 6)]
    assert states == [RUNNING, RUNNING, PENDING, PENDING, PENDING]
    assert found["31_4"].place == Place("count_v1.2095.a1.t9.5e0f.x5", 4)


def test_a_name_may_hold_the_separator() -> None:
    assert rows()["26"].place == Place("with|bar")


@pytest.mark.parametrize(
    ("state", "meaning"),
    [
        *((word, PENDING) for word in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")),
        *((word, RUNNING) for word in ("COMPLETING", "CONFIGURING", "STAGE_OUT", "STOPPED")),
        *((word, GONE) for word in ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE")),
        ("A_STATE_OF_THE_FUTURE", RUNNING),
    ],
)
def test_rarer_states(state: str, meaning: JobState) -> None:
    assert rows(f"{HEADER}7|{state}|None|x\n")["7"].state is meaning


def test_an_empty_queue() -> None:
    assert parse_squeue(HEADER) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        RECORDED[:-5],  # cut off
        RECORDED.partition("\n")[2],  # without its first line
        f"slurm is down for maintenance\n{RECORDED}",
        f"{HEADER}\n",
        f"{HEADER}7|RUNNING|None\n",
        f"{HEADER}7_[1-3]|PENDING|None|x\n",
    ],
)
def test_what_is_no_answer_is_not_taken_for_an_empty_queue(text: str) -> None:
    with pytest.raises(QueryFailed, match="did not answer: squeue printed"):
        parse_squeue(text)


@given(st.text() | st.text().map(HEADER.__add__) | st.text().map(RECORDED.__add__))
def test_squeue_garbage(text: str) -> None:
    with contextlib.suppress(QueryFailed):
        assert all(row.id and row.place.name is not None for row in parse_squeue(text))


# --------------------------------------------------------------------------- sbatch


@pytest.mark.parametrize("said", ["1234\n", "1234;cluster\n", "Welcome to the lab\n1234\n"])
def test_the_id_of_a_submission(said: str) -> None:
    assert parse_accepted(Completed(0, said, "sbatch: a remark of the site\n")) == "1234"


@pytest.mark.parametrize(
    ("stderr", "what"),
    [
        (
            "sbatch: error: invalid partition specified: nope\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified\n",
            r"refused the job: invalid partition specified: nope; Batch job",
        ),
        (
            "sbatch: error: Memory specification can not be satisfied\n"
            "sbatch: error: Batch job submission failed: "
            "Requested node configuration is not available\n",
            "Memory specification",
        ),
        (
            "sbatch: unrecognized option '--foo'\nTry \"sbatch --help\" for more information\n",
            "unrecognized option '--foo'",
        ),
        (
            "sbatch: error: Batch job submission failed: Invalid job array specification\n",
            "array",
        ),
    ],
)
def test_what_slurm_refuses(stderr: str, what: str) -> None:
    with pytest.raises(SubmissionRefused, match=what):
        parse_accepted(Completed(1, "", stderr))


@pytest.mark.parametrize(
    "answer",
    [
        Completed(1, "", SOCKET),
        Completed(1, "", SOCKET.replace("Socket timed out", "Zero Bytes were transmitted")),
        Completed(
            1,
            "",
            "sbatch: error: Batch job submission failed: "
            "Unable to contact slurm controller (connect failure)\n",
        ),
        Completed(
            1,
            "",
            "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission "
            "failed: Job violates accounting/QOS policy (job submit limit, user's size and/or "
            "time limits)\n",
        ),
        Completed(1, "", ""),
        Completed(127, "", "/usr/bin/env: no such file\n"),
        Completed(0, "", ""),
        Completed(0, "Submitted batch job 7\n", ""),
    ],
)
def test_what_leaves_open_whether_there_is_a_job(answer: Completed) -> None:
    with pytest.raises(BatchError) as raised:
        parse_accepted(answer)
    assert not isinstance(raised.value, SubmissionRefused)


@given(st.integers(0, 255), st.text(), st.text() | st.text().map("sbatch: error: ".__add__))
def test_sbatch_garbage(code: int, stdout: str, stderr: str) -> None:
    with contextlib.suppress(BatchError):
        assert parse_accepted(Completed(code, stdout, stderr)).isdecimal()


# --------------------------------------------------------------------------- sacct


def test_how_jobs_ended() -> None:
    assert parse_sacct(SACCT) == {
        "20": "over the time limit of the batch system (TIMEOUT)",
        "21": "failed with exit code 3 (FAILED)",
        "22": "the batch system saw it end well (COMPLETED)",
        "23": "failed, ended by signal 9 (FAILED)",
        "24_3": "cancelled by root (CANCELLED)",
        "24_4": "over the memory limit of the batch system (OUT_OF_MEMORY)",
        "26": "its node failed (NODE_FAIL)",
    }


def test_who_cancelled_a_job() -> None:
    assert in_words("CANCELLED by 999999999") == "cancelled by user 999999999 (CANCELLED)"


@given(st.text() | st.text().map(SACCT.__add__) | st.text().map(lambda t: f"1|CANCELLED by {t}|"))
def test_sacct_garbage(text: str) -> None:
    assert all(parse_sacct(text).values())


# --------------------------------------------------------------------------- the user's own setting


def test_a_users_own_filters_do_not_hide_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from production.batch import open_batch
    from production.model import JobHandle

    squeue = tmp_path / "squeue"
    squeue.write_text(
        "#!/bin/sh\nprintf '%s\\n' 'JOBID|STATE|REASON|NAME' "
        '"7|${SQUEUE_PARTITION-RUNNING}|None|job"\n'
    )
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SQUEUE_PARTITION", "COMPLETED")
    system = open_batch("slurm", {})
    assert system.poll([JobHandle("job", tmp_path, "7")]) == {"job": RUNNING}
