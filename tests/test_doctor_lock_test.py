"""The lock test judges: real SQLite in two halves, of which one may lie as a filesystem does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from production.doctor.channels import SilentError
from production.doctor.findings import Finding, Level
from production.doctor.half import Half, Message
from production.doctor.locktest import ONE_HOST, LockTest

Lie = Callable[[Message, Message], Message]


class Direct:
    """A half in this process; ``lie`` changes its answers."""

    def __init__(self, lie: Lie = lambda request, answer: answer) -> None:
        self._half = Half()
        self._lie = lie
        self._answer: Message = {}

    def send(self, request: Message) -> None:
        self._answer = self._lie(request, self._half.answer(request))

    def receive(self, timeout: float) -> Message:
        return self._answer


def found(tmp_path: Path, other: Direct | None = None, **more: bool) -> list[Finding]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    test = LockTest("locks", Direct(), other or Direct(), scratch / "x.db", 0.02, **more)
    return list(test.findings())


def test_a_good_filesystem(tmp_path: Path) -> None:
    (finding,) = found(tmp_path)
    assert finding.level is Level.OK
    assert "none lost" in finding.what


def said(do: str, **instead: object) -> Lie:
    def lie(request: Message, answer: Message) -> Message:
        return {**answer, **instead} if request["do"] == do else answer

    return lie


def counts_more(request: Message, answer: Message) -> Message:
    return {**answer, "counted": answer["counted"] + 5} if request["do"] == "count" else answer


def falls_silent(request: Message, answer: Message) -> Message:
    if request["do"] == "count":
        raise SilentError("no answer within 60 s")
    return answer


LIES: dict[str, tuple[Lie, Level, str]] = {
    "both get the lock": (said("try", got=True), Level.ERROR, "locks do not exclude"),
    "an old value is read": (said("step", n=0), Level.ERROR, "caches show old contents"),
    "updates get lost": (counts_more, Level.ERROR, "5 of "),
    "the counter went back": (said("count", went_back=1), Level.ERROR, "0 of "),
    "the file is damaged": (said("read", verdict="Page 4 is never used"), Level.ERROR, "Page 4"),
    "it takes long": (said("count", longest=31.4), Level.WARNING, "took 31 s"),
    "an operation fails": (said("hold", trouble="disk I/O error"), Level.ERROR, "broke off"),
    "the other falls silent": (falls_silent, Level.ERROR, "broke off: no answer"),
    "the other cannot begin": (said("open", trouble="No such file"), Level.ERROR, "cannot take"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_bad_one(tmp_path: Path, name: str) -> None:
    lie, level, words = LIES[name]
    findings = found(tmp_path, Direct(lie))
    assert max(f.level for f in findings) is level
    assert any(words in finding.what for finding in findings), findings


def test_a_place_where_nothing_can_be_written() -> None:
    test = LockTest("locks", Direct(), Direct(), Path("/proc/none/x.db"), 0.02)
    (finding,) = test.findings()
    assert finding.level is Level.ERROR
    assert "SQLite cannot work in /proc" in finding.what


def test_two_hosts_of_one_name_may_be_one(tmp_path: Path) -> None:
    both, counting = found(tmp_path, apart=True)
    assert (both.check, both.level) == (ONE_HOST, Level.NOTE)
    assert "both call themselves" in both.what
    assert "none lost" in counting.what


def test_two_hosts_are_named(tmp_path: Path) -> None:
    other = Direct(said("open", host="node2"))
    (finding,) = found(tmp_path, other, apart=True)
    assert " and node2, none lost" in finding.what
