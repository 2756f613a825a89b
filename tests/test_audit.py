"""An audit finds whatever is not as recorded, blames nobody who is at work, and changes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import ANY, Bookkeeping, bookkeeping, finished, intended, submitted
from laboratory import Laboratory, laboratory

from production.audit.check import Audit
from production.audit.files import Finding, look
from production.cli import main
from production.model import Claim, Finished, Production, RecordedFile, RecordedRun
from production.recipe.load import BUILTIN
from production.store import productions, recorded
from production.store.choice import RunChoice
from production.store.productions import NewProduction
from production.store.runs import RunStore
from production.view.progress import Progress, describe

RUNS = (1, 2, 3)
OUTPUTS = ("tree", "hist", "odb")


class Site:
    """A bookkeeping whose files exist."""

    def __init__(self, books: Bookkeeping, directory: Path) -> None:
        self.books = books
        self.data = directory / "data"
        self.configuration = directory / "production.toml"
        self.configuration.write_text(f'data = "{self.data}"\n')
        books.label(RUNS)

    def start(self) -> RunStore:
        """A production with the recipe that ships."""
        recipe = (BUILTIN / "alcapana.toml").read_text()
        new = NewProduction("alcapana", "tag", recipe, OUTPUTS)
        return self.books.manager(productions.start(self.books.db, new, ANY)[0])

    def path(self, production: Production, name: str, run: int) -> Path:
        directory, suffix = ("dump", "odb") if name == "odb" else (name, "root")
        return self.data / directory / f"v{production.version}" / f"{directory}{run:05d}.{suffix}"

    def process(self, store: RunStore, claims: Sequence[Claim]) -> None:
        """Make the files of runs and record them."""
        for claim in claims:
            store.apply([intended(claim), submitted(claim)])
            store.apply([self.finish(store.production, claim)])

    def finish(self, production: Production, claim: Claim) -> Finished:
        change = finished(claim)
        outputs = []
        for output in change.record.outputs:
            path = self.path(production, output.name, claim.run)
            text = f"{output.name} of run {claim.run}\n".encode()
            write(path, text)
            digest = hashlib.sha256(text).hexdigest()
            outputs.append(replace(output, path=path, size=len(text), sha256=digest))
        logs = [self.log(production, claim.run, kind) for kind in ("out", "err")]
        for log in logs:
            write(log, b"")
        return Finished(claim, replace(change.record, outputs=tuple(outputs)), *logs)

    def log(self, production: Production, run: int, kind: str) -> Path:
        return self.data / f"log/v{production.version}/alcapana.run{run:05d}.{kind}"

    def audit(self, *arguments: str) -> int:
        where = [f"--database={self.books.path}", f"--config={self.configuration}"]
        return main(["audit", *arguments, *where])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with bookkeeping(tmp_path) as books:
        yield Site(books, tmp_path)


@pytest.fixture
def full(site: Site) -> tuple[Site, Production]:
    """All runs of a production are finished."""
    store = site.start()
    site.process(store, store.claim(10, ANY))
    return site, store.production


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def findings(site: Site, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[Any]:
    """What an audit finds, as (finding, run, file name, detail); its exit code must fit."""
    code = site.audit("--output=json", *arguments)
    found = [
        (row["finding"], row["run"], Path(row["path"] or "").name, row["detail"])
        for row in json.loads(capsys.readouterr().out)
    ]
    assert code == (46 if found else 0)
    return found


# --------------------------------------------------------------------------- one file


def test_a_file_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "tree.root"
    path.write_bytes(b"abc")
    file = RecordedFile("tree", path, 3, hashlib.sha256(b"abc").hexdigest())
    read: list[int] = []
    assert look(file, content=True, progress=read.append) is None
    assert read == [3]
    other = replace(file, sha256="5ea1")
    assert look(other, content=False) is None
    seen = {
        "content": look(other, content=True),
        "size": look(replace(file, size=4), content=True),
        "missing": look(replace(file, path=tmp_path / "none"), content=True),
        "directory": look(replace(file, path=tmp_path), content=False),
        "unseen": look(replace(file, path=tmp_path / ("x" * 300)), content=False),
    }
    assert {name: trouble and trouble.finding for name, trouble in seen.items()} == {
        "content": Finding.CONTENT,
        "size": Finding.SIZE,
        "missing": Finding.MISSING,
        "directory": Finding.SIZE,
        "unseen": Finding.UNSEEN,
    }
    assert seen["size"] is not None
    assert seen["size"].detail == "3 bytes, recorded are 4"
    # Of an imported production neither is known: that it is there must do.
    assert look(RecordedFile("tree", path), content=True) is None


def test_a_directory_under_two_names_has_no_strays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    outputs = []
    for name in ("link", "real"):
        path = tmp_path / name / f"{name}.root"
        path.write_bytes(b"")
        outputs.append(RecordedFile(name, path, 0))
    audit = Audit(content=False)
    assert list(audit.check("alcapana_v1", [], RecordedRun(1, 1, tuple(outputs), ()))) == []
    assert list(audit.strays()) == []


# --------------------------------------------------------------------------- the whole


def test_what_is_as_recorded_is_not_mentioned(
    full: tuple[Site, Production], capsys: pytest.CaptureFixture[str]
) -> None:
    site, _ = full
    before = site.books.commits()
    assert findings(site, capsys, "--checksums") == []
    assert site.audit() == 0
    assert capsys.readouterr().out == "3 finished runs, 9 outputs checked by their size\n"
    assert site.books.commits() == before


def test_files_that_are_gone_or_other_are_found(
    full: tuple[Site, Production], capsys: pytest.CaptureFixture[str]
) -> None:
    site, production = full
    site.path(production, "tree", 1).unlink()
    site.path(production, "hist", 2).write_text("longer than it was before\n")
    odb = site.path(production, "odb", 3)
    odb.write_text(odb.read_text().upper())
    site.log(production, 2, "err").unlink()
    found = [
        ("missing", 1, "tree00001.root", "there is no such file"),
        ("size", 2, "hist00002.root", "26 bytes, recorded are 14"),
        ("no log", 2, "alcapana.run00002.err", "there is no such file"),
    ]
    assert findings(site, capsys) == found
    (content,) = findings(site, capsys, "--checksums", "3")
    assert content[:3] == ("content", 3, "dump00003.odb")
    assert site.audit("--output=quiet") == 46
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "ERROR: Not as recorded: 3 things. Nothing was changed.\n"


def test_a_finished_run_without_an_output_is_found(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    store = site.start()
    (claim, *_) = store.claim(10, ANY)
    change = site.finish(store.production, claim)
    without = tuple(o for o in change.record.outputs if o.name != "hist")
    store.apply([submitted(claim)])
    store.apply([replace(change, record=replace(change.record, outputs=without))])
    found = findings(site, capsys)
    assert ("no output", 1, "", "no hist is recorded") in found
    assert ("stray", None, "hist00001.root", "nobody has recorded it") in found
    assert len(found) == 2


def test_files_that_nobody_has_recorded_are_found(
    full: tuple[Site, Production], capsys: pytest.CaptureFixture[str]
) -> None:
    site, production = full
    write(site.path(production, "tree", 77), b"")
    write(site.path(production, "hist", 1).with_name(".hist00001.a9.dead.root"), b"")
    write(site.data / "notes.txt", b"")  # not where outputs go
    assert findings(site, capsys) == [
        ("stray", None, ".hist00001.a9.dead.root", "nobody has recorded it"),
        ("stray", None, "tree00077.root", "nobody has recorded it"),
    ]
    assert findings(site, capsys, "1-3") == []  # of which run such a file is is not known


def test_the_files_of_a_run_that_was_sent_back_are_found(
    full: tuple[Site, Production], capsys: pytest.CaptureFixture[str]
) -> None:
    site, _ = full
    with site.books.db.write() as tx:
        tx.execute("UPDATE alcapana_v1 SET status = 'N' WHERE run = 2")
    detail = "of attempt 1, but the run is N now"
    assert findings(site, capsys) == [
        ("stray", 2, "dump00002.odb", detail),
        ("stray", 2, "hist00002.root", detail),
        ("stray", 2, "tree00002.root", detail),
    ]


def test_the_files_of_runs_in_hand_are_not_strays(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    store = site.start()
    first, second, third = store.claim(3, ANY)
    site.process(store, [first])
    for claim in (second, third):
        spool = site.data / f"spool/alcapana_v1.db/run{claim.run:05d}.a{claim.attempt}"
        store.apply([replace(intended(claim), spool=spool), submitted(claim)])
        site.finish(store.production, claim)  # made, and not recorded yet
    assert findings(site, capsys) == []
    store.apply([site.finish(store.production, second)])
    assert findings(site, capsys) == []


def test_strays_are_found_where_no_run_is_finished_yet(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    store = site.start()
    write(site.path(store.production, "tree", 1), b"of another database")
    assert findings(site, capsys) == [("stray", None, "tree00001.root", "nobody has recorded it")]


def test_another_productions_files_in_the_same_directory_are_not_strays(
    full: tuple[Site, Production], capsys: pytest.CaptureFixture[str]
) -> None:
    site, production = full
    other = site.books.manager(site.books.start("rootana", base=production))
    claims = other.claim(10, ANY)
    for claim in claims:
        path = site.path(production, "tree", 100 + claim.run)
        write(path, b"")
        change = finished(claim, ["out"])
        (output,) = change.record.outputs
        output = replace(output, path=path, size=0)
        other.apply([submitted(claim)])
        logs = [site.log(production, claim.run, kind) for kind in ("out", "err")]
        other.apply([Finished(claim, replace(change.record, outputs=(output,)), *logs)])
    assert findings(site, capsys) == []
    assert findings(site, capsys, "--production=alcapana") == []
    assert findings(site, capsys, "--production=rootana") == []


def test_only_what_was_asked_for_is_looked_at(
    full: tuple[Site, Production], capsys: pytest.CaptureFixture[str]
) -> None:
    site, production = full
    site.books.label([3], "Al50")
    for run in RUNS:
        site.path(production, "tree", run).unlink()
    assert [f[1] for f in findings(site, capsys, "1,2")] == [1, 2]
    assert [f[1] for f in findings(site, capsys, "--dataset=Al50")] == [3]
    assert [f[1] for f in findings(site, capsys, "--production=alcapana", "--version=1")] == [*RUNS]
    assert site.audit("--production=rootana") == 18
    assert site.audit("--dataset=nil") == 17


def test_runs_are_read_piece_by_piece(full: tuple[Site, Production]) -> None:
    site, production = full
    runs = recorded.finished_runs(site.books.db, production, RunChoice(), piece=2)
    assert [(run.run, len(run.outputs), len(run.logs)) for run in runs] == [
        (1, 3, 2),
        (2, 3, 2),
        (3, 3, 2),
    ]
    # "tree of run 1", "hist of run 1", "odb of run 1", each with its line end
    assert recorded.bytes_with_checksum(site.books.db, production, RunChoice([1])) == 14 + 14 + 13


# --------------------------------------------------------------------------- progress


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_only() -> None:
    assert describe(1_350_000_000, 3_000_000_000, 135e6).endswith(
        " 45% 1.4 GB of 3.0 GB, 135.0 MB/s, 12.2s left"
    )
    terminal, file = Terminal(), StringIO()
    for out in (terminal, file):
        with Progress(4000, out) as progress:
            progress.add(1000)
            progress.add(3000)
    assert " 25% " in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")
    assert file.getvalue() == ""


# --------------------------------------------------------------------------- the whole program


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Laboratory]:
    with laboratory(tmp_path) as lab:
        yield lab


@pytest.mark.slow
def test_what_real_managers_leave_is_as_recorded(lab: Laboratory) -> None:
    lab.finish("--production=alcapana", "--new=v1")
    lab.finish("--production=rootana", "--new=v1")
    before = lab.snapshot()
    said = lab.production("audit", "--checksums", plain_user=True)
    assert (said.code, said.err) == (0, "")
    assert said.out == "6 finished runs, 12 outputs checked with their content\n"
    closed = lab.data / "hist/v1"
    closed.chmod(0)
    said = lab.production("audit", "--production=alcapana", plain_user=True)
    closed.chmod(0o755)
    assert said.code == 46
    assert said.out.count("unseen ") == 4  # three histograms, and the directory
    assert "Permission denied" in said.out
    assert lab.snapshot() == before
