"""What each key of the display does: a pure function of what is shown and the key.

``KEYS`` is the one table of them: the help on the screen and docs/display.md are made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

SORTS = ("status", "run", "dataset", "time", "tries")
BACK = ("escape", "q")  # from a page of text to the table


class Mode(Enum):
    """What the keys speak to."""

    TABLE = "table"
    FILTER = "filter"  # the filter is being typed
    TEXT = "text"  # a page of text instead of the table
    LEAVING = "leaving"  # asked how to quit
    VALUE = "value"  # a value for the menu is being typed


@dataclass(frozen=True)
class State:
    """What somebody who looks has chosen to see."""

    mode: Mode = Mode.TABLE
    sort: str = SORTS[0]
    filter: str = ""  # words; see layout.matches
    entry: str = ""  # being typed
    question: str = ""  # that ``entry`` answers
    run: int | None = None  # selected; None: the first one
    title: str = ""  # of the page of text
    lines: tuple[str, ...] = ()
    top: int = 0  # its first line on the screen


@dataclass(frozen=True)
class Seen:
    """What is on the screen while a key is pressed."""

    runs: Sequence[int]  # in the table's order, whether they fit or not
    page: int  # rows that fit
    ours: bool  # whether it is a manager's own display, which quitting ends


class Do(Enum):
    """What the display is to do; all else is a change of State."""

    LOG = "log"
    DETAILS = "details"
    MENU = "menu"
    HELP = "help"
    REPAINT = "repaint"
    ROLL_BACK = "roll back"
    LEAVE = "leave"
    QUIT = "quit"  # an onlooker's display
    ANSWER = "answer"  # ``State.entry`` is the answer to ``State.question``
    CANCEL = "cancel"  # there is none


Pressed = tuple[State, Do | None]


@dataclass(frozen=True)
class Key:
    """One or more keys that do the same kind of thing in the table."""

    names: tuple[str, ...]
    shown: str
    meaning: str
    press: Callable[[State, Seen, str], Pressed]


def press(state: State, key: str, seen: Seen) -> Pressed:
    """What ``key`` makes of ``state``, and what else is to be done."""
    return _MODES[state.mode](state, key, seen)


def selected(state: State, runs: Sequence[int]) -> int | None:
    """The run that a key is about; None when there is no run at all."""
    return state.run if state.run in runs else runs[0] if runs else None


# --------------------------------------------------------------------------- the table


def _move(state: State, seen: Seen, key: str) -> Pressed:
    if not seen.runs:
        return state, None
    run = selected(state, seen.runs)
    at = seen.runs.index(run) if run is not None else 0
    at = _moved(at, key, seen.page, len(seen.runs) - 1)
    return replace(state, run=seen.runs[at]), None


def _moved(at: int, key: str, page: int, last: int) -> int:
    lines = {"up": -1, "down": 1, "page up": -page, "page down": page}
    steps = {**lines, "home": -at, "end": last - at}
    return max(0, min(at + steps[key], last))


def _filter(state: State, _seen: Seen, _key: str) -> Pressed:
    return replace(state, mode=Mode.FILTER, entry=state.filter), None


def _sort(state: State, _seen: Seen, _key: str) -> Pressed:
    return replace(state, sort=SORTS[(SORTS.index(state.sort) + 1) % len(SORTS)]), None


def _quit(state: State, seen: Seen, _key: str) -> Pressed:
    return (replace(state, mode=Mode.LEAVING), None) if seen.ours else (state, Do.QUIT)


def _unfilter(state: State, _seen: Seen, _key: str) -> Pressed:
    return replace(state, filter="", run=None), None


def _simply(do: Do) -> Callable[[State, Seen, str], Pressed]:
    return lambda state, _seen, _key: (state, do)


KEYS = (
    Key(("up", "down"), "Up, Down", "choose a run", _move),
    Key(("page up", "page down"), "PgUp, PgDn", "a page further", _move),
    Key(("home", "end"), "Home, End", "the first, the last run", _move),
    Key(("/",), "/", "show only some runs: a run's number, N C R F E, a dataset, a user", _filter),
    Key(("escape",), "Esc", "show all runs again", _unfilter),
    Key(("s",), "s", f"sort by {', '.join(SORTS)}, in turn", _sort),
    Key(
        ("l", "enter"), "l, Enter", "the end of the chosen run's log, as it grows", _simply(Do.LOG)
    ),
    Key(("i",), "i", "all about the chosen run, and its history", _simply(Do.DETAILS)),
    Key(("m",), "m", "the menu: start, pause, change, retry, release, stop", _simply(Do.MENU)),
    Key(("?", "h"), "?, h", "this help", _simply(Do.HELP)),
    Key(("repaint",), "Ctrl-L", "draw the screen again", _simply(Do.REPAINT)),
    Key(("q",), "q", "quit; a manager asks whether to roll back", _quit),
)

_TABLE = {name: key for key in KEYS for name in key.names}


def _in_table(state: State, key: str, seen: Seen) -> Pressed:
    return _TABLE[key].press(state, seen, key) if key in _TABLE else (state, None)


# --------------------------------------------------------------------------- the other modes


def _typed(entry: str, key: str) -> str:
    if key == "backspace":
        return entry[:-1]
    return entry + key if len(key) == 1 and key.isprintable() else entry


def _in_filter(state: State, key: str, _seen: Seen) -> Pressed:
    """The table follows what is typed."""
    if key == "enter":
        return replace(state, mode=Mode.TABLE, entry=""), None
    if key == "escape":
        return replace(state, mode=Mode.TABLE, entry="", filter="", run=None), None
    entry = _typed(state.entry, key)
    return replace(state, entry=entry, filter=entry, run=None), None


def _in_text(state: State, key: str, seen: Seen) -> Pressed:
    if key in BACK:
        return replace(state, mode=Mode.TABLE, title="", lines=(), top=0), None
    if key == "repaint":
        return state, Do.REPAINT
    if key in {"up", "down", "page up", "page down", "home", "end"}:
        last = max(0, len(state.lines) - seen.page)
        return replace(state, top=_moved(min(state.top, last), key, seen.page, last)), None
    return state, None


def _in_leaving(state: State, key: str, _seen: Seen) -> Pressed:
    back = replace(state, mode=Mode.TABLE)
    if key == "r":
        return back, Do.ROLL_BACK
    if key == "l":
        return back, Do.LEAVE
    return (back if key in {"escape", "n"} else state), None


def _in_value(state: State, key: str, _seen: Seen) -> Pressed:
    if key == "enter":
        return replace(state, mode=Mode.TABLE), Do.ANSWER
    if key == "escape":
        return replace(state, mode=Mode.TABLE, entry="", question=""), Do.CANCEL
    return replace(state, entry=_typed(state.entry, key)), None


_MODES: dict[Mode, Callable[[State, str, Seen], Pressed]] = {
    Mode.TABLE: _in_table,
    Mode.FILTER: _in_filter,
    Mode.TEXT: _in_text,
    Mode.LEAVING: _in_leaving,
    Mode.VALUE: _in_value,
}


def help_lines() -> list[str]:
    """The table of keys, for people."""
    width = max(len(key.shown) for key in KEYS)
    return [f"{key.shown:{width}}  {key.meaning}" for key in KEYS]
