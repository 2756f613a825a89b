"""What HTCondor is told and asked: submit descriptions, and when the server is not believed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from job_orders import Workshop, handle

from production.batch import BatchSystem, htcondor, open_batch
from production.batch.condor_events import LOG
from production.batch.together import Together
from production.errors import (
    CommandError,
    ConfigurationError,
    QueryFailed,
    SubmissionRefused,
    UsageError,
)
from production.model import JobHandle, JobOrder, JobState, Requirements

PENDING, RUNNING, HELD, GONE = JobState


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def description(*orders: JobOrder, **options: object) -> str:
    system = open_batch("htcondor", options)
    assert isinstance(system, htcondor.HTCondorSystem)
    return system.input(Together(orders))


# --------------------------------------------------------------------------- submit descriptions


def test_what_htcondor_is_told(workshop: Workshop) -> None:
    needs = Requirements(time=3600, memory=3 * 10**9, cores=2)
    order = workshop.order(requirements=needs)
    options = {"queue": "workday", "project": "group_muon", "options": ["priority = 5"]}
    lines = description(order, **options).splitlines()
    assert {
        "request_cpus = 2",
        "request_memory = 2862",
        "allowed_job_duration = 3660",
        "+MaxRuntime = 3660",
        '+JobFlavour = "workday"',
        "accounting_group = group_muon",
        "priority = 5",
        f'+ProductionJob = "{order.name}"',
        f"spool_0 = {order.spool}",
    } <= set(lines)
    assert lines[-1] == "queue 1"


def test_each_job_of_an_array_has_its_own_files(workshop: Workshop) -> None:
    orders = [workshop.order(run=run) for run in (1, 2)]
    text = description(*orders)
    assert "+ProductionArray = True\n" in text
    for number, order in enumerate(orders):
        files = f"'{order.spool}' '{order.stdout}' '{order.stderr}'"
        assert f"spool_{number} = {order.spool}\nfiles_{number} = {files}\n" in text
    assert text.endswith("queue 2\n")


def test_attributes_of_other_sites(workshop: Workshop) -> None:
    order = workshop.order(requirements=Requirements(time=60))
    words = {"queue_attribute": "Class", "time_attribute": "Walltime", "event_log": "no"}
    text = description(order, queue="long", **words)
    assert '\n+Class = "long"\n' in text
    assert "\n+Walltime = 120\n" in text
    assert "\nlog = " not in text


def test_the_users_lines_are_replaced_by_those_that_must_hold(workshop: Workshop) -> None:
    options = ["requirements = Memory > 10", "request_cpus = 4"]
    lines = description(workshop.order(), options=options).splitlines()
    assert lines.index("request_cpus = 1") < lines.index("request_cpus = 4")
    (ours,) = [line for line in lines if line.startswith("requirements = ($(requirements")]
    assert lines.index("requirements = Memory > 10") < lines.index(ours)


def test_the_command_names_schedd_and_pool(workshop: Workshop) -> None:
    system = open_batch("htcondor", {"name": "schedd7", "pool": "central.lab"})
    shown = system.describe(workshop.order())
    assert shown.startswith("condor_submit -pool central.lab -name schedd7 -terse - << 'END'\n")


def test_the_job_has_the_users_language(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "de_CH.UTF-8")
    monkeypatch.delenv("LANG", raising=False)
    assert "environment = \"LC_ALL='de_CH.UTF-8' LANG=''\"\n" in description(workshop.order())


@pytest.mark.parametrize("name", ["a $$(Cmd)", "two\nlines"])
def test_a_path_that_cannot_be_told_is_refused(tmp_path: Path, name: str) -> None:
    workshop = Workshop(tmp_path / name)
    workshop.directory.mkdir()
    system = open_batch("htcondor", {})
    (answer,) = system.submit([workshop.order(write=False)])
    assert isinstance(answer, SubmissionRefused)
    assert "its submit descriptions cannot hold the path" in str(answer)


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ("Executable = /bin/true", "cannot be used: the manager says what is run"),
        ("log=x", "cannot be used: the manager says what is run"),
        ("queue = 5", "cannot be used"),
        ("max_retries = 3", "cannot be used: a job is started once"),
        ("max_materialize = 3", "cannot be used: all jobs must be there"),
        ('MY.ProductionJob = "x"', "cannot be used: the manager finds its jobs by it"),
        ('+productionjob = "x"', "cannot be used: the manager finds its jobs by it"),
        ("queue 5", "must be a line such as"),
        ("--constraint=x", "must be a line such as"),
        ("a = b \\", "must be a line such as"),
        ("a = b\nqueue", "must be a line such as"),
    ],
)
def test_options_that_cannot_be_used(option: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        open_batch("htcondor", {}).check(Requirements(options=(option,)))
    with pytest.raises(UsageError, match=what):
        open_batch("htcondor", {"options": [option]}).check(Requirements())


def test_options_that_can_be_used() -> None:
    options = ("requirements = Arch == 1", '+Comment = "x"', "MY.X=1", "priority=5", "hold =")
    open_batch("htcondor", {}).check(Requirements(options=options))


def test_wrong_words_of_the_site() -> None:
    with pytest.raises(ConfigurationError, match=r'event_log must be "yes" or "no", not'):
        open_batch("htcondor", {"event_log": "maybe"})


# --------------------------------------------------------------------------- queue and event log

HEAD = "(012.000.000) 2026-11-21 03:32:49"
SUBMITTED = f"000 {HEAD} Job submitted from host: <127.0.0.1>\n...\n"
EXECUTING = f"001 {HEAD} Job executing on host: <127.0.0.1>\n...\n"
EVICTED = f"004 {HEAD} Job was evicted.\n\t(0) CPU times\n...\n"
ABORTED = f"009 {HEAD} Job was aborted.\n\tvia condor_rm (by user me)\n...\n"


class Pool:
    """Commands that answer what a test wants, and a job whose log a test writes."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.bin.mkdir()
        self._answer = directory / "answer"
        self._calls = directory / "calls"
        self.command("condor_q", f"cat {self._answer}")
        self.command("condor_history", ":")
        self.order = Workshop(directory).order()
        self.job = handle(self.order, "12.0")
        self.answer()

    def command(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho {name} "$@" >> {self._calls}\n{script}\n')
        path.chmod(0o755)

    def answer(self, *states: int) -> None:
        """What condor_q prints: the job, in this state; or nothing."""
        ad = {"ClusterId": 12, "ProcId": 0, "ProductionJob": self.order.name}
        ads = [{**ad, "JobStatus": state} for state in states]
        self._answer.write_text(json.dumps(ads) if ads else "")

    def log(self, *entries: str) -> None:
        with (self.order.spool / LOG).open("a") as log:
            log.write("".join(entries))

    def poll(self, system: BatchSystem, job: JobHandle | None = None) -> JobState:
        return system.poll([job or self.job])[self.job.name]

    def calls(self, name: str) -> list[str]:
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [line for line in lines if line.split()[0] == name]


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    made = Pool(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    return made


@pytest.fixture
def system() -> BatchSystem:
    return open_batch("htcondor", {})


def test_the_server_is_asked_once_while_the_log_tells(pool: Pool, system: BatchSystem) -> None:
    pool.answer(1)
    pool.log(SUBMITTED)
    assert pool.poll(system) is PENDING
    pool.log(EXECUTING)
    assert pool.poll(system) is RUNNING
    assert len(pool.calls("condor_q")) == 1


def test_what_the_logs_tell_is_confirmed_from_time_to_time(
    pool: Pool, system: BatchSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(htcondor, "_CONFIRM", 0)
    pool.log(SUBMITTED, EXECUTING)
    pool.answer(5)
    assert pool.poll(system) is HELD
    assert pool.poll(system) is HELD
    assert len(pool.calls("condor_q")) == 2


def test_an_empty_answer_is_not_believed_while_the_log_tells_otherwise(
    pool: Pool, system: BatchSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.log(SUBMITTED, EXECUTING)
    assert pool.poll(system) is RUNNING
    assert pool.poll(system) is RUNNING
    assert len(pool.calls("condor_q")) == 2  # it is asked again until they agree
    pool.answer(2)
    assert pool.poll(system) is RUNNING
    assert pool.poll(system) is RUNNING
    assert len(pool.calls("condor_q")) == 3
    monkeypatch.setattr(htcondor, "_CONFIRM", 0)
    monkeypatch.setattr(htcondor, "_LOG_LAG", 0)
    pool.answer()
    assert pool.poll(system) is GONE


def test_a_job_is_gone_when_both_say_so(pool: Pool, system: BatchSystem) -> None:
    pool.log(SUBMITTED, EXECUTING, ABORTED)
    assert pool.poll(system) is GONE
    assert system.reason_of([pool.job]) == {pool.job.name: "removed via condor_rm (by user me)"}
    assert pool.calls("condor_history") == []


@pytest.mark.parametrize(
    ("states", "why"),
    [
        ((2,), ""),  # it may have been held, and its log tell so in a moment
        ((5,), "held"),
        ((1,), "evicted from its node"),
        ((), "evicted from its node"),
    ],
)
def test_an_eviction_is_the_reason_when_none_can_follow(
    pool: Pool, system: BatchSystem, states: tuple[int, ...], why: str
) -> None:
    pool.log(SUBMITTED, EXECUTING, EVICTED)
    pool.answer(*states)
    pool.poll(system)
    assert system.reason_of([pool.job]) == ({pool.job.name: why} if why else {})


def test_an_eviction_may_be_in_the_queue_before_it_was_read_in_the_log(
    pool: Pool, system: BatchSystem
) -> None:
    pool.log(SUBMITTED, EXECUTING)
    pool.answer(1)
    pool.poll(system)
    pool.log(EVICTED)
    assert system.reason_of([pool.job]) == {pool.job.name: "evicted from its node"}


def test_a_hold_that_is_over_is_not_why_a_job_was_evicted(pool: Pool, system: BatchSystem) -> None:
    pool.answer(5)
    assert pool.poll(system) is HELD
    pool.log(SUBMITTED, EXECUTING, EVICTED)
    pool.answer(1)
    assert pool.poll(system) is PENDING
    assert system.reason_of([pool.job]) == {pool.job.name: "evicted from its node"}


def test_a_log_that_tells_the_end_too_early_is_not_believed(
    pool: Pool, system: BatchSystem
) -> None:
    pool.log(SUBMITTED, EXECUTING, ABORTED)
    pool.answer(2)
    assert pool.poll(system) is RUNNING


def test_without_a_log_the_queue_decides(pool: Pool, system: BatchSystem) -> None:
    pool.answer(2)
    assert pool.poll(system) is RUNNING
    pool.answer()
    assert pool.poll(system) is GONE
    assert system.reason_of([pool.job]) == {}
    assert len(pool.calls("condor_history")) == 1


@pytest.mark.parametrize("script", ["exit 1", "echo '[{'", "echo nonsense"])
def test_no_answer_leaves_open_what_no_log_tells(
    pool: Pool, system: BatchSystem, script: str
) -> None:
    pool.command("condor_q", script)
    with pytest.raises(QueryFailed):
        pool.poll(system)


def test_a_log_of_another_job_tells_nothing(pool: Pool, system: BatchSystem) -> None:
    pool.log(SUBMITTED, EXECUTING)
    assert pool.poll(system, handle(pool.order, "13.0")) is GONE


def test_a_job_whose_submission_was_not_answered_is_found_in_its_log(
    pool: Pool, system: BatchSystem
) -> None:
    pool.log(SUBMITTED)
    assert pool.poll(system, handle(pool.order)) is PENDING


def test_cancelling_does_not_trust_an_empty_answer(
    pool: Pool, system: BatchSystem, tmp_path: Path
) -> None:
    pool.log(SUBMITTED, EXECUTING)
    (tmp_path / "last").write_text(ABORTED)
    pool.command("condor_rm", f"cat {tmp_path / 'last'} >> {pool.order.spool / LOG}")
    system.cancel([handle(pool.order)])
    assert pool.calls("condor_rm") == ["condor_rm 12.0"]


def test_the_queue_is_asked_for_the_range_of_known_jobs(pool: Pool, system: BatchSystem) -> None:
    jobs = [JobHandle(f"job{n}", pool.order.spool, f"{n}.0") for n in (7, 30, 12)]
    system.poll(jobs)
    (asked,) = pool.calls("condor_q")
    assert asked.endswith(
        "-constraint ProductionJob isnt undefined && ClusterId >= 7 && ClusterId <= 30"
    )
    system.poll([*jobs, JobHandle("unanswered", pool.order.spool)])
    assert pool.calls("condor_q")[-1].endswith("-constraint ProductionJob isnt undefined")


RM_ANSWERS: Mapping[str, str] = {
    "Job 12.0 not found": "",
    "Couldn't find/remove all jobs in cluster 12": "",
    "Can't find address of local schedd": "find address of local schedd",
    "": "without a reason",
}


@pytest.mark.parametrize("said", RM_ANSWERS)
def test_of_what_condor_rm_complains(pool: Pool, said: str) -> None:
    pool.command("condor_rm", f'echo "{said}" >&2; exit 1')
    system = htcondor.open_system({})
    assert isinstance(system, htcondor.HTCondorSystem)
    expected = RM_ANSWERS[said]
    with pytest.raises(CommandError, match=expected) if expected else contextlib.nullcontext():
        system.delete(["12.0"])
