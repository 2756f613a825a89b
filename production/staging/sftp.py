"""Archives that speak SFTP, reached as ssh(1) would reach them: by ``~/.ssh/config``, keys, agent.

Host keys must be known; none is ever learnt here.  The password of the netrc file, if it has an
entry for the host, is tried after all keys.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import paramiko

from production.errors import (
    ArchiveUnavailable,
    FileMissing,
    TransferError,
    TransferFailed,
)
from production.locations import fits
from production.staging.archive import Facts, Look
from production.staging.sftp_reader import AHEAD, PatientChannel, Reader
from production.staging.ssh_connection import TROUBLE, connect, said

_WINDOW = 2 * AHEAD  # bytes that the server may send before it is told to go on
_PACKET = 64 * 1024  # bytes; half as many packets where the server makes use of it


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
            client = connect(self.host, self._port, self._timeout, opened)
            doing = "SFTP"
            try:
                session = SftpSession(self.host, client, self._timeout, look)
                if self._directory:
                    doing = f"directory {self._directory}"
                    session.enter(self._directory)
            except TROUBLE as error:
                raise ArchiveUnavailable(host=self.host, what=f"{doing}: {said(error)}") from None
            session.hang_up = opened.pop_all().close
            return session


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
        channel = transport.open_session(
            window_size=_WINDOW, max_packet_size=_PACKET, timeout=timeout
        )
        self._channel = PatientChannel(channel, timeout, lambda: self.look())
        channel.invoke_subsystem("sftp")
        self._sftp = paramiko.SFTPClient(self._channel)  # type: ignore[arg-type]

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

    def names(self, directory: str, pattern: str) -> list[str]:
        """See ``Session.names``."""
        try:
            with self._troubles(directory or "."):
                there = self._sftp.listdir(directory or ".")
        except FileMissing:
            return []
        return [name for name in there if fits(name, pattern)]

    def blocks(self, file: str, offset: int) -> Iterator[bytes]:
        """See ``Session.blocks``."""
        with self._troubles(file):
            source = self._sftp.open(file, "rb")
        try:
            with self._troubles(file):
                size = source.stat().st_size or 0
                yield from Reader(self._sftp, self._channel, source.handle, offset, size).blocks()
        except BaseException:
            self.close()  # there may be the rest of an answer in it
            raise
        finally:
            with suppress(*TROUBLE):
                source.close()

    def is_alive(self) -> bool:
        """See ``Session.is_alive``."""
        return self._transport.is_active()

    def close(self) -> None:
        """See ``Session.close``."""
        with suppress(*TROUBLE):
            self.hang_up()

    @contextmanager
    def _troubles(self, file: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise FileMissing(file=file, host=self.host, what="no such file") from None
        except TransferError:
            raise
        except TROUBLE as error:
            raise TransferFailed(file=file, host=self.host, what=said(error)) from None
