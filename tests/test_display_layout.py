"""What stands where on the display, and what keys do: pure functions."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from display_feeder import LINES, PRODUCTION, snapshot
from hypothesis import given
from hypothesis import strategies as st
from pyte.screens import wcwidth

from production.model import Usage
from production.view.base import RunLine, Snapshot
from production.view.cells import cells
from production.view.keys import KEYS, SORTS, Do, Mode, Seen, State, help_lines, press
from production.view.layout import LETTERS, Message, Scene, chosen_lines, matches, render
from production.view.pace import WINDOW, Rates
from production.view.stamp import labelled, stamped

WHEN = time.mktime((2014, 5, 1, 12, 0, 0, 0, 0, -1))
NOBODY = replace(snapshot(), managers=())


def news(*texts: str) -> list[Message]:
    return [Message(WHEN + number, text) for number, text in enumerate(texts)]


def shown(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").split("\n")]


def screen(
    width: int, height: int, *texts: str, of: Snapshot | None = None, state: State | None = None
) -> list[str]:
    scene = Scene(of or snapshot(), news(*texts), state or State(), {2091: 12.3e6})
    return [line.rstrip() for line in render(scene, width, height).lines]


def table(*lines: RunLine, width: int = 80, state: State | None = None) -> list[str]:
    """The rows of a screen that has room for them."""
    rows = screen(width, 24, of=snapshot(lines), state=state)
    return rows[6 : 6 + len(lines)]


# ------------------------------------------------------------------------------- what stands where


def test_the_screen() -> None:
    assert screen(80, 24, "Claimed run: 2090", "Downloading run: 2091") == shown("""
ALCAPANA v4 v7.1_calib [|||||||||||||||                   ] Quota 45%, limit 90%
N 120  C 5  R 10  F 300  E 2 [===================         ]  68%  12/h, 11h left
Managers: 3 anna@lxplus7 6 runs, 4 bob@lxplus9 2 runs
--------------------------------------------------------------------------------
  Run   | Dataset |   Status   |             Now              |    Time    |Try
--------------------------------------------------------------------------------
> 2088  | Al100   |    Running | on node3, job 4709           | 1h 06m 40s |  1
  2090  | SiR2    |    Running | on node17, job 4711          |    12m 30s |  1
  2096  | SiR2    |     Queued | job 4712                     |     1m 35s |  1
  2089  | SiR2    |     Ending | its files are filed          |     0m 01s |  1
  2094  | SiR2    | Submitting |                              |     0m 03s |  1
  2095  | SiR2    |      Ready | waiting for a job; before: no|     1m 01s |  2
  2091  | SiR2    |Downloading | [====       ]  45% 12.3 MB/s |     0m 12s |  1
  2100  | Al100   |    Claimed | waiting for tape             | 2h 05m 09s |  1
  2077  | Al100   |      Error | bank ADC0 is damaged         | 1d 00h 00m |  3






- ? help  m menu  / filter  q quit  l log  i info  s sort ---- by status 1-9/9 -
2014-05-01 12:00:00 Claimed run: 2090
2014-05-01 12:00:01 Downloading run: 2091
""")


def test_a_small_screen_shows_what_fits_and_says_so() -> None:
    assert screen(40, 10, "Claimed run: 2090", "Downloading run: 2091") == shown("""
ALCAPANA v4 [||   ] Quota 45%, limit 90%
N 120  C 5  R 10  F 300  E 2 [==  ]  68%
  Run   |   Status   |  %  |    Time
----------------------------------------
> 2088  |    Running | 100%| 1h 06m 40s
  2090  |    Running | 100%|    12m 30s
  2096  |     Queued | 100%|     1m 35s
  2089  |     Ending | 100%|     0m 01s
- ? help  m menu ---- 40x10, see 80x24 -
12:00:01 Downloading run: 2091
""")


def test_a_tiny_screen_shows_no_part_of_a_number() -> None:
    assert screen(20, 5, "Claimed run: 2090") == shown("""
