"""What stands where on the display: a pure function of what is known and what was chosen.

Nothing here knows a terminal; production/view/screen.py puts the lines on one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from production.model import Status
from production.units import counted
from production.view.base import RunLine, Snapshot
from production.view.cells import cut, duration, padded, rough
from production.view.keys import Mode, State, selected
from production.view.progress import bar
from production.view.stamp import stamped

ENOUGH = (80, 24)  # what everything fits into
LEAST = (40, 10)  # what the head and a few runs fit into

# Running first, as people have known it since 2014; then by how near to it.
_WITH_JOB = ("running", "queued", "submitted", "ending")
ORDER = (
    *_WITH_JOB,
    *("submitting", "preparing", "ready", "downloading", "claimed"),
    *("error", "finished"),
)
LETTERS = {**dict.fromkeys(_WITH_JOB, "R"), "error": "E", "finished": "F"}  # else C


class Message(NamedTuple):
    """A line of news and when it came, in seconds since 1970."""

    when: float
    text: str


@dataclass(frozen=True)
class Scene:
    """All that the screen is made of."""

    snapshot: Snapshot | None = None  # None: nothing is known yet
    messages: Sequence[Message] = ()
    state: State = field(default_factory=State)
    rates: Mapping[int, float] = field(default_factory=dict)  # bytes a second, by run


class Picture(NamedTuple):
    """The lines of the screen, and which of them stand out."""

    lines: list[str]
    bright: frozenset[int] = frozenset()


def render(scene: Scene, width: int, height: int) -> Picture:
    """``height`` lines of at most ``width`` cells.

    Head above, the runs or a page of text below it, the latest messages in the last lines.
    """
    if scene.state.mode is Mode.TEXT:
        lines, bright = _page(scene, width, height)
    else:
        lines, bright = _overview(scene, width, height)
    return Picture([cut(line, width) for line in lines][: max(0, height)], frozenset(bright))


# --------------------------------------------------------------------------- the table


def _overview(scene: Scene, width: int, height: int) -> tuple[list[str], set[int]]:
    snapshot = scene.snapshot
    head = _head(snapshot, width, height) if snapshot else []
    room = table_room(height) if snapshot else 0
    columns = _columns(width)
    lines = chosen_lines(snapshot, scene.state)
    at, top = _place(scene.state, lines, room)
    rows = [
        _row(line, columns, scene.rates, chosen=top + place == at)
        for place, line in enumerate(lines[top : top + room])
    ]
    if snapshot and not rows and room:
        rows = ["", "  No run is held now." if not scene.state.filter else "  No such run."][:room]
    foot_room = max(1, height - len(head) - len(rows))
    foot = _foot(scene, width, height, foot_room, (top, len(rows) if lines else 0, len(lines)))
    blank = [""] * (height - len(head) - len(rows) - len(foot))
    return head + rows + blank + foot, {len(head) + at - top} if lines and rows else set()


def table_room(height: int) -> int:
    """How many runs fit on a screen of this height, under the head and above the last lines."""
    return max(0, height - _head_lines(height) - (3 if height >= 16 else 2 if height >= 5 else 1))


def _head_lines(height: int) -> int:
    return 6 if height >= 16 else 4 if height >= LEAST[1] else 2 if height >= 4 else 1


def _head(snapshot: Snapshot, width: int, height: int) -> list[str]:
    """A small screen first goes without rules and managers, then without column titles."""
    columns = _columns(width)
    titles = "|".join(title.center(room) for title, room in columns.items())
    above = [_title(snapshot, width), counts(snapshot, width)]
    rule = "-" * width
    count = _head_lines(height)
    if count == 6:
        return [*above, _managers(snapshot, width), rule, titles, rule]
    return [*above, titles, rule][:count] if count == 4 else above[:count]


def _title(snapshot: Snapshot, width: int) -> str:
    """``ALCAPANA v4 TAG ||||||        | Quota 45% of 90%``, as much of it as there is room for."""
    production = snapshot.production
    name = production.type.upper()
    label = f"{name} v{production.version}"
    paused = " PAUSED" if snapshot.paused else ""
    usage = snapshot.usage
    # Rounded down, so that it does not seem to have reached a limit that it has not.
    used = f"{int(round(usage.fraction * 100, 6))}%" if usage else "?%"
    quota = f"Quota {used}"
    limited = f"{quota}, limit {snapshot.spacelim * 100:g}%"
    for left, right in (
        (f"{label} {production.software}{paused}", limited),
        (f"{label}{paused}", limited),
    ):
        room = width - len(left) - len(right) - 4
        if room >= 3:
            filled = int(min(usage.fraction, 1.0) * room) if usage else 0
            return f"{left} [{'|' * filled:{room}}] {right}"
    shorter = (f"{label} {limited}", f"{label} {quota}", f"{name} {quota}", f"{name} {used}")
    return next((text for text in shorter if len(text) <= width), used)


def counts(snapshot: Snapshot, width: int) -> str:
    """``N 120  C 5  R 10  F 300  E 2 [=====     ]  68%  12/h, 11h left`` of the production."""
    numbers = [f"{status} {snapshot.counts.get(status, 0)}" for status in Status]
    between = "  " if width >= 40 else " "
    while len(text := between.join(numbers)) > width:
        numbers.pop()  # rather than part of a number
    total = sum(snapshot.counts.values())
    done = snapshot.counts.get(Status.FINISHED, 0)
    outlook = _outlook(snapshot)
    for right in (f"  {outlook}" if outlook else "", ""):
        room = width - len(text) - len(right) - len(" [] 100%")
        if room >= 4:
            return f"{text} {bar(done, total, room)}{right}" if total else text
    return text


def _outlook(snapshot: Snapshot) -> str:
    pace = snapshot.rate
    if not pace:
        return ""
    left = sum(snapshot.counts.get(s, 0) for s in (Status.NEW, Status.CLAIMED, Status.RUNNING))
    rate = f"{pace:.0f}/h" if pace >= 10 else f"{pace:.1f}/h"
    return f"{rate}, {rough(left / pace * 3600)} left" if left else rate


def _managers(snapshot: Snapshot, width: int) -> str:
    """``Managers: 3 me@host 12 runs, 4 you@node 5 runs``."""
    if not snapshot.managers:
        return "Nobody is at work on it"
    said = [f"{m.id} {m.user}@{m.host} {counted(m.runs, 'run')}" for m in snapshot.managers]
    text = f"Managers: {', '.join(said)}"
    while len(text) > width and len(said) > 1:
        said.pop()
        text = f"Managers: {', '.join(said)}, {len(snapshot.managers) - len(said)} more"
    return text


def _columns(width: int) -> dict[str, int]:
    """Titles and widths: what 80 have room for, more above, less below."""
    if width < 56:
        columns = {"Run": 8, "Status": 12, "%": 5, "Time": 12}
        while len(columns) > 2 and sum(columns.values()) + len(columns) - 1 > width:
            columns.popitem()
        return columns
    columns = {"Run": 8, "Status": 12, "Now": 0, "Time": 12}
    if width >= ENOUGH[0]:
        name = 9 if width < 100 else 16
        columns = {"Run": 8, "Dataset": name, "Status": 12, "Now": 0, "Time": 12, "Try": 4}
    if width >= 120:
        columns |= {"User": 12}
    columns["Now"] = width - sum(columns.values()) - len(columns) + 1
    return columns


def chosen_lines(snapshot: Snapshot | None, state: State) -> list[RunLine]:
    """The runs that are wanted, in the order that is wanted."""
    if snapshot is None:
        return []
    places = {phase: place for place, phase in enumerate(ORDER)}
    wanted = [line for line in snapshot.lines if matches(line, state.filter)]

    def status(line: RunLine) -> tuple[object, ...]:
        return places.get(line.phase, len(ORDER)), line.run

    keys = {
        "run": lambda line: (line.run,),
        "dataset": lambda line: (line.dataset, *status(line)),
        "time": lambda line: (-line.seconds, line.run),
        "tries": lambda line: (-line.attempt, *status(line)),
    }
    return sorted(wanted, key=keys.get(state.sort, status))


def matches(line: RunLine, wanted: str) -> bool:
    """Whether the run is one of those that are wanted: all words have to fit.

    A number is the beginning of a run's; a capital N, C, R, F or E a status; any other word is
    looked for in its dataset, user, phase, and in what it is doing.
    """
    if not wanted:
        return True
    text = " ".join((line.dataset, line.user, line.phase, line.detail, line.reason)).lower()
    return all(
        str(line.run).startswith(word)
        if word.isdigit()
        else LETTERS.get(line.phase, "C") == word
        if word in {str(status) for status in Status}
        else word.lower() in text
        for word in wanted.split()
    )


def _place(state: State, lines: Sequence[RunLine], room: int) -> tuple[int, int]:
    """Which row is chosen, and which is the first on the screen: by pages, so rows keep still."""
    runs = [line.run for line in lines]
    run = selected(state, runs)
    at = runs.index(run) if run is not None else 0
    top = at // room * room if room else 0
    return at, max(0, min(top, len(lines) - room))


def _row(
    line: RunLine, columns: dict[str, int], rates: Mapping[int, float], *, chosen: bool
) -> str:
    cells = (_cell(line, title, room, rates) for title, room in columns.items())
    row = "|".join(cells)
    return f">{row[1:]}" if chosen else row


def _cell(line: RunLine, title: str, room: int, rates: Mapping[int, float]) -> str:
    match title:
        case "Run":
            text = f"{line.run:>{room - 2}} "
        case "Dataset":
            text = f" {line.dataset}"
        case "Status":
            text = f"{line.phase.capitalize():>{room - 1}}"
        case "Time":
            text = f"{duration(line.seconds):>{room - 1}}"
        case "Try":
            text = f"{line.attempt or '':>{room - 1}}"
        case "User":
            text = f" {line.user}"
        case _:
            text = _now(line, room, rates.get(line.run))
    return padded(cut(text, room), room)


def _now(line: RunLine, room: int, rate: float | None) -> str:
    """What it is doing: ``[=====     ]  45% 12.3 MB/s``, in little room ``45%``; else words."""
    if room < 12:
        return bar(line.done, line.total, 0).removeprefix("[]") if line.done else ""
    if line.phase == "downloading":
        speed = f" {rate / 1e6:.1f} MB/s" if rate is not None else ""
        if line.total:
            return f" {bar(line.done, line.total, room - len(' [] 100% ') - len(speed))}{speed}"
        return f" {line.done / 1e6:.1f} MB{speed}"
    said = f" {line.detail}"
    return f"{said}; before: {line.reason}" if line.reason and line.phase != "error" else said


# --------------------------------------------------------------------------- the last lines


def _foot(
    scene: Scene, width: int, height: int, room: int, part: tuple[int, int, int]
) -> list[str]:
    """A rule with hints, and messages as far as there is room; a question in the last line."""
    question = _question(scene.state, width)
    small = width < LEAST[0] or height < LEAST[1]
    if question:
        last = [question]
    elif small and scene.snapshot and room > 1:
        last = [f"{width}x{height} is small: see {ENOUGH[0]}x{ENOUGH[1]}"]
    else:
        last = []
    ruled = scene.snapshot is not None and room > 1 + len(last)
    count = max(0, room - len(last) - ruled)
    news = [_news(message, width) for message in scene.messages[-count:]] if count else []
    return ([_rule(scene, width, height, part)] if ruled else []) + news + last


def _rule(scene: Scene, width: int, height: int, part: tuple[int, int, int]) -> str:
    """``- ? help  m menu  / filter  ... - by status 1-15/112 -``."""
    top, shown, total = part
    state = scene.state
    where = f"by {state.sort} {top + 1 if shown else 0}-{top + shown}/{total}"
    if state.filter:
        where = f"only {state.filter}, {where}"
    if width < ENOUGH[0] or height < ENOUGH[1]:
        size = f"{width}x{height}, see {ENOUGH[0]}x{ENOUGH[1]}"
        where = size if width < ENOUGH[0] else f"{where}, {size}"
    hints = ("? help", "m menu", "/ filter", "q quit", "l log", "i info", "s sort")
    for count in (7, 6, 4, 2, 1):
        left = "  ".join(hints[:count])
        gap = width - len(left) - len(where) - len("-  -  -")
        if gap >= 0:
            return f"- {left} -{'-' * gap} {where} -"
    return f"{'-' * (width - len(where) - 2)} {where} " if len(where) + 2 <= width else "-" * width


def _question(state: State, width: int) -> str:
    if state.mode is Mode.FILTER:
        return f"/{state.entry}_"
    if state.mode is Mode.VALUE:
        return f"{state.question}: {state.entry}_"
    if state.mode is Mode.LEAVING:
        for text in (
            "Quit? r: roll back  l: leave the jobs running for the next start  Esc: stay",
            "r: roll back  l: leave jobs  Esc: stay",
        ):
            if len(text) <= width:
                return text
        return "r l Esc"
    return ""


def _news(message: Message, width: int) -> str:
    """The message with as much of its time as leaves room for the text."""
    line = stamped(message.text, message.when)
    left_out = 0 if width >= 60 else len("YYYY-MM-DD ") if width >= 40 else len(stamped(""))
    return line[left_out:]


# --------------------------------------------------------------------------- a page of text


def _page(scene: Scene, width: int, height: int) -> tuple[list[str], set[int]]:
    """Title, text, hints."""
    state = scene.state
    room = page_room(height)
    top = max(0, min(state.top, len(state.lines) - room))
    text = list(state.lines[top : top + room])
    blank = [""] * (room - len(text))
    where = f"{top + 1 if text else 0}-{top + len(text)} of {len(state.lines)}"
    hint = f"-- Esc back  Up, Down, PgUp, PgDn, Home, End -- {where} "
    if len(hint) > width:
        hint = f"-- Esc back -- {where} "
    return [state.title, *text, *blank, f"{hint:-<{width}}"][: max(0, height)], {0}


def plain(snapshot: Snapshot) -> list[str]:
    """All of it for where no screen is: on paper, in a file."""
    width, height = ENOUGH
    columns = _columns(width)
    lines = chosen_lines(snapshot, State())
    rows = [_row(line, columns, {}, chosen=False).rstrip() for line in lines]
    head = _head(snapshot, width, height)
    return [cut(line, width).rstrip() for line in [*head, *rows]]


def page_room(height: int) -> int:
    """How many lines of text fit on a screen of this height."""
    return max(0, height - 2)
