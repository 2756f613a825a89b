"""What the menu offers: a tree of choices that ends in commands.

Pure values: production/view/menu.py shows them, production/view/door.py runs the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from production.units import counted
from production.view.base import RunLine, Snapshot


@dataclass(frozen=True)
class Command:
    """Run ``production WORDS``; ``alone``: a manager that goes on by itself."""

    words: tuple[str, ...]
    alone: bool = False


@dataclass(frozen=True)
class Question:
    """Have a value typed."""

    text: str
    then: Callable[[str], Step]


@dataclass(frozen=True)
class Offers:
    """What a production can be started with."""

    recipes: Mapping[str, str | None]  # each with the type that it is based on
    productions: Sequence[str]  # labels, by type and version
    datasets: Sequence[str]


@dataclass(frozen=True)
class FindOffers:
    """Look up what there is to choose from."""

    then: Callable[[Offers], Step]


@dataclass(frozen=True)
class ShowLog:
    """Show the end of a run's log."""

    line: RunLine


@dataclass(frozen=True)
class Entry:
    """A line of a menu, and what it leads to."""

    text: str
    step: Callable[[], Step]


@dataclass(frozen=True)
class Menu:
    """Entries to choose from."""

    title: str
    entries: tuple[Entry, ...]


Step = Command | Question | FindOffers | ShowLog | Menu


def main_menu(snapshot: Snapshot, line: RunLine | None) -> Menu:
    """All that can be done; ``line`` is the run that is chosen in the table."""
    production = snapshot.production
    which = (f"--production={production.type}", f"--version={production.version}")

    def steer(*words: str) -> Step:
        return _to_managers(snapshot, (*words, *which))

    def ask(text: str, *words: str) -> Step:
        *first, last = words
        return Question(text, lambda value: steer(*first, f"{last}{value}"))

    entries = [
        Entry("Pause: begin nothing new", lambda: steer("pause")),
        Entry("Resume: end a pause", lambda: steer("resume")),
        Entry("Jobs at a time (nproc)", lambda: ask("nproc", "set", "nproc=")),
        Entry("Runs to have ready (nprep)", lambda: ask("nprep", "set", "nprep=")),
        Entry("Queue of the batch system", lambda: ask("queue", "queue", "")),
        Entry("Space limit", lambda: ask("spacelim, such as 90%", "set", "spacelim=")),
        Entry("Retry all failed runs", lambda: Command(("retry", *which))),
    ]
    if line is not None:
        run = str(line.run)
        if line.phase == "error":
            entries.append(Entry(f"Retry run {run}", lambda: Command(("retry", run, *which))))
        release = Command(("release", run, *which))
        entries.append(Entry(f"Release run {run}", lambda: release))
        entries.append(Entry(f"Show the log of run {run}", lambda: ShowLog(line)))
    entries += [
        Entry("Start or resume a production", lambda: FindOffers(start_menu)),
        Entry("Stop when the jobs have ended", lambda: _sure("Stop?", steer("stop"))),
        Entry("Leave the jobs to the next start", lambda: _sure("Leave?", steer("leave"))),
        Entry("Kill: cancel the jobs, roll back", lambda: _sure("Kill?", steer("kill"))),
    ]
    return Menu(production.label, tuple(entries))


def leave(snapshot: Snapshot) -> Command:
    """What ``q`` asks a manager's own display for."""
    production = snapshot.production
    which = (f"--production={production.type}", f"--version={production.version}")
    return Command(("leave", *which, f"--manager={snapshot.manager}", "--output=quiet"))


def _to_managers(snapshot: Snapshot, words: tuple[str, ...]) -> Step:
    """The command for the display's own manager; an onlooker chooses which."""
    if snapshot.manager is not None:
        # It says itself what it does, and the display shows it.
        return Command((*words, f"--manager={snapshot.manager}", "--output=quiet"))
    entries = [Entry("All of your own", lambda: Command(words))]
    for manager in snapshot.managers:
        one = Command((*words, f"--manager={manager.id}"))
        text = f"{manager.id}: {manager.user} on {manager.host}, {counted(manager.runs, 'run')}"
        entries.append(Entry(text, lambda one=one: one))  # type: ignore[misc]
    entries.append(Entry("All, whoever's", lambda: Command((*words, "--everybody"))))
    return Menu("Which managers?", tuple(entries))


def _sure(title: str, step: Step) -> Menu:
    """The entry that every menu has to close it stands for No."""
    return Menu(title, (Entry("Yes", lambda: step),))


# --------------------------------------------------------------------------- start


def start_menu(offers: Offers) -> Menu:
    """Which production: one that there is, or a new one."""
    entries = [
        Entry(f"Resume {label}", lambda label=label: _datasets(_resumed(label), offers))  # type: ignore[misc]
        for label in reversed(offers.productions)
    ]
    entries += [
        Entry(f"New {name}", lambda name=name: _new(name, offers))  # type: ignore[misc]
        for name in offers.recipes
    ]
    return Menu("Start or resume a production", tuple(entries))


def _resumed(label: str) -> tuple[str, ...]:
    type_, version = _parts(label)
    return ("run", f"--production={type_}", f"--version={version}")


def _new(name: str, offers: Offers) -> Step:
    def tagged(tag: str) -> Step:
        words = ("run", f"--production={name}", f"--new={tag}")
        base = offers.recipes[name]
        versions = [_parts(label)[1] for label in offers.productions if _parts(label)[0] == base]
        if base is None or not versions:
            return _datasets(words, offers)
        entries = [
            Entry(
                f"From {base}_v{version}",
                lambda version=version: _datasets((*words, f"--version={version}"), offers),  # type: ignore[misc]
            )
            for version in reversed(versions)
        ]
        return Menu(f"{name} is made from {base}", tuple(entries))

    return Question(f"Software tag of the new {name}", tagged)


def _parts(label: str) -> tuple[str, str]:
    type_, _, version = label.rpartition("_v")
    return type_, version


def _datasets(words: tuple[str, ...], offers: Offers, chosen: frozenset[str] = frozenset()) -> Menu:
    """Which datasets: entries switch them on and off."""
    wanted = tuple(f"--dataset={name}" for name in offers.datasets if name in chosen)
    what = "the chosen datasets" if chosen else "all datasets"
    entries = [Entry(f"Begin with {what}", lambda: Command((*words, *wanted), alone=True))]
    for name in offers.datasets:
        mark = "x" if name in chosen else " "
        switched = chosen ^ {name}
        entries.append(
            Entry(
                f"[{mark}] {name}",
                lambda switched=switched: _datasets(words, offers, switched),  # type: ignore[misc]
            )
        )
    return Menu(" ".join(words[1:]), tuple(entries))
