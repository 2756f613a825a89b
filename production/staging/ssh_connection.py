"""Connections over SSH, made as ssh(1) would make them: by ``~/.ssh/config``, keys and agent.

Host keys must be known; none is ever learnt here.
"""

from __future__ import annotations

import getpass
import logging
import os
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import paramiko

from production.errors import ArchiveUnavailable, KeyLocked, KeyLoginRefused, NetrcError
from production.staging.credentials import Credentials, login_for
from production.staging.ssh_login import KeyLockedError, Login

# The cheapest first, where the processor knows AES; paramiko would take it last.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_TCP = (socket.AF_INET, socket.AF_INET6)
_JUMPS = 5  # hosts on the way; more must be a circle

# All that a network, a server and paramiko can come up with.
TROUBLE = (paramiko.SSHException, paramiko.SFTPError, OSError, EOFError, ValueError)

# What goes wrong is told by exceptions; paramiko would print it as well, with tracebacks.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False


def connect(
    host: str,
    port: int | None,
    timeout: float,
    opened: ExitStack,
    *,
    user: str = "",
    over: paramiko.Transport | None = None,
    jumps: int = 0,
) -> paramiko.SSHClient:
    """Log in at ``host``, over those hosts that ssh's configuration names.

    No wait is longer than ``timeout`` seconds.  ``opened`` ends all of it.  ``user`` and the
    connection ``over`` which it goes are for hosts on the way.  Raises ArchiveUnavailable,
    KeyLoginRefused.
    """
    config, number = _configured(host, port)
    name = str(config.get("hostname", host))
    if jumps > _JUMPS:
        raise ArchiveUnavailable(host=host, what="ProxyJump leads in a circle")
    client = paramiko.SSHClient()
    opened.callback(client.close)
    try:
        if over is None:
            over = _last_jump(config, timeout, opened, jumps)
        way = _through(over, name, number, timeout) if over else _by_command(config, opened)
        _load_known_hosts(client, str(config.get("userknownhostsfile", "")))
        client.connect(
            name,
            number,
            auth_strategy=_login(config, host, user),  # type: ignore[arg-type]  # enough
            sock=way,
            transport_factory=_transport,
            timeout=timeout,
            banner_timeout=timeout,
            auth_timeout=timeout,
        )
    except KeyLockedError as error:
        raise KeyLocked(host=host, path=error.path, what=error.what) from None
    except paramiko.AuthenticationException as error:
        raise KeyLoginRefused(host=host, what=said(error)) from None
    except paramiko.BadHostKeyException:
        what = "its host key is not the one that is known. Ask who runs it before you go on"
        raise ArchiveUnavailable(host=host, what=what) from None
    except paramiko.hostkeys.InvalidHostKey as error:
        what = f"there is a damaged line among the known hosts: {error.line[:60]}"
        raise ArchiveUnavailable(host=host, what=what) from None
    except TROUBLE as error:
        what = said(error)
        if "known_hosts" in what:
            there = host if number == paramiko.config.SSH_PORT else f"-p {number} {host}"
            what = f"its host key is not known. Connect once by hand: ssh {there}"
        raise ArchiveUnavailable(host=host, what=f"port {number}: {what}") from None
    return client


def _configured(host: str, port: int | None) -> tuple[paramiko.SSHConfigDict, int]:
    """What ssh's configuration says of the host, and the port; raises ArchiveUnavailable."""
    try:
        config = _ssh_config().lookup(host)
        return config, port or int(str(config.get("port", paramiko.config.SSH_PORT)))
    except (*TROUBLE, ImportError) as error:  # paramiko wants a package for Match exec
        raise ArchiveUnavailable(host=host, what=f"~/.ssh/config: {said(error)}") from None


def _login(config: paramiko.SSHConfigDict, host: str, user: str) -> Login:
    """What to show; ``user`` where the way there names one."""
    password = _password_for(host)
    names = [str(name) for name in config.get("identityfile", ())]
    return Login(
        user or str(config.get("user") or (password and password.user) or getpass.getuser()),
        [Path(name).expanduser() for name in names if name != "none"],
        config.get("identitiesonly") == "yes",
        password.password if password else None,
    )


def _last_jump(
    config: paramiko.SSHConfigDict, timeout: float, opened: ExitStack, jumps: int
) -> paramiko.Transport | None:
    """The connection to the last of the hosts that ProxyJump names, each over the one before."""
    jump = str(config.get("proxyjump", "none"))
    over = None
    for part in () if jump == "none" else jump.split(","):
        user_and_host, _, number = part.strip().partition(":")
        user, _, host = user_and_host.rpartition("@")
        port = int(number) if number else None
        client = connect(host, port, timeout, opened, user=user, over=over, jumps=jumps + 1)
        over = client.get_transport()
    return over


def _through(over: paramiko.Transport, name: str, port: int, timeout: float) -> paramiko.Channel:
    return over.open_channel("direct-tcpip", (name, port), ("127.0.0.1", 0), timeout=timeout)


def _by_command(config: paramiko.SSHConfigDict, opened: ExitStack) -> socket.socket | None:
    """A socket at whose other end is the ProxyCommand, if there is one, as ssh(1) would run it.

    paramiko's own class for that does not notice that the command has ended.  Without a terminal,
    and told so, it asks nobody for anything.
    """
    command = str(config.get("proxycommand", "none"))
    if command == "none":
        return None
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "SSH_ASKPASS_REQUIRE": "never"},
        )

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        ours.close()

    opened.callback(end)
    return ours


def _transport(*arguments: Any, **options: Any) -> paramiko.Transport:
    """As paramiko makes it, with other ciphers first, and sending at once."""
    made = paramiko.Transport(*arguments, **options)
    if isinstance(made.sock, socket.socket) and made.sock.family in _TCP:
        # Or each small request would wait until the one before is acknowledged (RFC 896).
        made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    security = made.get_security_options()
    known = security.ciphers
    first = [cipher for cipher in _CIPHERS if cipher in known]
    security.ciphers = [*first, *(cipher for cipher in known if cipher not in first)]
    return made


def _ssh_config() -> paramiko.SSHConfig:
    """What ssh(1) is told in ``~/.ssh/config``; empty when there is none."""
    try:
        return paramiko.SSHConfig.from_path(str(Path("~/.ssh/config").expanduser()))
    except FileNotFoundError:
        return paramiko.SSHConfig()


def _load_known_hosts(client: paramiko.SSHClient, files: str) -> None:
    """Those of the system, and the user's own, or those that the configuration names instead."""
    own = [Path(name).expanduser() for name in files.split()] or [
        Path("~/.ssh/known_hosts").expanduser()
    ]
    for path in (Path("/etc/ssh/ssh_known_hosts"), *own):
        if path.is_file():
            client.load_system_host_keys(str(path))


def _password_for(host: str) -> Credentials | None:
    """The netrc file's login, if it has one."""
    try:
        return login_for(host)
    except NetrcError:  # the keys may do
        return None


def said(error: Exception) -> str:
    """In a few words."""
    if isinstance(error, EOFError):
        return "the connection was closed"
    if isinstance(error, paramiko.SFTPError):  # some have a number before the text
        return str(error.args[-1])
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__
