"""What must hold at the end of a campaign; pure functions of what was seen.

Who held a run at a time is known from the tokens that managers were granted.  Times are compared
only where one manager's own look at the others decides, so a slow machine changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Line = Mapping[str, Any]  # of a journal, or of what ``torment`` tells


@dataclass(frozen=True)
class Attempt:
    """A row of the table ``attempt``."""

    run: int
    number: int
    outcome: str
    reason: str

    @property
    def name(self) -> str:
        """As spools are named."""
        return f"run{self.run:05d}.a{self.number}"


@dataclass(frozen=True)
class Evidence:
    """All that was seen of a campaign."""

    runs: Sequence[int]
    attempts: Sequence[Attempt]
    events: Sequence[Line]  # what happened to managers and jobs
    journals: Mapping[str, Sequence[Line]]  # by manager, HOST.NUMBER
    begun: frozenset[str]  # attempts that were executed
    lease: float  # seconds

    @cached_property
    def struck(self) -> frozenset[str]:
        """The attempts of which a process was killed."""
        return frozenset(str(event["attempt"]) for event in self.events if "attempt" in event)

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """The database's number of each manager that came to register itself."""
        return {
            name: int(line["manager"])
            for name, lines in self.journals.items()
            for line in lines
            if line["what"] == "begin"
        }

    @cached_property
    def deaths(self) -> Mapping[str, float]:
        """When each manager was found dead that was killed."""
        return {
            str(event["manager"]): float(event["at"])
            for event in self.events
            if event["what"] == "ended" and event["code"] == -9
        }

    def lines(self, what: str) -> Iterator[tuple[str, Line]]:
        """Lines of that kind in all journals, with the manager that wrote them."""
        for name, lines in self.journals.items():
            for line in lines:
                if line["what"] == what:
                    yield name, line


def complaints(seen: Evidence) -> list[str]:
    """What is not as it must be."""
    return [
        *_of_outcomes(seen),
        *_of_executions(seen),
        *_of_tokens(seen),
        *_of_dead_claims(seen),
        *_of_ends(seen),
    ]


def _of_outcomes(seen: Evidence) -> Iterator[str]:
    """Every run is finished exactly once, by its last attempt; only struck attempts failed."""
    last = {attempt.run: attempt for attempt in seen.attempts}
    times = Counter(a.run for a in seen.attempts if a.outcome == "finished")
    for run in seen.runs:
        if times[run] != 1 or last[run].outcome != "finished":
            yield f"run {run} was finished {times[run]} times, and ended as {last.get(run)}"
    for attempt in seen.attempts:
        if attempt.outcome == "failed" and attempt.name not in seen.struck:
            yield f"{attempt.name} failed, and nobody had touched its job: {attempt.reason}"


def _of_executions(seen: Evidence) -> Iterator[str]:
    """Work that nobody disturbed was not done in vain, and what was accepted was done."""
    finished = {a.name for a in seen.attempts if a.outcome == "finished"}
    for name in sorted(seen.begun - finished - seen.struck):
        yield f"{name} was executed, not disturbed, and not accepted"
    for name in sorted(finished - seen.begun):
        yield f"{name} was accepted and never executed"


def _of_tokens(seen: Evidence) -> Iterator[str]:
    """The newest token was accepted, once, from the manager that it was granted to; no other."""
    granted = {
        (run, token): name for name, line in seen.lines("granted") for run, token in line["runs"]
    }
    newest: dict[int, int] = {}
    for run, token in granted:
        newest[run] = max(token, newest.get(run, 0))
    accepted: Counter[int] = Counter()
    for name, line in seen.lines("told"):
        for run, token in line["accepted"]:
            accepted[run] += 1
            if token < newest[run] or granted.get((run, token), name) != name:
                yield f"run {run} was accepted from {name} with token {token}, not {newest[run]}"
        for run, token in line["refused"]:
            if token >= newest[run]:
                yield f"run {run} was refused from {name} with the newest token {token}"
    asked = {(run, token) for _, line in seen.lines("finishes") for run, token in line["runs"]}
    for run in seen.runs:
        # A manager that was killed in that moment was told nothing.
        if accepted[run] > 1 or (run, newest.get(run)) not in asked:
            yield f"run {run} was accepted {accepted[run]} times"


def _of_dead_claims(seen: Evidence) -> Iterator[str]:
    """No look for dead managers leaves claims with one that it has to take for dead."""
    for dead, died in seen.deaths.items():
        for observer, lines in seen.journals.items():
            known = None  # since when the observer knows the dead one's last sign of life
            for line in lines:
                if line["what"] != "repair" or line["began"] < died:
                    continue
                known = line["ended"] if known is None else known
                must = _host(observer) == _host(dead) or line["began"] - known > seen.lease
                if must and seen.ids.get(dead) in line["left"]:
                    since = line["began"] - died
                    yield f"{observer} left claims with {dead}, dead for {since:.1f} s"


def _of_ends(seen: Evidence) -> Iterator[str]:
    """Managers end well unless they are killed."""
    for event in seen.events:
        if event["what"] == "ended" and event["code"] not in (0, -9):
            yield f"manager {event['manager']} ended with exit code {event['code']}"
        elif event["what"] == "does not end":
            yield f"manager {event['manager']} did not end"


def figures(seen: Evidence) -> Mapping[str, object]:
    """What the campaign came to; a figure that is 0 is a check that could not fail."""
    back = [
        float(line["at"]) - seen.deaths[name]
        for _, line in seen.lines("granted")
        for name in seen.deaths
        if "dead" in line and line["dead"] == seen.ids.get(name)
    ]
    what = Counter(str(event["what"]) for event in seen.events)
    return {
        "runs": len(seen.runs),
        "attempts": len(seen.attempts),
        "managers": len(seen.journals),
        "managers killed": len(seen.deaths),
        "jobs killed": len(seen.struck),
        "managers stopped": what["stop"] + what["stop before"],
        "take-overs from the dead": len(back),
        "longest until back": round(max(back, default=0.0), 1),
        "late finishes refused": sum(len(line["refused"]) for _, line in seen.lines("told")),
        "troubles of the database": Counter(line["name"] for _, line in seen.lines("trouble")),
    }


def _host(manager: str) -> str:
    return manager.partition(".")[0]
