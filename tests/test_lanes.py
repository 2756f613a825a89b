"""What comes back from the lanes is delivered, whatever happens just before."""

from __future__ import annotations

import pytest
from job_orders import until

from production.errors import Interrupted
from production.manager.lanes import Lane, Results


def test_a_result_that_could_not_be_delivered_is_still_there() -> None:
    """Ctrl-C while the manager waits for the database, to give a sign of life."""
    results = Results()
    lane = Lane("test", results)
    came: list[object] = []
    lane.do(lambda: "the jobs' ids", came.append)

    def interrupted() -> None:
        raise Interrupted(2)

    with pytest.raises(Interrupted):
        results.deliver(60.0, interrupted)
    assert (came, lane.busy) == ([], True)

    def arrived() -> bool:
        results.deliver(0.1)
        return came == ["the jobs' ids"]

    until(arrived)
    assert not lane.busy
