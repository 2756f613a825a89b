"""Exit records are read without mistakes, and become reasons that a physicist understands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from production.errors import RecordDamaged, SpoolTrouble
from production.job.record import parse_record, read_record
from production.job.verdict import judge, last_line, lost
from production.model import JobRecord, OutputFile

SHA256 = "0123456789abcdef" * 4
TEXT = f"""version=1
phase=done
exit_code=0
signal=
host=node17
start=2014-05-01 12:00:00.000001
stop=2014-05-01 12:30:00.500000
reason=
cpu_seconds=1799.250
peak_memory=573440
output.tree=12 {SHA256} /data/tree/v4/tree 02091.root
complete=yes
"""
GOOD = JobRecord(
    phase="done",
    exit_code=0,
    signal=None,
    host="node17",
    start="2014-05-01 12:00:00.000001",
    stop="2014-05-01 12:30:00.500000",
    reason="",
    cpu_seconds=1799.25,
    peak_memory=573440,
    outputs=(OutputFile("tree", Path("/data/tree/v4/tree 02091.root"), 12, SHA256),),
)
CODES = {3: "the raw file is missing"}


@pytest.fixture
def elog(tmp_path: Path) -> Path:
    return tmp_path / "alcapana.run02091.err"


def failed(
    code: int, *, phase: str = "payload", reason: str = "", signal: int | None = None
) -> JobRecord:
    return replace(GOOD, phase=phase, exit_code=code, reason=reason, signal=signal, outputs=())


# --------------------------------------------------------------------------- the record


def test_a_record_is_read() -> None:
    assert parse_record(TEXT) == GOOD


def test_what_was_not_measured_is_none() -> None:
    text = TEXT.replace("=1799.250", "=").replace("=573440", "=").replace("signal=", "signal=9")
    record = parse_record(text)
    assert (record.cpu_seconds, record.peak_memory, record.signal) == (None, None, 9)


def test_no_record_yet(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    assert read_record(tmp_path / "no spool") is None


def test_a_reason_that_is_no_utf8_can_be_stored(tmp_path: Path) -> None:
    text = TEXT.replace("reason=", "reason=caf\xe9").encode("latin-1")
    (tmp_path / "record").write_bytes(text)
    record = read_record(tmp_path)
    assert record is not None
    assert record.reason == "caf\ufffd"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"host=node17", b"host=caf\xe9"),
        (b"02091.root", b"caf\xe9.root"),
        (b"output.tree", b"output.tr\xe9e"),
    ],
)
def test_a_record_with_a_name_that_is_no_utf8_is_damaged(
    tmp_path: Path, old: bytes, new: bytes
) -> None:
    assert old in TEXT.encode()
    (tmp_path / "record").write_bytes(TEXT.encode().replace(old, new))
    with pytest.raises(RecordDamaged, match="is damaged: ") as caught:
        read_record(tmp_path)
    str(caught.value).encode()  # a database can take it


@pytest.mark.parametrize("length", range(len(TEXT)))
def test_a_record_that_is_cut_off_is_damaged(tmp_path: Path, length: int) -> None:
    (tmp_path / "record").write_text(TEXT[:length])
    with pytest.raises(RecordDamaged, match="is damaged: "):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("version=1", "version=2", "version '2'"),
        ("phase=done", "phase=dead", "phase is 'dead'"),
        ("exit_code=0", "exit_code=zero", "exit_code is 'zero'"),
        ("exit_code=0", "exit_code=", "exit_code is ''"),
        ("exit_code=0", "exit_code=\u0663", "exit_code is"),
        ("exit_code=0\n", "", "exit_code is ''"),
        ("signal=", "signal=KILL", "signal is 'KILL'"),
        ("host=node17", "host=", "host is ''"),
        ("2014-05-01 12:00", "yesterday", "start is 'yesterday"),
        ("1799.250", "inf", "cpu_seconds is 'inf'"),
        ("573440", "-1", "peak_memory is '-1'"),
        (SHA256, "abc", "output tree is"),
        ("=12 ", "=twelve ", "output tree is"),
        ("reason=", "reason=\nphase=done", "does not belong there"),
        ("reason=", "\0\0\0", "does not belong there"),
    ],
)
def test_a_record_that_makes_no_sense_is_damaged(
    tmp_path: Path, old: str, new: str, what: str
) -> None:
    assert old in TEXT
    (tmp_path / "record").write_text(TEXT.replace(old, new))
    with pytest.raises(RecordDamaged) as caught:
        read_record(tmp_path)
    assert what in str(caught.value)
    assert str(tmp_path / "record") in str(caught.value)


def test_a_record_that_cannot_be_read_now_is_not_damaged(tmp_path: Path) -> None:
    (tmp_path / "record").mkdir()
    with pytest.raises(SpoolTrouble):
        read_record(tmp_path)


@given(st.text(), st.integers(0, len(TEXT)), st.integers(0, len(TEXT)))
@example("\n", 0, 0)
def test_any_text_is_a_record_or_damaged(text: str, start: int, stop: int) -> None:
    try:
        record = parse_record(TEXT[:start] + text + TEXT[stop:])
    except ValueError:
        return
    assert record.exit_code >= 0
    assert record.phase


# --------------------------------------------------------------------------- the verdict


def test_a_finished_job_is_good(elog: Path) -> None:
    elog.write_text("Warning: something\n")
    verdict = judge(GOOD, CODES, elog)
    assert (verdict.ok, verdict.reason, verdict.exit_code) == (True, "", 0)
    assert verdict.record == GOOD


def test_only_a_job_that_came_to_the_end_is_good(elog: Path) -> None:
    assert not judge(replace(GOOD, phase="publish"), CODES, elog).ok


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (failed(139, signal=11), "killed by SIGSEGV: the program crashed"),
        (failed(134, signal=6), "killed by SIGABRT: the program gave up (abort)"),
        (failed(137, signal=9), "killed by SIGKILL: killed from outside, often for want of memory"),
        (
            failed(143, signal=15),
            "killed by SIGTERM: ended from outside "
            "(cancelled, or over a limit of the batch system)",
        ),
        (failed(128 + 25, signal=25), "killed by SIGXFSZ: a file became larger than allowed"),
        (failed(128 + 50, signal=50), "killed by signal 50"),
        (failed(3), "exit code 3: the raw file is missing"),
        (failed(42), "exit code 42"),
        (failed(97), "exit code 97"),
        (
            failed(3, phase="preflight", reason="raw file missing: /data/raw/run02091.mid"),
            "exit code 3: raw file missing: /data/raw/run02091.mid",
        ),
        (failed(97, reason="time limit of 3600 s exceeded"), "time limit of 3600 s exceeded"),
        (
            failed(94, phase="preflight", reason="output exists already: /x"),
            "output exists already: /x",
        ),
    ],
)
def test_reasons(elog: Path, record: JobRecord, reason: str) -> None:
    verdict = judge(record, CODES, elog)
    assert (verdict.ok, verdict.reason) == (False, reason)
    assert verdict.exit_code == record.exit_code
    assert verdict.record == record


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (failed(42), True),
        (failed(139, signal=11), True),
        (failed(3), False),
        (failed(42, reason="no such geometry"), False),
        (failed(97, reason="time limit of 3600 s exceeded"), False),
    ],
)
def test_the_log_speaks_where_nobody_else_does(elog: Path, record: JobRecord, told: bool) -> None:
    elog.write_text("loading\nError in <TFile>: file is truncated\n\n")
    reason = judge(record, CODES, elog).reason
    said = "; last line of its log: Error in <TFile>: file is truncated"
    assert reason.endswith(said) == told


def test_a_job_that_vanished(elog: Path) -> None:
    assert lost(elog).reason == (
        "the job vanished without an exit record (killed, or its node failed)"
    )
    elog.write_text("reading event 4711\n")
    verdict = lost(elog)
    assert (verdict.ok, verdict.exit_code, verdict.record) == (False, None, None)
    assert verdict.reason.endswith("; last line of its log: reading event 4711")


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (b"", ""),
        (b"\n \n\t\n", ""),
        (b"one\ntwo", "two"),
        (b"one\r\ntwo\r\n", "two"),
        (b"10 %\r20 %\r", "20 %"),
        (b"\x1b[31mred\x1b[0m\x07alert\x00\n", "red alert"),
        (b"caf\xe9\n", "caf\ufffd"),
        (b"x" * 300, "x" * 199 + "\u2026"),
        (b"x" * 100_000, "x" * 199 + "\u2026"),
        (b"early\n" + b"\n" * 100_000, ""),
    ],
)
def test_the_last_line_of_a_log(elog: Path, log: bytes, line: str) -> None:
    elog.write_bytes(log)
    assert last_line(elog) == line
