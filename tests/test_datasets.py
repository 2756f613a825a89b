"""Run lists: what is read from CSV files and by hand, what is refused, and what is shown."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from bookkeeping import ANY, GOLD, PROJECT, Bookkeeping, bookkeeping, check_sound
from hypothesis import given, settings
from hypothesis import strategies as st

from production.errors import ImportRefused, UnknownDataset, UsageError
from production.store import datasets
from production.store.datasets import DatasetSummary, Label, parse_runs, read_csv, written_runs

RUN_LISTS = PROJECT.parent / "shared" / "data" / "alcap"
needs_real_lists = pytest.mark.skipif(
    not RUN_LISTS.exists(), reason=f"the real run lists are not there: {RUN_LISTS}"
)


@pytest.fixture
def list_file(tmp_path: Path) -> Path:
    return tmp_path / "runs.csv"


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def labels_in(books: Bookkeeping) -> list[Label]:
    rows = books.rows(
        "SELECT run, dataset, tranche, quality, geometry, campaign FROM datasets ORDER BY 1, 2"
    )
    return [Label(*row) for row in rows]


# --------------------------------------------------------------------------- reading lists


def test_all_columns_are_read(list_file: Path) -> None:
    written(
        list_file,
        "campaign,run,dataset,tranche,quality,geometry\n"
        "R15b,10001,Ti50,3,gold,Al50-with-NDet\n"
        "R13,2091,SiR2,,silver,\n",
    )
    assert read_csv(list_file) == [
        Label(10001, "Ti50", 3, "gold", "Al50-with-NDet", "R15b"),
        Label(2091, "SiR2", None, "silver", None, "R13"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("run,dataset\n2091,SiR2\n2092,SiR2\n", id="the least"),
        pytest.param("dataset,run\nSiR2,2091\nSiR2,2092\n", id="in another order"),
        pytest.param("run,dataset\r\n2091,SiR2\r\n2092,SiR2\r\n", id="from Windows"),
        pytest.param("\ufeffrun,dataset\n2091,SiR2\n2092,SiR2", id="with a mark and no last end"),
        pytest.param("\n\nrun,dataset\n\n2091,SiR2\n,\n2092,SiR2\n\n", id="empty lines"),
        pytest.param(' Run , "Dataset" \n 02091 ,"SiR2"\n2092, SiR2 \n', id="blanks and quotes"),
        pytest.param("run,dataset,qual\n2091,SiR2,\n2092,SiR2,\n", id="the name of 2014"),
        pytest.param(
            "RUN,DATASET,TRANCHE,QUALITY,GEOMETRY,CAMPAIGN\n2091,SiR2,,,,\n2092,SiR2,,,,\n",
            id="capitals",
        ),
    ],
)
def test_lists_are_read_as_people_write_them(list_file: Path, text: str) -> None:
    assert read_csv(written(list_file, text)) == [Label(2091, "SiR2"), Label(2092, "SiR2")]


def test_names_in_any_language_and_with_commas(list_file: Path) -> None:
    written(list_file, 'run,dataset,quality\n1,"Al, 50 µm",très bon\n')
    assert read_csv(list_file) == [Label(1, "Al, 50 µm", quality="très bon")]


HEADER = "run,dataset,tranche,quality\n"
NAMES = "the first line must name columns among run, dataset, tranche, quality, geometry, campaign"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", None, "the file is empty"),
        ("\n\n", None, "the file is empty"),
        ("2091,SiR2\n", 1, f"unknown column '2091'; {NAMES}"),
        ("\nrun,dataset,colour\n", 2, f"unknown column 'colour'; {NAMES}"),
        ("run;dataset\n2091;SiR2\n", 1, f"unknown column 'run;dataset'; {NAMES}"),
        ("run,quality\n", 1, f"no column dataset; {NAMES}"),
        ("dataset\n", 1, f"no column run; {NAMES}"),
        ("run,dataset,run\n", 1, f"a column stands there twice; {NAMES}"),
        ("run,dataset,quality,qual\n", 1, f"a column stands there twice; {NAMES}"),
        (HEADER + "2091,SiR2\n", 2, "2 fields where the header has 4"),
        (HEADER + "2091,SiR2,,gold,\n", 2, "5 fields where the header has 4"),
        (HEADER + "2091,SiR2,,\n\n2092,SiR2\n", 4, "2 fields where the header has 4"),
        (HEADER + '2091,"Si\nR2",,\nX,SiR2,,\n', 4, "run 'X' is not a number"),
        (HEADER + '"20\n91",SiR2,,\n', 3, "run '20\\n91' is not a number"),
        (HEADER + "2091,SiR2,,gold\nX,SiR2,,\n", 3, "run 'X' is not a number"),
        (HEADER + "-5,SiR2,,\n", 2, "run '-5' is not a number"),
        (HEADER + "2091.0,SiR2,,\n", 2, "run '2091.0' is not a number"),
        (HEADER + "2_091,SiR2,,\n", 2, "run '2_091' is not a number"),
        (HEADER + "9" * 19 + ",SiR2,,\n", 2, f"run '{'9' * 19}' is not a number"),
        (HEADER + "2091,SiR2,first,\n", 2, "tranche 'first' is not a number"),
        (HEADER + ",SiR2,,\n", 2, "run and dataset must not be empty"),
        (HEADER + "2091,,,gold\n", 2, "run and dataset must not be empty"),
        (HEADER + "2091, ,,gold\n", 2, "run and dataset must not be empty"),
    ],
)
def test_a_broken_list_is_refused_with_file_and_line(
    list_file: Path, text: str, line: int | None, what: str
) -> None:
    with pytest.raises(ImportRefused) as raised:
        read_csv(written(list_file, text))
    where = list_file if line is None else f"{list_file}:{line}"
    assert str(raised.value) == f"{where}: {what}. Nothing was imported."


def test_files_that_are_no_lists_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"run,dataset\n2091,Si\xff\xfe\n")
    huge = written(tmp_path / "huge", HEADER + "x" * 200_000)
    for path, what in (
        (tmp_path / "missing.csv", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (binary, "not a CSV text file ('utf-8' codec can't decode byte 0xff"),
        (huge, "not a CSV text file (field larger than field limit"),
    ):
        with pytest.raises(ImportRefused) as raised:
            read_csv(path)
        assert str(raised.value).startswith(f"{path}: {what}")


@given(st.binary())
def test_garbage_is_refused_in_one_line(garbage: bytes) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "runs.csv"
        path.write_bytes(garbage)
        with pytest.raises(ImportRefused) as raised:
            read_csv(path)
    assert len(str(raised.value).splitlines()) == 1


CELL = st.one_of(
    st.text(max_size=8), st.sampled_from(["", "0", "2091", "gold", '"', "\n", "\0", "٣", "²"])
)


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(rows=st.lists(st.lists(CELL, min_size=2, max_size=6), max_size=4))
def test_whatever_is_read_can_be_recorded(rows: list[list[str]]) -> None:
    with TemporaryDirectory() as name, bookkeeping(Path(name)) as books:
        path = Path(name) / "runs.csv"
        with path.open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            csv.writer(file).writerows([["run", "dataset", "tranche", "quality"], *rows])
        before = labels_in(books)
        try:
            labels = read_csv(path)
            new, changed = datasets.add(books.db, labels)
        except ImportRefused as error:
            assert len(str(error).splitlines()) == 1
            assert labels_in(books) == before
        else:
            assert (new, changed) == (len(set(labels)), 0)
            assert Counter(labels_in(books)) == Counter(set(labels))


# --------------------------------------------------------------------------- runs by number


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("2091", [2091]),
        ("2091-2093,2119", [2091, 2092, 2093, 2119]),
        (" 5 , 3 - 4 ", [5, 3, 4]),
        ("1,1-3,2", [1, 2, 3]),
        ("0", [0]),
        ("00007", [7]),
    ],
)
def test_runs_are_named_by_numbers_and_ranges(text: str, runs: Sequence[int]) -> None:
    assert parse_runs(text) == runs


@pytest.mark.parametrize(
    ("text", "what"),
    [
        *[
            (text, "is no list of runs")
            for text in ("", ",", "1,", "a", "-5", "1-", "1-2-3", "1.5", "1 2", "1..3", "9" * 5000)
        ],
        ("5-3", "the range 5-3 ends before it begins"),
        ("0-99999999999", "is longer than 10 million runs"),
    ],
)
def test_other_texts_are_no_runs(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        parse_runs(text)


@given(st.text())
def test_any_text_is_a_list_of_runs_or_an_error(text: str) -> None:
    try:
        assert parse_runs(text) != []
    except UsageError as error:
        assert str(error)


@given(st.sets(st.integers(0, 10**6), min_size=1))
def test_a_list_of_runs_is_understood(runs: set[int]) -> None:
    assert parse_runs(",".join(map(str, sorted(runs)))) == sorted(runs)
    assert parse_runs(written_runs(runs)) == sorted(runs)


def test_runs_are_written_as_ranges() -> None:
    assert written_runs([2119, 2092, 2091, 2093, 2101, 2102]) == "2091-2093,2101-2102,2119"


# --------------------------------------------------------------------------- recording


def test_a_list_may_be_imported_again(books: Bookkeeping) -> None:
    labels = [Label(2091, "SiR2", quality="gold"), Label(2091, "Common"), Label(2092, "SiR2")]
    assert datasets.add(books.db, labels) == (3, 0)
    assert datasets.add(books.db, labels) == (0, 0)
    newer = [Label(2091, "SiR2", quality="silver", tranche=1), *labels[1:], Label(2093, "SiR2")]
    assert datasets.add(books.db, newer) == (1, 1)
    assert set(labels_in(books)) == set(newer)


def test_what_a_list_says_no_more_is_taken_back(books: Bookkeeping) -> None:
    datasets.add(books.db, [Label(2091, "SiR2", 1, "gold", "geometry", "R13")])
    assert datasets.add(books.db, [Label(2091, "SiR2")]) == (0, 1)
    assert labels_in(books) == [Label(2091, "SiR2")]


def test_the_same_line_twice_counts_once(books: Bookkeeping) -> None:
    assert datasets.add(books.db, [Label(2091, "SiR2")] * 3) == (1, 0)
    assert labels_in(books) == [Label(2091, "SiR2")]


def test_a_list_that_contradicts_itself_is_refused(books: Bookkeeping) -> None:
    with pytest.raises(ImportRefused, match=r"^run 2091 in dataset SiR2: the list has it twice"):
        datasets.add(
            books.db,
            [Label(1, "SiR2"), Label(2091, "SiR2"), Label(2091, "SiR2", quality="gold")],
        )
    assert labels_in(books) == []


def test_datasets_are_summed_up(books: Bookkeeping) -> None:
    books.label([2091, 2093], "SiR2", campaign="R13")
    books.label([2092], "SiR2", quality="silver", campaign="R13")
    books.label([3], "Common", quality=None)
    books.label([1, 2], "Ti50", tranche=1)
    books.label([4], "Ti50", tranche=3)
    assert datasets.summaries(books.db) == [
        DatasetSummary("Common", 1, 3, 3, 0, "-", ""),
        DatasetSummary("SiR2", 3, 2091, 2093, 0, "gold,silver", "R13"),
        DatasetSummary("Ti50", 3, 1, 4, 2, "gold", ""),
    ]


def test_a_dataset_that_does_not_exist_lists_those_that_do(books: Bookkeeping) -> None:
    with pytest.raises(UnknownDataset) as none:
        datasets.check_known(books.db, ["SiR2"])
    assert str(none.value) == (
        "There is no dataset SiR2. Valid datasets: none yet (production datasets import FILE.csv)"
    )
    books.label([1], "SiR2")
    books.label([2], "Al50")
    datasets.check_known(books.db, [])
    datasets.check_known(books.db, ["Al50", "SiR2"])
    for names in (["sir2"], ["SiR2", "sir2"], ["SiR"], ["SiR2%"]):
        with pytest.raises(UnknownDataset) as unknown:
            datasets.check_known(books.db, names)
        assert str(unknown.value) == (
            f"There is no dataset {names[-1]}. Valid datasets: Al50, SiR2"
        )


# --------------------------------------------------------------------------- the command


def production(books: Bookkeeping, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "production", "datasets", *map(str, arguments)),
            f"--database={books.path}",
        ],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.slow
def test_the_command_imports_adds_and_lists(books: Bookkeeping, list_file: Path) -> None:
    written(list_file, "run,dataset,qual\n2091,SiR2,gold\n2091,Common,\n")
    assert production(books, "import", list_file).stdout == "2 new, 0 changed, 0 as before\n"
    added = production(
        books, "add", "SiR2", "2091-2093", "--quality=gold", "--tranche=2", "--geometry=A"
    )
    assert added.stdout == "2 new, 1 changed, 0 as before\n"
    listed = production(books, "list", "--output=json")
    assert [(row["dataset"], row["runs"]) for row in json.loads(listed.stdout)] == [
        ("Common", 1),
        ("SiR2", 3),
    ]
    assert labels_in(books)[1:] == [
        Label(run, "SiR2", 2, "gold", "A") for run in (2091, 2092, 2093)
    ]


@pytest.mark.slow
def test_the_command_refuses_in_one_line_and_changes_nothing(
    books: Bookkeeping, list_file: Path
) -> None:
    written(list_file, "run,dataset\n2091,SiR2\nX,SiR2\n")
    refused = production(books, "import", list_file)
    assert refused.returncode == ImportRefused.exit_code
    assert refused.stderr == (
        f"ERROR: {list_file}:3: run 'X' is not a number. Nothing was imported.\n"
    )
    refused = production(books, "add", "SiR2", "2093-2091")
    assert refused.returncode == UsageError.exit_code
    assert "the range 2093-2091 ends before it begins" in refused.stderr
    assert labels_in(books) == []


# --------------------------------------------------------------------------- the real lists


@needs_real_lists
def test_the_real_run_lists_lose_nothing_and_double_nothing(books: Bookkeeping) -> None:
    path = RUN_LISTS / "alcap_runs.csv"
    labels = read_csv(path)
    assert datasets.add(books.db, labels) == (2408, 0)
    with path.open(newline="") as file:
        lines = [
            (row["run"], row["dataset"], *(row[c] for c in ("tranche", "quality", "geometry")))
            for row in csv.DictReader(file)
        ]
    assert sorted(lines) == sorted(
        tuple("" if value is None else str(value) for value in astuple(label)[:5])
        for label in labels_in(books)
    )
    assert books.cell("SELECT count(DISTINCT run) FROM datasets") == 2403
    assert books.column("SELECT run FROM datasets GROUP BY run HAVING count(*) > 1") == [
        *range(3200, 3205)
    ]
    assert books.column("SELECT DISTINCT quality FROM datasets WHERE dataset = 'Common'") == [None]
    assert datasets.add(books.db, labels) == (0, 0)


@needs_real_lists
def test_a_production_of_the_real_runs_has_each_run_once(books: Bookkeeping) -> None:
    datasets.add(books.db, read_csv(RUN_LISTS / "alcap_runs.csv"))
    gold = books.column("SELECT DISTINCT run FROM datasets WHERE quality = 'gold' ORDER BY run")
    store = books.manager(books.start())
    assert sorted(claim.run for claim in store.claim(5000, GOLD)) == gold
    everything = books.manager(books.start(wanted=ANY))
    assert len(everything.claim(5000, ANY)) == 2403
    check_sound(books)
