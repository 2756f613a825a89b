"""What every simulated batch system must know: its commands and how it says things."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from simulated.call import Answer, Call, RefusedError
from simulated.cluster import Cluster, Policy


class Dialect(Policy, ABC):
    """One system's language; asked by one thread at a time, with the cluster's lock held."""

    name: str
    batch = ""  # what --batch calls it, if not the same
    commands: Collection[str]
    submission: str  # the commands by name
    query: str
    questions: Collection[str]  # the commands that change nothing
    # Whether submissions that were not answered become jobs when the server is back.
    takes_what_it_did_not_answer = False

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.terms = cluster.terms
        cluster.policy = self

    def answer(self, call: Call) -> Answer:
        """Carry a command out."""
        try:
            return self.obey(call)
        except RefusedError as refused:
            return refused.answer

    @abstractmethod
    def obey(self, call: Call) -> Answer:
        """The same; may raise RefusedError."""

    def is_local(self, call: Call) -> bool:
        """Whether a command needs no server, so that its answer never fails."""
        return False

    @abstractmethod
    def failure(self, call: Call, chance: float) -> Answer | None:
        """What the command says when the server does not answer; ``chance`` chooses (0 to 1).

        None: nothing, for ever.
        """
