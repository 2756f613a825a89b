"""What a run was made from is recorded: which files, from where, how large, which checksum."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from archive_behaviour import write_netrc
from archive_servers import pyftpdlib, running
from bookkeeping import (
    ANY,
    Bookkeeping,
    bookkeeping,
    failed,
    finish_all,
    finished,
    intended,
    raw_files,
    run_job,
)
from experiment import RECIPE, experiment
from ftp_server import tape_archive
from ftp_server import write_netrc as write_tape_netrc
from network.needs import NoFilesystemError

from production.cli import main
from production.locations import parse_locations
from production.manager import inputs
from production.model import CHECKSUM_KINDS, Checksum, InputFile
from production.staging.checksum import DIGITS
from production.staging.one_fetch import BeingFetched, Fetching
from production.staging.places import Source, open_places
from production.store import trace

# As docs/bookkeeping.md asks.
RECORDED = """
    SELECT run, i.name, file, url, size, kind, checksum
    FROM productions p JOIN attempt a ON a.production = p.id JOIN input i ON i.list = a.inputs
    LEFT JOIN place ON place.id = i.place WHERE outcome = 'finished' ORDER BY run, file
"""


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Bookkeeping]:
    with bookkeeping(tmp_path) as books:
        books.label(range(1, 4))
        yield books


# --------------------------------------------------------------------------- how it is stored


def test_what_is_read_is_recorded_as_it_was(books: Bookkeeping) -> None:
    store = books.manager(books.start())
    (claim,) = store.claim(1, ANY)
    files = tuple(
        InputFile(
            "raw", f"{kind}.mid", 2**40, "ftp://a/b", Checksum(kind, "0f" * (DIGITS[kind] // 2))
        )
        for kind in sorted(CHECKSUM_KINDS)
    )
    store.apply([replace(intended(claim), inputs=files)])
    assert trace.of_run(books.db, store.production, claim.run).inputs == files
    told = books.rows("SELECT kind, length(digest), checksum FROM input ORDER BY file")
    assert told == [
        (f.checksum.kind, len(f.checksum.value) // 2, f.checksum.value) for f in files if f.checksum
    ]
    assert books.rows("SELECT url FROM place") == [("ftp://a/b",)]


def test_a_run_without_files_from_an_archive_has_no_list(books: Bookkeeping) -> None:
    store = books.manager(books.start())
    (claim,) = store.claim(1, ANY)
    store.apply([replace(intended(claim), inputs=())])
    assert books.cell("SELECT inputs FROM attempt") is None
    assert trace.of_run(books.db, store.production, claim.run).inputs == ()


def test_a_job_that_is_submitted_again_has_read_the_same(books: Bookkeeping) -> None:
    store = books.manager(books.start())
    (claim,) = store.claim(1, ANY)
    for _ in range(2):
        store.apply([intended(claim)])
        assert trace.of_run(books.db, store.production, claim.run).inputs == raw_files(claim.run)
    store.apply([replace(intended(claim), inputs=())])
    assert trace.of_run(books.db, store.production, claim.run).inputs == raw_files(claim.run)


def test_attempts_and_productions_that_read_the_same_share_a_list(books: Bookkeeping) -> None:
    store = books.manager(books.start())
    (claim,) = store.claim(1, ANY)
    run_job(store, claim)
    store.apply([failed(claim)])
    (claim,) = store.claim(1, ANY)
    run_job(store, claim)
    store.apply([finished(claim)])
    finish_all(store)
    finish_all(books.manager(books.start()))
    assert books.cell("SELECT count(*) FROM attempt WHERE inputs IS NOT NULL") == 7
    assert books.cell("SELECT count(DISTINCT list) FROM input") == 3
    assert books.rows("SELECT DISTINCT run FROM attempt JOIN input ON list = id") == [
        (1,),
        (2,),
        (3,),
    ]
    assert books.cell("SELECT count(*) FROM place") == 1


def test_what_has_changed_on_the_archive_is_another_list(books: Bookkeeping) -> None:
    first = books.manager(books.start())
    finish_all(first)
    second = books.manager(books.start())
    raw, *others = raw_files(1)
    changed = [
        replace(raw, size=7),
        replace(raw, place="ftp://mirror"),
        replace(raw, checksum=Checksum("md5", "00" * 16)),
        replace(raw, checksum=None),
    ]
    seen = []
    for now in changed:
        claim = next(claim for claim in second.claim(3, ANY) if claim.run == 1)
        second.apply([replace(intended(claim), inputs=(now, *others))])
        seen.append(trace.of_run(books.db, second.production, 1).inputs)
        second.apply([failed(claim, max_attempts=99)])
    assert seen == [(now, *others) for now in changed]
    assert trace.of_run(books.db, first.production, 1).inputs == raw_files(1)
    assert books.column("SELECT url FROM place ORDER BY id") == [raw.place, "ftp://mirror"]


def test_nothing_is_recorded_of_a_claim_that_was_lost(books: Bookkeeping) -> None:
    production = books.start()
    late, heir = books.manager(production), books.manager(production)
    (claim,) = late.claim(1, ANY)
    heir.take_over(late.manager)
    assert late.apply([intended(claim)]) == [claim]
    assert [books.rows(f"SELECT * FROM {table}") for table in ("input", "place")] == [[], []]


def test_an_heir_leaves_what_was_recorded_before_the_submission(books: Bookkeeping) -> None:
    production = books.start()
    dead, heir = books.manager(production), books.manager(production)
    (claim,) = dead.claim(1, ANY)
    run_job(dead, claim)
    (orphan,) = heir.take_over(dead.manager)
    heir.apply([finished(orphan.claim)])
    assert trace.of_run(books.db, production, claim.run).inputs == raw_files(claim.run)


# --------------------------------------------------------------------------- how it is told


def test_trace_tells_it(books: Bookkeeping, capsys: pytest.CaptureFixture[str]) -> None:
    finish_all(books.manager(books.start()))
    run = ["trace", "2", "--production=alcapana", f"--database={books.path}"]
    assert main(run) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    begin = lines.index("input     raw: ftp://archive.example/mu2e/run00002.mid")
    assert lines[begin + 1 :] == [
        "200000002 bytes, md5 00000000000000000000000000000002",
        "input     slow: ftp://archive.example/mu2e/slow/run00002.gz",
        "5002 bytes",
        "input     slow: slow/run00002.txt (fetched by another manager)",
        "0 bytes",
    ]
    assert main([*run, "--output=json"]) == 0
    told = json.loads(capsys.readouterr().out)["input_files"]
    assert told[0] == {
        "name": "raw",
        "file": "run00002.mid",
        "size": 200_000_002,
        "place": "ftp://archive.example/mu2e",
        "checksum": {"kind": "md5", "value": "00000000000000000000000000000002"},
    }
    assert [one["checksum"] for one in told[1:]] == [None, None]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://archive:2121//raw", "ftp://archive:2121//raw"),
        ("ftp://archive/raw?mode=active", "ftp://archive/raw"),
        ("https://somebody:secret@archive/raw?token=secret#secret", "https://archive/raw"),
        ("file:///raw%20files?link=hard", "file:///raw%20files"),
    ],
)
def test_a_place_is_told_without_options_and_login(url: str, told: str) -> None:
    assert Source(url, "run02091.mid").address == told


# --------------------------------------------------------------------------- how it is known


def test_of_what_was_here_before_only_the_size_is_known(tmp_path: Path) -> None:
    pattern = parse_locations("run{run}sub*.mid")
    made = open_places([f"file://{tmp_path}/archive"], pattern, timeout=60.0)
    one = inputs.Wanted("raw", made.of_run(pattern, 7), is_pattern=True)
    for directory in ("archive", "here/raw"):
        (tmp_path / directory).mkdir(parents=True)
    for number in (1, 2):
        (tmp_path / "archive" / f"run7sub{number}.mid").write_bytes(bytes(number))
    (tmp_path / "here" / "raw" / "run7sub1.mid").write_bytes(bytes(17))
    brought = {tmp_path / "here" / "raw" / "run7sub2.mid": InputFile("raw", "of an earlier try", 3)}
    got = inputs.fetch(
        made,
        [one],
        None,
        tmp_path / "here",
        "me",
        Fetching(tmp_path / "fetching"),
        lambda *_: None,
        threading.Event(),
        brought,
    )
    assert got.files == (
        InputFile("raw", "run7sub1.mid", 17),
        InputFile("raw", "run7sub2.mid", 2, f"file://{tmp_path}/archive"),
    )


@pytest.mark.slow
def test_a_production_records_place_size_and_checksum_of_each_file(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "experiment").mkdir()
    try:
        with (
            running(pyftpdlib, tmp_path / "server") as server,
            experiment(tmp_path / "experiment") as e,
        ):
            mirror = tmp_path / "mirror"
            mirror.mkdir()
            with_checksum, plain, elsewhere = (e.raw(run) for run in e.runs)
            for raw in (with_checksum, plain):
                shutil.copy(raw, server.root)
            shutil.copy(elsewhere, mirror)
            digest = hashlib.sha256(with_checksum.read_bytes()).hexdigest()
            (server.root / f"{with_checksum.name}.sha256").write_text(digest)
            (mirror / "MD5SUMS").write_text(
                f"{hashlib.md5(elsewhere.read_bytes(), usedforsecurity=False).hexdigest()}"
                f"  {elsewhere.name}\n"
            )
            e.configure(archive=f'url = ["{server.url}?mode=active", "file://{mirror}?link=copy"]')
            write_netrc(e.netrc, server)
            manager = e.start()
            assert manager.wait() == 0, manager.said
            e.check_all_finished()
            found = e.rows(RECORDED)
    except NoFilesystemError as reason:
        pytest.skip(str(reason))
    md5 = hashlib.md5(elsewhere.read_bytes(), usedforsecurity=False).hexdigest()
    facts = [
        (with_checksum, server.url, "sha256", digest),
        (plain, server.url, None, None),
        (elsewhere, f"file://{mirror}", "md5", md5),
    ]
    assert found == [
        (run, "raw", raw.name, url, raw.stat().st_size, kind, value)
        for run, (raw, url, kind, value) in zip(e.runs, facts, strict=True)
    ]


@pytest.mark.slow
def test_each_file_of_a_pattern_is_recorded(tmp_path: Path) -> None:
    pattern = 'from = "archive"\nfile = "run{run:05d}.mid*"'
    with experiment(tmp_path) as e:
        (e.directory / "count.toml").write_text(
            RECIPE.replace('from = "archive"', pattern).replace('"{raw}", ', '"/dev/null", ')
        )
        second = e.tape / f"run{e.runs[0]:05d}.mid_2"
        second.write_bytes(b"more")
        e.open_archive()
        manager = e.start()
        assert manager.wait() == 0, manager.said
        expected = sorted([*(e.raw(run) for run in e.runs), second])
        assert [row[2:5] for row in e.rows(RECORDED)] == [
            (path.name, e.archive_url, path.stat().st_size) for path in expected
        ]


@pytest.mark.slow
def test_a_run_that_was_rolled_back_and_done_again_tells_what_it_was_made_from(
    tmp_path: Path,
) -> None:
    with experiment(tmp_path) as e:
        e.open_archive()
        e.hold("payload")
        manager = e.start()
        manager.until(lambda: len(e.ledger("begin")) == len(e.runs), "the jobs' begin")
        manager.press_ctrl_c()
        manager.wait()
        raw = e.raw(e.runs[0])
        raw.write_bytes(bytes(77))  # somebody has replaced it
        e.finish()
        sizes = e.rows(
            f"SELECT attempt, size FROM attempt JOIN input ON list = inputs "
            f"WHERE run = {e.runs[0]} ORDER BY attempt"
        )
        assert [size for _, size in sizes][-1] == 77
        assert len(e.rows("SELECT DISTINCT list FROM input")) == len(e.runs) + 1


def test_whose_file_it_is_when_another_manager_brings_it_is_not_made_up(tmp_path: Path) -> None:
    """``Fetching.alone`` is asked for a file that somebody has fetched in the meantime."""
    with tape_archive(tmp_path / "archive") as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETRC", str(write_tape_netrc(tmp_path / "netrc")))
        (server.root / "run00007.mid").write_bytes(b"raw")
        where = parse_locations("run%05d.mid")
        made = open_places([server.url], where, timeout=60.0)
        one = inputs.Wanted("raw", made.of_run(where, 7), is_pattern=False)
        mine, theirs = Fetching(tmp_path / "fetching"), Fetching(tmp_path / "fetching")

        def bring(fetching: Fetching, directory: str) -> inputs.Got:
            return inputs.fetch(
                made,
                [one],
                None,
                tmp_path / directory,
                directory,
                fetching,
                lambda *_: None,
                threading.Event(),
                {},
            )

        with mine.alone(one.file, tmp_path / "first" / "run00007.mid", "first") as beat:
            assert beat is not None
            with pytest.raises(BeingFetched):
                bring(theirs, "second")
            (tmp_path / "first").mkdir()
            (tmp_path / "first" / "run00007.mid").write_bytes(b"raw")
        assert bring(theirs, "second").files == (InputFile("raw", "run00007.mid", 3),)
        assert server.said("RETR") == []
