"""Several places for one file: tried in order, and one that is down holds up nobody."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from experiment import HOST, RECIPE, RUNS, experiment
from ftp_server import TapeArchive, tape_archive, write_netrc

from production.config import parse_configuration
from production.errors import (
    ArchiveUnavailable,
    ConfigurationError,
    FileMissing,
    NetrcError,
    NotOnDisk,
    ProductionError,
    RecipeError,
    TransferFailed,
)
from production.locations import Location, parse_location, parse_locations
from production.manager.rest import PlaceRests
from production.recipe.load import parse_recipe
from production.staging.places import File, Places, open_places

NAME = "run02091.mid"
USUAL = parse_locations("run%05d.mid")


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TapeArchive]:
    monkeypatch.setenv("NETRC", str(write_netrc(tmp_path / "netrc")))
    with tape_archive(tmp_path / "first") as server:
        yield server


@pytest.fixture
def second(tmp_path: Path) -> Path:
    (tmp_path / "second").mkdir()
    return tmp_path / "second"


def places(*urls: str) -> Places:
    return open_places(urls, USUAL, timeout=60.0)


def fetch(places: Places, target: Path) -> str:
    file = places.of_run(USUAL, 2091)
    source, came = places.fetch(file, target, lambda _, __: None, threading.Event())
    assert source in file
    assert came.size == target.stat().st_size
    return target.read_text()


def one(places: Places) -> tuple[File, ...]:
    return (places.of_run(USUAL, 2091),)


# --------------------------------------------------------------------------- what is said


@pytest.mark.parametrize(
    ("text", "place", "name"),
    [
        ("run%05d.mid", None, "run02091.mid"),
        ("R13/run{run}.mid", None, "R13/run2091.mid"),
        ("ftp://host/mu2e/run{run:05d}.mid", "ftp://host/mu2e", "run02091.mid"),
        ("ftp://host/mu2e/run%05d.mid", "ftp://host/mu2e", "run02091.mid"),
        ("FTP://host:2121//data/run%d.mid", "ftp://host:2121//data", "run2091.mid"),
        ("ftp://host//run{run}/raw.mid", "ftp://host//", "run2091/raw.mid"),
        ("ftp://host/R{run}/raw.mid", "ftp://host/", "R2091/raw.mid"),
        ("file:///a%20b/run{run}.mid?link=hard", "file:///a%20b?link=hard", "run2091.mid"),
        ("https://host/x/run{run}sub*.mid", "https://host/x", "run2091sub*.mid"),
    ],
)
def test_an_url_is_a_place_and_a_name(text: str, place: str | None, name: str) -> None:
    location = parse_location(text)
    assert (location.place, location.name.expand({"run": 2091})) == (place, name)


@pytest.mark.parametrize(
    ("texts", "what"),
    [
        ([], "it names no file"),
        ("ftp://host/mu2e/run.mid", "must contain {run}"),
        ("ftp://host/mu2e/", "must be a plain path"),
        (["run{run}.mid", "run{run}_*.mid"], "some of these are patterns"),
        ("run{run}*/x{run}.mid", "only the file's name may be a pattern"),
        ("run{run}*.mid", "files of other runs would fit"),
        ("run{run}0?.mid", "files of other runs would fit"),
        ("*1{run}.mid", "files of other runs would fit"),
    ],
)
def test_what_cannot_be_meant_is_refused(texts: str | list[str], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        parse_locations(texts)


def test_a_recipe_names_places_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "count.sh").touch()
    url = '"ftp://archivftp.psi.ch/mu2e/run2013/run{run:05d}.mid"'
    text = RECIPE.replace('from = "archive"', f'from = "archive"\nfile = [{url}, "b/run%05d.mid"]')
    (given,) = parse_recipe(text, tmp_path / "count.toml").archive_inputs
    assert [location.place for location in given.locations] == [
        "ftp://archivftp.psi.ch/mu2e/run2013",
        None,
    ]
    for wrong in ("[]", "[7]", "7"):
        with pytest.raises(RecipeError, match=r"count\.toml:6: 'file'"):
            parse_recipe(text.replace(f'[{url}, "b/run%05d.mid"]', wrong), tmp_path / "count.toml")


# --------------------------------------------------------------------------- where it comes from


def test_the_first_place_that_has_it_serves(first: TapeArchive, second: Path, target: Path) -> None:
    both = places(first.url, f"file://{second}")
    (second / NAME).write_text("from the second")
    assert fetch(both, target) == "from the second"
    (first.root / NAME).write_text("from the first")
    assert fetch(both, target) == "from the first"


def test_what_fails_at_one_place_comes_from_the_next(
    first: TapeArchive, second: Path, target: Path
) -> None:
    (first.root / NAME).write_text("from the first")
    first.fault = "errors"
    (second / NAME).write_text("from the second")
    assert fetch(places(first.url, f"file://{second}"), target) == "from the second"
    assert [path.name for path in target.parent.iterdir()] == [NAME]


def test_a_tape_is_not_waited_for_where_another_place_has_it_on_disk(
    first: TapeArchive, second: Path, target: Path
) -> None:
    (first.root / NAME).write_text("from the first")
    first.on_tape.add(NAME)
    (second / NAME).write_text("from the second")
    assert fetch(places(first.url, f"file://{second}"), target) == "from the second"


def test_the_second_place_is_asked_for_its_tape_when_the_first_has_no_such_file(
    first: TapeArchive, second: Path, target: Path
) -> None:
    (first.root / NAME).write_text("from tape")
    first.on_tape.add(NAME)
    first.refused.add(NAME)
    both = places(f"file://{second}", first.url)
    files = one(both)
    both.stage(files)  # at the first place, where it is not
    with pytest.raises(NotOnDisk):
        fetch(both, target)
    assert first.said("STAGE") == [NAME]
    first.refused.clear()
    both.stage(files)  # now it is known where it is
    assert first.said("STAGE") == [NAME, NAME]
    assert fetch(both, target) == "from tape"


def test_the_reason_names_all_places(
    first: TapeArchive, second: Path, target: Path, netrc_of_nobody: str
) -> None:
    with pytest.raises(FileMissing) as missing:
        fetch(places(first.url, f"file://{second}"), target)
    assert "run02091.mid is not on the archive 127.0.0.1 (550" in str(missing.value)
    assert f"; run02091.mid is not on the archive {second} (no such file))" in str(missing.value)
    (first.root / NAME).write_text("damaged disk")
    first.fault = "errors"
    with pytest.raises(TransferFailed, match=f"failed: .*; run02091.mid is not on.*{second}"):
        fetch(places(first.url, f"file://{second}"), target)
    # As long as one place is down, nobody knows whether it is missing.
    with pytest.raises(ArchiveUnavailable, match=f"nowhere.*{second}"):
        fetch(places(f"file://{second}/nowhere", f"file://{second}"), target)
    with pytest.raises(NetrcError, match=f"{netrc_of_nobody}.*{second}"):
        fetch(places(f"ftp://{netrc_of_nobody}/", f"file://{second}"), target)


@pytest.fixture
def netrc_of_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: TapeArchive) -> str:
    """A host without a login; that of the first archive has one."""
    (tmp_path / "netrc").write_text(
        (tmp_path / "netrc")
        .read_text()
        .replace("default", f"machine {first.url.split(':')[1][2:]}")
    )
    return "nobody.example"


# --------------------------------------------------------------------------- places that are down


def test_a_place_that_is_down_rests_and_is_told_of_once(
    first: TapeArchive, second: Path, target: Path
) -> None:
    (second / NAME).write_text("from the second")
    told: list[ProductionError] = []
    both = places(first.url, first.url + "mu2e", f"file://{second}")
    both.watch = PlaceRests(3600.0, told.append)
    first.replies["greeting"] = "421 Too many connections."
    for _ in range(3):
        assert fetch(both, target) == "from the second"
    assert first.connections == 2  # for each of its directories
    assert [str(trouble)[:39] for trouble in told] == ["Archive 127.0.0.1 cannot be reached: po"]
    (second / NAME).unlink()
    with pytest.raises(ArchiveUnavailable, match=f"421.*{second}"):
        fetch(both, target)
    (waiting,) = both.look(one(both))
    assert isinstance(waiting, ArchiveUnavailable)
    assert first.connections == 2


def test_a_part_of_one_place_is_never_continued_by_another(
    first: TapeArchive, tmp_path: Path, target: Path
) -> None:
    time = 1_500_000_000
    with tape_archive(tmp_path / "other") as other:
        for server, byte in ((first, b"1"), (other, b"2")):
            (server.root / NAME).write_bytes(byte * 1_000_000)
            os.utime(server.root / NAME, (time, time))  # size and time are the same
            server.cuts = [600_000]
        both = places(first.url, other.url)
        file = both.of_run(USUAL, 2091)
        first.replies["SIZE"] = "450 On tape."
        both.look([file])  # at both places, and the connections are kept
        del first.replies["SIZE"]
        for server in (first, other):
            server.replies["greeting"] = "421 Going down."
        with pytest.raises(ArchiveUnavailable):
            both.fetch(file, target, lambda _, __: None, threading.Event())
        assert [server.said("RETR") for server in (first, other)] == [[NAME], [NAME]]
        assert target.with_name(f"{NAME}.part").read_bytes() == b"2" * 600_000
        for server in (first, other):
            del server.replies["greeting"]
        both.fetch(file, target, lambda _, __: None, threading.Event())
        assert target.read_bytes() == b"1" * 1_000_000


# --------------------------------------------------------------------------- a whole production


@pytest.mark.slow
def test_a_production_goes_on_from_the_places_that_are_left(tmp_path: Path) -> None:
    with experiment(tmp_path) as lab:
        mirror = tmp_path / "mirror"
        mirror.mkdir()
        for run in RUNS[:2]:
            lab.raw(run).rename(mirror / lab.raw(run).name)
        lab.configure(archive=f'url = ["{lab.archive_url}", "file://{mirror}"]')
        manager = lab.start()
        manager.until(lambda: lab.statuses()[:2] == "FF", "the runs of the mirror")
        assert lab.statuses() == "FFC"  # nobody knows whether the archive has that one
        assert manager.said.count(f"WARNING: Archive {HOST} cannot be reached: ") == 1
        lab.open_archive()
        assert manager.wait() == 0
        for run in RUNS[:2]:
            (mirror / lab.raw(run).name).rename(lab.raw(run))
        lab.check_all_finished()
        assert manager.said.count("WARNING") == 1


@pytest.mark.slow
def test_a_run_that_no_place_has_fails_with_the_names_of_all(tmp_path: Path) -> None:
    with experiment(tmp_path) as lab:
        mirror = tmp_path / "mirror"
        mirror.mkdir()
        lab.raw(RUNS[1]).unlink()
        lab.configure(
            archive=f'url = ["{lab.archive_url}", "file://{mirror}"]',
            defaults='pause = 0.2\nspacelim = "100%"\nback_off = 0.1\nmax_attempts = 1',
        )
        lab.open_archive()
        assert lab.start().wait() == 40
        assert lab.statuses() == "FEF"
        reason = str(lab.reasons()[RUNS[1]])
        assert f"not on the archive {HOST}" in reason
        assert f"not on the archive {mirror}" in reason


def test_the_configuration_names_places_in_their_order() -> None:
    text = """
        [archive]
        url = ["ftp://archivftp.psi.ch/mu2e/run2013", "file:///data/mirror"]
        file = ["run%05d.mid", "old/{run}.mid"]
    """
    made = parse_configuration(text, Path("/production.toml"))
    assert made.archive_urls() == (
        "ftp://archivftp.psi.ch/mu2e/run2013",
        "file:///data/mirror",
    )
    archives = open_places(made.archive_urls(), made.archive.file, timeout=1.0)
    assert [source.name for source in archives.of_run(made.archive.file, 91)] == [
        *("run00091.mid", "run00091.mid"),
        *("old/91.mid", "old/91.mid"),
    ]
    with pytest.raises(ConfigurationError, match="'url' must be a list of: text in quotes"):
        parse_configuration("[archive]\nurl = [7]", Path("/production.toml"))


def test_a_location_is_a_name_or_an_url_of_its_own(tmp_path: Path) -> None:
    directory = tmp_path / "R13"
    directory.mkdir()
    locations: tuple[Location, ...] = parse_locations(
        ["run%05d.mid", f"file://{directory}/r{{run}}"]
    )
    made = open_places(["file:///nowhere"], locations, timeout=1.0)
    assert [(source.place, source.name) for source in made.of_run(locations, 7)] == [
        ("file:///nowhere", "run00007.mid"),
        (f"file://{directory}", "r7"),
    ]
