"""A terminal with curses on it: lines out, keys in, and given back as it was.

Nothing here knows of runs.  One lock goes round all use of curses: the display's thread draws, the
main thread takes the terminal away (Ctrl-Z, the end).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from production.errors import DisplayUnavailable
from production.view.layout import Picture

REPAINT_EVERY = 10.0  # seconds; what other programs wrote over the screen goes away
KEYBOARD, _TTY = 0, 1  # standard input and output; it is there that curses reads and writes
PATIENCE = 2.0  # seconds; a terminal on hold (Ctrl-S) is waited for so long before it is taken away

Paint = Callable[[int, int], Picture]


class Screen:
    """Lines on the terminal, by curses, until ``close`` gives it back as it was.

    To be made in the main thread.  ``wake`` is called, in that thread, when the size changes and
    when a stopped process goes on.  Raises DisplayUnavailable where there is no terminal that
    could show anything.
    """

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        if not os.isatty(_TTY):
            raise DisplayUnavailable(what="standard output is not a terminal")
        if not in_foreground():
            raise DisplayUnavailable(what="this process runs in the background")
        terminal = os.environ.get("TERM", "")
        try:
            import curses
        except ImportError:
            raise DisplayUnavailable(what="this Python has no curses module") from None
        self._stops = signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
        try:
            # First, because initscr ends the process where it cannot start.
            curses.setupterm(fd=_TTY)
            if not curses.tigetstr("cup"):
                raise DisplayUnavailable(what=f"TERM={terminal} cannot move its cursor")
            self.window: Any = curses.initscr()
            curses.cbreak()  # not raw: Ctrl-C, Ctrl-Z and Ctrl-\ keep their meaning
            curses.noecho()
        except curses.error as error:
            with contextlib.suppress(curses.error):
                curses.endwin()
            raise DisplayUnavailable(what=f"TERM={terminal}: {error}") from None
        with contextlib.suppress(curses.error):  # not every terminal can hide its cursor
            curses.curs_set(0)
        curses.set_escdelay(100)  # milliseconds in which the rest of a key's code has to come
        curses.typeahead(-1)  # or a key that waits would break a drawing off
        # Keys are read by a pad, which is never shown: to read by the window is to show it first,
        # with what stood there before the screen was lent.
        self._keys: Any = curses.newpad(1, 1)
        self._keys.keypad(True)
        self._keys.nodelay(True)
        self.curses = curses
        self.keyboard = os.isatty(KEYBOARD)  # whether there are keys
        self._wake = wake
        self._lock = threading.RLock()
        self._repainted = 0.0
        self._closed = False
        # After Ctrl-Z and bg, curses sets the terminal, and a process that does so in the
        # background, or reads keys there, is stopped, unless it blocks this: a manager must go on.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU, signal.SIGTTIN})
        # In place of what curses does at these: it would draw in the midst of our own drawing.
        signal.signal(signal.SIGWINCH, lambda *_: wake())
        if self._stops:
            signal.signal(signal.SIGTSTP, self._stop)

    # ----------------------------------------------------------------- out

    def draw(self, paint: Paint) -> None:
        """Show ``paint(width, height)``, unless nobody can see it now."""
        with self._lock:
            if not self._ready():
                return
            window = self.window
            height, width = window.getmaxyx()
            window.erase()
            picture = paint(width, height)
            for y, line in enumerate(picture.lines):
                known = line.encode(window.encoding, "replace").decode(window.encoding)
                bright = self.curses.A_REVERSE if y in picture.bright else self.curses.A_NORMAL
                # Writing the last cell is done, and refused as there is none after it.
                with contextlib.suppress(self.curses.error):
                    window.addstr(y, 0, known, bright)
            self._repaint_now_and_then()
            window.refresh()

    def lend(self, draw: Callable[[Any], None]) -> None:
        """Let something else draw on curses' window, unless nobody can see it now."""
        with self._lock:
            if self._ready():
                self._repaint_now_and_then()
                draw(self.window)

    def repaint(self) -> None:
        """Draw all of it the next time, whatever is believed to be there already."""
        self._repainted = 0.0

    def _ready(self) -> bool:
        """Whether somebody looks; brings the window to the terminal's size.

        Nobody does in the background (Ctrl-Z, bg), and while the terminal takes nothing (Ctrl-S, a
        line that hangs).
        """
        if self._closed:
            return False
        if not in_foreground():
            self.repaint()
            return False
        if not select.select([], [_TTY], [], 0)[1]:
            return False
        # Asked from the terminal itself: LINES and COLUMNS do not follow it.
        width, height = os.get_terminal_size(_TTY)
        if width and height and (height, width) != self.window.getmaxyx():
            self.curses.resizeterm(height, width)
            self.repaint()
        return True

    def _repaint_now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._repainted >= REPAINT_EVERY:
            self._repainted = now
            self.window.redrawwin()

    # ----------------------------------------------------------------- in

    def keys(self) -> list[str]:
        """The keys that were pressed: characters, ``up``, ``page down``, ``enter``, ...

        One that has no name here is ``other``, so that nothing at all means: no key was pressed.
        """
        pressed = []
        with self._lock:
            while not self._closed and in_foreground():
                try:
                    code = self._keys.get_wch()
                except self.curses.error:
                    break
                pressed.append(self._name(code))
        return pressed

    def _name(self, code: int | str) -> str:
        if isinstance(code, str):
            known = {"\n": "enter", "\r": "enter", "\x1b": "escape", "\x0c": "repaint"}
            known |= {"\x7f": "backspace", "\x08": "backspace"}
            return known.get(code, code if code.isprintable() else "other")
        curses = self.curses
        return {
            curses.KEY_UP: "up",
            curses.KEY_DOWN: "down",
            curses.KEY_PPAGE: "page up",
            curses.KEY_NPAGE: "page down",
            curses.KEY_HOME: "home",
            curses.KEY_END: "end",
            curses.KEY_ENTER: "enter",
            curses.KEY_BACKSPACE: "backspace",
        }.get(code, "other")

    # ----------------------------------------------------------------- away and back

    def _stop(self, _signum: int, _frame: object) -> None:
        """Ctrl-Z: give the terminal back, stop as any program does, and go on by SIGCONT."""
        with self._held():
            with contextlib.suppress(self.curses.error):
                self.curses.endwin()
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)
            if not self._closed:
                signal.signal(signal.SIGTSTP, self._stop)
            self.repaint()
        self._wake()

    def close(self) -> None:
        """Give the terminal back, empty where it has no second screen."""
        with self._held():
            if self._closed:
                return
            self._closed = True
            with contextlib.suppress(self.curses.error):
                self.curses.flushinp()  # keys are nothing to the shell afterwards
                self.window.erase()
                self.window.refresh()
            with contextlib.suppress(self.curses.error):
                self.curses.endwin()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGWINCH, signal.SIG_DFL)
            if self._stops:
                signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    @contextlib.contextmanager
    def _held(self) -> Any:
        """The lock, or none when the terminal is on hold: that must not keep anybody for ever."""
        got = self._lock.acquire(timeout=PATIENCE)
        try:
            yield
        finally:
            if got:
                self._lock.release()


def in_foreground() -> bool:
    """Whether the terminal listens to this process, and not to another one of its session."""
    try:
        return os.tcgetpgrp(_TTY) == os.getpgrp()
    except OSError:  # not the terminal that controls this process: no job control
        return True
