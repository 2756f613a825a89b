"""What ``production wait`` waits for.  Pure: a text becomes a condition, a standing fulfils it."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from production.model import Status
from production.store.reports.standing import Standing

_FIGURES: Mapping[str, Callable[[Standing], float]] = {
    "new": lambda s: s.count(Status.NEW),
    "claimed": lambda s: s.count(Status.CLAIMED),
    "running": lambda s: s.count(Status.RUNNING),
    "finished": lambda s: s.count(Status.FINISHED),
    "failed": lambda s: s.count(Status.ERROR),
    "left": lambda s: s.left,
    "managers": lambda s: len(s.at_work),
    # Not a hundred times the part: 57 of 100 would be a little less than 57 percent.
    "percent": lambda s: 100 * s.count(Status.FINISHED) / s.total if s.total else 0.0,
}
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_WORDS = {
    "done": "left=0",
    "finished": "percent=100",
    "idle": "managers=0",
}
_CONDITION = re.compile(
    rf"({'|'.join(_FIGURES)})\s*({'|'.join(_SIGNS)})\s*(\d{{1,9}}(?:\.\d{{1,3}})?)", re.ASCII
)


@dataclass(frozen=True)
class Condition:
    """``failed>5``: a figure of a production, and how it is to be."""

    text: str  # as the user wrote it
    figure: str
    sign: str
    number: float

    def is_met(self, standing: Standing) -> bool:
        """Whether it is so."""
        return _SIGNS[self.sign](_FIGURES[self.figure](standing), self.number)

    def can_come(self, standing: Standing) -> bool:
        """Whether it may still come about without anybody sending runs back."""
        if standing.left:
            return True
        # Nothing moves any more but managers, which end.
        return self.figure == "managers" and bool(standing.at_work)


def parse_condition(text: str) -> Condition:
    """The condition in ``done``, ``finished``, ``idle`` or ``failed>5``.  Raises ValueError."""
    written = text.strip()
    match = _CONDITION.fullmatch(_WORDS.get(written, written))
    if not match:
        raise ValueError(
            f"'{text}' is nothing to wait for: write {', '.join(_WORDS)}, or a figure "
            f"({', '.join(_FIGURES)}) and a number, as in failed>5"
        )
    return Condition(written, match[1], match[2], float(match[3]))
