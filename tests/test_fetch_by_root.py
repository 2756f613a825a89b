"""Input files from a real XRootD server."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from archive_behaviour import CONTENTS, NAME, SIZE, ArchiveBehaviour, fetch, put
from archive_servers import Kind, Server, running, xrootd
from network.needs import NoFilesystemError

from production.errors import (
    ArchiveUnavailable,
    ChecksumMissing,
    ChecksumWrong,
    ConfigurationError,
    RootLoginRefused,
    TransferFailed,
)
from production.staging.archive import open_archive

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("XRootD", reason="the package xrootd is not installed")
    try:
        with running(xrootd, tmp_path_factory.mktemp("xrootd")) as server:
            yield server
    except NoFilesystemError as reason:
        pytest.skip(str(reason))


class TestXrootd(ArchiveBehaviour):
    def test_a_directory_is_not_a_file(self, server: Server, target: Path) -> None:
        (server.root / "directory").mkdir()
        with pytest.raises(TransferFailed, match="it is not a file"):
            fetch(open_archive(server.url), target, "directory")

    def test_its_checksums_are_compared(self, server: Server, target: Path) -> None:
        from production.staging.root import RootDoor

        session = RootDoor(server.host, server.port, "", 30.0).open(lambda: None)
        assert "adler32" in session.checksums()
        assert int(session.checksum(NAME, "adler32"), 16) == zlib.adler32(CONTENTS)
        assert fetch(open_archive(server.url, checksums="require"), target) == SIZE

    def test_a_file_beside_it_is_compared(self, server: Server, target: Path) -> None:
        beside = server.root / f"{NAME}.md5"
        beside.write_text(f"{'0' * 32}  {NAME}\n")
        try:
            with pytest.raises(ChecksumWrong, match=rf"its md5 is \w+, {NAME}\.md5 says 000"):
                fetch(open_archive(server.url, checksums="auto"), target)
        finally:
            beside.unlink()
        assert [*target.parent.iterdir()] == []

    def test_directories_are_listed(self, server: Server) -> None:
        (server.root / "sub").mkdir(exist_ok=True)
        for name in ("run1sub1.mid", "run1sub2.mid", "run2.mid"):
            (server.root / "sub" / name).touch()
        archive = open_archive(server.url)
        assert sorted(archive.names("sub/run1sub*.mid")) == ["sub/run1sub1.mid", "sub/run1sub2.mid"]
        assert archive.names("nowhere/run*.mid") == []

    def test_nobody_listens(self, server: Server, target: Path) -> None:
        with pytest.raises(ArchiveUnavailable, match="Connection error"):
            fetch(open_archive("root://127.0.0.1:1//"), target)


def wanting_keys(base: Path) -> Server:
    """A server that asks for a shared secret, which its clients do not have."""
    keys = base / "keys"
    keys.write_text(f"0 u:anybody g:usrgroup n:test N:1 c:1795274482 e:0 f:0 k:{'5a' * 32}\n")
    keys.chmod(0o600)
    os.chown(keys, 65534, 65534)
    return xrootd(base, more="xrootd.seclib libXrdSec.so\nsec.protocol sss -s /mnt/keys\n")


def test_a_refused_login_is_told(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    try:
        with running(wanting_keys, tmp_path / "server") as server:
            put(server)
            with pytest.raises(RootLoginRefused, match=r"Auth failed.* by hand: xrdfs 127"):
                fetch(open_archive(server.url), tmp_path / NAME)
    except NoFilesystemError as reason:
        pytest.skip(str(reason))


def lying(base: Path) -> Server:
    """A server that has a program of the laboratory's compute checksums, which is wrong."""
    program = base / "sum"
    program.write_text("#!/bin/sh\necho a1b2c3\n")
    program.chmod(0o755)
    return xrootd(base, sums="max 2 adler32 /mnt/sum")


def silent(base: Path) -> Server:
    """A server that computes none."""
    return xrootd(base, sums="")


@pytest.mark.parametrize(
    ("kind", "mode", "error", "said"),
    [
        (lying, "auto", ChecksumWrong, r"its adler32 is \w+, the server says 00a1b2c3"),
        (lying, "off", None, ""),
        (silent, "require", ChecksumMissing, "has no checksum at 127"),
        (silent, "auto", None, ""),
    ],
)
def test_what_the_server_says_of_a_checksum_counts(
    tmp_path: Path, kind: Kind, mode: str, error: type[Exception] | None, said: str
) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "raw").mkdir()
    target = tmp_path / "raw" / NAME
    try:
        with running(kind, tmp_path / "server") as server:
            put(server)
            archive = open_archive(server.url, checksums=mode)
            if error is None:
                assert fetch(archive, target) == SIZE
            else:
                with pytest.raises(error, match=said):
                    fetch(archive, target)
                assert [*target.parent.iterdir()] == []
    except NoFilesystemError as reason:
        pytest.skip(str(reason))


def test_without_the_library_it_says_which_extra_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "XRootD", None)
    monkeypatch.delitem(sys.modules, "production.staging.root", raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install 'production-manager\[root\]'"):
        open_archive("root://archive.example.org//mu2e")
