"""Input files over SFTP, from a real OpenSSH server."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from archive_behaviour import fetch
from network.needs import NoFilesystemError
from ssh_server import USER, SshServer, ssh_server

from production.errors import (
    ArchiveUnavailable,
    FileMissing,
    KeyLoginRefused,
    NoSpaceLeft,
    TransferFailed,
    TransferStopped,
)
from production.staging import sftp_reader
from production.staging.archive import Archive, Arrived, open_archive

pytestmark = pytest.mark.slow

NAME = "run02091.mid"
SIZE = 20_000_003
CONTENTS = random.Random(1).randbytes(SIZE)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    try:
        with ssh_server(tmp_path_factory.mktemp("ssh")) as server:
            (server.base / "archive").mkdir()
            (server.base / "archive" / NAME).write_bytes(CONTENTS)
            yield server
    except NoFilesystemError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def server(running: SshServer, monkeypatch: pytest.MonkeyPatch) -> SshServer:
    monkeypatch.setenv("HOME", str(running.home))
    monkeypatch.setenv("NETRC", str(running.home / "netrc"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    running.write_known_hosts(running.base / "host_key.pub")
    (running.home / ".ssh" / "config").unlink(missing_ok=True)
    return running


def archive_of(server: SshServer, timeout: float = 20.0) -> Archive:
    return open_archive(f"{server.url}{server.base}/archive", timeout)


def test_a_file_arrives_and_progress_is_told(server: SshServer, target: Path) -> None:
    told: list[tuple[int, int | None]] = []
    archive = archive_of(server)
    archive.check()
    archive.stage([NAME])
    came = archive.fetch(NAME, target, lambda *now: told.append(now), threading.Event())
    assert came == Arrived(SIZE)
    assert target.read_bytes() == CONTENTS
    assert told[0] == (0, SIZE)
    assert told[-1] == (SIZE, SIZE)
    assert [path.name for path in target.parent.iterdir()] == [NAME]


def test_a_transfer_that_breaks_off_here_is_no_harm_to_the_next(
    server: SshServer, target: Path
) -> None:
    def full(done: int, _: int | None) -> None:
        if done > 300_000:
            raise OSError(28, "No space left on device")

    archive = archive_of(server)
    with pytest.raises(NoSpaceLeft):
        archive.fetch(NAME, target, full, threading.Event())
    assert not list(target.parent.iterdir())
    assert fetch(archive, target) == SIZE
    assert target.read_bytes() == CONTENTS


@pytest.mark.parametrize("most", [5_000, 30_000, 100_000, 10_000_000])
def test_a_server_may_send_less_at_once_than_it_is_asked_for(
    server: SshServer, target: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """OpenSSH itself does with the largest; else an answer is cut here."""
    size = min(SIZE, 200 * most)
    (server.base / "archive" / "cut").write_bytes(CONTENTS[:size])
    asked: set[int] = set()
    client: Any = paramiko.SFTPClient
    request = client._async_request

    def less(self: paramiko.SFTPClient, reader: Any, kind: int, *arguments: Any) -> Any:
        if kind == paramiko.sftp.CMD_READ:
            handle, offset, length = arguments
            asked.add(length)
            arguments = (handle, offset, min(length, most))
        return request(self, reader, kind, *arguments)

    monkeypatch.setattr(sftp_reader, "_REQUEST", max(sftp_reader._REQUEST, most))
    monkeypatch.setattr(client, "_async_request", less)
    archive = archive_of(server)
    for _ in range(2):
        assert fetch(archive, target, "cut") == size
        assert target.read_bytes() == CONTENTS[:size]
    assert most in asked or not 16 * 1024 < most < 10_000_000  # it has learnt


def test_what_is_not_there_is_told(server: SshServer, target: Path) -> None:
    archive = archive_of(server)
    with pytest.raises(FileMissing, match=r"run9\.mid is not on the archive 127\.0\.0\.1"):
        fetch(archive, target, "run9.mid")
    with pytest.raises(TransferFailed, match="it is not a file"):
        fetch(archive, target, ".")
    with pytest.raises(ArchiveUnavailable, match="directory /nowhere: No such file"):
        fetch(open_archive(f"{server.url}nowhere"), target)
    assert [*target.parent.iterdir()] == []


def test_a_directory_that_is_a_file_is_told(server: SshServer, target: Path) -> None:
    with pytest.raises(ArchiveUnavailable, match=f"directory .*{NAME}: Not a directory: /"):
        fetch(open_archive(f"{server.url}{server.base}/archive/{NAME}"), target)


def test_an_account_that_prints_when_somebody_logs_in_is_told(
    server: SshServer, target: Path
) -> None:
    keys = server.base / "authorized_keys"
    before = keys.read_text()
    keys.write_text(f'command="echo Welcome to the archive" {before}')
    try:
        with pytest.raises(ArchiveUnavailable, match="SFTP: Garbage packet received"):
            fetch(archive_of(server), target)
    finally:
        keys.write_text(before)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"Match final all\n  Port 22\n", "mixed"),
        (b"Host archive\n  User \xfc\n", "can't decode"),
        (b'Host "archive\n', "Unparsable host"),
        (b"Host *\n  Port ssh\n", "'ssh'"),
    ],
)
def test_a_configuration_of_ssh_that_cannot_be_read_is_told(
    server: SshServer, target: Path, text: bytes, what: str
) -> None:
    (server.home / ".ssh" / "config").write_bytes(text)
    with pytest.raises(ArchiveUnavailable, match=rf"reached: ~/\.ssh/config: .*{what}"):
        fetch(open_archive("sftp://archive/"), target)


def test_a_damaged_line_among_the_known_hosts_is_told(server: SshServer, target: Path) -> None:
    with (server.home / ".ssh" / "known_hosts").open("a") as known:
        known.write("other ssh-ed25519 AAAAC3NzaC1\n")
    with pytest.raises(ArchiveUnavailable, match="a damaged line among the known hosts: other ssh"):
        fetch(archive_of(server), target)


def test_whatever_a_library_raises_when_a_connection_is_made_is_trouble_of_its_archive(
    server: SshServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anything else would end a manager and with it all its jobs."""

    def surprise(*_: object) -> None:
        raise RuntimeError("nobody has thought of this")

    monkeypatch.setattr(paramiko.SSHClient, "load_system_host_keys", surprise)
    with pytest.raises(ArchiveUnavailable, match="RuntimeError: nobody has thought of this"):
        fetch(archive_of(server), target)