ALCAPANA Quota 45%
N 120 C 5 R 10 F 300
> 2088  |    Running
Claimed run: 2090
20x5 is small: see 8
""")


def test_a_wide_screen_shows_users_and_more_of_what_goes_on() -> None:
    lines = screen(200, 60)
    assert lines[4].split("|")[-1].strip() == "User"
    assert lines[7].split("|")[-1].strip() == "bob"
    assert "waiting for a job; before: no reply" in lines[11]


def test_a_high_screen_shows_more_messages() -> None:
    lines = screen(80, 60, *(f"message {number}" for number in range(100)))
    assert [line[20:] for line in lines[-44:]] == [f"message {number}" for number in range(56, 100)]


def test_more_runs_than_rows_are_told_of_and_can_be_reached() -> None:
    many = tuple(RunLine(run, "running", 1.0) for run in range(500, 540))
    state = snapshot(many)
    lines = screen(80, 24, "latest", of=state)
    assert [line[:8].strip("> ") for line in lines[6:21]] == [str(run) for run in range(500, 515)]
    assert lines[22].endswith("by status 1-15/40 -")
    lines = screen(80, 24, of=state, state=State(run=517))
    assert lines[8].startswith(">  517")
    assert lines[23].endswith("by status 16-30/40 -")
    lines = screen(80, 24, of=state, state=State(run=539))
    assert lines[20].startswith(">  539")
    assert lines[23].endswith("by status 26-40/40 -")


def test_messages_only_before_the_first_snapshot() -> None:
    lines = render(Scene(None, news("Starting", "Claimed run: 2090")), 80, 4).lines
    assert lines == [
        "",
        "",
        "2014-05-01 12:00:00 Starting",
        "2014-05-01 12:00:01 Claimed run: 2090",
    ]


def test_it_says_when_there_is_no_run_and_nobody_at_work() -> None:
    lines = screen(80, 24, of=replace(snapshot(()), managers=()))
    assert lines[2] == "Nobody is at work on it"
    assert lines[7] == "  No run is held now."
    assert "  No such run." in screen(80, 24, state=State(filter="nothing like it"))


def test_a_pause_is_shown() -> None:
    assert screen(80, 24, of=replace(snapshot(), paused=True))[0].startswith(
        "ALCAPANA v4 v7.1_calib PAUSED ["
    )


@pytest.mark.parametrize(
    ("used", "said"), [(None, "?%"), (57, "57%"), (0, "0%"), (103, "103%"), (89, "89%")]
)
def test_the_quota(used: int | None, said: str) -> None:
    assert screen(80, 24, of=snapshot(used=used))[0].endswith(f"] Quota {said}, limit 90%")


def test_the_bar_of_the_quota_is_as_long_as_it_is_used() -> None:
    bars = [screen(80, 24, of=snapshot(used=used))[0].count("|") for used in (0, 50, 100, 200)]
    assert bars == [0, 17, 33, 33]


def test_a_quota_just_below_the_limit_does_not_read_as_reached() -> None:
    state = replace(snapshot(), usage=Usage(899, 1000, "test"))
    assert " Quota 89%," in screen(80, 24, of=state)[0]


def test_a_long_software_tag_gives_way() -> None:
    tagged = replace(snapshot(), production=replace(PRODUCTION, software="x" * 70))
    assert re.fullmatch(r"ALCAPANA v4 \[\|+ +\] Quota 45%, limit 90%", screen(80, 24, of=tagged)[0])


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (None, "68%"),
        (0.5, "0.5/h, 11d left"),
        (12.0, "12/h, 11h left"),
        (2000.0, "2000/h, 4m left"),
    ],
)
def test_the_rate_and_what_is_left(rate: float | None, said: str) -> None:
    assert screen(80, 24, of=replace(snapshot(), rate=rate))[1].endswith(said)


def test_a_transfer_of_unknown_size_shows_its_bytes() -> None:
    line = RunLine(7, "downloading", 1.0, 12_345_678, None)
    assert "| 12.3 MB " in table(line)[0]
    assert "|   ?%|" in screen(40, 24, of=snapshot((line,)))[6]


def test_an_unknown_phase_comes_last() -> None:
    rows = table(RunLine(1, "resting", 1.0), *LINES)
    assert rows[9].split("|")[0::2][:2] == ["     1  ", "    Resting "]


def test_jobs_of_other_managers_stand_with_ones_own() -> None:
    other = RunLine(1, "submitted", 60.0, detail="job 4713", dataset="SiR2", attempt=1)
    rows = table(other, *LINES)
    assert [row.split("|")[2].strip() for row in rows[2:5]] == ["Queued", "Submitted", "Ending"]
    assert matches(other, "R")
    assert not matches(other, "C")


def test_messages_cannot_steer_the_terminal() -> None:
    assert screen(80, 24, "one\ntwo\tthree \x1b[2J \udcff end")[-1] == (
        "2014-05-01 12:00:00 one two three ?[2J ? end"
    )


# Some symbols have become wide in a release of Unicode that this Python does not know.
ANYTHING = st.text(
    st.characters().filter(lambda char: not char.isprintable() or wcwidth(char) <= cells(char)),
    max_size=30,
)
LINE = st.builds(
    RunLine,
    st.integers(0, 10**9),
    st.sampled_from(["running", "downloading", "claimed", "some other phase"]),
    st.floats(-5, 1e7),
    st.integers(0, 10**13),
    st.none() | st.integers(0, 10**13),
    ANYTHING,
    ANYTHING,
)
TEXT = st.text(st.sampled_from("a Z9\n\t\x1b\x00é→日本\u0301\udc80"), max_size=300)
STATE = st.builds(
    State,
    st.sampled_from(Mode),
    st.sampled_from(SORTS),
    TEXT,
    TEXT,
    TEXT,
    st.none() | st.integers(0, 10),
    TEXT,
    st.lists(TEXT, max_size=30).map(tuple),
    st.integers(-5, 40),
)


@given(
    st.lists(LINE, max_size=40),
    st.lists(TEXT, max_size=60),
    st.integers(0, 250),
    st.integers(0, 70),
    TEXT,
    STATE,
)
def test_any_screen_is_filled_and_never_exceeded(
    lines: list[RunLine], texts: list[str], width: int, height: int, software: str, state: State
) -> None:
    whole = replace(
        snapshot(tuple(lines)), production=replace(PRODUCTION, software=software, version=10**6)
    )
    for known in (whole, None):
        drawn = render(Scene(known, news(*texts), state), width, height)
        assert len(drawn.lines) == height
        for line in drawn.lines:
            assert line.isprintable()
            assert sum(max(0, wcwidth(char)) for char in line) <= width


# ------------------------------------------------------------------------------- what keys do

RUNS = tuple(range(100, 150))
SEEN = Seen(RUNS, 15, True)


def after(*keys: str, state: State | None = None, seen: Seen = SEEN) -> tuple[State, list[Do]]:
    """The state after some keys, and what they asked for."""
    state = state or State()
    asked = []
    for key in keys:
        state, do = press(state, key, seen)
        asked += [do] if do else []
    return state, asked


@pytest.mark.parametrize(
    ("keys", "run"),
    [
        (["down"], 101),
        (["down", "down", "up"], 101),
        (["up"], 100),
        (["page down"], 115),
        (["page down", "page up", "page up"], 100),
        (["end"], 149),
        (["end", "down", "page down"], 149),
        (["end", "home"], 100),
    ],
)
def test_keys_that_move(keys: list[str], run: int) -> None:
    assert after(*keys)[0].run == run


def test_nothing_moves_where_there_are_no_runs() -> None:
    assert after("down", "end", "page up", seen=Seen((), 1, True)) == (State(), [])


def test_a_run_that_is_gone_leaves_the_first_one_chosen() -> None:
    assert after("down", state=State(run=7))[0].run == 101


def test_the_filter_is_typed_and_taken_back() -> None:
    state, _ = after("/", *"SiX", "backspace", *"R2", "enter")
    assert (state.mode, state.filter) == (Mode.TABLE, "SiR2")
    assert after("/", "q", state=state)[0].filter == "SiR2q"
    assert after("/", "escape", state=state)[0].filter == ""
    assert after("escape", state=state)[0].filter == ""


def test_sorting_goes_round() -> None:
    assert [after(*["s"] * count)[0].sort for count in range(6)] == [*SORTS, SORTS[0]]


def test_quitting_asks_only_where_something_would_end() -> None:
    assert after("q", "x")[0].mode is Mode.LEAVING
    assert after("q", "escape") == (State(), [])
    assert after("q", "r")[1] == [Do.ROLL_BACK]
    assert after("q", "l")[1] == [Do.LEAVE]
    assert after("q", seen=replace(SEEN, ours=False)) == (State(), [Do.QUIT])


def test_a_value_is_typed() -> None:
    asked = State(Mode.VALUE, question="nproc")
    assert after(*"q1", "backspace", "backspace", *"20", "enter", state=asked)[1] == [Do.ANSWER]
    assert after("escape", state=asked)[1] == [Do.CANCEL]


def test_a_page_of_text_is_scrolled_and_left() -> None:
    text = State(Mode.TEXT, title="Log", lines=tuple(map(str, range(100))))
    assert [after(key, state=text)[0].top for key in ("down", "page down", "end")] == [1, 15, 85]
    assert after("end", "up", "page up", state=text)[0].top == 69
    for key in ("escape", "q"):
        assert after("down", key, state=text) == (State(), [])


def test_each_key_has_one_meaning_and_the_help_tells_it() -> None:
    names = [name for key in KEYS for name in key.names]
    assert len(names) == len(set(names))
    assert [line.split("  ")[0] for line in help_lines()] == [key.shown for key in KEYS]


@given(st.lists(st.sampled_from([n for k in KEYS for n in k.names] + ["x", "7", "r", "n"])))
def test_no_sequence_of_keys_goes_astray(keys: list[str]) -> None:
    state, _ = after(*keys)
    assert state.run is None or state.run in RUNS
    assert len(render(Scene(snapshot(), (), state), 80, 24).lines) == 24


@pytest.mark.parametrize(
    ("sort", "runs"),
    [
        ("status", [2088, 2090, 2096, 2089, 2094, 2095, 2091, 2100, 2077]),
        ("run", [2077, 2088, 2089, 2090, 2091, 2094, 2095, 2096, 2100]),
        ("dataset", [2088, 2100, 2077, 2090, 2096, 2089, 2094, 2095, 2091]),
        ("time", [2077, 2100, 2088, 2090, 2096, 2095, 2091, 2094, 2089]),
        ("tries", [2077, 2095, 2088, 2090, 2096, 2089, 2094, 2091, 2100]),
    ],
)
def test_the_orders(sort: str, runs: list[int]) -> None:
    assert [line.run for line in chosen_lines(snapshot(), State(sort=sort))] == runs


@pytest.mark.parametrize(
    ("wanted", "runs"),
    [
        ("", 9),
        ("R", 4),
        ("E", 1),
        ("C", 4),
        ("209", 5),
        ("2090", 1),
        ("sir2", 6),
        ("SiR2 bob", 2),
        ("ANNA R", 2),
        ("node17", 1),
        ("tape", 1),
        ("damaged", 1),
        ("nothing", 0),
    ],
)
def test_the_filter(wanted: str, runs: int) -> None:
    assert sum(matches(line, wanted) for line in LINES) == runs


def test_every_letter_is_a_status() -> None:
    assert set(LETTERS.values()) <= {"N", "C", "R", "F", "E"}


# ------------------------------------------------------------------------------- rates


def test_the_rate_of_a_transfer_is_that_of_the_last_seconds() -> None:
    rates = Rates()
    assert rates.observe(0.0, {1: 500}) == {}
    assert rates.observe(1.0, {1: 1500, 2: 0}) == {1: 1000.0}
    assert rates.observe(2 * WINDOW, {1: 1500}) == {}
    assert rates.observe(2 * WINDOW + 2, {1: 5500, 2: 0}) == {1: 2000.0}
    assert rates.observe(2 * WINDOW + 3, {1: 100}) == {}  # begun anew


# ------------------------------------------------------------------------------- messages


def test_the_time_before_a_message_is_local() -> None:
    assert stamped("text", WHEN) == "2014-05-01 12:00:00 text"


def test_without_a_time_it_is_now() -> None:
    before = stamped("", time.time())
    assert before <= stamped("") <= stamped("", time.time())


@pytest.mark.parametrize(
    ("text", "level", "read"),
    [
        ("news", "info", "news"),
        ("trouble", "warning", "WARNING: trouble"),
        ("trouble", "error", "ERROR: trouble"),
        ("ERROR: trouble", "error", "ERROR: trouble"),
    ],
)
def test_levels_are_labels(text: str, level: str, read: str) -> None:
    assert labelled(text, level) == read
