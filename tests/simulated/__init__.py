"""Batch systems that are not there: commands on the PATH that behave as documented and recorded.

Each command is a link to one small program (``client.py``), which hands what it was called with to
a server in the test's own process.  There a *dialect* speaks the system's language, and a *cluster*
without one runs the jobs, as real processes.  Faults can be sown between the two.

The dialects are written after the manuals and recorded output, never after production/batch, so
that the two agree only where both are right.
"""

from simulated.call import Answer, Call
from simulated.cluster import Cluster, End, Job, Request, State, Terms
from simulated.faults import NO_FAULTS, Faults
from simulated.server import SimulatedServer

__all__ = [
    "NO_FAULTS",
    "Answer",
    "Call",
    "Cluster",
    "End",
    "Faults",
    "Job",
    "Request",
    "SimulatedServer",
    "State",
    "Terms",
]
