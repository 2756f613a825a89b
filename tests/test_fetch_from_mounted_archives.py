"""Input files from an archive that is mounted here: copied, or linked."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from production.errors import (
    ArchiveUnavailable,
    ConfigurationError,
    FileMissing,
    TransferFailed,
    TransferStopped,
)
from production.staging.archive import open_archive

NAME = "run02091.mid"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / NAME).write_bytes(b"midas" * 1_000_000)
    return tmp_path / "archive"


def fetch(url: str, target: Path, name: str = NAME, stop: threading.Event | None = None) -> int:
    archive = open_archive(url)
    archive.check()
    archive.stage([name])
    return archive.fetch(name, target, lambda _, __: None, stop or threading.Event()).size


@pytest.mark.parametrize("way", ["", "?link=copy", "?link=hard", "?link=symbolic"])
def test_a_file_arrives(archive: Path, target: Path, way: str) -> None:
    for _ in range(2):  # over an older one as well
        assert fetch(f"file://{archive}{way}", target) == 5_000_000
        assert target.read_bytes() == (archive / NAME).read_bytes()
    assert target.is_symlink() == (way == "?link=symbolic")
    assert target.samefile(archive / NAME) == (way in {"?link=hard", "?link=symbolic"})
    assert [path.name for path in target.parent.iterdir()] == [NAME]


@pytest.mark.parametrize("way", ["", "?link=hard", "?link=symbolic"])
def test_what_is_not_there_is_told(archive: Path, target: Path, way: str) -> None:
    with pytest.raises(FileMissing, match=rf"run9\.mid is not on the archive {archive}"):
        fetch(f"file://{archive}{way}", target, "run9.mid")
    (archive / "directory").mkdir()
    with pytest.raises(TransferFailed, match="it is not a file"):
        fetch(f"file://{archive}{way}", target, "directory")
    with pytest.raises(ArchiveUnavailable, match="/nowhere cannot be reached: No such file"):
        fetch(f"file://{archive}/nowhere{way}", target)
    with pytest.raises(ArchiveUnavailable, match="it is not a directory"):
        fetch(f"file://{archive}/{NAME}{way}", target)
    assert [*target.parent.iterdir()] == []


@pytest.mark.parametrize("way", ["", "?link=hard"])
def test_stop_ends_it(archive: Path, target: Path, way: str) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(TransferStopped):
        fetch(f"file://{archive}{way}", target, stop=stop)
    assert [*target.parent.iterdir()] == []


def test_no_hard_link_leads_to_another_filesystem(target: Path) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == target.parent.stat().st_dev:
        pytest.skip("there is no second filesystem")
    with pytest.raises((TransferFailed, FileMissing)):
        fetch(f"file://{shared}?link=hard", target)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file://server/data", "names no host"),
        ("file:///data?link=soft", "link=soft is not known; known: copy, hard, symbolic"),
    ],
)
def test_urls_that_make_no_sense(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        open_archive(url)
