"""Every system as its documentation has it: the tests of the real servers on simulated ones.

That the simulated SLURM, Grid Engine and HTCondor pass the tests that the real ones pass is what
the simulation of LSF and PBS can be trusted by.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers import Server
from simulated.systems import SYSTEMS
from simulated_kind import Simulated
from test_jobs_on_real_servers import (  # noqa: F401 - these are the tests
    test_a_fresh_manager_finds_jobs_by_their_names,
    test_a_job_in_grid_engines_error_state_is_deleted,
    test_a_job_runs_and_is_gone_when_it_has_ended,
    test_a_job_that_waits_is_cancelled_and_says_why,
    test_a_job_whose_wrapper_was_killed_has_a_reason,
    test_a_poll_is_one_command_while_all_jobs_are_there,
    test_a_server_that_does_not_answer_leaves_everything_open,
    test_an_unknown_queue_is_refused_for_each_job,
    test_cancelled_jobs_are_gone_and_the_others_go_on,
    test_jobs_that_wait_are_moved_and_those_that_run_are_not,
    test_jobs_that_were_never_submitted_are_gone,
    test_jobs_with_other_requirements_go_by_themselves,
    test_many_jobs_are_one_command,
    test_what_dry_run_shows_is_what_is_done,
    test_without_arrays_each_job_is_a_command,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=SYSTEMS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A simulated batch system."""
    made = Simulated(request.param)
    made.start()
    yield made
    made.stop()
