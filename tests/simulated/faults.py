"""What goes wrong between a user's command and the batch system."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from enum import Enum, auto

from simulated.call import Answer


class Shows(Enum):
    """What the user gets to see."""

    ALL = auto()
    NOTHING = auto()  # and success
    HALF = auto()  # and success
    FAILURE = auto()  # what the command says when its server does not answer
    HANGS = auto()


@dataclass(frozen=True)
class Fault:
    """What becomes of one call."""

    shows: Shows = Shows.ALL
    carried_out: bool = True
    delay: float = 0.0  # seconds after the user's answer at which it is carried out
    chance: float = 0.0  # from 0 to 1: where an answer is cut, which message

    def cut(self, answer: Answer) -> Answer:
        """Half of an answer; some end where a line ends, and look whole."""
        text = answer.stdout[: int(len(answer.stdout) * self.chance)]
        if int(self.chance * 1000) % 2:
            text = text[: text.rfind("\n") + 1]
        return Answer(text, "", 0)


FINE = Fault()
_QUESTIONS = (
    (Shows.FAILURE, False),
    (Shows.HANGS, False),
    (Shows.NOTHING, False),
    (Shows.HALF, True),
)
_ORDERS = (*_QUESTIONS, (Shows.FAILURE, True), (Shows.HANGS, True), (Shows.NOTHING, True))
_LATE = 0.2  # of the orders that are carried out without an answer: after the user has given up


class Faults:
    """A plan by chance, the same for the same seed and the same calls."""

    def __init__(self, seed: int, share: float = 0.2, latest: float = 15.0) -> None:
        self._chance = random.Random(seed)
        self._share = share
        self._latest = latest
        self._lock = threading.Lock()
        self.sown = 0  # so far

    def next(self, *, order: bool) -> Fault:
        """For the next call; ``order``: it changes something, and does not only ask."""
        with self._lock:
            chance = self._chance
            if chance.random() >= self._share:
                return FINE
            self.sown += 1
            shows, carried_out = chance.choice(_ORDERS if order else _QUESTIONS)
            late = order and carried_out and shows is Shows.FAILURE and chance.random() < _LATE
            delay = chance.uniform(0, self._latest) if late else 0.0
            return Fault(shows, carried_out, delay, chance.random())


class NoFaults(Faults):
    """All goes well."""

    def __init__(self) -> None:
        super().__init__(0, share=0.0)


NO_FAULTS = NoFaults()
