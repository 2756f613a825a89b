"""Archives that speak SFTP, reached as ssh(1) would reach them: by ``~/.ssh/config``, keys, agent.

Host keys must be known; none is ever learnt here.  The password of the netrc file, if it has an
entry for the host, is tried after all keys.
"""

from __future__ import annotations

import getpass
import logging
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import paramiko

from production.errors import (
    ArchiveUnavailable,
    FileMissing,
    KeyLoginRefused,
    NetrcError,
    TransferError,
    TransferFailed,
)
from production.staging.archive import Facts, Look
from production.staging.credentials import Credentials, login_for, netrc_path

_BLOCK = 256 * 1024  # bytes
_GLANCE = 0.2  # seconds between two looks
# Requests under way at a time, of 32 kB each: enough for a fast line with 10 ms of way, and no
# more, for all that has come waits in memory (github.com/paramiko/paramiko/issues/2455).
_REQUESTS = 64
_WINDOW = 2**24  # bytes that the server may send before it is told to go on
_JUMPS = 5  # hosts on the way; more must be a circle

# What goes wrong is told by exceptions; paramiko would print it as well, with tracebacks.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False

# All that a network, a server and paramiko can come up with.
_TROUBLE = (paramiko.SSHException, OSError, EOFError, ValueError)


class SftpDoor:
    """An archive at ``sftp://host:port/directory``; see ``Door``."""

    def __init__(self, host: str, port: int | None, directory: str, timeout: float) -> None:
        self.host = host
        self._port = port
        self._directory = directory
        self._timeout = timeout

    def check(self) -> None:
        """See ``Door.check``: which keys there are the agent knows, and it may be asked later."""

    def open(self, look: Look) -> SftpSession:
        """See ``Door.open``."""
        look()
        with ExitStack() as opened:
            client = self._connect(self.host, self._port, opened, jumps=0)
            doing = "SFTP"
            try:
                session = SftpSession(self.host, client, self._timeout, look)
                if self._directory:
                    doing = f"directory {self._directory}"
                    session.enter(self._directory)
            except _TROUBLE as error:
                raise ArchiveUnavailable(host=self.host, what=f"{doing}: {_said(error)}") from None
            session.hang_up = opened.pop_all().close
            return session

    def _connect(
        self, host: str, port: int | None, opened: ExitStack, jumps: int
    ) -> paramiko.SSHClient:
        """Log in at ``host``, over those hosts that ssh's configuration names."""
        config = _ssh_config().lookup(host)
        name = str(config.get("hostname", host))
        number = port or int(str(config.get("port", 22)))
        password = _password_for(host)
        keys = [str(Path(key).expanduser()) for key in config.get("identityfile", ())]
        client = paramiko.SSHClient()
        opened.callback(client.close)
        try:
            _load_known_hosts(client, str(config.get("userknownhostsfile", "")))
            client.connect(
                name,
                number,
                username=str(config.get("user") or (password and password.user) or _user()),
                password=password.password if password else None,
                key_filename=keys,  # type: ignore[arg-type]  # a list will do as well
                allow_agent=config.get("identitiesonly") != "yes",
                look_for_keys=config.get("identitiesonly") != "yes",
                sock=self._way_to(config, name, number, opened, jumps),
                timeout=self._timeout,
                banner_timeout=self._timeout,
                auth_timeout=self._timeout,
            )
        except paramiko.AuthenticationException as error:
            raise KeyLoginRefused(host=host, what=_said(error)) from None
        except paramiko.BadHostKeyException:
            what = "its host key is not the one that is known. Ask who runs it before you go on"
            raise ArchiveUnavailable(host=host, what=what) from None
        except _TROUBLE as error:
            what = _said(error)
            if "known_hosts" in what:
                what = f"its host key is not known. Connect once by hand: ssh {host}"
            raise ArchiveUnavailable(host=host, what=f"port {number}: {what}") from None
        return client

    def _way_to(
        self,
        config: paramiko.SSHConfigDict,
        name: str,
        port: int,
        opened: ExitStack,
        jumps: int,
    ) -> paramiko.Channel | paramiko.ProxyCommand | None:
        """What leads to the host, where the network does not: ProxyJump or ProxyCommand."""
        jump = str(config.get("proxyjump", "none"))
        if jump != "none":
            if jumps >= _JUMPS:
                raise ValueError("ProxyJump leads in a circle")
            # ssh reads "a,b" as: by a to b, and from there on.
            transport = None
            for part in jump.split(","):
                user_and_host, _, number = part.strip().partition(":")
                host = user_and_host.rpartition("@")[2]
                client = self._connect(host, int(number) if number else None, opened, jumps + 1)
                transport = client.get_transport()
            if transport is None:
                raise ValueError("ProxyJump names no host")
            return transport.open_channel(
                "direct-tcpip", (name, port), ("127.0.0.1", 0), timeout=self._timeout
            )
        command = str(config.get("proxycommand", "none"))
        return None if command == "none" else paramiko.ProxyCommand(command)


