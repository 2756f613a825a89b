"""Transfers that are cut go on where they were; what arrives is the file, byte for byte."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ftp_server import TapeArchive, tape_archive, write_netrc

from production.errors import ArchiveUnavailable, TransferFailed
from production.staging.archive import Archive, open_archive

NAME = "run02091.mid"
SIZE = 2_000_003
SEED = int(os.environ.get("TRANSFER_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
TRANSFERS = 200


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TapeArchive]:
    monkeypatch.setenv("NETRC", str(write_netrc(tmp_path / "netrc")))
    with tape_archive(tmp_path / "archive") as server:
        put(server, SEED)
        yield server


def put(server: TapeArchive, seed: int, time: int = 1_500_000_000) -> bytes:
    """Place a file with new contents on the archive, changed at a certain time."""
    contents = random.Random(seed).randbytes(SIZE)
    (server.root / NAME).write_bytes(contents)
    os.utime(server.root / NAME, (time, time))
    return contents


def contents(server: TapeArchive) -> bytes:
    return (server.root / NAME).read_bytes()


def fetch(archive: Archive, target: Path) -> list[int]:
    """Bring the file; what progress told."""
    told: list[int] = []
    archive.fetch(NAME, target, lambda done, _: told.append(done), threading.Event())
    return told


def test_it_goes_on_where_it_was_cut(server: TapeArchive, target: Path) -> None:
    server.cuts = [300_000, 300_001, 1_900_000]
    told = fetch(open_archive(server.url), target)
    assert target.read_bytes() == contents(server)
    assert server.said("REST") == ["300000", "300001", "1900000"]
    assert told == sorted(told)  # never again from the start


@pytest.mark.slow
def test_two_hundred_transfers_cut_at_random_bytes(server: TapeArchive, target: Path) -> None:
    sys.stdout.write(f"TRANSFER_SEED={SEED}\n")
    chance = random.Random(SEED)
    archive = open_archive(server.url)
    for _ in range(TRANSFERS):
        server.cuts = sorted(chance.sample(range(1, SIZE), chance.randrange(1, 5)))
        fetch(archive, target)
        assert target.read_bytes() == contents(server)
        assert [path.name for path in target.parent.iterdir()] == [NAME]
        target.unlink()
    assert len(server.said("REST")) >= TRANSFERS


def test_a_file_that_has_changed_is_brought_from_the_start(
    server: TapeArchive, target: Path
) -> None:
    server.fault, server.fault_after = "stalls", 300_000
    archive = open_archive(server.url, timeout=0.3)
    with pytest.raises(ArchiveUnavailable):
        fetch(archive, target)
    server.come_back()
    put(server, SEED + 1, 1_500_000_001)
    fetch(archive, target)
    assert target.read_bytes() == contents(server)
    assert server.said("REST") == []


def test_what_had_come_before_the_archive_went_down_is_kept(
    server: TapeArchive, target: Path
) -> None:
    server.fault, server.fault_after = "stalls", 300_000
    archive = open_archive(server.url, timeout=0.3)
    with pytest.raises(ArchiveUnavailable):
        fetch(archive, target)
    assert not target.exists()
    server.come_back()
    assert fetch(archive, target)[0] == 300_000
    assert target.read_bytes() == contents(server)


def test_a_part_of_which_nothing_is_known_is_not_trusted(server: TapeArchive, target: Path) -> None:
    target.with_name(f"{NAME}.part").write_bytes(b"x" * 300_000)
    fetch(open_archive(server.url), target)
    assert target.read_bytes() == contents(server)
    assert server.said("REST") == []


def test_where_the_file_cannot_be_known_to_be_the_same_it_comes_from_the_start(
    server: TapeArchive, target: Path
) -> None:
    server.replies["MDTM"] = "502 Command not implemented."
    server.cuts = [300_000]
    told = fetch(open_archive(server.url), target)
    assert target.read_bytes() == contents(server)
    assert server.said("REST") == []
    assert told.count(0) == 2


def test_where_it_cannot_go_on_in_the_middle_it_comes_from_the_start(
    server: TapeArchive, target: Path
) -> None:
    server.replies["REST"] = "502 Command not implemented."
    server.cuts = [300_000]
    fetch(open_archive(server.url), target)
    assert target.read_bytes() == contents(server)


def test_where_what_was_kept_cannot_be_gone_on_with_it_comes_from_the_start(
    server: TapeArchive, target: Path
) -> None:
    server.fault, server.fault_after = "stalls", 300_000
    archive = open_archive(server.url, timeout=0.3)
    with pytest.raises(ArchiveUnavailable):
        fetch(archive, target)
    server.come_back()
    server.replies["REST"] = "502 Command not implemented."
    fetch(archive, target)
    assert target.read_bytes() == contents(server)


def test_what_is_cut_without_end_at_the_same_byte_fails(server: TapeArchive, target: Path) -> None:
    server.fault, server.fault_after = "cuts", 300_000
    with pytest.raises(TransferFailed, match="was closed"):
        fetch(open_archive(server.url), target)
    assert [*target.parent.iterdir()] == []
    assert server.connections == 4


def test_connections_are_kept(server: TapeArchive, target: Path) -> None:
    archive = open_archive(server.url)
    for _ in range(5):
        archive.stage([NAME])
        fetch(archive, target)
    assert server.connections == 1


def test_a_connection_that_was_closed_meanwhile_is_made_anew(
    server: TapeArchive, target: Path
) -> None:
    archive = open_archive(server.url)
    fetch(archive, target)
    server.hang_up()
    fetch(archive, target)
    assert server.connections == 2


def test_a_kept_connection_is_not_stopped_with_the_transfer_that_used_it(
    server: TapeArchive, target: Path
) -> None:
    archive = open_archive(server.url)
    stop = threading.Event()
    archive.fetch(NAME, target, lambda _, __: None, stop)
    stop.set()
    fetch(archive, target)
    assert server.connections == 1
