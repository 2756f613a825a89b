"""What PBS's commands say, as documented, and answers that are none.

Nothing here was recorded from a real server.  tests/data/pbs_qstat.json is written after the
reference guide of PBS Professional 2022 and the examples in the issues and sources of OpenPBS;
tests/data/pbs_qstat.xml after the manual pages and sources of Torque 6.1.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_orders import WRITE, Workshop
from malformed import malformed, thorough

from production import commands
from production.batch import BatchSystem, open_batch
from production.batch.pbs import (
    PRO,
    TORQUE,
    Dialect,
    parse_accepted,
    parse_qstat,
    parse_version,
    short_name,
)
from production.batch.pbs_output import PRO_FAILURES, Id, Job, in_words
from production.commands import Completed
from production.errors import (
    BatchError,
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
JSON = (DATA / "pbs_qstat.json").read_text()
XML = (DATA / "pbs_qstat.xml").read_text()
TEXTS = {"pro": JSON, "torque": XML}


def jobs(text: str, dialect: Dialect = PRO) -> dict[str, Job]:
    found, denied = parse_qstat(Completed(0, text, ""), dialect)
    assert not denied
    return {str(id_): job for id_, job in found.items()}


# --------------------------------------------------------------------------- qstat


@pytest.mark.parametrize(
    ("id_", "state"),
    [
        ("11.pbs", PENDING),
        ("12[3].pbs", RUNNING),
        ("12[4].pbs", PENDING),
        ("13.pbs", RUNNING),
        ("14.pbs", HELD),
        ("16.pbs", RUNNING),
        *((f"{number}.pbs", GONE) for number in range(17, 25)),
    ],
)
def test_states_of_pbs_pro(id_: str, state: JobState) -> None:
    assert jobs(JSON)[id_].state is state


@pytest.mark.parametrize(
    ("id_", "state"),
    [
        ("31.torque", PENDING),
        ("32[2].torque", RUNNING),
        ("32[3].torque", PENDING),
        ("33.torque", RUNNING),
        ("34.torque", HELD),
        ("35.torque", PENDING),
        ("36.torque", PENDING),
        ("37.torque", RUNNING),
        *((f"{number}.torque", GONE) for number in range(38, 43)),
    ],
)
def test_states_of_torque(id_: str, state: JobState) -> None:
    assert jobs(XML, TORQUE)[id_].state is state


@pytest.mark.parametrize(
    ("id_", "why"),
    [
        ("12[1].pbs", "the batch system saw it end well"),
        ("12[2].pbs", "ended with exit code 3"),
        ("14.pbs", "held by its owner; qrls lets it go on"),
        (
            "15.pbs",
            "held by its owner and the system; qrls lets it go on "
            "(job held, too many failed attempts to run)",
        ),
        ("18.pbs", "over the time limit of the batch system, ended by signal 15 (SIGTERM)"),
        ("19.pbs", "over the memory limit of the batch system (exit status -27)"),
        ("20.pbs", "ended by signal 15 (SIGTERM)"),
        ("21.pbs", ""),
        ("22.pbs", "it could not be started on its node (exit status -1)"),
        ("23.pbs", "ended by signal 9 (SIGKILL)"),
        (
            "24.pbs",
            "moved to another server, where it is not watched "
            '(Job has been moved to server "other")',
        ),
    ],
)
def test_how_jobs_ended_in_pbs_pro(id_: str, why: str) -> None:
    assert jobs(JSON)[id_].why == why


@pytest.mark.parametrize(
    ("id_", "why"),
    [
        ("34.torque", "held by an operator; qrls lets it go on"),
        ("38.torque", "ended with exit code 3"),
        ("39.torque", "over the time limit of the batch system (exit status -11)"),
        ("40.torque", "ended by signal 15 (SIGTERM)"),
        ("41.torque", "its command could not be run (exit status -8)"),
    ],
)
def test_how_jobs_ended_in_torque(id_: str, why: str) -> None:
    assert jobs(XML, TORQUE)[id_].why == why


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (137, "ended by signal 9 (SIGKILL)"),
        (265, "ended by signal 9 (SIGKILL)"),
        (128, "ended with exit code 128"),
        (255, "ended with exit code 255"),
        (256, "ended with exit code 256"),
        (-3, "it could not be started on its node, and was to be tried again (exit status -3)"),
    ],
)
def test_exit_statuses(status: int, words: str) -> None:
    assert in_words(status, PRO_FAILURES) == words


def test_exit_statuses_of_older_releases() -> None:
    older = JSON.replace('"pbs_version": "22.05.11"', '"pbs_version": "PBSPro_19.1.3"')
    # Over the limit by what it used; its exit status meant something else then.
    assert jobs(older)["19.pbs"].why == (
        "over the memory limit of the batch system, ended by the batch system (exit status -27)"
    )


def test_what_an_array_tells_of_its_elements() -> None:
    array = jobs(JSON)["12[].pbs"]
    assert array.waiting == {4, 5}
    spaced = JSON.replace('"4-5"', '"2,5-9:2"')
    assert jobs(spaced)["12[].pbs"].waiting == {2, 5, 7, 9}


def test_several_documents_of_xml() -> None:
    first, second = XML.partition("<Job><Job_Id>38")[::2]
    several = f'<?xml version="1.0"?>\n{first}</Data>\n<Data><Job><Job_Id>38{second}'
    assert jobs(several, TORQUE) == jobs(XML, TORQUE)


# Values as several releases print them that are not JSON; none of them is needed.
NOT_JSON = [
    '"PRIORITY":005,',
    '"VERSION":1E,',
    '"NUMBER":.5,',
    '"QUOTED":"\\\'x\\\'",',
    '"COMMA":"a\\,b",',
    '"comment":"says "no" to it",',
    '"FUNCTION":() {  echo hi,',
    '"CONTROL":"\x01\x1b[0m",',
    '"EMPTY":,',
    '"LINES":"() {  echo hi\n  echo ho\n}",',
]


@pytest.mark.parametrize("line", NOT_JSON)
def test_values_that_are_no_json(line: str) -> None:
    spoilt = JSON.replace('"PBS_O_HOME":', f'{line}\n"PBS_O_HOME":')
    assert jobs(spoilt) == jobs(JSON)


DENIALS = [
    ("qstat: Unknown Job Id 99.pbs\n", "99"),
    ("qstat: Unknown Job Id 99[].pbs\n", "99"),
    ("qstat: Unknown Job Id Error 99.torque\n", "99"),
    ("qstat: Unknown Array ID 99[].torque\n", "99"),
    (
        "qstat: 99.pbs Job has finished, use -x or -H to obtain historical job information\n",
        "99",
    ),
]


@pytest.mark.parametrize("dialect", [PRO, TORQUE])
@pytest.mark.parametrize(("stderr", "number"), DENIALS)
def test_what_proves_that_there_is_no_such_job(stderr: str, number: str, dialect: Dialect) -> None:
    nothing = Completed(153, "", stderr)
    assert parse_qstat(nothing, dialect) == ({}, {number})
    some = Completed(153, TEXTS[dialect.name], stderr)
    found, denied = parse_qstat(some, dialect)
    assert found
    assert denied == {number}


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [
        ("", ""),
        ("\n", "qstat: cannot connect to server pbs (errno=15010)\n"),
        (JSON, "Connection refused\nqstat: cannot connect to server pbs (errno=111)\n"),
        ("", "usage: \nqstat [-f] [-J]\n"),
        (JSON[:-10], ""),
        (JSON.partition("\n")[2], ""),
        ("{}", ""),
        ("[]", ""),
        ('{"timestamp":1,"Jobs":[]}', ""),
        ('{"timestamp":1,"Jobs":{"7.pbs":{}}}', ""),
        ('{"timestamp":1,"Jobs":{"seven":{"job_state":"Q","Job_Name":"x"}}}', ""),
        ("[" * 100_000, ""),
        (XML, ""),
    ],
)
def test_no_answer_of_pbs_pro(stdout: str, stderr: str) -> None:
    with pytest.raises(QueryFailed):
        parse_qstat(Completed(0, stdout, stderr), PRO)


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [
        ("", ""),
        (
            "",
            "qstat: cannot connect to server torque (errno=15137) could not connect to trqauthd\n",
        ),
        ("", "qstat: End of File\n"),
        (XML[:-10], ""),
        (XML[:-100], ""),
        (XML + "<Data>", ""),
        (f"<!DOCTYPE x>{XML}", ""),
        (XML.replace("<job_state>R", "<job_state>"), ""),
        (JSON, ""),
    ],
)
def test_no_answer_of_torque(stdout: str, stderr: str) -> None:
    with pytest.raises(QueryFailed):
        parse_qstat(Completed(0, stdout, stderr), TORQUE)


NOISE = malformed("", "qstat: Unknown Job Id 99.pbs\n", "qstat: End of File\n")
SPOILT = malformed(JSON, XML)


def check_qstat(text: str, stderr: str) -> None:
    for dialect in (PRO, TORQUE):
        with contextlib.suppress(QueryFailed):
            found, _ = parse_qstat(Completed(0, text, stderr), dialect)
            assert all(job.name and job.state for job in found.values())


@given(SPOILT, NOISE)
def test_qstat_garbage(text: str, stderr: str) -> None:
    check_qstat(text, stderr)


@thorough
@given(SPOILT, NOISE)
def test_qstat_garbage_thoroughly(text: str, stderr: str) -> None:
    check_qstat(text, stderr)


# --------------------------------------------------------------------------- qsub


@pytest.mark.parametrize(
    ("said", "id_"),
    [
        ("1234.pbs\n", "1234.pbs"),
        ("Welcome to the lab\n1234[].pbs.example.org\n", "1234[].pbs.example.org"),
        ("1234\n", "1234"),
    ],
)
def test_the_id_of_a_submission(said: str, id_: str) -> None:
    assert parse_accepted(Completed(0, said, "a remark of the site\n")) == id_


def test_the_ids_of_elements() -> None:
    system = open_batch("pbs", {"dialect": "pro"})
    assert system.element("1234[].pbs", 7) == "1234[7].pbs"  # type: ignore[attr-defined]
    assert str(Id.parse("1234[7].pbs").whole) == "1234[].pbs"


@pytest.mark.parametrize(
    ("stderr", "what"),
    [
        ("qsub: Unknown queue\n", "Unknown queue"),
        ("qsub: submit error (Unknown queue MSG=cannot locate queue)\n", "cannot locate queue"),
        ("qsub: Job violates queue and/or server resource limits\n", "resource limits"),
        ("qsub: Unknown resource: Resource_List.foo\n", "Unknown resource"),
        ("qsub: Bad UID for job execution\n", "Bad UID"),
        ("qsub: cannot submit non-rerunable Array Job\n", "non-rerunable"),
        ("qsub: Array job exceeds server or queue size limit\n", "size limit"),
        ("qsub: hook 'limits' rejected request\n", "hook"),
        ("qsub: illegal -N value\nusage: qsub [-a date_time]\n", "illegal -N value"),
        ("qsub: invalid option -- 'y'\nusage: qsub [-a date_time]\n", "invalid option"),
    ],
)
def test_what_pbs_refuses(stderr: str, what: str) -> None:
    with pytest.raises(SubmissionRefused, match=f"refused the job: .*{re.escape(what)}"):
        parse_accepted(Completed(1, "", stderr))


@pytest.mark.parametrize(
    ("code", "stdout", "stderr"),
    [
        (255, "", "Connection refused\nqsub: cannot connect to server pbs (errno=15010)\n"),
        (1, "", "qsub: Request not allowed: Server shutting down\n"),
        (1, "", "qsub: Maximum number of jobs already in queue\n"),
        (1, "", "qsub: would exceed queue generic's per-user limit\n"),
        (1, "", "qsub: Maximum number of jobs for user alice already in queue short\n"),
        (1, "", "qsub: submit error (Server busy. Not available threads)\n"),
        (1, "", "qsub: submit error (End of File)\n"),
        (1, "", ""),
        (127, "", "env: qsub: No such file or directory\n"),
        (0, "", ""),
        (0, "it went well\n", ""),
    ],
)
def test_what_leaves_open_whether_there_is_a_job(code: int, stdout: str, stderr: str) -> None:
    with pytest.raises(BatchError) as raised:
        parse_accepted(Completed(code, stdout, stderr))
    assert not isinstance(raised.value, SubmissionRefused)


QSUB = malformed("1234[].pbs\n", "qsub: Unknown queue\n", "qsub: Server busy\n")


def check_qsub(code: int, stdout: str, stderr: str) -> None:
    with contextlib.suppress(BatchError):
        assert parse_accepted(Completed(code, stdout, stderr))[0].isdecimal()


@given(st.integers(0, 255), QSUB, QSUB)
def test_qsub_garbage(code: int, stdout: str, stderr: str) -> None:
    check_qsub(code, stdout, stderr)


@thorough
@given(st.integers(0, 255), QSUB, QSUB)
def test_qsub_garbage_thoroughly(code: int, stdout: str, stderr: str) -> None:
    check_qsub(code, stdout, stderr)


# --------------------------------------------------------------------------- which dialect


@pytest.mark.parametrize(
    ("stdout", "stderr", "dialect"),
    [
        ("pbs_version = 22.05.11\n", "", "pro"),
        ("", "pbs_version = PBSPro_13.1.0.160576\n", "pro"),
        ("Version: 6.1.2\nCommit: 661e092552de43a785c15d39a3634a541d86898e\n", "", "torque"),
        ("", "version: 2.5.7\n", "torque"),
    ],
)
def test_the_dialect(stdout: str, stderr: str, dialect: str) -> None:
    assert parse_version(Completed(0, stdout, stderr)) == dialect


def test_a_dialect_that_is_unknown() -> None:
    with pytest.raises(BatchError, match="set dialect in"):
        parse_version(Completed(0, "SGE 8.1.9\n", ""))


# --------------------------------------------------------------------------- asking it


class Commands:
    """Commands of a site, as functions of their arguments."""

    def __init__(self, **answers: Callable[[list[str]], Completed]) -> None:
        self.answers = answers
        self.calls: list[list[str]] = []

    def run(self, argv: Sequence[str], **_: object) -> Completed:
        self.calls.append(list(argv))
        return self.answers[argv[0]](list(argv[1:]))


Site = Callable[..., tuple[BatchSystem, Commands]]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    def make(
        dialect: str, **answers: Callable[[list[str]], Completed]
    ) -> tuple[BatchSystem, Commands]:
        made = Commands(**answers)
        monkeypatch.setattr(commands, "run", made.run)
        return open_batch("pbs", {"dialect": dialect}), made

    return make


def says(stdout: str = "", stderr: str = "", code: int = 0) -> Callable[[list[str]], Completed]:
    return lambda _: Completed(code, stdout, stderr)


def job(
    tmp_path: Path, name: str, id_: str | None = None, array: tuple[str, int] | None = None
) -> JobHandle:
    spool = tmp_path / name
    spool.mkdir(exist_ok=True)
    if array:
        (spool / "array").write_text(f"{array[0]} {array[1]}\n")
    return JobHandle(name, spool, id_)


ARRAY = "count_v1.2091.a1.t3.5e0f.x5"


def elements(tmp_path: Path) -> list[JobHandle]:
    return [job(tmp_path, f"e{i}", f"12[{i}].pbs", (ARRAY, i)) for i in range(1, 6)]


def test_one_query_for_an_array_and_single_jobs(site: Site, tmp_path: Path) -> None:
    system, made = site("pro", qstat=says(JSON))
    states = system.poll([*elements(tmp_path), job(tmp_path, "q", "11.pbs")])
    assert list(states.values()) == [GONE, GONE, RUNNING, PENDING, PENDING, PENDING]
    assert made.calls == [["qstat", "-t", "-f", "-F", "json", "-x", "11.pbs", "12[].pbs"]]
    assert system.reason_of(elements(tmp_path))["e2"] == "ended with exit code 3"


def test_elements_that_wait_need_not_be_listed(site: Site, tmp_path: Path) -> None:
    text = JSON.replace('"12[4].pbs"', '"98.pbs"')
    system, _ = site("pro", qstat=says(text))
    assert system.poll(elements(tmp_path))["e4"] is PENDING


def test_an_element_that_is_not_listed_is_not_gone(site: Site, tmp_path: Path) -> None:
    text = JSON.replace('"12[3].pbs"', '"98.pbs"')
    system, _ = site("pro", qstat=says(text))
    with pytest.raises(QueryFailed, match=re.escape("did not tell of 12[3].pbs")):
        system.poll(elements(tmp_path))
    # Unless its array has finished as a whole.
    system, _ = site("pro", qstat=says(text.replace('"job_state": "B"', '"job_state": "F"')))
    assert system.poll(elements(tmp_path))["e3"] is GONE


def test_a_job_is_gone_only_when_pbs_says_so(site: Site, tmp_path: Path) -> None:
    jobs = [job(tmp_path, "q", "11.pbs"), job(tmp_path, "lost", "99.pbs")]
    system, _ = site("pro", qstat=says(JSON, DENIALS[0][0], 153))
    assert system.poll(jobs) == {"q": PENDING, "lost": GONE}
    system, _ = site("pro", qstat=says(JSON))
    with pytest.raises(QueryFailed, match=re.escape("did not tell of 99.pbs")):
        system.poll(jobs)


def test_a_server_without_history(site: Site, tmp_path: Path) -> None:
    def qstat(arguments: list[str]) -> Completed:
        if "-x" in arguments:
            return Completed(0, "", "qstat: PBS is not configured to maintain job history\n")
        return Completed(153, "", DENIALS[4][0])

    system, made = site("pro", qstat=qstat)
    for _ in range(3):
        assert system.poll([job(tmp_path, "ended", "99.pbs")]) == {"ended": GONE}
    assert ["-x" in argv for argv in made.calls] == [True, False, False, False]


def test_jobs_are_found_by_name_in_pbs_pro(site: Site, tmp_path: Path) -> None:
    system, made = site("pro", qstat=says(JSON))
    wanted = [
        *(job(tmp_path, f"e{i}", None, (ARRAY, i)) for i in (2, 3, 5)),
        job(tmp_path, "queued"),
        job(tmp_path, "never"),
    ]
    assert list(system.poll(wanted).values()) == [GONE, RUNNING, PENDING, PENDING, GONE]
    assert made.calls[0] == ["qstat", "-f", "-F", "json"]
    assert made.calls[1][-2:] == ["11.pbs", "12[].pbs"]


def torque(listing: str, denial: str = "qstat: Unknown Job Id Error 0.torque\n") -> object:
    def qstat(arguments: list[str]) -> Completed:
        if "-B" in arguments:
            return Completed(0, "Server: torque\n    server_state = Active\n", "")
        if "@torque" in arguments:
            return Completed(153, listing, denial)
        return Completed(0, listing, "")

    return qstat


def test_jobs_are_found_by_name_in_torque(site: Site, tmp_path: Path) -> None:
    name = "count_v1.2091.a1.t3.5e0f.x3"
    text = XML.replace("c1.d2fca8f1e7bd", short_name(name, TORQUE))
    system, made = site("torque", qstat=torque(text))
    wanted = [
        *(job(tmp_path, f"e{i}", None, (name, i)) for i in (1, 2, 3)),
        job(tmp_path, "queued"),
        job(tmp_path, "never"),
    ]
    assert list(system.poll(wanted).values()) == [GONE, RUNNING, PENDING, PENDING, GONE]
    assert made.calls[1] == ["qstat", "-t", "-f", "-x", "@torque", "0"]
    assert made.calls[2] == ["qstat", "-t", "-f", "-x", "31.torque", "32[].torque"]


def test_an_empty_queue_has_to_be_proven(site: Site, tmp_path: Path) -> None:
    system, _ = site("torque", qstat=torque(""))
    assert system.poll([job(tmp_path, "never")]) == {"never": GONE}
    for listing, denial in (("", ""), (XML, "")):
        system, _ = site("torque", qstat=torque(listing, denial))
        with pytest.raises(QueryFailed):
            system.poll([job(tmp_path, "never")])
    system, _ = site("torque", qstat=says(""))
    with pytest.raises(QueryFailed, match="did not tell of any server"):
        system.poll([job(tmp_path, "never")])
    system, _ = site("pro", qstat=says('{"timestamp":1,"pbs_version":"22","pbs_server":"pbs"}'))
    assert system.poll([job(tmp_path, "never")]) == {"never": GONE}


def test_a_failing_qdel_that_has_done_its_duty(site: Site, tmp_path: Path) -> None:
    left = ["11.pbs"]

    def qdel(arguments: list[str]) -> Completed:
        assert arguments == ["11.pbs"]
        left.clear()
        return Completed(153, "", "qdel: Unknown Job Id 12.pbs\n")

    system, _ = site(
        "pro",
        qdel=qdel,
        qstat=lambda _: (
            Completed(0, JSON, "") if left else Completed(153, "", "qstat: Unknown Job Id 11.pbs\n")
        ),
    )
    system.cancel([job(tmp_path, "q", "11.pbs")])


@pytest.mark.parametrize(
    ("stderr", "trouble"),
    [
        ("", None),
        ("qmove: Unknown queue  11.pbs\n", "Unknown queue"),
        ("qmove: cannot connect to server pbs (errno=15010)\n", "cannot connect"),
    ],
)
def test_moving_to_another_queue(
    stderr: str, trouble: str | None, site: Site, tmp_path: Path
) -> None:
    moved: list[str] = []

    def qmove(arguments: list[str]) -> Completed:
        assert arguments == ["short", "11.pbs", "12[].pbs"]
        moved.append("11.pbs")
        return Completed(1 if stderr else 0, "", stderr)

    def qstat(arguments: list[str]) -> Completed:
        return Completed(0, JSON.replace("workq", "short", 1) if moved else JSON, "")

    system, _ = site("pro", qmove=qmove, qstat=qstat)
    pending = [job(tmp_path, "q", "11.pbs"), *elements(tmp_path)]
    with pytest.raises(BatchError, match=trouble) if trouble else contextlib.nullcontext():
        assert system.move(pending, "short") == ["q"]


# --------------------------------------------------------------------------- what it is told


def told(workshop: Workshop, options: Mapping[str, object], **needs: object) -> list[str]:
    order = workshop.order(requirements=Requirements(**needs))  # type: ignore[arg-type]
    shown = open_batch("pbs", options).describe(order)
    return shlex.split(shown.partition(" << ")[0])


def test_what_pbs_pro_is_told(tmp_path: Path) -> None:
    options = {"dialect": "pro", "queue": "long", "project": "muon", "options": ["-p", "-10"]}
    argv = told(Workshop(tmp_path), options, time=3601, memory=3 * 10**9, cores=2)
    assert argv == [
        *("qsub", "-S", "/bin/bash", "-j", "oe", "-o", "/dev/null"),
        *("-l", "select=1:ncpus=2:mem=2862mb", "-l", "walltime=3601"),
        *("-q", "long", "-P", "muon", "-p", "-10", "-r", "n"),
        *("-N", f"alcapana_v4.2091.a1.t7.{tmp_path.name}"),
    ]


def test_what_torque_is_told(tmp_path: Path) -> None:
    options = {"dialect": "torque", "project": "muon"}
    argv = told(Workshop(tmp_path), options, time=60, memory=2**30, cores=4)
    name = short_name(f"alcapana_v4.2091.a1.t7.{tmp_path.name}", TORQUE)
    assert argv == [
        *("qsub", "-S", "/bin/bash", "-j", "oe", "-o", "/dev/null"),
        *("-l", "nodes=1:ppn=4", "-l", "mem=1024mb", "-l", "walltime=60"),
        *("-A", "muon", "-r", "n", "-N", name),
    ]
    assert len(name) == 15


def test_another_option_for_the_project(tmp_path: Path) -> None:
    options = {"dialect": "pro", "project": "muon", "project_option": "-A"}
    argv = told(Workshop(tmp_path), options)
    assert argv[argv.index("-A") + 1] == "muon"


def test_short_names_differ_as_the_long_ones_do() -> None:
    names = {short_name(f"alcapana_v4.{run}.a1.t7.5e0f", TORQUE) for run in range(1000)}
    assert len(names) == 1000
    assert short_name("short", TORQUE) == "short"


def test_wrong_words() -> None:
    with pytest.raises(ConfigurationError, match="dialect must be one of auto, pro, torque"):
        open_batch("pbs", {"dialect": "openpbs"})


def test_an_option_by_which_jobs_would_get_lost() -> None:
    system = open_batch("pbs", {"dialect": "pro"})
    with pytest.raises(UsageError, match="-Wblock=true for pbs cannot be used"):
        system.check(Requirements(options=("-Wblock=true",)))


@pytest.mark.parametrize(
    ("version", "option", "index", "rerunnable"),
    [
        ("pbs_version = 22.05", "-J", "$PBS_ARRAY_INDEX", "y"),
        ("Version: 6.1.2", "-t", "$PBS_ARRAYID", "n"),
    ],
)
def test_an_array_through_commands_on_the_path(
    version: str,
    option: str,
    index: str,
    rerunnable: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in (
        ("qstat", f"echo '{version}'\n"),
        (
            "qsub",
            f'printf "%s\\n" "$@" > {tmp_path}/arguments\ncat > {tmp_path}/script\n'
            "echo '12[].pbs'\n",
        ),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    workshop = Workshop(tmp_path)
    orders = [workshop.order(WRITE, run=run) for run in (1, 2, 3)]
    system = open_batch("pbs", {})
    assert system.submit(orders) == ["12[1].pbs", "12[2].pbs", "12[3].pbs"]
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[-2:] == [option, "1-3"]
    assert arguments[arguments.index("-r") + 1] == rerunnable
    assert f"case {index} in\n1) set" in (tmp_path / "script").read_text()
