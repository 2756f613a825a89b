"""Staging: the archive is asked for all files at once, and trouble with one is its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ftp_server import TapeArchive, tape_archive, write_netrc

from production.errors import (
    ArchiveLoginRefused,
    ArchiveUnavailable,
    FileMissing,
    NetrcError,
    NotOnDisk,
)
from production.staging.archive import open_archive

FILES = ["run02091.mid", "run02092.mid", "run02093.mid"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TapeArchive]:
    with tape_archive(tmp_path / "archive") as archive:
        for name in FILES:
            (archive.root / name).write_text(name)
        archive.on_tape.update(FILES)
        yield archive


@pytest.fixture(autouse=True)
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write_netrc(tmp_path / "netrc")
    monkeypatch.setenv("NETRC", str(path))
    return path


def fetch(server: TapeArchive, name: str, directory: Path) -> str:
    target = directory / name
    open_archive(server.url).fetch(name, target, lambda _, __: None, threading.Event())
    return target.read_text()


def test_file_on_tape_comes_after_staging(server: TapeArchive, tmp_path: Path) -> None:
    with pytest.raises(NotOnDisk, match=r"run02091\.mid is still on tape .*450"):
        fetch(server, FILES[0], tmp_path)
    assert not list(tmp_path.glob("run*"))
    open_archive(server.url).stage(FILES[:1])
    assert fetch(server, FILES[0], tmp_path) == FILES[0]
    with pytest.raises(NotOnDisk):
        fetch(server, FILES[1], tmp_path)


def test_one_connection_one_command_a_file(server: TapeArchive) -> None:
    open_archive(server.url).stage(FILES)
    assert server.said("STAGE") == FILES
    assert server.connections == 1


def test_files_are_staged_in_the_directory_of_the_url(server: TapeArchive) -> None:
    (server.root / "mu2e").mkdir()
    open_archive(server.url + "mu2e").stage(FILES)
    assert server.commands.index("CWD mu2e") < server.commands.index(f"STAGE {FILES[0]}")


@pytest.mark.parametrize("code", ["450", "451", "550", "553"])
def test_refusal_of_one_file_does_not_stop_the_others(server: TapeArchive, code: str) -> None:
    server.refused.add(FILES[0])
    open_archive(server.url).stage(FILES)
    assert server.on_tape == {FILES[0]}
    server.replies["STAGE"] = f"{code} Not this one."
    open_archive(server.url).stage(FILES)
    assert server.said("STAGE") == FILES + FILES


def test_impossible_name_does_not_stop_the_others(server: TapeArchive) -> None:
    open_archive(server.url).stage(["run\r\nPWD", *FILES])
    assert server.said("STAGE") == FILES
    assert server.said("PWD") == []


@pytest.mark.parametrize("code", ["500", "502", "504"])
def test_archive_without_tape_is_no_error(server: TapeArchive, code: str) -> None:
    server.replies["STAGE"] = f"{code} Command not understood."
    open_archive(server.url).stage(FILES)
    assert server.said("STAGE") == FILES[:1]


def test_nothing_to_stage_asks_nobody(server: TapeArchive) -> None:
    open_archive(server.url).stage([])
    assert server.connections == 0


@pytest.mark.parametrize("reply", [None, "", "421 Going down."])
def test_archive_that_goes_away(server: TapeArchive, reply: str | None) -> None:
    server.replies["STAGE"] = reply
    with pytest.raises(ArchiveUnavailable, match=r"Archive 127\.0\.0\.1 cannot be reached: "):
        open_archive(server.url, timeout=0.2).stage(FILES)


def test_refused_login(server: TapeArchive, netrc: Path) -> None:
    write_netrc(netrc, "wrong")
    with pytest.raises(ArchiveLoginRefused):
        open_archive(server.url).stage(FILES)
    netrc.unlink()
    with pytest.raises(NetrcError):
        open_archive(server.url).stage(FILES)


@pytest.mark.parametrize("verb", ["SIZE", "RETR"])
@pytest.mark.parametrize("code", ["450", "451"])
def test_each_way_to_say_on_tape(server: TapeArchive, tmp_path: Path, verb: str, code: str) -> None:
    server.on_tape.clear()
    server.replies[verb] = f"{code} Offline."
    with pytest.raises(NotOnDisk, match="Offline"):
        fetch(server, FILES[0], tmp_path)


def test_what_is_on_tape_is_told_in_one_go(server: TapeArchive) -> None:
    archive = open_archive(server.url)
    assert archive.look(FILES) == dict.fromkeys(FILES)  # it tells only when it is to send them
    found = dict(archive.look([*FILES, "run09999.mid"]))
    assert isinstance(found.pop("run09999.mid"), FileMissing)
    server.replies["SIZE"] = "450 Offline."
    found = dict(archive.look(FILES))
    assert [str(trouble) for trouble in found.values()] == [
        f"{file} is still on tape at 127.0.0.1 (450 Offline.)" for file in FILES
    ]
    assert server.connections == 1


def test_trouble_with_one_file_does_not_hide_the_others(server: TapeArchive) -> None:
    odd = "run\r\nPWD"  # no command can hold that: the transfer will tell
    assert open_archive(server.url).look([*FILES[:2], odd]) == dict.fromkeys([*FILES[:2], odd])
    assert server.said("PWD") == []


def test_an_archive_that_goes_down_knows_nothing_of_tapes(server: TapeArchive) -> None:
    server.replies["SIZE"] = "421 Going down."
    with pytest.raises(ArchiveUnavailable):
        open_archive(server.url).look(FILES)
