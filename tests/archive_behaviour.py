"""What every archive must do, whatever its protocol: a class of tests for a real server."""

from __future__ import annotations

import os
import random
import sys
import threading
from pathlib import Path

import pytest
from archive_servers import HOST, Server

from production.errors import ArchiveUnavailable, FileMissing
from production.staging.archive import Archive, open_archive

NAME = "run02091.mid"
SIZE = 24_000_007  # more than what connections hold that nobody reads
SEED = int(os.environ.get("TRANSFER_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
CONTENTS = random.Random(1).randbytes(SIZE)
CUTS = 2


def put(server: Server, contents: bytes = CONTENTS, time: int = 1_500_000_000) -> None:
    """Place a file on the archive, changed at a certain time."""
    path = server.root / NAME
    if contents is CONTENTS and path.exists() and path.stat().st_mtime == time:
        return  # it is there
    path.write_bytes(contents)
    path.chmod(0o644)
    os.utime(path, (time, time))


def fetch(archive: Archive, target: Path, name: str = NAME) -> int:
    """Bring a file."""
    return archive.fetch(name, target, lambda _, __: None, threading.Event()).size


def write_netrc(path: Path, server: Server, password: str = "") -> None:
    """The login for the server; another password makes it a wrong one."""
    path.unlink(missing_ok=True)
    if server.login:
        user, right = server.login
        path.write_text(f"machine {server.host} login {user} password {password or right}\n")
        path.chmod(0o600)


class ArchiveBehaviour:
    """A test module's own class inherits it, beside a fixture ``server`` of scope ``module``."""

    @pytest.fixture(autouse=True)
    def client(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its environment."""
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        write_netrc(tmp_path / "netrc", server)
        put(server)

    def test_a_file_arrives_whole(self, server: Server, target: Path) -> None:
        archive = open_archive(server.url)
        archive.check()
        archive.stage([NAME, "run9.mid"])
        told: list[tuple[int, int | None]] = []
        archive.fetch(NAME, target, lambda *now: told.append(now), threading.Event())
        assert target.read_bytes() == CONTENTS
        assert told[0] == (0, SIZE)
        assert told[-1] == (SIZE, SIZE)
        (server.root / "empty").write_bytes(b"")
        (server.root / "empty").chmod(0o644)
        assert fetch(archive, target.with_name("empty"), "empty") == 0
        assert sorted(path.name for path in target.parent.iterdir()) == ["empty", NAME]

    def test_it_goes_on_where_it_was_cut_at_random_bytes(
        self, server: Server, target: Path
    ) -> None:
        sys.stdout.write(f"TRANSFER_SEED={SEED}\n")
        cuts = sorted(random.Random(SEED).sample(range(1, SIZE * 3 // 5), CUTS))
        told: list[int] = []

        def progress(done: int, _: int | None) -> None:
            told.append(done)
            if cuts and done >= cuts[0]:
                while cuts and done >= cuts[0]:
                    cuts.pop(0)
                server.cut()

        open_archive(server.url).fetch(NAME, target, progress, threading.Event())
        assert target.read_bytes() == CONTENTS
        assert told == sorted(told)  # never again from the start
        assert len(told) > len(set(told))  # but anew

    def test_a_server_that_is_killed_in_the_middle_costs_nothing(
        self, server: Server, target: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        archive = open_archive(server.url)
        killed: list[int] = []
        self.fetch_and_kill(archive, server, target, killed)
        server.start()
        told: list[int] = []
        archive.fetch(NAME, target, lambda done, _: told.append(done), threading.Event())
        assert told[0] >= killed[0]
        assert target.read_bytes() == CONTENTS
        assert capfd.readouterr().err == ""

    def test_a_file_that_changes_between_two_tries_comes_from_the_start(
        self, server: Server, target: Path
    ) -> None:
        archive = open_archive(server.url)
        self.fetch_and_kill(archive, server, target, [])
        changed = random.Random(2).randbytes(SIZE)
        put(server, changed, 1_500_000_100)
        server.start()
        told: list[int] = []
        archive.fetch(NAME, target, lambda done, _: told.append(done), threading.Event())
        assert told[0] == 0
        assert target.read_bytes() == changed

    def test_a_file_that_is_not_there_is_missing(self, server: Server, target: Path) -> None:
        archive = open_archive(server.url)
        with pytest.raises(FileMissing, match=rf"run9\.mid is not on the archive {HOST}"):
            fetch(archive, target, "run9.mid")
        assert fetch(archive, target) == SIZE  # the others are not held up
        assert [path.name for path in target.parent.iterdir()] == [NAME]

    def fetch_and_kill(
        self, archive: Archive, server: Server, target: Path, killed: list[int]
    ) -> None:
        """Have the server die when a third has come."""

        def progress(done: int, _: int | None) -> None:
            if done > SIZE // 3 and not killed:
                server.kill()
                killed.append(done)

        with pytest.raises(ArchiveUnavailable):
            archive.fetch(NAME, target, progress, threading.Event())
        assert not target.exists()
