"""All dialects by their names."""

from __future__ import annotations

from collections.abc import Mapping

from simulated.dialect import Dialect
from simulated.htcondor import HTCondor
from simulated.lsf import Lsf
from simulated.pbs import Pbs, Torque
from simulated.sge import GridEngine
from simulated.slurm import Slurm

SYSTEMS: Mapping[str, type[Dialect]] = {
    dialect.name: dialect for dialect in (Slurm, GridEngine, Lsf, HTCondor, Pbs, Torque)
}
