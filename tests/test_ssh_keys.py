"""Keys for archives that are reached by SSH: those with a passphrase, too, and nobody is asked."""

from __future__ import annotations

import base64
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paramiko
import pexpect
import pytest
from job_orders import until
from network.needs import NoFilesystemError
from ssh_server import USER, SshServer, ssh_server

from production.errors import ArchiveUnavailable, KeyLocked, KeyLoginRefused
from production.staging import ssh_login
from production.staging.archive import open_archive

pytestmark = pytest.mark.slow

NAME = "run02091.mid"
PASSPHRASE = "strange-quark-17"

FETCH = """\
import sys, threading
from pathlib import Path
from production.errors import ProductionError
from production.staging.archive import open_archive
try:
    open_archive(sys.argv[1], 20.0).fetch(
        "run02091.mid", Path(sys.argv[2]), lambda *_: None, threading.Event()
    )
except ProductionError as error:
    print("TOLD:", " ".join(str(error).split()))
"""

FORWARD = """\
import os, socket, sys, threading
there = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def back():
    while data := there.recv(65536):
        os.write(1, data)
    os._exit(0)
threading.Thread(target=back).start()
while data := os.read(0, 65536):
    there.sendall(data)
os._exit(0)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    try:
        with ssh_server(tmp_path_factory.mktemp("ssh")) as server:
            (server.base / NAME).write_bytes(b"a run")
            yield server
    except NoFilesystemError as reason:
        pytest.skip(str(reason))


class Person:
    """A home directory of a test's own, with no key yet."""

    def __init__(self, server: SshServer, home: Path) -> None:
        self.server = server
        self.ssh = home / ".ssh"
        self.ssh.mkdir(parents=True, mode=0o700)
        known = (server.home / ".ssh" / "known_hosts").read_text()
        (self.ssh / "known_hosts").write_text(known)
        self.url = f"{server.url}{server.base}"

    def make_key(
        self, name: str, *how: str, passphrase: str = PASSPHRASE, good: bool = True
    ) -> Path:
        """A new one, which the server accepts if it is ``good``."""
        path = self.ssh / name
        kind = how or ("-t", "ed25519")
        argv = ["ssh-keygen", "-q", "-a", "1", *kind, "-N", passphrase, "-f", str(path)]
        subprocess.run(argv, check=True)
        if good:
            with (self.server.base / "authorized_keys").open("a") as keys:
                keys.write(path.with_name(f"{name}.pub").read_text())
        return path

    def fetch(self, target: Path, url: str = "") -> bytes:
        """A file from the server."""
        archive = open_archive(url or self.url, 20.0)
        archive.fetch(NAME, target, lambda _, __: None, threading.Event())
        return target.read_bytes()


