"""The menus on the screen, by curses-menu.

Of curses-menu the items, the drawing and the handlers of keys are used, not its thread, nor its
loop, nor its set-up of the terminal: the display's thread hands it the keys one by one, so jobs and
the other keys go on, an error reaches the display, the screen follows the terminal's size, and
nothing clears the screen at the end of the program (``start`` and ``show`` would register that).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from production.view.base import RunLine, Snapshot
from production.view.cells import cut
from production.view.choices import (
    Command,
    FindOffers,
    Menu,
    Offers,
    Question,
    ShowLog,
    Step,
    main_menu,
)
from production.view.door import Answer, Door
from production.view.layout import counts
from production.view.screen import Screen

LEAST_WIDTH = 24  # columns that curses-menu is told to have, however few there are
MARGIN = 12  # columns of its frame and numbers


class Stage(Protocol):
    """What the menus need of the display."""

    def ask(self, question: str) -> None:
        """Have a value typed."""

    def show_log(self, line: RunLine) -> None:
        """Show the end of a run's log."""

    def message(self, text: str, *, level: str = "info") -> None:
        """Tell the user."""

    def later(self, call: Callable[[], None]) -> None:
        """Have the display's thread do it."""


class Menus:
    """The menu that is open, with those that led to it, and the question that waits."""

    def __init__(self, stage: Stage, screen: Screen, door: Door) -> None:
        self._stage = stage
        self._screen = screen
        self._door = door
        self._open: list[tuple[Menu, Any]] = []  # each with its curses-menu
        self._question: Question | None = None

    @property
    def shown(self) -> bool:
        """Whether keys and screen belong to a menu."""
        return bool(self._open)

    def open(self, snapshot: Snapshot, line: RunLine | None) -> None:
        """Show the main menu."""
        self.take(main_menu(snapshot, line))

    def answer(self, value: str) -> None:
        """The value that was asked for has been typed."""
        question, self._question = self._question, None
        if question is None or not value.strip():
            self._stage.message("Nothing was changed")
        else:
            self.take(question.then(value.strip()))

    # ----------------------------------------------------------------- steps

    def take(self, step: Step) -> None:
        """Go a step further: into a menu, or out of all of them to do something."""
        if isinstance(step, Menu):
            self._open.append((step, _curses_menu(step)))
            return
        self._close()
        match step:
            case Question():
                self._question = step
                self._stage.ask(step.text)
            case ShowLog():
                self._stage.show_log(step.line)
            case FindOffers():
                self._door.offers(
                    lambda offers: self._stage.later(lambda: self._go_on(step, offers))
                )
            case Command():
                words = " ".join(step.words)
                self._stage.message(f"production {words}")
                run = self._door.begin if step.alone else self._door.ask
                run(step.words, lambda answer: self._stage.later(lambda: self._tell(answer)))

    def _go_on(self, step: FindOffers, found: Offers | Answer) -> None:
        if isinstance(found, Offers):
            self.take(step.then(found))
        else:
            self._tell(found)

    def _tell(self, answer: Answer) -> None:
        level = "info" if answer.done else "warning"
        for line in answer.lines:
            if line.strip():
                self._stage.message(line, level=level)

    def _close(self) -> None:
        self._open.clear()
        self._screen.repaint()

    # ----------------------------------------------------------------- keys and drawing

    def press(self, key: str) -> None:
        """A key for the menu that is open."""
        if key == "escape":
            self._back()
            return
        menu, shown = self._open[-1]
        curses = self._screen.curses
        codes = {"up": curses.KEY_UP, "down": curses.KEY_DOWN, "enter": ord("\n")}
        code = codes.get(key, ord(key) if len(key) == 1 else -1)
        shown.selected_option = -1
        shown.user_input_handlers[code](code)
        chosen = shown.selected_option
        if chosen >= len(menu.entries):
            self._back()
        elif chosen >= 0:
            self.take(menu.entries[chosen].step())

    def _back(self) -> None:
        self._open.pop()
        self._screen.repaint()

    def draw(self, snapshot: Snapshot | None) -> None:
        """Draw the menu as large as the terminal is, under how the production stands."""
        _, shown = self._open[-1]

        def draw(window: Any) -> None:
            height, width = window.getmaxyx()
            if snapshot is not None:
                shown.subtitle = counts(snapshot, max(LEAST_WIDTH, width) - MARGIN)
            pad = self._screen.curses.newpad(
                max(height, shown.menu_height), max(width, LEAST_WIDTH)
            )
            _cut_items(shown, pad.getmaxyx()[1] - MARGIN, window.encoding)
            type(shown).stdscr = window
            shown.screen = pad
            type(shown).draw(shown)

        self._screen.lend(draw)


def _curses_menu(menu: Menu) -> Any:
    import curses

    from cursesmenu import CursesMenu
    from cursesmenu.items import MenuItem

    shown = CursesMenu(menu.title, show_exit_item=False)
    shown.draw = lambda: None  # its handlers would draw whether or not the terminal takes anything
    shown.highlight = curses.A_REVERSE
    for entry in menu.entries:
        shown.items.append(_item(MenuItem, entry.text))
    shown.items.append(_item(MenuItem, "Back", override_index="q"))
    return shown


def _item(kind: Any, text: str, **keywords: str) -> Any:
    item = kind(text, **keywords)
    item.whole = text
    return item


def _cut_items(shown: Any, width: int, encoding: str) -> None:
    """What is too long would be written over the frame."""
    shown.title = _known(cut(shown.title, width), encoding)
    for item in shown.items:
        item.text = _known(cut(item.whole, width), encoding)


def _known(text: str, encoding: str) -> str:
    return text.encode(encoding, "replace").decode(encoding)
