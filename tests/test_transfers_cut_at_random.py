"""Transfers from real servers over lines that are cut at random bytes, or stand still."""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from archive_behaviour import NAME, put, write_netrc
from archive_servers import HOST, Kind, Server, free_port, nginx, openssh, running, xrootd
from archive_servers import vsftpd as any_vsftpd
from cutter import Cutter, cutting
from network.needs import NoFilesystemError

from production.errors import ArchiveUnavailable, TransferFailed
from production.staging.archive import open_archive

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("TRANSFER_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
TRANSFERS = 40  # of each protocol
SIZE = 3_000_017
HELLO = 4_000  # bytes in which a server has hardly begun to send
LINE = "127.0.0.2"  # where clients believe the servers to be
DATA = 8  # ports for FTP's data


def vsftpd(base: Path, *, secure: bool = False) -> Server:
    """One whose data come over known ports."""
    first = free_port(DATA)
    more = f"pasv_min_port={first}\npasv_max_port={first + DATA - 1}\n"
    server = any_vsftpd(base, secure=secure, more=more)
    server.passive = range(first, first + DATA)
    return server


KINDS: dict[str, Kind | None] = {
    "ftp": vsftpd,
    "ftps": partial(vsftpd, secure=True),
    "sftp": None,
    "https": nginx,
    "root": xrootd,
}


@pytest.fixture(params=KINDS)
def line(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Path, Cutter]]:
    """The archive's URL and directory, and what is between."""
    kind = KINDS[request.param]
    (tmp_path / "server").mkdir()
    with ExitStack() as opened:
        try:
            base = tmp_path / "server"
            server = opened.enter_context(running(kind, base) if kind else openssh(base))
        except NoFilesystemError as reason:
            pytest.skip(str(reason))
        port = free_port()
        ports = {port: server.port, **{number: number for number in server.passive}}
        cutter = opened.enter_context(cutting(LINE, ports, SEED))
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        url = server.url.replace(f"{HOST}:{server.port}", f"{LINE}:{port}")
        assert url != server.url
        if server.home != Path():
            known = server.home / ".ssh" / "known_hosts"
            known.write_text(
                known.read_text().replace(f"[{HOST}]:{server.port}", f"[{LINE}]:{port}")
            )
        server.host = LINE
        write_netrc(tmp_path / "netrc", server)
        put(server, random.Random(SEED).randbytes(SIZE))
        yield url, server.root, cutter


def test_two_hundred_transfers_cut_at_random_bytes(
    line: tuple[str, Path, Cutter], tmp_path: Path
) -> None:
    """Forty of each of five protocols; wherever it is cut, also while they shake hands."""
    sys.stdout.write(f"TRANSFER_SEED={SEED}\n")
    url, root, cutter = line
    chance = random.Random(SEED)
    contents = (root / NAME).read_bytes()
    (tmp_path / "raw").mkdir()
    target = tmp_path / "raw" / NAME
    archive = open_archive(url, 20.0)
    told: list[int] = []

    def progress(done: int, _: int | None) -> None:
        told.append(done)
        assert not target.exists()

    for _ in range(TRANSFERS):
        cutter.cuts = [chance.randrange(chance.choice([HELLO, SIZE, SIZE]))]
        while not target.exists():
            try:
                archive.fetch(NAME, target, progress, threading.Event())
            except (ArchiveUnavailable, TransferFailed):
                assert not target.exists()
        assert target.read_bytes() == contents
        assert [path.name for path in target.parent.iterdir()] == [NAME]
        target.unlink()
    assert cutter.made >= TRANSFERS
    again = [now for before, now in itertools.pairwise(told) if now == before]
    assert any(again)  # it went on in the middle


@pytest.mark.parametrize("line", ["sftp", "root"], indirect=True)
@pytest.mark.parametrize("after", [0, SIZE // 2])
def test_what_stands_still_is_not_waited_for(
    line: tuple[str, Path, Cutter], tmp_path: Path, after: int
) -> None:
    url, root, cutter = line
    target = tmp_path / NAME
    cutter.hold(after)
    with pytest.raises((ArchiveUnavailable, TransferFailed)):
        open_archive(url, 1.0).fetch(NAME, target, lambda _, __: None, threading.Event())
    assert not target.exists()
    cutter.let_go()
    open_archive(url, 20.0).fetch(NAME, target, lambda _, __: None, threading.Event())
    assert target.read_bytes() == (root / NAME).read_bytes()
