"""The batch systems: one module a system behind one interface, which ``base`` describes."""

from production.batch.base import WRAPPER, BatchSystem, choose, known_systems, open_batch

__all__ = ["WRAPPER", "BatchSystem", "choose", "known_systems", "open_batch"]