@pytest.fixture
def me(server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Person:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return Person(server, tmp_path / "home")


def listens(where: Path) -> bool:
    """Whether somebody does; the socket is there a moment before."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(where)) == 0


@contextmanager
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *keys: Path) -> Iterator[None]:
    """A real one, which has the keys."""
    where = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", where], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(where))
    says = tmp_path / "says"
    says.write_text(f"#!/bin/sh\necho {PASSPHRASE}\n")
    says.chmod(0o700)
    try:
        until(lambda: listens(where))
        for key in keys:
            asking = {"SSH_ASKPASS": str(says), "SSH_ASKPASS_REQUIRE": "force"}
            subprocess.run(["ssh-add", "-q", key], env={**os.environ, **asking}, check=True)
        yield
    finally:
        process.kill()
        process.wait()
        where.unlink(missing_ok=True)


KINDS = [("-t", "ed25519"), ("-t", "ecdsa"), ("-t", "rsa", "-b", "2048", "-m", "PEM")]


@pytest.mark.parametrize("how", KINDS, ids=["ed25519", "ecdsa", "rsa"])
def test_a_key_with_a_passphrase_serves_when_the_agent_has_it(
    me: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: tuple[str, ...]
) -> None:
    key = me.make_key(f"id_{how[1]}", *how)
    with pytest.raises(KeyLocked) as locked:
        me.fetch(tmp_path / NAME)
    assert "the SSH agent is not there ($SSH_AUTH_SOCK)" in str(locked.value)
    assert str(locked.value).endswith(f"ssh-add {key}")
    missing = r"has a passphrase.* the SSH agent does not have it\."
    with agent(tmp_path, monkeypatch), pytest.raises(KeyLocked, match=missing):
        me.fetch(tmp_path / NAME)
    with agent(tmp_path, monkeypatch, key):
        assert me.fetch(tmp_path / NAME) == b"a run"


@pytest.mark.parametrize("beside", [True, False])
def test_of_many_keys_the_agent_shows_the_one_that_the_configuration_names(
    me: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    """sshd hangs up after six."""
    others = [me.make_key(f"other{number}", passphrase="", good=False) for number in range(8)]
    key = me.make_key("archive")
    if not beside:
        (me.ssh / "archive.pub").unlink()
    with agent(tmp_path, monkeypatch, *others, key):
        with pytest.raises(ArchiveUnavailable):
            me.fetch(tmp_path / NAME)
        for more in ("", "\n  IdentitiesOnly yes"):
            (me.ssh / "config").write_text(f"Host *\n  IdentityFile {key}{more}\n")
            assert me.fetch(tmp_path / NAME) == b"a run"
        (me.ssh / "config").write_text(
            f"Host *\n  IdentityFile {others[0]}\n  IdentitiesOnly yes\n"
        )
        with pytest.raises(KeyLoginRefused, match="Check your keys"):
            me.fetch(tmp_path / NAME)


def test_what_is_not_there_or_no_key_is_passed_over(
    me: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = me.make_key("archive")
    (me.ssh / "rubbish").write_text("no key")
    (me.ssh / "config").write_text(
        f"Host *\n  IdentityFile ~/.ssh/nowhere\n  IdentityFile {me.ssh}/rubbish\n"
        f"  IdentityFile {key}.pub\n  IdentitiesOnly yes\n"
    )
    with pytest.raises(KeyLoginRefused, match="no key that can be used here"):
        me.fetch(tmp_path / NAME)
    with agent(tmp_path, monkeypatch, key):
        assert me.fetch(tmp_path / NAME) == b"a run"


def key_in_a_token() -> str:
    """What ssh-keygen writes for a FIDO token: the key itself never leaves that."""

    def text(content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + content

    public = text(b"sk-ssh-ed25519@openssh.com") + text(bytes(32)) + text(b"ssh:")
    private = bytes(8) + public + b"\1" + text(b"handle") + text(b"") + text(b"comment")
    private += bytes(range(1, 1 + -len(private) % 8))
    blob = b"openssh-key-v1\0" + text(b"none") + text(b"none") + text(b"") + struct.pack(">I", 1)
    written = base64.encodebytes(blob + text(public) + text(private)).decode()
    kind = "OPENSSH PRIVATE KEY"  # the checkout has no line that looks like a key
    return f"-----BEGIN {kind}-----\n{written}-----END {kind}-----\n"


def test_a_key_in_a_token_is_passed_over(me: Person, tmp_path: Path) -> None:
    (me.ssh / "token").write_text(key_in_a_token())
    config = f"Host *\n  IdentityFile {me.ssh}/token\n"
    (me.ssh / "config").write_text(config)
    with pytest.raises(KeyLoginRefused, match="token: no key that can be used here"):
        me.fetch(tmp_path / NAME)
    key = me.make_key("archive", passphrase="")
    (me.ssh / "config").write_text(f"{config}  IdentityFile {key}\n")
    assert me.fetch(tmp_path / NAME) == b"a run"


def test_without_any_key_it_is_said(me: Person, tmp_path: Path) -> None:
    with pytest.raises(KeyLoginRefused, match="there is neither a key nor a password"):
        me.fetch(tmp_path / NAME)


def test_an_agent_that_says_nothing_is_not_waited_for(
    me: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "silent"))
        listener.listen(10)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "silent"))
        monkeypatch.setattr(ssh_login, "_PATIENCE", 0.3)
        with pytest.raises(KeyLoginRefused, match="the SSH agent does not answer"):
            me.fetch(tmp_path / NAME)
        me.make_key("id_ed25519", passphrase="")
        assert me.fetch(tmp_path / NAME) == b"a run"


@pytest.mark.parametrize("way", ["directly", "ProxyJump", "ProxyCommand"])
def test_nobody_is_asked_at_the_terminal(me: Person, tmp_path: Path, way: str) -> None:
    key = me.make_key("id_ed25519")
    where = f"  HostName 127.0.0.1\n  Port {me.server.port}\n"
    over = {
        "ProxyJump": "  ProxyJump gate\n",
        "ProxyCommand": f"  ProxyCommand ssh -F {me.ssh}/config -i {key} -W %h:%p gate\n"
        f"  UserKnownHostsFile {me.ssh}/known_hosts\n",
    }
    (me.ssh / "config").write_text(
        f"Host archive\n{where}{over.get(way, '')}Host gate\n{where}"
        f"  UserKnownHostsFile {me.ssh}/known_hosts\n"
    )
    url = f"sftp://archive/{me.server.base}"
    # Not in our own terminal but in one of its own, where ssh would ask.
    arguments = ["-c", FETCH, url, str(tmp_path / NAME)]
    child = pexpect.spawn(sys.executable, arguments, encoding="utf-8", timeout=60)
    child.expect(pexpect.EOF)
    child.close()
    said = child.before
    assert child.exitstatus == 0, said
    assert "nter passphrase" not in said
    assert "TOLD: " in said
    if way != "ProxyCommand":  # of that one nobody knows what it wants
        assert f"ssh-add {key}" in " ".join(said.split())


def test_the_way_there_may_name_its_user(me: Person, tmp_path: Path) -> None:
    me.make_key("id_ed25519", passphrase="")
    where = f"  HostName 127.0.0.1\n  Port {me.server.port}\n"
    (me.ssh / "config").write_text(
        f"Host archive\n{where}  ProxyJump {USER}@gate\nHost gate\n{where}  User nobody-here\n"
    )
    url = f"sftp://archive/{me.server.base}"
    assert me.fetch(tmp_path / NAME, url=url) == b"a run"


def test_each_of_several_jumps_goes_over_the_one_before(
    me: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    me.make_key("id_ed25519", passphrase="")
    where = f"  HostName 127.0.0.1\n  Port {me.server.port}\n"
    (me.ssh / "config").write_text(
        f"Host archive\n{where}  ProxyJump first,second\nHost first second\n{where}"
    )
    seen: list[paramiko.Transport] = []
    open_channel = paramiko.Transport.open_channel

    def opening(self: paramiko.Transport, kind: str, *more: Any, **options: Any) -> Any:
        if kind == "direct-tcpip":
            seen.append(self)
        return open_channel(self, kind, *more, **options)

    monkeypatch.setattr(paramiko.Transport, "open_channel", opening)
    assert me.fetch(tmp_path / NAME, f"sftp://archive/{me.server.base}") == b"a run"
    first, second = seen
    assert isinstance(first.sock, socket.socket)
    assert isinstance(second.sock, paramiko.Channel)
    assert second.sock.get_transport() is first


def test_a_command_may_lead_there(me: Person, tmp_path: Path) -> None:
    me.make_key("id_ed25519", passphrase="")
    url = f"sftp://archive/{me.server.base}"
    where = f"Host archive\n  HostName 127.0.0.1\n  Port {me.server.port}\n  ProxyCommand "
    forward = tmp_path / "forward.py"
    forward.write_text(FORWARD)
    (me.ssh / "config").write_text(f"{where}{sys.executable} {forward} %h %p\n")
    archive = open_archive(url, 20.0)
    archive.fetch(NAME, tmp_path / NAME, lambda _, __: None, threading.Event())
    assert (tmp_path / NAME).read_bytes() == b"a run"
    (me.ssh / "config").write_text(f"{where}exit 1\n")
    with pytest.raises(ArchiveUnavailable):  # at once: the test's own time would end before
        open_archive(url, 3600.0).look([NAME])


def test_a_server_that_wants_more_than_a_key_is_not_helped_by_questions(
    me: Person, tmp_path: Path
) -> None:
    base = tmp_path / "strict"
    with ssh_server(base) as strict:
        strict.kill()
        with (base / "sshd_config").open("a") as config:
            config.write("AuthenticationMethods publickey,hostbased\n")
            config.write("HostbasedAuthentication yes\n")
        strict.start()
        person = Person(strict, tmp_path / "another")
        (me.ssh / "known_hosts").write_text((person.ssh / "known_hosts").read_text())
        key = me.make_key("id_ed25519", passphrase="", good=False)
        with (base / "authorized_keys").open("a") as keys:
            keys.write(key.with_name("id_ed25519.pub").read_text())
        with pytest.raises(KeyLoginRefused, match="it wants hostbased as well"):
            me.fetch(tmp_path / NAME, url=person.url)