def test_a_host_that_is_not_known_is_not_trusted(server: SshServer, target: Path) -> None:
    (server.home / ".ssh" / "known_hosts").unlink()
    with pytest.raises(
        ArchiveUnavailable, match=r"not known\. Connect once by hand: ssh -p \d+ 127"
    ):
        fetch(archive_of(server), target)
    assert not (server.home / ".ssh" / "known_hosts").exists()


def test_a_host_with_another_key_is_not_trusted(server: SshServer, target: Path) -> None:
    server.write_known_hosts(server.home / ".ssh" / "id_ed25519.pub")
    with pytest.raises(ArchiveUnavailable, match="its host key is not the one that is known"):
        fetch(archive_of(server), target)


def test_a_login_that_is_refused_says_what_to_do(
    server: SshServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = server.home / ".ssh" / "config"
    config.write_text(f"Host *\n  IdentityFile {server.base}/host_key\n  IdentitiesOnly yes\n")
    with pytest.raises(KeyLoginRefused, match=r"Check your keys and its name: ssh 127\.0\.0\.1"):
        fetch(archive_of(server), target)
    monkeypatch.setenv("HOME", str(server.base))  # nothing there, so the password would be tried
    (server.base / ".ssh").mkdir(exist_ok=True)
    known = (server.home / ".ssh" / "known_hosts").read_text()
    (server.base / ".ssh" / "known_hosts").write_text(known)
    netrc = server.home / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password secret-word-17\n")
    netrc.chmod(0o600)
    with pytest.raises(KeyLoginRefused) as refused:
        fetch(archive_of(server), target)
    netrc.unlink()
    assert "secret-word-17" not in str(refused.value)


def test_the_way_leads_over_other_hosts_as_in_the_configuration_of_ssh(
    server: SshServer, target: Path
) -> None:
    config = server.home / ".ssh" / "config"
    config.write_text(
        f"Host archive\n  HostName 127.0.0.1\n  Port {server.port}\n  ProxyJump gate\n"
        f"Host gate\n  HostName 127.0.0.1\n  Port {server.port}\n  User {USER}\n"
    )
    assert fetch(open_archive(f"sftp://archive/{server.base}/archive"), target) == SIZE
    assert target.read_bytes() == CONTENTS


def test_jumps_in_a_circle_end(server: SshServer, target: Path) -> None:
    config = server.home / ".ssh" / "config"
    config.write_text("Host one\n  ProxyJump two\nHost two\n  ProxyJump one\n")
    with pytest.raises(ArchiveUnavailable, match="ProxyJump leads in a circle"):
        fetch(open_archive("sftp://one/"), target)


def test_a_server_that_is_killed_in_the_middle_costs_nothing(
    server: SshServer, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    archive = archive_of(server)
    killed: list[int] = []

    def kill(done: int, _: int | None) -> None:
        if done > SIZE // 3 and not killed:
            server.kill()
            killed.append(done)

    with pytest.raises(ArchiveUnavailable):
        archive.fetch(NAME, target, kill, threading.Event())
    assert not target.exists()
    server.start()
    told: list[int] = []
    archive.fetch(NAME, target, lambda done, _: told.append(done), threading.Event())
    assert told[0] >= killed[0]
    assert target.read_bytes() == CONTENTS
    assert capfd.readouterr().err == ""


def test_stop_ends_a_transfer(server: SshServer, target: Path) -> None:
    stop = threading.Event()
    with pytest.raises(TransferStopped):
        archive_of(server).fetch(NAME, target, lambda _, __: stop.set(), stop)
    assert [*target.parent.iterdir()] == []


def test_nobody_listens(server: SshServer, target: Path) -> None:
    with pytest.raises(ArchiveUnavailable, match="port 1: "):
        fetch(open_archive("sftp://127.0.0.1:1/"), target)
