"""An input that is a pattern: all subruns of a run come, in their order, and the job sees each."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from experiment import RECIPE, RUNS, Experiment, experiment
from ftp_server import TapeArchive, tape_archive, write_netrc
from network.needs import NoFilesystemError
from ssh_server import ssh_server

from production.errors import FileMissing, NotOnDisk, RecipeError, TransferFailed
from production.locations import fits, in_natural_order, parse_locations
from production.manager import inputs
from production.model import InputFile
from production.recipe.load import parse_recipe
from production.recipe.model import Files
from production.staging.archive import open_archive
from production.staging.one_fetch import Fetching
from production.staging.places import open_places

PATTERN = parse_locations("run%05dsub*.mid.gz")
SUBRUNS = [f"run02091sub{number}.mid.gz" for number in range(12)]  # sub10 is not after sub1
OTHERS = ["run02092sub0.mid.gz", "run02091.mid", "run02091sub0.mid", "run02091sub0.mid.gz.md5"]

MANY = RECIPE.replace(
    'from = "archive"',
    'from = "archive"\nfile = "run%05dsub*.mid.gz"\n\n[input.odb]\nfrom = "archive"\n'
    'file = "run%05d.odb"',
).replace('["{raw}", "{bytes}"]', '["{odb}", "{bytes}", "{raw}"]')

# Names with blanks, so that whoever splits words gets them wrong.
LISTING = """\
{
    for file in "${@:3}"; do echo "argument ${file##*/}"; done
    while IFS= read -r file; do echo "variable ${file##*/}"; done <<< "$INPUT_RAW"
    echo "and $(cat "$1") $(cat "$INPUT_ODB")"
} > "$2"
echo "done ${PM_SPOOL##*/}" >> "$EXPERIMENT/ledger"
"""


def fill(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in (*SUBRUNS, *OTHERS):
        (directory / name).write_text(name)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TapeArchive]:
    monkeypatch.setenv("NETRC", str(write_netrc(tmp_path / "netrc")))
    with tape_archive(tmp_path / "archive") as server:
        fill(server.root)
        yield server


@pytest.mark.parametrize(
    ("name", "pattern", "does"),
    [
        ("run1sub2.mid", "run1sub*.mid", True),
        ("run1sub.mid", "run1sub*.mid", True),
        ("run1sub2_mid", "run1sub*.mid", False),
        ("run1sub2.mid.gz", "run1sub*.mid", False),
        ("a[1].b", "a[1].?", True),
        ("a1.b", "a[1].?", False),
    ],
)
def test_only_star_and_question_mark_stand_for_others(name: str, pattern: str, does: bool) -> None:
    assert fits(name, pattern) is does


def test_the_order_is_that_of_the_numbers() -> None:
    assert in_natural_order(reversed(SUBRUNS)) == SUBRUNS
    assert in_natural_order(["b2", "b10", "b02", "a", "b2"]) == ["a", "b02", "b2", "b10"]


# --------------------------------------------------------------------------- each protocol


@pytest.mark.parametrize("directory", ["", "R13/"])
def test_ftp_lists_what_fits(server: TapeArchive, directory: str) -> None:
    fill(server.root / "R13")
    archive = open_archive(server.url)
    found = archive.names(f"{directory}run02091sub*.mid.gz")
    assert in_natural_order(found) == [directory + name for name in SUBRUNS]
    assert archive.names(f"{directory}run02093sub*.mid.gz") == []
    assert archive.names("nowhere/run02091sub*.mid.gz") == []


@pytest.mark.parametrize("reply", ["450 No files found.", "550 No such file.", "226 Nothing."])
def test_an_ftp_server_that_finds_nothing_is_believed(server: TapeArchive, reply: str) -> None:
    server.replies["NLST"] = reply
    if reply.startswith("226"):
        with pytest.raises(TransferFailed):
            open_archive(server.url, 0.5).names("run02091sub*.mid.gz")
    else:
        assert open_archive(server.url).names("run02091sub*.mid.gz") == []


@pytest.mark.parametrize("way", ["", "?link=symbolic"])
def test_a_mounted_directory_lists_what_fits(tmp_path: Path, way: str) -> None:
    fill(tmp_path / "archive")
    archive = open_archive(f"file://{tmp_path}{way}")
    names = archive.names("archive/run02091sub*.mid.gz")
    assert in_natural_order(names) == [f"archive/{name}" for name in SUBRUNS]
    assert archive.names("nowhere/run02091sub*.mid.gz") == []


@pytest.mark.parametrize("way", ["", "?link=symbolic"])
def test_a_file_whose_name_is_no_utf8_is_refused_in_words_that_can_be_stored(
    tmp_path: Path, way: str
) -> None:
    fill(tmp_path / "archive")
    (tmp_path / "archive" / os.fsdecode(b"run02091sub\xe9.mid.gz")).touch()
    archive = open_archive(f"file://{tmp_path}{way}")
    with pytest.raises(
        TransferFailed, match=r"'run02091sub\\udce9\.mid\.gz' is not UTF-8"
    ) as caught:
        archive.names("archive/run02091sub*.mid.gz")
    str(caught.value).encode()
    assert archive.names("archive/run02092sub*.mid.gz") == ["archive/run02092sub0.mid.gz"]


@pytest.mark.slow
def test_sftp_lists_what_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        with ssh_server(tmp_path / "ssh") as ssh:
            monkeypatch.setenv("HOME", str(ssh.home))
            monkeypatch.setenv("NETRC", str(ssh.home / "netrc"))
            monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
            fill(ssh.base / "archive")
            archive = open_archive(f"{ssh.url}{ssh.base}", 20.0)
            names = archive.names("archive/run02091sub*.mid.gz")
            assert in_natural_order(names) == [f"archive/{name}" for name in SUBRUNS]
            assert archive.names("nowhere/run02091sub*.mid.gz") == []
    except NoFilesystemError as reason:
        pytest.skip(str(reason))


# --------------------------------------------------------------------------- the files of a run


def test_all_come_from_the_first_place_that_has_any(server: TapeArchive, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    both = open_places([f"file://{tmp_path}/empty", server.url], PATTERN, timeout=60.0)
    one = inputs.Wanted("raw", both.of_run(PATTERN, 2091), is_pattern=True)
    target = tmp_path / "raw"
    fetching = Fetching(tmp_path / "fetching")
    known: dict[Path, InputFile] = {}
    got = inputs.fetch(
        both, [one], None, target, "me", fetching, lambda *_: None, threading.Event(), known
    )
    assert got.paths == {"raw": Files(target / "raw" / name for name in SUBRUNS)}
    came = [InputFile("raw", name, len(name), server.url) for name in SUBRUNS]
    assert got.files == tuple(came)
    assert [path.read_text() for path in sorted((target / "raw").iterdir())] == sorted(SUBRUNS)
    sent = server.said("RETR")
    assert sent == SUBRUNS
    # What is here already is not brought again.
    (target / "raw" / SUBRUNS[3]).unlink()
    again = inputs.fetch(
        both, [one], None, target, "me", fetching, lambda *_: None, threading.Event(), known
    )
    assert again == got
    assert server.said("RETR")[len(sent) :] == [SUBRUNS[3]]


def test_none_that_fits_is_a_missing_file(server: TapeArchive) -> None:
    made = open_places([server.url], PATTERN, timeout=60.0)
    with pytest.raises(FileMissing, match=r"run02093sub\*\.mid\.gz is not on .*no file fits"):
        made.find(made.of_run(PATTERN, 2093))


def test_a_run_waits_for_the_last_of_its_tapes(server: TapeArchive) -> None:
    server.replies["SIZE"] = "450 On tape."
    made = open_places([server.url], PATTERN, timeout=60.0)
    one = inputs.Wanted("raw", made.of_run(PATTERN, 2091), is_pattern=True)
    (sight,) = inputs.see(made, [((one,), None)], ask=True)
    assert server.said("STAGE") == SUBRUNS
    assert isinstance(sight.on_tape, NotOnDisk)
    del server.replies["SIZE"]
    (sight,) = inputs.see(made, [((one,), sight.found)], ask=False)
    assert sight.trouble is None
    (server.root / SUBRUNS[5]).unlink()  # whatever else is wrong, the transfer tells
    (sight,) = inputs.see(made, [((one,), sight.found)], ask=False)
    assert sight.on_tape is None
    assert isinstance(sight.trouble, FileMissing)


# --------------------------------------------------------------------------- what the job sees


def test_each_file_is_an_argument(tmp_path: Path) -> None:
    (tmp_path / "count.sh").touch()
    recipe = parse_recipe(MANY, tmp_path / "count.toml")
    fields = {"odb": "/o", "bytes": "/b", "raw": Files([Path("/a 1"), Path("/a 2")])}
    assert recipe.job_arguments(fields, {}) == ("/o", "/b", "/a 1", "/a 2")
    variables = parse_recipe(
        f'{MANY}[job.variables]\nALL = "in {{raw}}"\n', tmp_path / "count.toml"
    ).job_variables(fields)
    assert variables == {"ALL": "in /a 1\n/a 2"}


@pytest.mark.parametrize("arguments", ['["--in={raw}"]', '["{raw}{odb}"]'])
def test_several_files_are_not_part_of_an_argument(tmp_path: Path, arguments: str) -> None:
    (tmp_path / "count.sh").touch()
    text = MANY.replace('["{odb}", "{bytes}", "{raw}"]', arguments)
    with pytest.raises(RecipeError, match=r"count\.toml:14: .*an argument of its own"):
        parse_recipe(text, tmp_path / "count.toml")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Experiment]:
    with experiment(tmp_path, RUNS[:2]) as made:
        (tmp_path / "count.toml").write_text(MANY)
        (tmp_path / "count.sh").write_text(LISTING)
        yield made


@pytest.mark.slow
def test_a_production_of_runs_with_subruns(lab: Experiment) -> None:
    for name in ("run02091sub1 a.mid.gz", "run02091sub10 b.mid.gz", "run02091sub2 c.mid.gz"):
        (lab.tape / name).write_text(name)
    for run in lab.runs:
        (lab.tape / f"run{run:05d}.odb").write_text(f"settings of {run}")
    lab.open_archive(stage_seconds=0.5)
    manager = lab.start("--max-attempts=1")
    assert manager.wait() == 40
    assert lab.statuses() == "FE"
    assert "run02092sub*.mid.gz is not on the archive" in str(lab.reasons()[2092])
    ((path,),) = lab.rows("SELECT bytes FROM count_v1 WHERE run = 2091")
    order = ["sub1 a", "sub2 c", "sub10 b"]
    assert Path(str(path)).read_text().splitlines() == [
        *(f"argument run02091{name}.mid.gz" for name in order),
        *(f"variable run02091{name}.mid.gz" for name in order),
        "and settings of 2091 settings of 2091",
    ]
    lab.check_nothing_under_way()
