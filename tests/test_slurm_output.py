"""What SLURM's commands say: recorded answers, and answers that are none."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from malformed import malformed, thorough

from production.batch.cluster import Listed, Site
from production.batch.slurm import (
    SlurmSystem,
    in_words,
    parse_accepted,
    parse_sacct,
    parse_scontrol,
    parse_squeue,
)
from production.batch.together import Place
from production.commands import Completed
from production.errors import BatchError, CommandError, QueryFailed, SubmissionRefused
from production.model import JobState

PENDING, RUNNING, GONE = JobState.PENDING, JobState.RUNNING, JobState.GONE
HELD = JobState.HELD

DATA = Path(__file__).parent / "data"
RECORDED = (DATA / "slurm_squeue_22.05.txt").read_text()
SACCT = (DATA / "slurm_sacct_22.05.txt").read_text()
SCONTROL = (DATA / "slurm_scontrol_22.05.txt").read_text()
HEADER = "JOBID|STATE|PARTITION|REASON|NAME\n"
SACCT_HEADER = "JobID|State|ExitCode|ReqMem|MaxRSS\n"
ARRAY = "count_v1.2095.a1.t9.5e0f.x5"
SOCKET = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"


def rows(text: str = RECORDED) -> dict[str, Listed]:
    return {row.id: row for row in parse_squeue(text)}


# --------------------------------------------------------------------------- squeue


def by_name(text: str = RECORDED) -> dict[str, Listed]:
    return {row.place.name: row for row in parse_squeue(text) if row.place.index is None}


def test_every_state_of_a_real_queue() -> None:
    found = by_name()
    assert found["held"] == Listed(
        "9", Place("held"), HELD, "held by its user (JobHeldUser)", "main"
    )
    assert found["suspended"].state is RUNNING
    assert found["ok"].state is GONE
    assert found["over"].why == "over the time limit of the batch system (TIMEOUT)"
    assert found["failed"].why == found["killed"].why == "failed (FAILED)"
    assert found["preempted"].why == "stopped in favour of another job (PREEMPTED)"
    assert found["nodefail"].why == "its node failed (NODE_FAIL)"
    assert len(rows()) == RECORDED.count("\n") - 1


def test_jobs_that_do_not_start_until_somebody_does_something() -> None:
    found = by_name()
    assert {name: row.why for name, row in found.items() if row.state is HELD} == {
        "held": "held by its user (JobHeldUser)",
        "heldadmin": "held by an administrator (JobHeldAdmin)",
        "requeued": "held (job requeued in held state)",
        "toolong": "held: its partition does not allow as much time (PartitionTimeLimit)",
        "depends": "held: what it depends on will never come (DependencyNeverSatisfied)",
    }
    assert rows()["10_2"].state is HELD
    assert rows()["18_1"].why == "held (SPECIAL_EXIT)"


def test_each_element_of_an_array_has_its_own_state() -> None:
    found = rows()
    states = [found[f"24_{index}"].state for index in range(1, 6)]
    assert states == [RUNNING, RUNNING, PENDING, PENDING, PENDING]
    assert found["24_4"] == Listed("24_4", Place(ARRAY, 4), PENDING, queue="main")


def test_a_name_may_hold_the_separator() -> None:
    assert rows()["6"].place == Place("with|bar")


def test_a_heterogeneous_job_of_the_same_user_is_none_of_ours() -> None:
    components = "93+0|RUNNING|main|None|mixed\n93+1|PENDING|gpu|Resources|mixed\n"
    found = rows(f"{RECORDED}{components}")
    assert found.keys() - rows().keys() == {"93+0", "93+1"}
    assert not SlurmSystem(Site(words={"cluster": ""})).is_id("93+0")


def test_a_cluster_that_was_named_stands_before_the_header() -> None:
    assert parse_squeue(f"CLUSTER: tests\n{RECORDED}") == parse_squeue(RECORDED)


@pytest.mark.parametrize(
    ("state", "meaning"),
    [
        *((word, PENDING) for word in ("PENDING", "REQUEUED", "REQUEUE_FED")),
        *((word, HELD) for word in ("REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")),
        *((word, RUNNING) for word in ("COMPLETING", "CONFIGURING", "STAGE_OUT", "STOPPED")),
        *((word, GONE) for word in ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE")),
        ("A_STATE_OF_THE_FUTURE", RUNNING),
    ],
)
def test_rarer_states(state: str, meaning: JobState) -> None:
    assert rows(f"{HEADER}7|{state}|main|None|x\n")["7"].state is meaning


@pytest.mark.parametrize(
    "reason", ["launch failed requeued held", "launch_failed_requeued_held", "JobHeldAdmin"]
)
def test_a_pending_job_is_held_for_some_reasons(reason: str) -> None:
    row = rows(f"{HEADER}7|PENDING|a,b|{reason}|x\n")["7"]
    assert (row.state, row.queue) == (HELD, "a,b")
    assert row.why.endswith(f"({reason})")


def test_for_other_reasons_a_pending_job_just_waits() -> None:
    for reason in ("Resources", "Priority", "AssocMaxJobsLimit", "ReqNodeNotAvail, Maintenance"):
        assert rows(f"{HEADER}7|PENDING|main|{reason}|x\n")["7"].state is PENDING


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
        "CLUSTER: tests\n",
        f"{HEADER}7|RUNNING|main|None\n",
        f"{HEADER}7_[1-3]|PENDING|main|None|x\n",
    ],
)
def test_what_is_no_answer_is_not_taken_for_an_empty_queue(text: str) -> None:
    with pytest.raises(QueryFailed, match="did not answer: squeue printed"):
        parse_squeue(text)


@thorough
@given(malformed(RECORDED, f"CLUSTER: tests\n{RECORDED}"))
def test_squeue_garbage(text: str) -> None:
    with contextlib.suppress(QueryFailed):
        assert all(row.id for row in parse_squeue(text))


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
        Completed(  # of a machine that is told nowhere which cluster it belongs to
            1,
            "",
            "sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host\n"
            "sbatch: error: fetch_config: DNS SRV lookup failed\n"
            "sbatch: error: _establish_config_source: failed to fetch config\n"
            "sbatch: fatal: Could not establish a configuration source\n",
        ),
        Completed(
            1,
            "",
            "sbatch: error: ClusterName needs to be specified\n"
            "sbatch: fatal: Unable to process configuration file\n",
        ),
        Completed(1, "", ""),
        Completed(127, "", "/usr/bin/env: no such file\n"),
        Completed(0, "", ""),
        Completed(0, "Submitted batch job 7\n", ""),
        Completed(0, "12", ""),  # of 1234
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
    told = parse_sacct(SACCT)
    assert told == {
        "1": "over the time limit of the batch system (TIMEOUT)",
        "3": "failed with exit code 3 (FAILED)",
        "4": "failed, ended by signal 9 (FAILED)",
        "7": "over the memory limit of the batch system: 311 MB used, 105 MB asked for (FAILED)",
        "8": "its deadline had passed (DEADLINE)",
        "13": told["15"],
        "14": "cancelled by root (CANCELLED)",
        "15": told["13"],
        "16": "stopped in favour of another job (PREEMPTED)",
        "28": "its node failed (NODE_FAIL)",
        **dict.fromkeys(
            ("2", "5_1", "5_2", "5_3", "5_4", "6", "23"),
            "the batch system saw it end well (COMPLETED)",
        ),
    }
    assert told["13"].startswith("cancelled by ")


def test_elements_that_never_started_are_accounted_together() -> None:
    line = f"{SACCT_HEADER}10_[1-2,5%3]|CANCELLED by 0|0:0|100M|\n"
    words = "cancelled by root (CANCELLED)"
    assert parse_sacct(line) == dict.fromkeys(("10_1", "10_2", "10_5"), words)
    assert parse_sacct(line.replace("1-2", "1-999999999")) == {}


def test_what_the_server_remembers_without_accounting() -> None:
    assert parse_scontrol(SCONTROL) == {
        "1": "over the time limit of the batch system (TIMEOUT)",
        "2": "the batch system saw it end well (COMPLETED)",
        "3": "failed with exit code 3 (FAILED)",
        "4": "failed, ended by signal 9 (FAILED)",
        **dict.fromkeys(("5_2", "5_3", "5_4"), "the batch system saw it end well (COMPLETED)"),
        **dict.fromkeys(("13", "14", "15"), "cancelled (CANCELLED)"),
        "16": "stopped in favour of another job (PREEMPTED)",
        "28": "its node failed (NODE_FAIL)",
    }


def test_who_cancelled_a_job() -> None:
    assert in_words("CANCELLED by 999999999") == "cancelled by user 999999999 (CANCELLED)"


@thorough
@given(malformed(SACCT, "1|CANCELLED by 5|0:0||\n", "1_[1-5%3]|FAILED|1:0|100M|\n"))
def test_sacct_garbage(text: str) -> None:
    assert all(parse_sacct(SACCT_HEADER + text).values())


@pytest.mark.parametrize("text", ["", "\n", "JobID|State", SACCT.partition("\n")[2], "2|COMPLETED"])
def test_what_is_no_answer_of_the_accounting(text: str) -> None:
    with pytest.raises(CommandError, match="it printed "):
        parse_sacct(text)


@thorough
@given(malformed(*SCONTROL.splitlines()))
def test_scontrol_garbage(text: str) -> None:
    assert all(parse_scontrol(text).values())


# --------------------------------------------------------------------------- the user's own setting


def test_a_users_own_filters_do_not_hide_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from production.batch import open_batch
    from production.model import JobHandle

    squeue = tmp_path / "squeue"
    squeue.write_text(
        f"#!/bin/sh\nprintf '%s\\n' '{HEADER.strip()}' "
        '"7|${SQUEUE_PARTITION-RUNNING}|main|None|job"\n'
    )
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SQUEUE_PARTITION", "COMPLETED")
    system = open_batch("slurm", {})
    assert system.poll([JobHandle("job", tmp_path, "7")]) == {"job": RUNNING}
