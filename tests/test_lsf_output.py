"""What LSF's commands say: recorded answers, documented ones, and answers that are none.

tests/data/lsf_* was recorded from volclava 2.2, the samples called IBM's are written after the
command reference of IBM Spectrum LSF 10.1.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_orders import WRITE, Workshop, handle
from malformed import malformed, thorough

from production import commands
from production.batch import BatchSystem, open_batch
from production.batch.cluster import Listed
from production.batch.lsf import parse_accepted
from production.batch.lsf_history import End, in_words, parse_long, reasons
from production.batch.lsf_output import FORMS, parse_bjobs
from production.batch.together import Place
from production.commands import Completed
from production.errors import (
    BatchError,
    CommandMissing,
    CommandTimeout,
    ConfigurationError,
    QueryFailed,
    SubmissionRefused,
    UsageError,
)
from production.model import JobHandle, JobState, Requirements

PENDING, RUNNING, HELD, GONE = (
    JobState.PENDING,
    JobState.RUNNING,
    JobState.HELD,
    JobState.GONE,
)
DATA = Path(__file__).parent / "data"


def recorded(name: str) -> str:
    return (DATA / f"lsf_{name}").read_text()


JSON, TEXT, WIDE = FORMS[1], FORMS[2], FORMS[3]
DOWN = "Failed in an LSF library call: LIM is down; try later\n"
ASLEEP = "LSF daemon (LIM) not responding ... still trying\n" * 2

# IBM's, with LSB_BJOBS_DISPLAY_ENH=Y, and ids of more than the seven figures of the default format.
IBM = """\
{
  "COMMAND":"bjobs",
  "JOBS":3,
  "RECORDS":[
    {"JOBID":"123456789[2]","STAT":"PROV","QUEUE":"normal","JOB_NAME":"arr[2]","JOBINDEX":"2"},
    {"JOBID":"123456789","STAT":"UNKWN","QUEUE":"normal","JOB_NAME":"arr","JOBINDEX":"3"},
    {"JOBID":"123456790","STAT":"RUN","QUEUE":"-","JOB_NAME":"single","JOBINDEX":"0"}
  ]
}
"""


def rows(text: str, form: int = 1) -> dict[str, Listed]:
    found, denied = parse_bjobs(Completed(0, text, ""), FORMS[form])
    assert not denied
    return {row.id: row for row in found}


# --------------------------------------------------------------------------- bjobs


@pytest.mark.parametrize(("name", "form"), [("bjobs_o.json", 1), ("bjobs_o.txt", 2)])
def test_the_queue_as_it_was_recorded(name: str, form: int) -> None:
    found = rows(recorded(name), form)
    assert found["3"] == Listed("3", Place("q1"), RUNNING, queue="short")
    assert found["7"].state is HELD
    assert found["7"].why.startswith("held: suspended before it started (PSUSP)")
    assert found["7"].queue == "normal"
    assert found["2"] == Listed("2", Place("bad3"), GONE, "failed (EXIT)")
    assert found["6[3]"] == Listed("6[3]", Place("arr", 3), GONE, "failed (EXIT)")
    assert len(found) == 14


def test_the_wide_format_where_there_is_no_other() -> None:
    found = rows(recorded("bjobs_w.txt"), 3)
    assert found["3"] == Listed("3", Place("q1"), RUNNING, queue="short")
    assert found["6[10]"].place == Place("arr", 10)
    pending = rows(recorded("bjobs_w_pending.txt"), 3)
    assert pending["6[10]"] == Listed("6[10]", Place("arr", 10), PENDING, queue="normal")
    assert len(found) == len(pending) == 13


def test_a_blank_execution_host() -> None:
    line = "9       alice   PEND  normal     vm                      long4      Nov 21 03:18\n"
    header = recorded("bjobs_w.txt").partition("\n")[0]
    assert rows(f"Welcome!\n\n{header}\n{line}", 3)["9"].place == Place("long4")


def test_long_ids_and_indices_wherever_they_stand() -> None:
    found = rows(IBM, 0)
    assert found["123456789[2]"] == Listed("123456789[2]", Place("arr", 2), RUNNING, queue="normal")
    assert found["123456789[3]"].place == Place("arr", 3)
    assert found["123456790"].place == Place("single")


@pytest.mark.parametrize(
    ("word", "state"),
    [
        *((word, PENDING) for word in ("PEND", "WAIT")),
        *((word, RUNNING) for word in ("RUN", "SSUSP", "UNKWN", "PROV", "A_NEW_ONE")),
        *((word, HELD) for word in ("PSUSP", "USUSP")),
        *((word, GONE) for word in ("DONE", "EXIT", "POST_DONE", "POST_ERR", "ZOMBI")),
    ],
)
def test_every_state(word: str, state: JobState) -> None:
    row = rows(f"JOBID STAT QUEUE JOB_NAME\n7 {word} normal x\n", 2)["7"]
    assert row.state is state
    assert (word in row.why) == (state in (HELD, GONE)) or word == "POST_DONE"


def test_done_is_not_taken_for_success() -> None:
    assert "may do with killed jobs" in rows(recorded("bjobs_o.json"))["1"].why


@pytest.mark.parametrize(
    ("answer", "denied"),
    [
        (Completed(255, "", "No job found\n"), set()),
        (Completed(254, "", "No unfinished job found\n"), set()),
        (
            Completed(255, "", "Job <99999> is not found\nJob <7[2]> is not found\n"),
            {"99999", "7[2]"},
        ),
        (Completed(255, recorded("bjobs_unknown.json"), ""), {"99999"}),
        (Completed(255, '{"COMMAND":"bjobs","JOBS":0,"RECORDS":[]}\n', ""), set()),
    ],
)
def test_what_proves_that_there_are_no_jobs(answer: Completed, denied: set[str]) -> None:
    assert parse_bjobs(answer, JSON) == ([], denied)


@pytest.mark.parametrize(
    ("stdout", "stderr", "form"),
    [
        ("", "", JSON),
        ("\n", "", TEXT),
        ("", "<EXIT_CODE> in the format string is not a valid field name.\n", JSON),
        ("", "bjobs: invalid option -- 'j'\nUsage: bjobs [-h] [-V]\n", JSON),
        ("", ASLEEP, WIDE),
        (recorded("bjobs_o.json")[:-9], "", JSON),  # cut off
        (recorded("bjobs_o.json").replace("14", "15"), "", JSON),
        ('{"COMMAND":"bjobs","JOBS":1,"RECORDS":["x"]}', "", JSON),
        ('{"COMMAND":"bjobs","JOBS":1,"RECORDS":[{"JOBID":"7","ERROR":"what?"}]}', "", JSON),
        ('{"COMMAND":"bjobs","JOBS":1,"RECORDS":[{"JOBID":"7","STAT":"RUN"', "", JSON),
        ("[" * 100_000, "", JSON),
        (recorded("bjobs_o.txt")[:-3], "", TEXT),
        (recorded("bjobs_o.txt").partition("\n")[2], "", TEXT),  # without its first line
        ("JOBID STAT QUEUE JOB_NAME\n7 RUN\n", "", TEXT),
        ("JOBID STAT QUEUE JOB_NAME\n*456789 RUN normal x\n", "", TEXT),
        (recorded("bjobs_w.txt")[:-7] + "\n", "", WIDE),
    ],
)
def test_what_is_no_answer_is_not_taken_for_an_empty_queue(
    stdout: str, stderr: str, form: object
) -> None:
    with pytest.raises(QueryFailed, match="did not answer: bjobs: "):
        parse_bjobs(Completed(0, stdout, stderr), form)  # type: ignore[arg-type]


NOISE = malformed("", DOWN, "Job <7> is not found\n")
SPOILT = malformed(IBM, *map(recorded, ("bjobs_o.json", "bjobs_o.txt", "bjobs_w.txt")))


def check_bjobs(text: str, stderr: str) -> None:
    for form in FORMS:
        with contextlib.suppress(QueryFailed):
            found, denied = parse_bjobs(Completed(0, text, stderr), form)
            assert all(row.id and row.place.name is not None for row in found)
            assert found or denied or not text.strip() or "RECORDS" in text or "JOBID" in text


@given(SPOILT, NOISE)
def test_bjobs_garbage(text: str, stderr: str) -> None:
    check_bjobs(text, stderr)


@thorough
@given(SPOILT, NOISE)
def test_bjobs_garbage_thoroughly(text: str, stderr: str) -> None:
    check_bjobs(text, stderr)


# --------------------------------------------------------------------------- bsub


@pytest.mark.parametrize(
    "said",
    [
        "Job <1234> is submitted to default queue <normal>.\n",
        "Job <1234> is submitted to queue <short>.\n",
        "Welcome!\nJob <7> is a fine job\nJob <1234> is submitted to queue <short>.\nBye\n",
        "esub: your project is muon. Job <1234> is submitted to queue <short>.\n",
    ],
)
def test_the_id_of_a_submission(said: str) -> None:
    assert parse_accepted(Completed(0, said, "a remark of the site\n")) == "1234"


@pytest.mark.parametrize(
    "stderr",
    [
        "nosuch: No such queue. Job not submitted.\n",
        "closed: User cannot use the queue. Job not submitted.\n",
        "Bad resource requirement syntax. Job not submitted.\n",
        "Too many processors requested. Job not submitted.\n",
        "No command is specified. Job not submitted.\n",
        "99999: No matching job found. Job not submitted.\n",
        "wd: Bad CPULIMIT specification. Job not submitted.\n",
        "RUNLIMIT: Cannot exceed queue's hard limit(s). Job not submitted.\n",
        "Job array index too large. Job not submitted.\n",
        "Request aborted by esub. Job not submitted.\n",
        "bsub: illegal option -- g\nUsage: bsub [-h] [-V]\n\t\t[-L login_shell]\n",
    ],
)
def test_what_lsf_refuses(stderr: str) -> None:
    with pytest.raises(SubmissionRefused) as raised:
        parse_accepted(Completed(255, "", stderr))
    said = stderr.partition("\n")[0].removeprefix("bsub: ")
    assert str(raised.value) == f"Batch system lsf refused the job: {said}"


@pytest.mark.parametrize(
    ("code", "stderr"),
    [
        (255, DOWN),
        (255, ASLEEP),
        (255, "lsb_init: Failed in an LSF library call: Unable to open file lsf.conf\n"),
        (255, "User <alice>: Pending job threshold reached. Job not submitted.\n"),
        (255, "Cannot connect to LSF. Please wait ...\n"),
        (255, "LSF is processing your request. Please wait...\n"),
        (255, "LSF is down. Please wait...\n"),
        (255, "Failed in sending/receiving a message: Connection reset. Job not submitted.\n"),
        (255, ""),
        (127, "env: bsub: No such file or directory\n"),
        (0, ""),
        (0, "nosuch: No such queue. Job not submitted.\n"),
    ],
)
def test_what_leaves_open_whether_there_is_a_job(code: int, stderr: str) -> None:
    with pytest.raises(BatchError) as raised:
        parse_accepted(Completed(code, "", stderr))
    assert not isinstance(raised.value, SubmissionRefused)


BSUB = malformed(
    "Job <1> is submitted to default queue <normal>.\n",
    "closed: User cannot use the queue. Job not submitted.\n",
    DOWN,
)


def check_bsub(code: int, stdout: str, stderr: str) -> None:
    with contextlib.suppress(BatchError):
        assert parse_accepted(Completed(code, stdout, stderr)).isdecimal()


@given(st.integers(0, 255), BSUB, BSUB)
def test_bsub_garbage(code: int, stdout: str, stderr: str) -> None:
    check_bsub(code, stdout, stderr)


@thorough
@given(st.integers(0, 255), BSUB, BSUB)
def test_bsub_garbage_thoroughly(code: int, stdout: str, stderr: str) -> None:
    check_bsub(code, stdout, stderr)


# --------------------------------------------------------------------------- how jobs ended

LONG_IBM = """\

