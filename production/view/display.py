"""``--display``: the live screen that users know from 2014.

``render`` says what stands where and knows no terminal; ``Screen`` puts lines on a terminal and
knows nothing of runs; ``Display`` is the View that joins them.  Nothing here installs a signal
handler, and Ctrl-C stays what it is.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from production.errors import DisplayUnavailable
from production.model import Status
from production.view.base import RunLine, Snapshot
from production.view.console import Console, bar
from production.view.stamp import labelled, stamped

KEPT_MESSAGES = 1000  # printed when the display closes
PROGRESS_EVERY = 0.25  # seconds; transfers report more often than anybody can read
REPAINT_EVERY = 10.0  # seconds; what other programs wrote over the screen goes away

ORDER = ("running", "submitting", "ready", "downloading", "claimed", "ending")


class Message(NamedTuple):
    """A line of news and when it came, in seconds since 1970."""

    when: float
    text: str


# --------------------------------------------------------------------------- what stands where


def render(
    snapshot: Snapshot | None, messages: Sequence[Message], width: int, height: int
) -> list[str]:
    """The screen: ``height`` lines of at most ``width`` cells.

    Title, counts and column titles above, the runs below them, the latest message in the last
    line; where the runs leave room, there are more messages.  A small screen first goes without
    the column titles, then without the counts.  Before the first snapshot there are messages only.
    """
    rule = "-" * width
    head: list[str] = []
    rows: list[str] = []
    if snapshot:
        columns = _columns(width)
        titles = "|".join(title.center(room) for title, room in columns.items())
        head = [_title(snapshot, width), _counts(snapshot, width), rule, titles, rule]
        del head[5 if height >= 10 else 2 if height >= 4 else 1 :]
        rows = _rows(snapshot.lines, columns, max(0, height - len(head) - 1))
    left = height - len(head) - len(rows)
    news = [_news(message, width) for message in messages[-max(1, left - 1) :]]
    foot = [rule, *news] if head and news and left > 1 else news
    blank = [""] * (left - len(foot))
    return [_cut(line, width) for line in head + rows + blank + foot][: max(0, height)]


def _title(snapshot: Snapshot, width: int) -> str:
    """``ALCAPANA v4 TAG ||||||| Quota 45%``, as much of it as there is room for."""
    production = snapshot.production
    name = production.type.upper()
    label = f"{name} v{production.version}"
    # Rounded down, so that it does not seem to have reached a limit that it has not.
    used = f"{int(round(snapshot.usage.fraction * 100, 6))}%" if snapshot.usage else "?%"
    quota = f"Quota {used}"
    for left in (f"{label} {production.software}", label):
        bars = width - len(left) - len(quota) - 2
        if bars >= 3:
            return f"{left} {'|' * bars} {quota}"
    shorter = (f"{label} {quota}", f"{name} {quota}", f"{name} {used}")
    return next((text for text in shorter if len(text) <= width), used)


def _counts(snapshot: Snapshot, width: int) -> str:
    """``N 120  C 5  R 10  F 300  E 2`` of the whole production, and the limit on the space."""
    counts = [f"{status} {snapshot.counts.get(status, 0)}" for status in Status]
    between = "  " if width >= 40 else " "
    while len(text := between.join(counts)) > width:
        counts.pop()  # rather than part of a number
    limit = f"Limit {snapshot.spacelim * 100:g}%"
    gap = width - len(text) - len(limit)
    return f"{text}{' ' * gap}{limit}" if gap >= 2 else text


def _columns(width: int) -> dict[str, int]:
    """Titles and widths: those of 2014 at 80, more of them above, fewer below 56."""
    if width < 56:
        columns = {"Run": 8, "Status": 12, "%": 5, "Run Time": 12}
        while len(columns) > 2 and sum(columns.values()) + len(columns) - 1 > width:
            columns.popitem()
        return columns
    columns = {"Run": 9, "Status": 14, "Download Progress": min(35, width - 42), "Run Time": 16}
    if width >= 100:
        columns["Download Progress"] = max(35, min(65, width - 100))
        columns["Job"] = width - sum(columns.values()) - len(columns)
    return columns


def _rows(lines: Sequence[RunLine], columns: dict[str, int], room: int) -> list[str]:
    """The runs by ``ORDER``, then by number; the last row counts those that have none."""
    places = {phase: place for place, phase in enumerate(ORDER)}
    ordered = sorted(lines, key=lambda line: (places.get(line.phase, len(ORDER)), line.run))
    if len(ordered) <= room or room < 3:
        return [_row(line, columns) for line in ordered[:room]]
    shown = [_row(line, columns) for line in ordered[: room - 1]]
    return [*shown, f"{'...':>{columns['Run'] - 2}}  | {len(ordered) - len(shown)} more"]


def _row(line: RunLine, columns: dict[str, int]) -> str:
    return "|".join(_cell(line, title, room) for title, room in columns.items())


def _cell(line: RunLine, title: str, room: int) -> str:
    match title:
        case "Run":
            return f"{line.run:>{room - 2}}".ljust(room)
        case "Status":
            return f"{line.phase.capitalize():>{room - 1}} "
        case "Run Time":
            return f"{_duration(line.seconds):>{room - 1}} "
        case "Job":
            return f" {line.detail}"
        case _:
            return _progress(line, room)


def _progress(line: RunLine, room: int) -> str:
    """``[=====     ]  45%``, in little room ``45%``; nothing for a run that needs no download."""
    if not line.done and line.phase != "downloading":
        text = ""
    elif room < 12:
        text = bar(line.done, line.total, 0).removeprefix("[]")
    elif line.total:
        text = " " + bar(line.done, line.total, room - len(" [] 100% "))
    else:
        text = f" {line.done / 1e6:.1f} MB"
    return text.ljust(room)


def _duration(seconds: float) -> str:
    """``12m 30s``, ``2h 05m 09s``: how long a run is where it is."""
    minutes, second = divmod(max(0, int(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}h {minute:02d}m {second:02d}s" if hours else f"{minute}m {second:02d}s"


def _news(message: Message, width: int) -> str:
    """The message with as much of its time as leaves room for the text."""
    line = stamped(message.text, message.when)
    cut = 0 if width >= 60 else len("YYYY-MM-DD ") if width >= 40 else len(stamped(""))
    return line[cut:]


def _cut(text: str, width: int) -> str:
    """At most ``width`` cells of it, without anything that would steer the terminal."""
    cells = 0
    shown = []
    for char in text:
        if not char.isprintable():
            char = " " if char.isspace() else "?"
        if not unicodedata.combining(char):
            cells += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if cells > width:
            break
        shown.append(char)
    return "".join(shown)


# --------------------------------------------------------------------------- the terminal

_TTY = 1  # standard output; it is there that curses writes


class Screen:
    """Lines on the terminal, by curses, until ``close`` gives it back as it was.

    Raises DisplayUnavailable where there is no terminal that could show them.
    """

    def __init__(self) -> None:
        if not os.isatty(_TTY):
            raise DisplayUnavailable(what="standard output is not a terminal")
        if not _in_foreground():
            raise DisplayUnavailable(what="this process runs in the background")
        terminal = os.environ.get("TERM", "")
        try:
            import curses
        except ImportError:
            raise DisplayUnavailable(what="this Python has no curses module") from None
        try:
            # First, because initscr ends the process where it cannot start.
            curses.setupterm(fd=_TTY)
            if not curses.tigetstr("cup"):
                raise DisplayUnavailable(what=f"TERM={terminal} cannot move its cursor")
            self._window = curses.initscr()
            curses.cbreak()  # not raw: Ctrl-C, Ctrl-Z and Ctrl-\ keep their meaning
            curses.noecho()
        except curses.error as error:
            with contextlib.suppress(curses.error):
                curses.endwin()
            raise DisplayUnavailable(what=f"TERM={terminal}: {error}") from None
        with contextlib.suppress(curses.error):  # not every terminal can hide its cursor
            curses.curs_set(0)
        self._curses = curses
        self._repainted = 0.0
        # After Ctrl-Z and bg, curses sets the terminal, and a process that does so in the
        # background is stopped, unless it blocks this: a manager must go on.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})

    def draw(self, paint: Callable[[int, int], list[str]]) -> None:
        """Show ``paint(width, height)``, unless nobody can see it now.

        That is in the background (Ctrl-Z, bg), and while the terminal takes nothing (Ctrl-S, a
        line that hangs): waiting for it would hold up the manager.
        """
        if not _in_foreground():
            self._repainted = 0.0
            return
        if not select.select([], [_TTY], [], 0)[1]:
            return
        curses, window = self._curses, self._window
        curses.flushinp()  # keys mean nothing here, nor to the shell afterwards
        # Asked from the terminal itself: LINES and COLUMNS do not follow it.
        width, height = os.get_terminal_size(_TTY)
        if width and height and (height, width) != window.getmaxyx():
            curses.resizeterm(height, width)
            self._repainted = 0.0
        height, width = window.getmaxyx()
        window.erase()
        for y, line in enumerate(paint(width, height)):
            known = line.encode(window.encoding, "replace").decode(window.encoding)
            # Writing the last cell is done, and refused as there is none after it.
            with contextlib.suppress(curses.error):
                window.addstr(y, 0, known)
        now = time.monotonic()
        if now - self._repainted >= REPAINT_EVERY:
            self._repainted = now
            window.redrawwin()
        window.refresh()

    def close(self) -> None:
        """Give the terminal back, empty where it has no second screen."""
        with contextlib.suppress(self._curses.error):
            self._curses.flushinp()  # since the last drawing
            self._window.erase()
            self._window.refresh()
        with contextlib.suppress(self._curses.error):
            self._curses.endwin()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(_TTY) == os.getpgrp()
    except OSError:  # not the terminal that controls this process: no job control
        return True


# --------------------------------------------------------------------------- the view


class Display:
    """A View on the whole terminal; the messages are printed when it closes.

    When drawing fails, for whatever reason, the display closes itself, says so, and goes on as
    the plain console: the manager does not notice.  Raises DisplayUnavailable where it cannot
    start.
    """

    def __init__(self) -> None:
        self._screen: Screen | None = Screen()
        self.live = True
        self._snapshot: Snapshot | None = None
        self._messages: deque[Message] = deque(maxlen=KEPT_MESSAGES)
        self._dropped = 0
        self._drawn = 0.0
        self._console = Console()
        atexit.register(self.close)  # for ways out on which nobody closes

    def message(self, text: str, *, level: str = "info") -> None:
        """Show it at once: the manager may be about to wait."""
        if not self._screen:
            self._console.message(text, level=level)
            return
        self._dropped += len(self._messages) == KEPT_MESSAGES
        self._messages.append(Message(time.time(), labelled(text, level)))
        self._draw()

    def progress(self, run: int, done: int, total: int | None) -> None:
        """Move the run's bar, a few times a second."""
        if not self._screen:
            self._console.progress(run, done, total)
        elif self._snapshot and time.monotonic() - self._drawn >= PROGRESS_EVERY:
            lines = tuple(
                replace(line, done=done, total=total) if line.run == run else line
                for line in self._snapshot.lines
            )
            self._snapshot = replace(self._snapshot, lines=lines)
            self._draw()

    def update(self, snapshot: Snapshot) -> None:
        """Show the new state."""
        self._snapshot = snapshot
        self._draw()

    def close(self) -> None:
        """Give the terminal back and print the messages; any further ones are printed plainly."""
        screen, self._screen = self._screen, None
        if not screen:
            self._console.close()
            return
        self.live = False
        atexit.unregister(self.close)
        screen.close()
        if self._dropped:
            _print(f"... {self._dropped} earlier messages are not shown")
        for message in self._messages:
            _print(stamped(message.text, message.when))

    def _draw(self) -> None:
        if not self._screen:
            return
        try:
            self._screen.draw(
                lambda width, height: render(self._snapshot, list(self._messages), width, height)
            )
            self._drawn = time.monotonic()
        except Exception as error:  # noqa: BLE001 - whatever it is, runs must not suffer from it
            self.close()
            what = f"{type(error).__name__}: {error}"
            self.message(f"The display has been switched off ({what})", level="warning")


def _print(line: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    known = line.encode(encoding, "backslashreplace").decode(encoding)
    with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
        print(known)  # noqa: T201