class SftpSession:
    """A connection that is logged in and in the directory; see ``Session``."""

    def __init__(self, host: str, client: paramiko.SSHClient, timeout: float, look: Look) -> None:
        self.host = host
        self.look = look
        self.hang_up: Callable[[], None] = client.close  # and what led there
        transport = client.get_transport()
        if transport is None:
            raise EOFError
        self._transport = transport
        channel = transport.open_session(window_size=_WINDOW, timeout=timeout)
        channel.invoke_subsystem("sftp")
        patient = _PatientChannel(channel, timeout, lambda: self.look())
        self._sftp = paramiko.SFTPClient(patient)  # type: ignore[arg-type]

    def enter(self, directory: str) -> None:
        """Go to the directory; raises OSError."""
        self._sftp.chdir(directory)

    def stage(self, files: Sequence[str]) -> None:
        """See ``Session.stage``: SFTP has no word for it; opening a file may bring it from tape."""

    def facts(self, file: str) -> Facts:
        """See ``Session.facts``."""
        with self._troubles(file):
            found = self._sftp.stat(file)
            if found.st_mode is not None and not stat.S_ISREG(found.st_mode):
                raise TransferFailed(file=file, host=self.host, what="it is not a file")
            return Facts(found.st_size, str(found.st_mtime or ""))

    def blocks(self, file: str, offset: int) -> Iterator[bytes]:
        """See ``Session.blocks``."""
        with self._troubles(file):
            source = self._sftp.open(file, "rb")
        try:
            with self._troubles(file):
                size = source.stat().st_size or 0
                source.seek(offset)
                if size > offset:
                    source.prefetch(size, _REQUESTS)
            while True:
                with self._troubles(file):
                    block = source.read(_BLOCK)
                if not block:
                    return
                yield block
        finally:
            with suppress(*_TROUBLE):
                source.close()

    def is_alive(self) -> bool:
        """See ``Session.is_alive``."""
        return self._transport.is_active()

    def close(self) -> None:
        """See ``Session.close``."""
        with suppress(*_TROUBLE):
            self.hang_up()

    @contextmanager
    def _troubles(self, file: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise FileMissing(file=file, host=self.host, what="no such file") from None
        except TransferError:
            raise
        except _TROUBLE as error:
            raise TransferFailed(file=file, host=self.host, what=_said(error)) from None


class _PatientChannel:
    """What SFTPClient needs of a channel; all waiting looks around, and ends with the time-out."""

    def __init__(self, channel: paramiko.Channel, timeout: float, look: Look) -> None:
        channel.settimeout(_GLANCE)
        self._channel = channel
        self._timeout = timeout
        self._look = look

    def recv(self, count: int) -> bytes:
        """As a socket's."""
        deadline = time.monotonic() + self._timeout
        while True:
            self._look()
            try:
                return self._channel.recv(count)
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"nothing came for {self._timeout:g} s") from None

    def send(self, data: bytes) -> int:
        """As a socket's; never raises.

        It is also called by paramiko's thread that asks for blocks ahead, where an exception would
        be printed; and who waits for the answer finds out that there is none.
        """
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            try:
                return self._channel.send(data)
            except TimeoutError:
                continue
            except OSError:
                break
        return len(data)

    def close(self) -> None:
        """As a socket's."""
        self._channel.close()

    def get_name(self) -> str:
        """What the log calls it."""
        return self._channel.get_name()


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
    if not netrc_path().exists():
        return None
    try:
        return login_for(host)
    except NetrcError:
        return None


def _user() -> str:
    return getpass.getuser()


def _said(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the connection was closed"
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__
