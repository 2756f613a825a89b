"""Which runs managers take: those at work as they were started, others by the defaults.  Pure."""

from __future__ import annotations

from production.explain.facts import Facts
from production.model import RunFilter
from production.store.reports.facts import Label
from production.store.reports.standing import Worker

NO_LABEL = Label("", None, None)  # of a run in no dataset
ANY_TRANCHE = -1  # of a group of runs, of which it is not known
SOME = 3  # managers that are named in a sentence


def name_of(worker: Worker) -> str:
    """``Manager 12 (anna on lxplus7)``."""
    return f"Manager {worker.id} ({worker.place})"


def is_outside(facts: Facts, label: Label) -> bool:
    """Whether no manager at work takes such runs; without one, none that is started now."""
    chosen = [facts.takes(worker) for worker in facts.standing.at_work] or [facts.by_default]
    return not any(takes(one, label) for one in chosen)


def takes(chosen: RunFilter, label: Label) -> bool:
    """Whether a manager that chooses like this takes a run with this label."""
    if not label.dataset:
        return chosen == RunFilter(qualities=())
    return (
        (not chosen.datasets or label.dataset in chosen.datasets)
        and (not chosen.qualities or (label.quality or "") in chosen.qualities)
        and (not chosen.tranches or label.tranche in {*chosen.tranches, ANY_TRANCHE})
    )


def what_is_taken(facts: Facts) -> str:
    """What managers at work choose; without one, what they choose by default."""
    at_work = facts.standing.at_work
    if not at_work:
        return f"managers take {in_words(facts.by_default)} unless they are told otherwise"
    named = [f"{name_of(worker)} takes {in_words(facts.takes(worker))}" for worker in at_work]
    return "; ".join(named[:SOME]) + ("; …" if len(named) > SOME else "")


def in_words(chosen: RunFilter) -> str:
    """``quality gold, silver of SiR2 of tranche 3``."""
    parts = [f"quality {', '.join(chosen.qualities)}" if chosen.qualities else "any quality"]
    if chosen.datasets:
        parts.append(f"of {', '.join(chosen.datasets)}")
    if chosen.tranches:
        parts.append(f"of tranche {', '.join(map(str, chosen.tranches))}")
    return " ".join(parts)
