"""Probes of the space: what they read from commands and from the filesystem itself."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from production.errors import ConfigurationError, NoQuotaSet, ProbeFailed
from production.model import Usage
from production.space.mmlsquota import fullest, parse_fields, parse_table
from production.space.probe import open_probe

KIB = 1024
GIB = 1024**3
DATA = Path(__file__).parent / "data"
RECORDED = sorted(DATA.glob("mmlsquota_*.txt"))


def table(name: str, device: str | None = None) -> Usage:
    rows = parse_table((DATA / f"mmlsquota_{name}.txt").read_text())
    assert rows is not None
    return fullest(rows, device)


def fields(device: str | None = None) -> Usage:
    rows = parse_fields((DATA / "mmlsquota_fields.txt").read_text())
    assert rows is not None
    return fullest(rows, device)


# --------------------------------------------------------------------------- mmlsquota's output


def test_table_gives_use_and_doubt_of_the_soft_limit() -> None:
    assert table("table", "home") == Usage(3_200_000 * KIB, 4_000_000 * KIB, "mmlsquota home USR")


def test_fullest_quota_counts_when_no_device_is_named() -> None:
    usage = table("table")
    assert usage == Usage(61_000_000 * KIB, 60_000_000 * KIB, "mmlsquota work USR")
    assert usage.fraction > 1


def test_units_and_filesets() -> None:
    usage = table("filesets", "store")
    assert usage == Usage((1536 * GIB + 1025 * GIB // 2), 2048 * GIB, "mmlsquota store:muons USR")


def test_fileset_of_a_device_and_hard_limit_without_a_soft_one() -> None:
    assert table("filesets", "store:kaons") == Usage(
        10 * GIB, 40 * GIB, "mmlsquota store:kaons FILESET"
    )
    assert table("filesets", "/dev/store:kaons") == table("filesets", "store:kaons")


def test_fields_are_found_by_name_and_decoded() -> None:
    assert fields("home") == Usage(3_200_000 * KIB, 4_000_000 * KIB, "mmlsquota home USR")
    assert fields() == Usage(18_000_000 * KIB, 20_000_000 * KIB, "mmlsquota work:raw:data USR")


def test_fields_may_move() -> None:
    lines = (DATA / "mmlsquota_fields.txt").read_text().splitlines()
    moved = "\n".join(
        ":".join(parts[:3] + ["new"] * 2 + parts[:2:-1])
        for parts in (line.split(":") for line in lines)
    )
    assert parse_fields(moved) == parse_fields("\n".join(lines))


def test_table_and_fields_agree_on_the_same_quota() -> None:
    assert table("table", "home") == fields("home")


@pytest.mark.parametrize("device", [None, "work", "elsewhere"])
def test_no_limits_means_no_quota_is_set(device: str | None) -> None:
    with pytest.raises(NoQuotaSet, match="no quota is set"):
        table("nolimits", device)


def test_no_output_means_no_quota_is_set() -> None:
    assert parse_table("") == []


@pytest.mark.parametrize(
    "text",
    [
        "mmlsquota: what?\n",
        "     Filesystem  kbytes   quota   limit   grace\n        /lustre 9821 0 100000 -\n",
        (DATA / "mmlsquota_table.txt").read_text().replace("61000000", "6100000O"),
        (DATA / "mmlsquota_table.txt").read_text().replace("61000000", "-61000000"),
    ],
)
def test_table_that_is_not_understood_is_not_guessed_at(text: str) -> None:
    assert parse_table(text) is None


@pytest.mark.parametrize(
    "change", [("blockUsage", "used"), ("3000000", "3e6"), ("3000000", ""), ("HEADER", "TITLE")]
)
def test_fields_that_are_not_understood_are_not_guessed_at(change: tuple[str, str]) -> None:
    text = (DATA / "mmlsquota_fields.txt").read_text()
    assert parse_fields(text.replace(*change)) is None


LINES = [line for path in RECORDED for line in path.read_text().splitlines()]
PIECES = sorted({piece for line in LINES for piece in line.replace(":", " : ").split()})


@given(
    st.one_of(
        st.text(),
        st.lists(st.sampled_from(LINES)).map("\n".join),
        st.lists(st.sampled_from([*PIECES, "\n", " ", "9" * 30, "²", "%zz"])).map(" ".join),
        st.lists(st.sampled_from([*PIECES, "", "9" * 30])).map(
            lambda words: LINES[-4] + "\nmmlsquota:" + ":".join(words)
        ),
    )
)
def test_garbage_is_never_more_than_a_failed_probe(text: str) -> None:
    for parse in (parse_fields, parse_table):
        rows = parse(text)
        try:
            usage = fullest(rows or [])
        except ProbeFailed:
            continue
        assert usage.limit > 0
        assert usage.fraction >= 0


# --------------------------------------------------------------------------- the command

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a stand-in for mmlsquota on the PATH; it records its arguments in ``calls``."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")

    def install(body: str) -> Path:
        command = directory / "mmlsquota"
        calls = tmp_path / "calls"
        command.write_text(f'#!/bin/sh\n# a stand-in\necho "$*" >> {calls}\n{body}\n')
        command.chmod(0o755)
        return calls

    return install


WITHOUT_FIELDS = f"""
case $1 in -Y) echo 'mmlsquota: Incorrect option: -Y' >&2; exit 1;; esac
cat {DATA}/mmlsquota_table.txt"""


def test_command_is_asked_for_fields_first(install: Install, tmp_path: Path) -> None:
    calls = install(f"cat {DATA}/mmlsquota_fields.txt")
    assert open_probe("mmlsquota", tmp_path).probe() == fields()
    assert calls.read_text().splitlines() == ["-Y"]


def test_older_release_is_asked_for_the_table(install: Install, tmp_path: Path) -> None:
    calls = install(WITHOUT_FIELDS)
    assert open_probe("mmlsquota", tmp_path, "home").probe() == table("table", "home")
    assert calls.read_text().splitlines() == ["-Y home", "home"]


def test_release_that_ignores_the_option(install: Install, tmp_path: Path) -> None:
    install(f"cat {DATA}/mmlsquota_table.txt")
    assert open_probe("mmlsquota", tmp_path).probe() == table("table")


def test_failing_command_is_a_failed_probe_with_its_words(install: Install, tmp_path: Path) -> None:
    install("echo 'mmlsquota: 6027-1508 GPFS daemon is down' >&2; exit 2")
    for name in ("mmlsquota", "auto"):
        with pytest.raises(ProbeFailed, match="GPFS daemon is down"):
            open_probe(name, tmp_path).probe()


def test_strange_output_is_a_failed_probe(install: Install, tmp_path: Path) -> None:
    install("echo hello")
    for name in ("mmlsquota", "auto"):
        with pytest.raises(ProbeFailed, match="output of mmlsquota was not understood"):
            open_probe(name, tmp_path, "work").probe()


def test_hanging_command_is_a_failed_probe(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("production.space.mmlsquota._TIMEOUT", 0.2)
    calls = install("sleep 1000")
    with pytest.raises(ProbeFailed, match=r"did not answer within 0\.2 s"):
        open_probe("mmlsquota", tmp_path).probe()
    assert calls.read_text().splitlines() == ["-Y"]


def test_missing_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProbeFailed, match="`mmlsquota` was not found"):
        open_probe("mmlsquota", tmp_path).probe()


def test_auto_takes_the_quota_where_there_is_one(install: Install, tmp_path: Path) -> None:
    install(f"cat {DATA}/mmlsquota_fields.txt")
    assert open_probe("auto", tmp_path).probe() == fields()


@pytest.mark.parametrize("body", ["", f"cat {DATA}/mmlsquota_nolimits.txt"])
def test_auto_takes_the_filesystem_where_no_quota_is_set(
    install: Install, tmp_path: Path, body: str
) -> None:
    install(body)
    assert open_probe("auto", tmp_path).probe().source == f"statvfs {tmp_path}"
    with pytest.raises(NoQuotaSet, match="statvfs"):
        open_probe("mmlsquota", tmp_path).probe()


def test_auto_takes_the_filesystem_where_there_is_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert open_probe("auto", tmp_path).probe().source == f"statvfs {tmp_path}"


# --------------------------------------------------------------------------- the filesystem


def test_statvfs_agrees_with_df(tmp_path: Path) -> None:
    usage = open_probe("statvfs", tmp_path).probe()
    disk = shutil.disk_usage(tmp_path)
    assert usage.limit - usage.used == pytest.approx(disk.free, rel=0.05)
    assert usage.used == pytest.approx(disk.used, rel=0.05)


def test_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "later/raw")
    (tmp_path / "file").write_text("")
    for path in ("later/raw", "link", "link/more"):
        source = open_probe("statvfs", tmp_path / path).probe().source
        assert source == f"statvfs {tmp_path}"
    source = open_probe("statvfs", tmp_path / "file/raw").probe().source
    assert source == f"statvfs {tmp_path}/file"


def test_relative_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_probe("statvfs", Path("later")).probe().source == f"statvfs {tmp_path}"


def test_directory_that_cannot_be_reached(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ProbeFailed, match=f"The space on {tmp_path}/loop .* symbolic links"):
        open_probe("statvfs", tmp_path / "loop").probe()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is a filesystem without a size")
def test_filesystem_without_a_size() -> None:
    with pytest.raises(ProbeFailed, match="does not tell its size"):
        open_probe("statvfs", Path("/proc")).probe()


# --------------------------------------------------------------------------- names


def test_unknown_probe_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'df' is not known; known: auto, mmlsquota, stat"):
        open_probe("df", tmp_path)
