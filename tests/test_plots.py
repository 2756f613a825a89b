"""What is drawn is what the bookkeeping says: lines, bars and boxes against direct SQL."""

from __future__ import annotations

import random
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from bookkeeping import Bookkeeping, check_sound
from matplotlib.axes import Axes
from matplotlib.image import imread
from matplotlib.lines import Line2D

from production.cli import main
from production.cli.plot_command import PICTURES
from production.store import productions
from production.store.choice import choose_productions
from production.store.connection import utc_text
from production.view import plots

FIRST, RUNS = 2091, 700  # more runs than are read at first
SEED = 20261121
MINUTE = 60_000_000
DAY = 86_400_000_000
BEGIN = 1_795_242_967_123_456  # 2026-11-21 06:36:07


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bookkeeping]:
    """Two productions; some runs failed once, some are at work, some are not begun."""
    made = Bookkeeping(tmp_path_factory.mktemp("plots"))
    made.label(range(FIRST, FIRST + RUNS), "SiR2")
    made.label(range(FIRST + RUNS - 100, FIRST + RUNS + 50), "Al50")
    first = made.start()
    second = made.start("rootana", base=first)
    managers = [made.manager(production).manager for production in (first, second)]
    with closing(sqlite3.connect(made.path)) as connection:
        chance = random.Random(SEED)
        _work(connection, first.id, managers[0], BEGIN, chance)
        _work(connection, second.id, managers[1], BEGIN + DAY // 4, chance)
        # An imported attempt of which the times are not known exactly.
        imported = f"WHERE run = {FIRST + RUNS + 5}"
        connection.execute(f"UPDATE run SET status = 'C', manager = 1, attempt = 1 {imported}")
        connection.execute(
            "INSERT INTO attempt (production, run, attempt, manager, outcome_code, claimed_us, "
            "start_us, stop_us) SELECT production, run, 1, 1, 0, '2014', '2014', '2014-06-16' "
            f"FROM run {imported}"
        )
        connection.execute(f"UPDATE run SET status = 'R' {imported}")
        connection.execute(f"UPDATE run SET status = 'F', manager = NULL {imported}")
        connection.commit()
    check_sound(made)
    yield made
    made.db.close()


def _work(
    connection: sqlite3.Connection, production: int, manager: int, begin: int, chance: random.Random
) -> None:
    """What has become of the first RUNS runs, one claimed a minute."""
    for run in range(FIRST, FIRST + RUNS):
        now = begin + (run - FIRST) * MINUTE + chance.randrange(MINUTE)
        outcomes = [1] * (chance.random() < 0.1) + [2] * (chance.random() < 0.05)
        last = None if run >= FIRST + RUNS - 20 else 0  # these go on
        rows = []
        for attempt, outcome in enumerate([*outcomes, last], 1):
            times: list[int | None] = [now]  # claimed, submitted, begun and ended on the node
            for longest in (10, 3, 30):
                now += chance.randrange(MINUTE, longest * MINUTE)
                times.append(now)
            if outcome == 2:  # rolled back before it was submitted
                times[1:] = None, None, None
            if outcome is None:
                times[2:] = None, None
            now += chance.randrange(9999)
            stop = None if outcome is None else now
            reason = chance.choice(["signal 11", "no space", "bank is damaged"])
            why = reason if outcome == 1 else None
            rows.append((production, run, attempt, manager, outcome, why, *times, stop))
        where = "WHERE production = ? AND run = ?"
        connection.execute(
            f"UPDATE run SET status = 'C', manager = ?, attempt = ? {where}",
            (manager, len(rows), production, run),
        )
        connection.executemany(
            "INSERT INTO attempt (production, run, attempt, manager, outcome_code, reason, "
            "claimed_us, start_us, job_start_us, job_stop_us, stop_us) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        connection.execute(f"UPDATE run SET status = 'R' {where}", (production, run))
        if last == 0:
            connection.execute(
                f"UPDATE run SET status = 'F', manager = NULL {where}", (production, run)
            )


def draw(books: Bookkeeping, what: str, type_: str | None = None) -> Axes:
    (axes,) = PICTURES[what](books.db, choose_productions(books.db, type_, None)).axes
    return axes


def points(line: Line2D) -> list[tuple[float, float]]:
    """What a line connects."""
    xs, ys = (np.asarray(data, dtype=float).tolist() for data in line.get_data())
    return list(zip(xs, ys, strict=True))


def some(found: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """About forty of them."""
    return found[:: max(len(found) // 40, 1)]


def text(days: float) -> str:
    """A moment of the time axis as the database writes it."""
    return utc_text(round(days * DAY) / 1e6)


# ------------------------------------------------------------------------------- what is drawn


@pytest.mark.slow
def test_progress(books: Bookkeeping) -> None:
    axes = draw(books, "progress")
    drawn = {str(line.get_label()): line for line in axes.get_lines()}
    levels = [line for name, line in drawn.items() if name.startswith("_")]
    for label in ("alcapana_v1", "rootana_v1"):
        found = points(drawn[label])
        for moment, value in some(found):
            assert value == books.cell(
                f"SELECT count(*) FROM {label} WHERE status = 'F' AND stop > '2026' AND stop < ?",
                text(moment),
            )
        assert found[-1][1] == books.cell(
            f"SELECT count(*) FROM {label} WHERE status = 'F' AND stop > '2026'"
        )
        total = books.cell(f"SELECT count(*) FROM {label}")
        assert any({y for _, y in points(level)} == {total} for level in levels)
    assert {name for name in drawn if not name.startswith("_")} == {"alcapana_v1", "rootana_v1"}


@pytest.mark.slow
def test_throughput(books: Bookkeeping) -> None:
    axes = draw(books, "throughput")
    expected = books.rows(
        "SELECT type, strftime('%Y-%m-%d %H', a.stop), count(*) FROM attempt a "
        "JOIN productions p ON p.id = a.production "
        "WHERE outcome = 'finished' AND a.stop > '2026' GROUP BY 1, 2 ORDER BY 1, 2"
    )
    drawn = [
        (type_, text(bar.get_x())[:13], bar.get_height())
        for type_, bars in zip(("alcapana", "rootana"), axes.containers, strict=True)
        for bar in bars
    ]
    assert drawn == expected
    bottoms = [bar.get_y() for bar in axes.containers[1]]
    assert max(bottoms) > 0  # upon the others


@pytest.mark.slow
def test_a_long_production_is_drawn_in_wider_bars(books: Bookkeeping, tmp_path: Path) -> None:
    long = Bookkeeping(tmp_path)
    long.label([1, 2, 3])
    store = long.manager(long.start())
    for run, days in ((1, 0), (2, 1), (3, 99)):
        long.rows(
            "UPDATE run SET status = 'C', manager = ?, attempt = 1 WHERE run = ?",
            *(store.manager, run),
        )
        long.rows(
            "INSERT INTO attempt (production, run, attempt, manager, outcome_code, claimed_us, "
            "stop_us) VALUES (1, ?, 1, ?, 0, ?, ?)",
            *(run, store.manager, BEGIN + days * DAY, BEGIN + days * DAY + MINUTE),
        )
    axes = draw(long, "throughput")
    widths = {round(bar.get_width() * 24) for bar in axes.containers[0]}
    assert widths == {24}
    assert [bar.get_height() * 24 for bar in axes.containers[0]] == pytest.approx([1, 1, 1])
    long.db.close()


@pytest.mark.slow
@pytest.mark.parametrize("type_", ["alcapana", None])
def test_failures(books: Bookkeeping, type_: str | None) -> None:
    axes = draw(books, "failures", type_)
    several = "type || '_v' || version || ': ' ||" if type_ is None else ""
    expected = books.rows(
        f"SELECT {several} reason, count(*) FROM attempt a JOIN productions p "
        "ON p.id = a.production WHERE outcome = 'failed' AND type = coalesce(?, type) GROUP BY 1",
        type_,
    )
    names = [label.get_text() for label in axes.get_yticklabels()]
    widths = [bar.get_width() for bar in axes.containers[0]]
    assert dict(zip(names, widths, strict=True)) == dict(expected)
    assert widths == sorted(widths, reverse=True)


@pytest.mark.slow
def test_wall_times(books: Bookkeeping) -> None:
    axes = draw(books, "walltime", "alcapana")
    walls: dict[str, list[float]] = {}
    for dataset, seconds in books.rows(
        "SELECT dataset, (julianday(job_stop) - julianday(job_start)) * 86400 "
        "FROM attempt JOIN datasets USING (run) WHERE production = 1 "
        "AND outcome = 'finished' AND job_stop IS NOT NULL"
    ):
        walls.setdefault(dataset, []).append(seconds)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [f"{dataset} ({len(walls[dataset])})" for dataset in ("Al50", "SiR2")]
    # The medians are the lines that go up and down in the middle of a box.
    lines = [[x for x, _ in points(line)] for line in axes.get_lines()]
    for dataset in walls:
        median = statistics.median(walls[dataset])
        assert any(line == pytest.approx([median, median], abs=0.01) for line in lines)


@pytest.mark.slow
def test_occupancy(books: Bookkeeping) -> None:
    axes = draw(books, "occupancy")
    spans = [("claimed", "start"), ("start", "stop"), ("job_start", "job_stop")]
    for (begin, end), line in zip(spans, axes.get_lines(), strict=True):
        found = points(line)
        assert max(value for _, value in found) > 1
        for moment, value in some(found):
            assert value == books.cell(
                f"SELECT count(*) FROM attempt WHERE typeof(claimed_us) = 'integer' "
                f"AND {begin} < :now AND coalesce({end}, stop, '9') >= :now",
                text(moment),
            ), (begin, text(moment))


def test_many_reasons_are_drawn_as_the_most_frequent_and_the_rest() -> None:
    (axes,) = plots.reasons("", "", [(f"reason {n:02}", 100 - n) for n in range(30)]).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    widths = [bar.get_width() for bar in axes.containers[0]]
    assert names == [*(f"reason {n:02}" for n in range(12)), "18 other reasons"]
    assert widths == [*(100 - n for n in range(12)), sum(100 - n for n in range(12, 30))]


# ------------------------------------------------------------------------------- the files


@pytest.mark.slow
@pytest.mark.parametrize("what", PICTURES)
def test_a_picture_is_written(books: Bookkeeping, tmp_path: Path, what: str) -> None:
    for suffix in ("png", "svg"):
        file = tmp_path / f"{what}.{suffix}"
        assert main(["plot", what, f"--file={file}", f"--database={books.path}"]) == 0
    pixels = imread(tmp_path / f"{what}.png")
    assert pixels.shape[:2] == (600, 1080)
    assert pixels.std() > 0.01  # not blank
    root = ET.parse(tmp_path / f"{what}.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{what}.png", f"{what}.svg"]


@pytest.mark.slow
@pytest.mark.parametrize("what", PICTURES)
def test_where_nothing_was_done_the_picture_says_so(tmp_path: Path, what: str) -> None:
    fresh = Bookkeeping(tmp_path)
    fresh.label([1])
    fresh.start()
    file = tmp_path / "empty.svg"
    assert main(["plot", what, f"--file={file}", f"--database={fresh.path}"]) == 0
    assert "nothing has been done yet" in file.read_text()
    fresh.db.close()


@pytest.mark.slow
def test_a_reason_is_drawn_as_it_is_written(tmp_path: Path) -> None:
    reason = r"cost: $\frac{1}{2 & <b> _x^2 ünïcode"
    plots.save(plots.reasons("", "", [(reason, 3)]), tmp_path / "odd.svg", "svg")
    texts = [element.text for element in ET.parse(tmp_path / "odd.svg").iter() if element.text]
    assert any(reason in found for found in texts)


@pytest.mark.slow
def test_a_file_that_exists_is_left_unless_it_is_to_be_replaced(
    books: Bookkeeping, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "there.png"
    file.write_text("mine")
    command = ["plot", "progress", f"--file={file}", f"--database={books.path}"]
    assert main(command) == 15
    assert file.read_text() == "mine"
    assert main([*command, "--force"]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["progress", "--file=picture.pdf"], 2),
        (["progress"], 2),
        (["nonsense", "--file=x.png"], 2),
        (["progress", "--file=x.png", "--production=unknown"], 18),
        (["progress", "--file=/nowhere/x.png"], 49),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    books: Bookkeeping, arguments: list[str], code: int
) -> None:
    assert main(["plot", *arguments, f"--database={books.path}"]) == code


def test_without_matplotlib_the_extra_is_named(books: Bookkeeping, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; from production.cli import main; "
        "sys.exit(main(['plot', 'progress', *sys.argv[1:]]))"
    )
    file = tmp_path / "x.png"
    done = subprocess.run(
        [sys.executable, "-c", code, f"--file={file}", f"--database={books.path}"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 53
    assert "pip install 'production-manager[plots]'" in done.stderr
    assert not file.exists()


def test_only_drawing_imports_matplotlib() -> None:
    code = (
        "import sys; from production.cli import command_parser; "
        "command_parser('plot', 'production plot'); sys.exit('matplotlib' in sys.modules)"
    )
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_managers_that_write_do_not_wait_for_a_picture(books: Bookkeeping) -> None:
    """Each of its questions is about a bounded number of rows."""
    asked: list[str] = []
    books.db._connection.set_trace_callback(asked.append)
    for what in PICTURES:
        PICTURES[what](books.db, [productions.find(books.db, "alcapana", 1)])
    books.db._connection.set_trace_callback(None)
    about_attempts = [sql for sql in asked if "FROM attempt a" in sql or "FROM run r" in sql]
    assert about_attempts
    for sql in about_attempts:
        plan = [row[3] for row in books.db.rows(f"EXPLAIN QUERY PLAN {sql}")]
        assert not [step for step in plan if step.startswith(("SCAN a", "SCAN r"))], plan
