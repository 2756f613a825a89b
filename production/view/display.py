"""``--display`` and ``production watch``: the live screen that users know from 2014.

A thread of its own draws and reads keys, so that neither holds up whoever feeds it: snapshots and
messages are left where the thread finds them, and what people ask for goes out by commands
(production/view/door.py).  What stands where is layout.py, what keys do keys.py, the terminal
screen.py, the menu menu.py.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from production.view.base import RunLine, Snapshot
from production.view.choices import leave
from production.view.console import Console
from production.view.door import Answer, Door
from production.view.keys import Do, Mode, Seen, State, help_lines, press, selected
from production.view.layout import Message, Scene, chosen_lines, page_room, render, table_room
from production.view.menu import Menus
from production.view.pace import Rates
from production.view.pages import attempts, details, read_log
from production.view.screen import KEYBOARD, Screen, in_foreground
from production.view.stamp import labelled, stamped

KEPT_MESSAGES = 1000  # printed when the display closes
DRAW_EVERY = 0.25  # seconds; news come more often than anybody can read
TICK = 1.0  # seconds; how often the terminal is looked at when nothing happens
DEAF = 5  # times that the keyboard had something to read and it was no key: the terminal is gone


class Display:
    """A View on the whole terminal; the messages are printed when it closes.

    When drawing fails, for whatever reason, the display closes itself, says so, and goes on as
    the plain console: the manager does not notice.  ``door`` is where requests go; without one
    nothing can be asked for.  ``onlooker``: it is no manager's display, so quitting ends nothing
    else.  To be made in the main thread.  Raises DisplayUnavailable where it cannot start.
    """

    def __init__(self, door: Door | None = None, *, onlooker: bool = False) -> None:
        self._inbox, self._bell = os.pipe()
        os.set_blocking(self._inbox, False)
        os.set_blocking(self._bell, False)
        try:
            self._screen: Screen = Screen(self._wake)
        except BaseException:
            os.close(self._inbox)
            os.close(self._bell)
            raise
        self.live = True
        self.quitting = threading.Event()  # an onlooker has had enough
        self._door = door
        self._onlooker = onlooker
        self._gate = threading.RLock()  # round the messages and the end
        self._messages: deque[Message] = deque(maxlen=KEPT_MESSAGES)
        self._dropped = 0
        self._snapshot: Snapshot | None = None
        self._progress: dict[int, tuple[int, int | None]] = {}
        self._rates = Rates()
        self._speeds: dict[int, float] = {}
        self._console = Console()
        # What follows belongs to the display's thread.
        self._state = State()
        self._menus = Menus(self, self._screen, door) if door else None
        self._fresh: Callable[[], list[str]] | None = None  # the page of text, as it is now
        self._drawn = 0.0
        self._deaf = 0
        self._calls: deque[Callable[[], None]] = deque()  # what others have for that thread
        atexit.register(self.close)  # for ways out on which nobody closes
        self._thread = threading.Thread(target=self._serve, name="display", daemon=True)
        self._thread.start()

    # ----------------------------------------------------------------- what it is told

    def message(self, text: str, *, level: str = "info") -> None:
        """Show it."""
        with self._gate:
            if self.live:
                self._dropped += len(self._messages) == KEPT_MESSAGES
                self._messages.append(Message(time.time(), labelled(text, level)))
                self._wake()
            else:
                self._console.message(text, level=level)

    def progress(self, run: int, done: int, total: int | None) -> None:
        """Move the run's bar."""
        if self.live:
            self._progress[run] = (done, total)
            if time.monotonic() - self._drawn >= DRAW_EVERY:
                self._wake()
        else:
            self._console.progress(run, done, total)

    def transferred(self, run: int) -> None:
        """The next snapshot tells it."""
        if not self.live:
            self._console.transferred(run)

    def update(self, snapshot: Snapshot) -> None:
        """Show the new state."""
        fetching = {line.run: line.done for line in snapshot.lines if line.phase == "downloading"}
        self._speeds = self._rates.observe(time.monotonic(), fetching)
        self._progress = {}
        self._snapshot = snapshot
        self._wake()

    def close(self) -> None:
        """Give the terminal back and print the messages; any further ones are printed plainly."""
        with self._gate:
            first, self.live = self.live, False
            if not first:
                self._console.close()
        if first:
            atexit.unregister(self.close)
            self._wake()
            self._thread.join(TICK)  # unless the terminal holds it up
            self._leave()

    def _leave(self) -> None:
        with self._gate:
            self._screen.close()
            if self._dropped:
                _print(f"... {self._dropped} earlier messages are not shown")
            for message in self._messages:
                _print(stamped(message.text, message.when))
            self._messages.clear()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it has been rung already
            os.write(self._bell, b"!")

    # ----------------------------------------------------------------- the display's thread

    def _serve(self) -> None:
        try:
            while self.live:
                self._wait()
                while self._calls:
                    self._calls.popleft()()
                self._draw()
        except Exception as error:  # noqa: BLE001 - whatever it is, runs must not suffer from it
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        with self._gate:
            if not self.live:
                return
            self.live = False
            atexit.unregister(self.close)
            self._leave()
            what = f"{type(error).__name__}: {error}"
            self.message(f"The display has been switched off ({what})", level="warning")

    def _wait(self) -> None:
        """Until there is something to draw, and then until it is time; keys are taken at once."""
        due = self._drawn + DRAW_EVERY
        rung = False
        while self.live:
            listens = self._screen.keyboard and self._deaf < DEAF and in_foreground()
            bells = [] if rung else [self._inbox]
            keyboard = [KEYBOARD] if listens else []
            left = max(due - time.monotonic(), 0.0) if rung else TICK
            ready = select.select(bells + keyboard, [], [], left)[0]
            if KEYBOARD in ready and self._take_keys():
                return
            if self._inbox in ready:
                os.read(self._inbox, 4096)
                rung = True
            if not ready or (rung and time.monotonic() >= due):
                return

    def _take_keys(self) -> bool:
        keys = self._screen.keys()
        self._deaf = 0 if keys else self._deaf + 1
        for key in keys:
            self._press(key)
        return bool(keys)

    def _draw(self) -> None:
        if not self.live:
            return
        if self._fresh is not None and self._state.mode is Mode.TEXT:
            self._turn_page(self._fresh())
        if self._menus is not None and self._menus.shown:
            self._menus.draw(self._snapshot)
        else:
            scene = self._scene()  # before the screen's lock is taken: no lock within another
            self._screen.draw(lambda width, height: render(scene, width, height))
        self._drawn = time.monotonic()

    def _scene(self) -> Scene:
        snapshot, progress = self._snapshot, self._progress
        if snapshot and progress:
            snapshot = replace(
                snapshot, lines=tuple(_moved(line, progress) for line in snapshot.lines)
            )
        with self._gate:
            messages = list(self._messages)[-200:]  # more than any screen has room for
        return Scene(snapshot, messages, self._state, self._speeds)

    # ----------------------------------------------------------------- keys

    def _press(self, key: str) -> None:
        if self._menus is not None and self._menus.shown:
            self._menus.press(key)
            return
        height = self._screen.window.getmaxyx()[0]
        runs = [line.run for line in chosen_lines(self._snapshot, self._state)]
        in_text = self._state.mode is Mode.TEXT
        page = page_room(height) if in_text else table_room(height)
        seen = Seen(runs, max(1, page), not self._onlooker)
        self._state, do = press(self._state, key, seen)
        if do is not None:
            self._do(do)

    def _do(self, do: Do) -> None:
        line = self._chosen()
        match do:
            case Do.HELP:
                self.show("The keys", help_lines())
            case Do.REPAINT:
                self._screen.repaint()
            case Do.LOG if line is not None:
                self.show_log(line)
            case Do.DETAILS if line is not None:
                self._show_details(line)
            case Do.MENU if self._menus is not None and self._snapshot is not None:
                self._menus.open(self._snapshot, line)
            case Do.ANSWER if self._menus is not None:
                entry = self._state.entry
                self._state = replace(self._state, entry="", question="")
                self._menus.answer(entry)
            case Do.ROLL_BACK:
                os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C
            case Do.LEAVE if self._menus is not None and self._snapshot is not None:
                self._menus.take(leave(self._snapshot))
            case Do.QUIT:
                self.quitting.set()

    def _chosen(self) -> RunLine | None:
        lines = chosen_lines(self._snapshot, self._state)
        run = selected(self._state, [line.run for line in lines])
        return next((line for line in lines if line.run == run), None)

    # ----------------------------------------------------------------- pages of text

    def show(
        self, title: str, lines: Sequence[str], fresh: Callable[[], list[str]] | None = None
    ) -> None:
        """A page of text in place of the table, at its end when it grows by ``fresh``."""
        self._fresh = fresh
        self._state = replace(
            self._state,
            mode=Mode.TEXT,
            title=title,
            lines=tuple(lines),
            top=len(lines) if fresh else 0,
        )

    def show_log(self, line: RunLine) -> None:
        """The end of the run's log, as it grows."""
        if line.logs:
            self.show(f"Log of run {line.run}", read_log(line.logs), lambda: read_log(line.logs))
        else:
            self.message(f"Run {line.run} has no log yet")

    def _turn_page(self, lines: list[str]) -> None:
        """Go on at the end when that was looked at."""
        state = self._state
        at_end = state.top >= len(state.lines) - page_room(self._screen.window.getmaxyx()[0])
        top = len(lines) if at_end else state.top
        self._state = replace(state, lines=tuple(lines), top=top)

    def _show_details(self, line: RunLine) -> None:
        known = details(line)
        title = f"Run {line.run}"
        self.show(title, known)
        if self._door is None or self._snapshot is None:
            return
        production = self._snapshot.production
        which = (f"--production={production.type}", f"--version={production.version}")

        def told(answer: Answer) -> None:
            if self._state.mode is Mode.TEXT and self._state.title == title:
                tried = attempts("\n".join(answer.lines)) if answer.done else answer.lines
                lines = (*known, "", "Its attempts (UTC):", *tried)
                self._state = replace(self._state, lines=lines)

        words = ("history", str(line.run), *which, "--output=json")
        self._door.ask(words, lambda answer: self.later(lambda: told(answer)))

    # ----------------------------------------------------------------- what the menus need

    def ask(self, question: str) -> None:
        """Have a value typed; the menus get it."""
        self._state = replace(self._state, mode=Mode.VALUE, entry="", question=question)

    def later(self, call: Callable[[], None]) -> None:
        """Have the display's thread do it; for other threads."""
        self._calls.append(call)
        self._wake()


def _moved(line: RunLine, progress: Mapping[int, tuple[int, int | None]]) -> RunLine:
    if line.run not in progress or line.phase != "downloading":
        return line
    done, total = progress[line.run]
    return replace(line, done=done, total=total)


def _print(line: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    known = line.encode(encoding, "backslashreplace").decode(encoding)
    with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
        print(known, flush=True)  # noqa: T201
