"""Archives that speak SFTP, reached as ssh(1) would reach them: by ``~/.ssh/config``, keys, agent.

Host keys must be known; none is ever learnt here.  The password of the netrc file, if it has an
entry for the host, is tried after all keys.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import paramiko

from production.errors import (
    ArchiveUnavailable,
    FileMissing,
    TransferError,
    TransferFailed,
)
from production.locations import fits
from production.staging.archive import Facts, Look
from production.staging.patience import GLANCE, patiently
from production.staging.ssh_connection import TROUBLE, connect, said

# What a request asks for, in bytes: OpenSSH sends so much at once since 8.5, and others less, but
# hardly less than the other.  Each request costs much the same, whatever comes.
_REQUEST, _LEAST = 255 * 1024, 16 * 1024
# Bytes that are asked for at a time: enough for a fast line with 10 ms of way, and no more, for all
# that has come waits in memory.
_AHEAD = 4 * 1024 * 1024
_WINDOW = 2 * _AHEAD  # that the server may send before it is told to go on
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
                reader = _Reader(self._sftp, source.handle, offset, source.stat().st_size or 0)
            while True:
                with self._troubles(file):
                    block = reader.read()
                if not block:
                    return
                yield block
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


class _Reader:
    """Reads a file with many requests under way.

    paramiko's own way to do that, ``prefetch``, sleeps between requests, takes a moment in which
    nothing is under way for the end, goes on one by one from there, and keeps in memory whatever it
    had asked for (github.com/paramiko/paramiko/issues/2455).  So this does with the client what
    ``SFTPFile`` does, but for the threads.
    """

    def __init__(self, client: paramiko.SFTPClient, handle: object, offset: int, size: int) -> None:
        self._client: Any = client
        self._handle = handle
        self._next = offset  # what is asked for next
        self._size = size
        self._asked: deque[tuple[int, int, int]] = deque()  # number, offset, bytes; in order
        self._answers: dict[int, tuple[int, paramiko.Message]] = {}
        self._length = _REQUEST  # bytes that the server sends at once

    def read(self) -> bytes:
        """The next bytes; none at the end."""
        while not self._asked or (
            self._next <= self._size and len(self._asked) * self._length < _AHEAD
        ):
            self._asked.append(self._ask(self._next, self._length))
            self._next += self._length
        number, offset, length = self._asked.popleft()
        data = self._answer(number)
        if data and len(data) < length:
            rest = self._ask(offset + len(data), length - len(data))
            self._asked.appendleft(rest)
            if offset + length <= self._size:
                self._length = max(_LEAST, min(self._length, len(data)))
        return data

    def _ask(self, offset: int, length: int) -> tuple[int, int, int]:
        where = paramiko.sftp.int64(offset)
        number = self._client._async_request(
            self, paramiko.sftp.CMD_READ, self._handle, where, length
        )
        return number, offset, length

    def _async_response(self, kind: int, message: paramiko.Message, number: int) -> None:
        """Called by the client with an answer."""
        self._answers[number] = kind, message

    def _answer(self, number: int) -> bytes:
        while number not in self._answers:
            self._client._read_response()
        kind, message = self._answers.pop(number)
        if kind != paramiko.sftp.CMD_STATUS:
            return message.get_string()
        try:
            self._client._convert_status(message)
        except EOFError:  # of the file; when the connection ends that is another error
            return b""
        raise ValueError("the server answers a request for data with no data")


class _PatientChannel:
    """What SFTPClient needs of a channel; all waiting looks around, and ends with the time-out."""

    def __init__(self, channel: paramiko.Channel, timeout: float, look: Look) -> None:
        channel.settimeout(GLANCE)
        self._channel = channel
        self._timeout = timeout
        self._look = look

    def recv(self, count: int) -> bytes:
        """As a socket's."""
        return patiently(lambda: self._channel.recv(count), self._timeout, self._look)

    def send(self, data: bytes) -> int:
        """As a socket's."""
        return patiently(lambda: self._channel.send(data), self._timeout, self._look)

    def close(self) -> None:
        """As a socket's."""
        self._channel.close()

    def get_name(self) -> str:
        """What the log calls it."""
        return self._channel.get_name()