Job <1234567[3]>, Job Name <arr[3]>, User <alice>, Project <default>, Status <EX
                     IT>, Queue <normal>, Command <#!/usr/bin/env bash;echo TER
                     M_MEMLIMIT>, Share group charged </alice>
Thu Mar 13 17:14:27: Submitted from host <hostA>, CWD <$HOME>;
Thu Mar 13 17:14:48: Started 1 Task(s) on Host(s) <hostB>, Allocated 1 Slot(s) o
                     n Host(s) <hostB>;
Thu Mar 13 18:14:59: Exited with exit code 140. The CPU time used is 0.1 seconds
                     .
Thu Mar 13 18:14:59: Completed <exit>; TERM_RUNLIMIT: job killed after reachin
                     g LSF run time limit.
------------------------------------------------------------------------------

Job <77>, User <alice>, Project <default>, Status <EXIT>, Queue <normal>
Wed Apr  2 17:14:27 2025: Exited; TERM_SOMETHING_NEW: job killed for a new reas
                     on of LSF. The CPU time used is 0.1 seconds.
"""


def words(text: str) -> dict[str, str]:
    return {id_: end.in_words() for id_, end in parse_long(text).items()}


def test_how_jobs_ended_as_bhist_tells() -> None:
    told = words(recorded("bhist_l.txt"))
    assert told["2"] == "ended with exit code 3"
    assert told["6[3]"] == "ended with exit code 1"
    assert told["8"] == "cancelled by alice, ended by signal 2 (SIGINT)"
    assert told["14"] == (
        "ended by signal 12 (SIGUSR2), as the batch system does it at the time limit"
    )
    # Killed, but "Done successfully".
    assert told["11[1]"] == "cancelled by alice"
    assert "may do with killed jobs" in told["40"]


def test_how_jobs_ended_as_bjobs_tells() -> None:
    told = words(recorded("bjobs_l.txt"))
    assert told["8"] == "ended by signal 2 (SIGINT), as bkill does it"
    assert told["25"] == "ended with exit code 127"
    assert told["11[3]"] == told["8"]
    assert "may do with killed jobs" in told["22"]  # which ended by SIGKILL


def test_termination_reasons() -> None:
    assert words(LONG_IBM) == {
        "1234567[3]": "over the time limit of the batch system (TERM_RUNLIMIT), "
        "ended by signal 12 (SIGUSR2)",
        "77": "job killed for a new reason of LSF (TERM_SOMETHING_NEW)",
    }


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1, "ended with exit code 1"),
        (128, "ended with exit code 128"),
        (137, "ended by signal 9 (SIGKILL)"),
        (255, "ended with exit code 255"),
    ],
)
def test_exit_codes(code: int, expected: str) -> None:
    assert in_words(code) == expected


LONG = malformed(LONG_IBM, recorded("bhist_l.txt"), recorded("bjobs_l.txt"))


def check_long(text: str) -> None:
    assert all(id_[0].isdecimal() and end != End() for id_, end in parse_long(text).items())
    assert all(words(text).values())


@given(LONG)
def test_history_garbage(text: str) -> None:
    check_long(text)


@thorough
@given(LONG)
def test_history_garbage_thoroughly(text: str) -> None:
    check_long(text)


class Historian:
    """Runs commands of which it knows the answers; others are missing."""

    def __init__(self, **answers: str | Exception) -> None:
        self.answers = answers
        self.asked: list[list[str]] = []

    def __call__(self, argv: Sequence[str], timeout: float) -> Completed:
        assert timeout > 0
        self.asked.append(list(argv))
        answer = self.answers.get(argv[0], CommandMissing(command=argv[0]))
        if isinstance(answer, Exception):
            raise answer
        return Completed(255, answer, "Job <99> is not found\n")


def ask(historian: Historian, *ids: str) -> Mapping[str, str]:
    return reasons(ids, historian)


def test_the_history_is_asked_for_what_the_queue_does_not_tell() -> None:
    historian = Historian(bjobs=recorded("bjobs_l.txt"), bhist=recorded("bhist_l.txt"))
    assert ask(historian, "8", "1", "99") == {
        "8": "cancelled by alice, ended by signal 2 (SIGINT)",
        "1": words(recorded("bhist_l.txt"))["1"],
    }
    assert [argv[0] for argv in historian.asked] == ["bjobs", "bhist", "bacct"]


def test_the_history_is_not_asked_for_what_the_queue_tells() -> None:
    historian = Historian(bjobs=LONG_IBM)
    assert len(ask(historian, "77", "1234567[3]")) == 2
    assert historian.asked == [["bjobs", "-a", "-l", "1234567[3]", "77"]]


def test_a_history_that_does_not_answer_costs_its_time_once() -> None:
    hung = CommandTimeout(command="bhist", seconds=20)
    historian = Historian(bhist=hung)
    assert ask(historian, *map(str, range(1000))) == {}
    assert [argv[0] for argv in historian.asked].count("bhist") == 1


# --------------------------------------------------------------------------- asking it


class Commands:
    """Commands of a site, as functions of their arguments."""

    def __init__(self, **answers: Callable[[list[str]], Completed]) -> None:
        self.answers = answers
        self.calls: list[list[str]] = []

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        stdin: str = "",
        accept: Collection[int] = (0,),
        unset: tuple[str, ...] = (),
        variables: Mapping[str, str] | None = None,
    ) -> Completed:
        assert variables == {"LSB_NTRIES": "1"}
        assert "BSUB_" in unset
        self.calls.append(list(argv))
        if argv[0] not in self.answers:
            raise CommandMissing(command=argv[0])
        answer = self.answers[argv[0]](list(argv[1:]))
        assert answer.code in accept
        return answer


Site = Callable[..., tuple[BatchSystem, Commands]]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    def make(**answers: Callable[[list[str]], Completed]) -> tuple[BatchSystem, Commands]:
        made = Commands(**answers)
        monkeypatch.setattr(commands, "run", made.run)
        return open_batch("lsf", {}), made

    return make


def volclava(arguments: list[str]) -> Completed:
    """A bjobs that knows eight fields, and job 5."""
    if "-o" in arguments and "jobindex" in arguments[arguments.index("-o") + 1]:
        return Completed(99, "", "<JOBINDEX> in the format string is not a valid field name.\n")
    unknown = [id_ for id_ in arguments if id_.isdecimal() and id_ != "5"]
    if unknown:
        records = ",".join(
            f'{{"JOBID":"{id_}","ERROR":"Job <{id_}> is not found"}}' for id_ in unknown
        )
        text = f'{{"COMMAND":"bjobs","JOBS":{len(unknown)},"RECORDS":[{records}]}}'
        return Completed(255, text, "")
    record = '{"JOBID":"5","STAT":"RUN","QUEUE":"normal","JOB_NAME":"five"}'
    return Completed(0, f'{{"COMMAND":"bjobs","JOBS":1,"RECORDS":[{record}]}}', "")


def job(tmp_path: Path, name: str, id_: str | None = None) -> JobHandle:
    spool = tmp_path / name
    spool.mkdir(exist_ok=True)
    return JobHandle(name, spool, id_)


def test_what_bjobs_understands_is_found_out_once(site: Site, tmp_path: Path) -> None:
    system, made = site(bjobs=volclava)
    for _ in range(3):
        assert system.poll([job(tmp_path, "five", "5")]) == {"five": RUNNING}
    assert len(made.calls) == 4
    assert made.calls[-1] == ["bjobs", "-a", "-o", "jobid stat queue job_name", "-json"]


def test_a_site_that_has_only_the_wide_format(site: Site, tmp_path: Path) -> None:
    def old(arguments: list[str]) -> Completed:
        if "-o" in arguments:
            return Completed(255, "", "bjobs: illegal option -- o\nUsage: bjobs [-h] [-V]\n")
        return Completed(0, recorded("bjobs_w.txt"), "")

    system, made = site(bjobs=old)
    jobs = [job(tmp_path, "q1", "3"), job(tmp_path, "bad3", "2")]
    assert system.poll(jobs) == system.poll(jobs) == {"q1": RUNNING, "bad3": GONE}
    assert made.calls[-1] == ["bjobs", "-a", "-w"]
    assert len(made.calls) == len(FORMS) + 1


def test_a_job_is_gone_only_when_lsf_says_so(site: Site, tmp_path: Path) -> None:
    system, made = site(bjobs=volclava)
    assert system.poll([job(tmp_path, "six", "6")]) == {"six": GONE}
    assert made.calls[-1][-3:] == ["-u", "all", "6"]

    system, _ = site(bjobs=lambda _: volclava([]))  # it says nothing about 6
    with pytest.raises(QueryFailed, match="bjobs did not tell of 6"):
        system.poll([job(tmp_path, "six", "6")])


def test_an_element_is_gone_only_when_lsf_says_so(site: Site, tmp_path: Path) -> None:
    header = "JOBID STAT QUEUE JOB_NAME\n"
    said = {"6[3]": ("", "Job <6[3]> is not found\n"), "6[4]": (f"{header}6 RUN q arr[4]\n", "")}

    def bjobs(arguments: list[str]) -> Completed:
        if "-json" in arguments:
            return Completed(255, "", "bjobs: illegal option -- j\n")
        # By chance it was cut after a line, both times.
        stdout, stderr = said.get(arguments[-1], (f"{header}6 RUN q arr[1]\n", ""))
        return Completed(0, stdout, stderr)

    for index, state in ((1, RUNNING), (3, GONE), (4, RUNNING)):
        system, _ = site(bjobs=bjobs)
        element = job(tmp_path, f"e{index}", f"6[{index}]")
        assert system.poll([element]) == {f"e{index}": state}
    with pytest.raises(QueryFailed, match=r"did not tell of 6\[5\]"):
        system.poll([job(tmp_path, "e5", "6[5]")])


@pytest.mark.parametrize("stderr", [DOWN, ASLEEP])
def test_a_query_while_lsf_is_down_is_not_repeated(stderr: str, site: Site, tmp_path: Path) -> None:
    system, made = site(bjobs=lambda _: Completed(255, "", stderr))
    with pytest.raises(QueryFailed):
        system.poll([job(tmp_path, "five", "5")])
    assert len(made.calls) == 1


def test_a_job_may_be_named_like_a_trouble(site: Site, tmp_path: Path) -> None:
    system, _ = site(
        bjobs=lambda arguments: (
            Completed(255, "", "Job <cannot connect> is not found\n")
            if "-J" in arguments
            else Completed(254, "", "No job found\n")
        )
    )
    assert system.poll([job(tmp_path, "cannot connect")]) == {"cannot connect": GONE}


def test_an_array_that_was_taken_for_one_job(site: Site, tmp_path: Path) -> None:
    row = "JOBID STAT QUEUE JOB_NAME\n32 PEND normal big[1-3000]\n"
    system, _ = site(
        bjobs=lambda arguments: (
            Completed(255, "", "bjobs: no such option\n")
            if "-json" in arguments
            else Completed(0, row, "")
        )
    )
    element = job(tmp_path, "big", "32[7]")
    (element.spool / "array").write_text("big 7\n")
    assert system.poll([element]) == {"big": GONE}
    assert "set arrays = false" in str(system.reason_of([element])["big"])


def test_a_failing_bkill_that_has_done_its_duty(site: Site, tmp_path: Path) -> None:
    left = ["5"]

    def bjobs(arguments: list[str]) -> Completed:
        return (
            volclava(arguments)
            if left
            else Completed(255, "", "No job found\nJob <5> is not found\n")
        )

    def bkill(arguments: list[str]) -> Completed:
        assert arguments == ["5"]
        left.clear()
        return Completed(255, "Job <5> is being terminated\n", "Job <6>: No matching job found\n")

    system, _ = site(bjobs=bjobs, bkill=bkill)
    system.cancel([job(tmp_path, "five", "5")])


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (Completed(0, "Job <5> is switched to queue <short>\n", ""), None),
        (
            Completed(
                255,
                "Job <5> is switched to queue <short>\n",
                "Job <6>: Job has already finished\n",
            ),
            None,
        ),
        (Completed(255, "", "nosuch: No such queue\n"), "nosuch: No such queue"),
        (Completed(255, "", DOWN), "LIM is down"),
    ],
)
def test_moving_to_another_queue(
    answer: Completed, trouble: str | None, site: Site, tmp_path: Path
) -> None:
    moved: list[str] = []

    def bjobs(arguments: list[str]) -> Completed:
        queue = "short" if moved else "normal"
        return Completed(0, f"JOBID STAT QUEUE JOB_NAME\n5 PEND {queue} five\n", "")

    def bswitch(arguments: list[str]) -> Completed:
        assert arguments == ["short", "5"]
        if not trouble:
            moved.append("5")
        return answer

    system, _ = site(bjobs=bjobs, bswitch=bswitch)
    with pytest.raises(BatchError, match=trouble) if trouble else contextlib.nullcontext():
        assert system.move([job(tmp_path, "five", "5")], "short") == ["five"]


# --------------------------------------------------------------------------- what it is told


def told(workshop: Workshop, options: Mapping[str, object], **needs: object) -> list[str]:
    order = workshop.order(requirements=Requirements(**needs))  # type: ignore[arg-type]
    shown = open_batch("lsf", options).describe(order)
    return shlex.split(shown.partition(" << ")[0])


def test_what_lsf_is_told(tmp_path: Path) -> None:
    argv = told(
        Workshop(tmp_path),
        {"queue": "long", "project": "muon", "options": ["-app", "prod"]},
        time=3601,
        memory=3 * 10**9,
        cores=2,
    )
    assert argv[:5] == ["bsub", "-o", "/dev/null", "-e", "/dev/null"]
    assert argv[5:-2] == [
        *("-n", "2", "-W", "61", "-M", "2929688"),
        *("-R", "span[hosts=1] rusage[mem=2862]", "-q", "long", "-P", "muon", "-app", "prod"),
    ]
    assert argv[-2:] == ["-J", f"alcapana_v4.2091.a1.t7.{tmp_path.name}"]


@pytest.mark.parametrize(
    ("words", "limit", "reserved"),
    [
        ({}, "8388608", "8192"),
        ({"memory_unit": "MB"}, "8192", "8192"),
        ({"memory_unit": "GB"}, "8", "8"),
        ({"memory_per": "core"}, "8388608", "2048"),
    ],
)
def test_the_units_of_memory(
    words: Mapping[str, str], limit: str, reserved: str, tmp_path: Path
) -> None:
    argv = told(Workshop(tmp_path), words, memory=8 * 2**30, cores=4)
    assert argv[argv.index("-M") + 1] == limit
    assert argv[argv.index("-R") + 1] == f"span[hosts=1] rusage[mem={reserved}]"


@pytest.mark.parametrize("words", [{"memory_unit": "MiB"}, {"memory_per": "slot"}])
def test_wrong_words(words: Mapping[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="must be one of"):
        open_batch("lsf", words)


def test_an_option_by_which_jobs_would_get_lost() -> None:
    with pytest.raises(UsageError, match="-K for lsf cannot be used"):
        open_batch("lsf", {}).check(Requirements(options=("-K",)))


def test_a_submission_through_commands_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bsub = tmp_path / "bsub"
    bsub.write_text(
        "#!/bin/sh\n"
        '[ "$LSB_NTRIES" = 1 ] && [ -z "$BSUB_QUIET" ] || exit 1\n'
        f'printf "%s\\n" "$@" > {tmp_path}/arguments\ncat > {tmp_path}/script\n'
        "echo 'Job <12> is submitted to queue <short>.'\n"
    )
    bsub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("BSUB_QUIET", "1")
    monkeypatch.setenv("LC_ALL", "de_CH.UTF-8")
    monkeypatch.delenv("LANG", raising=False)
    workshop = Workshop(tmp_path)
    orders = [workshop.order(WRITE, run=run) for run in (1, 2, 3)]
    system = open_batch("lsf", {})
    assert system.submit(orders) == ["12[1]", "12[2]", "12[3]"]
    assert (tmp_path / "arguments").read_text().splitlines()[-1] == f"{orders[0].name}.x3[1-3]"
    script = (tmp_path / "script").read_text()
    assert "unset LC_ALL LANG\nexport LC_ALL=de_CH.UTF-8\ncase $LSB_JOBINDEX in\n1) set" in script
    assert handle(orders[0]).id is None
