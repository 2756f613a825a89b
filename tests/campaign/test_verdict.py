"""The campaign's judge: silent about a campaign that went well, and not about any that did not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from campaign.verdict import Attempt, Evidence, Line, complaints, figures

LEASE = 10.0

# east.1 finished run 1 and was killed with run 2, which west.1 and west.2 saw; west.1 was stopped
# with run 3, which west.2 then took over and finished.  A payload of run 4 was killed.
EAST: list[Line] = [
    {"what": "begin", "manager": 1},
    {"what": "granted", "runs": [[1, 1], [2, 1]]},
    {"what": "finishes", "runs": [[1, 1]]},
    {"what": "told", "accepted": [[1, 1]], "refused": []},
]
WEST: list[Line] = [
    {"what": "begin", "manager": 2},
    {"what": "granted", "runs": [[3, 1]]},
    {"what": "repair", "began": 101.0, "ended": 101.5, "left": [1, 2]},
    {"what": "finishes", "runs": [[3, 1]]},
    {"what": "told", "accepted": [], "refused": [[3, 1]]},
    {"what": "repair", "began": 140.0, "ended": 140.1, "left": [3]},
]
HEIR: list[Line] = [
    {"what": "begin", "manager": 3},
    {"what": "repair", "began": 102.0, "ended": 102.5, "left": [1, 2]},
    {"what": "granted", "runs": [[3, 2]], "dead": 2, "at": 130.0},
    {"what": "granted", "runs": [[2, 2]], "dead": 1, "at": 113.0},
    {"what": "granted", "runs": [[4, 2]]},
    {"what": "finishes", "runs": [[2, 2], [3, 2], [4, 2]]},
    {"what": "told", "accepted": [[2, 2], [3, 2], [4, 2]], "refused": []},
]
GOOD = Evidence(
    (1, 2, 3, 4),
    [
        *(Attempt(run, 1, "finished", "None") for run in (1, 2, 3)),
        Attempt(4, 1, "failed", "killed by SIGKILL"),
        Attempt(4, 2, "finished", "None"),
    ],
    [
        {"what": "payload", "attempt": "run00004.a1"},
        {"what": "ended", "manager": "east.1", "code": -9, "at": 100.0},
        {"what": "stop", "manager": "west.1", "at": 110.0},
        {"what": "ended", "manager": "west.1", "code": 0, "at": 150.0},
    ],
    {"east.1": EAST, "west.1": WEST, "west.2": HEIR},
    frozenset({"run00001.a1", "run00002.a1", "run00003.a1", "run00004.a1", "run00004.a2"}),
    LEASE,
)


def with_line(name: str, line: Line) -> Evidence:
    return replace(GOOD, journals={**GOOD.journals, name: [*GOOD.journals[name], line]})


def without_line(name: str, number: int) -> Evidence:
    lines = [line for index, line in enumerate(GOOD.journals[name]) if index != number]
    return replace(GOOD, journals={**GOOD.journals, name: lines})


def late(began: float) -> Line:
    return {"what": "repair", "began": began, "ended": began + 0.1, "left": [1]}


def test_a_campaign_that_went_well() -> None:
    assert complaints(GOOD) == []
    assert figures(GOOD) == {
        "runs": 4,
        "attempts": 5,
        "managers": 3,
        "managers killed": 1,
        "jobs killed": 1,
        "managers stopped": 1,
        "take-overs from the dead": 1,
        "longest until back": 13.0,
        "late finishes refused": 1,
        "troubles of the database": {},
    }


def test_a_finish_of_which_a_killed_manager_was_not_told_counts() -> None:
    assert complaints(without_line("east.1", 3)) == []


def test_claims_may_stay_with_a_dead_manager_until_its_lease_is_over() -> None:
    assert complaints(with_line("west.2", late(102.5 + LEASE))) == []


WRONG = {
    "lost": (replace(GOOD, attempts=GOOD.attempts[1:]), "run 1 was finished 0 times"),
    "finished twice": (
        replace(GOOD, attempts=[*GOOD.attempts, Attempt(1, 2, "finished", "")]),
        "run 1 was finished 2 times",
    ),
    "misjudged": (replace(GOOD, events=GOOD.events[1:]), "run00004.a1 failed, and nobody"),
    "in vain": (
        replace(GOOD, begun=GOOD.begun | {"run00002.a2"}),
        "run00002.a2 was executed, not disturbed, and not accepted",
    ),
    "invented": (
        replace(GOOD, begun=GOOD.begun - {"run00001.a1"}),
        "run00001.a1 was accepted and never executed",
    ),
    "late finish accepted": (
        with_line("west.1", {"what": "told", "accepted": [[3, 1]], "refused": []}),
        "run 3 was accepted from west.1 with token 1, not 2",
    ),
    "accepted from somebody else": (
        with_line("west.1", {"what": "told", "accepted": [[2, 2]], "refused": []}),
        "run 2 was accepted from west.1 with token 2",
    ),
    "holder refused": (
        with_line("east.1", {"what": "told", "accepted": [], "refused": [[1, 1]]}),
        "run 1 was refused from east.1 with the newest token",
    ),
    "nobody said that it was finished": (without_line("east.1", 2), "run 1 was accepted 1 times"),
    "left to the dead of another host": (
        with_line("west.2", late(102.6 + LEASE)),
        "west.2 left claims with east.1, dead for 12.6 s",
    ),
    "left to the dead of the same host": (
        replace(GOOD, journals={**GOOD.journals, "east.2": [late(100.5)]}),
        "east.2 left claims with east.1, dead for 0.5 s",
    ),
    "manager crashed": (
        replace(GOOD, events=[*GOOD.events, {"what": "ended", "manager": "west.2", "code": 1}]),
        "manager west.2 ended with exit code 1",
    ),
    "manager hangs": (
        replace(GOOD, events=[*GOOD.events, {"what": "does not end", "manager": "west.2"}]),
        "manager west.2 did not end",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_campaign_that_did_not(what: str) -> None:
    seen, complaint = WRONG[what]
    assert [found for found in complaints(seen) if complaint in found], complaints(seen)
