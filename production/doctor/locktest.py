"""The lock test: two processes count together in a scratch database, as managers claim runs.

What managers rely on is tried in this order: while one has the write lock the other does not get
it; each sees at once what the other has written; of all that both count at the same time nothing
gets lost.  ``PRAGMA integrity_check`` notices none of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from production.doctor.channels import AbsentError, Channel, SilentError
from production.doctor.findings import Finding, error, note, ok, warning
from production.doctor.half import PATIENCE, Message
from production.units import counted

ONE_HOST = "one host"  # the finding that two processes may not have been on two hosts

_ANSWER = 30.0  # seconds that an answer may take which needs no lock
_ROUNDS = 5  # how often each tells the other what it has written
_LONG_WAIT = 10.0  # seconds for a transaction that are worth a word
_MOVE = (
    "Do not start managers on several hosts there. Have the mount options corrected, or move the "
    "database to a filesystem whose locks and contents reach all hosts"
)
_REFUSED = (
    "An I/O error here mostly means that the filesystem refuses locks: have it mounted with them, "
    "or move the database"
)


@dataclass(frozen=True)
class LockTest:
    """Two halves in the new file ``path`` of the doctor's scratch directory."""

    check: str  # the findings' name
    one: Channel
    two: Channel
    path: Path
    seconds: float  # how long they count
    patience: float = _ANSWER  # seconds that the second half may take to begin
    apart: bool = False  # the halves are to be on two hosts

    def findings(self) -> Iterator[Finding]:
        """Make the test; raises AbsentError when the second half does not begin."""
        try:
            first = self._ask(self.one, "create", path=str(self.path))
        except SilentError as silent:
            place = self.path.parent.parent
            yield error(self.check, f"SQLite cannot work in {place}: {silent}", _REFUSED)
            return
        try:
            self.two.send({"do": "open", "path": str(self.path)})
            second = _answer(self.two, self.patience)
        except AbsentError:
            raise
        except SilentError as silent:
            what = f"the other process cannot take part: {silent}"
            remedy = "See that it can be started there and finds the same directory"
            yield error(self.check, what, remedy)
            return
        hosts = [first["host"], second["host"]]
        who = " and ".join(hosts) if hosts[0] != hosts[1] else f"two processes on {hosts[0]}"
        if self.apart and hosts[0] == hosts[1]:
            what = (
                f"both call themselves {hosts[0]}: if that is one host, nothing is said of others"
            )
            yield note(ONE_HOST, what)
        try:
            yield from self._exclusion(who)
            yield from self._visibility(who)
            yield from self._counting(who)
        except SilentError as silent:
            what = f"the test with {who} broke off: {silent}"
            yield error(self.check, what, _REFUSED)

    def _exclusion(self, who: str) -> Iterator[Finding]:
        for holder, other in ((self.one, self.two), (self.two, self.one)):
            self._ask(holder, "hold")
            try:
                got = self._ask(other, "try")["got"]
            finally:
                self._ask(holder, "let go")
            if got:
                what = f"locks do not exclude: {who} had the write lock at the same time"
                yield error(self.check, what, _MOVE)
                return

    def _visibility(self, who: str) -> Iterator[Finding]:
        expected = int(self._ask(self.one, "read")["n"])
        for _ in range(_ROUNDS):
            for half in (self.one, self.two):
                expected += 1
                if (value := self._ask(half, "step")["n"]) != expected:
                    seen = f"{value} instead of {expected}"
                    what = f"caches show old contents: of {who} one counted on with {seen}"
                    yield error(self.check, what, _MOVE)
                    return

    def _counting(self, who: str) -> Iterator[Finding]:
        before = int(self._ask(self.one, "read")["n"])
        for half in (self.one, self.two):
            half.send({"do": "count", "seconds": self.seconds})
        answers = [_answer(half, self.seconds + PATIENCE) for half in (self.one, self.two)]
        updates = sum(answer["counted"] for answer in answers)
        reads = [self._ask(half, "read") for half in (self.one, self.two)]
        lost = updates - (min(read["n"] for read in reads) - before)
        damage = next((read["verdict"] for read in reads if read["verdict"] != "ok"), "")
        if damage:
            yield error(self.check, f"{who} damaged the scratch database: {damage}", _MOVE)
        if lost > 0 or any(answer["went_back"] for answer in answers):
            what = f"{max(lost, 0)} of {counted(updates, 'update')} of {who} got lost"
            yield error(self.check, what, _MOVE)
        elif not damage:
            what = f"{counted(updates, 'update')} of {who}, none lost"
            yield ok(self.check, f"{what} ({updates / self.seconds:.0f} a second)")
        longest = max(answer["longest"] for answer in answers)
        if longest > _LONG_WAIT:
            remedy = "Managers wait as long for the lock: use few, or a faster filesystem"
            yield warning(self.check, f"one update of {who} took {longest:.0f} s", remedy)

    def _ask(self, half: Channel, do: str, **more: object) -> Message:
        half.send({"do": do, **more})
        return _answer(half, _ANSWER + PATIENCE)


def _answer(half: Channel, patience: float) -> Message:
    """What a half answers; raises SilentError also when it tells of a trouble."""
    answer = half.receive(patience)
    if "trouble" in answer:
        raise SilentError(answer["trouble"])
    return answer
