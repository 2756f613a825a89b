"""A file read over SFTP as fast as it comes: what paramiko's client needs besides, to be quick.

What costs is memory: on its way through paramiko's own channel and client each byte is copied into
larger and larger pieces, which the kernel gives and takes back a page at a time.  Here the packets
of the connection are the pieces, and nobody puts them together.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import paramiko
from paramiko.buffered_pipe import PipeTimeout

from production.staging.archive import Look
from production.staging.patience import GLANCE, patiently

# What a request asks for, in bytes: OpenSSH sends so much at once since 8.5, and others less, but
# hardly less than the other.  Each request costs much the same, whatever comes.
_REQUEST, _LEAST = 255 * 1024, 16 * 1024
# Bytes that are asked for at a time: enough for a fast line with 10 ms of way, and no more, for all
# that has come waits in memory.
AHEAD = 4 * 1024 * 1024
_WORTH = 64 * 1024  # bytes for which a reader is woken
_HEAD = struct.Struct(">IBI")  # of an answer: bytes that follow the first four, kind, number


class Reader:
    """Reads a file with many requests under way.

    paramiko's own way to do that, ``prefetch``, sleeps between requests, takes a moment in which
    nothing is under way for the end, goes on one by one from there, and keeps in memory whatever it
    had asked for (github.com/paramiko/paramiko/issues/2455).  So this does with the client what
    ``SFTPFile`` does, but for the threads.
    """

    def __init__(
        self,
        client: paramiko.SFTPClient,
        channel: PatientChannel,
        handle: object,
        offset: int,
        size: int,
    ) -> None:
        self._client: Any = client
        self._channel = channel
        self._handle = handle
        self._next = offset  # what is asked for next
        self._size = size
        self._asked: deque[tuple[int, int, int]] = deque()  # number, offset, bytes; in order
        self._early: dict[int, tuple[int, bytes]] = {}  # answers: kind and what follows the number
        self._length = _REQUEST  # bytes that the server sends at once

    def blocks(self) -> Iterator[bytes]:
        """All that there is.  Who does not take it to its end cannot use the connection any more.

        Raises what paramiko does, EOFError when the connection ends, and ValueError.
        """
        while True:
            self._ask_ahead()
            number, offset, length = self._asked.popleft()
            got = 0
            for block in self._answer(number):
                got += len(block)
                yield block
            if not got:
                return
            if got < length:
                self._asked.appendleft(self._ask(offset + got, length - got))
                if offset + length <= self._size:
                    self._length = max(_LEAST, min(self._length, got))

    def _ask_ahead(self) -> None:
        while not self._asked or (
            self._next <= self._size and len(self._asked) * self._length < AHEAD
        ):
            self._asked.append(self._ask(self._next, self._length))
            self._next += self._length

    def _ask(self, offset: int, length: int) -> tuple[int, int, int]:
        where = paramiko.sftp.int64(offset)
        number = self._client._async_request(
            self, paramiko.sftp.CMD_READ, self._handle, where, length
        )
        return number, offset, length

    def _async_response(self, kind: int, message: paramiko.Message, number: int) -> None:
        """Called by the client with an answer that nobody waits for any more."""

    def _answer(self, number: int) -> Iterator[bytes]:
        """The data of an answer, as it comes; none at the file's end."""
        while number not in self._early:
            size, kind, got = _HEAD.unpack(self._take(_HEAD.size))
            self._client._expecting.pop(got, None)
            left = size - 5  # bytes, after kind and number
            if got == number and kind == paramiko.sftp.CMD_DATA:
                yield from self._data(left)
                return
            self._early[got] = kind, self._take(left)
        kind, rest = self._early.pop(number)
        if kind == paramiko.sftp.CMD_DATA:
            yield rest[4 : 4 + int.from_bytes(rest[:4], "big")]
            return
        try:
            self._client._convert_status(paramiko.Message(rest))
        except EOFError:  # of the file; when the connection ends that is another error
            return
        raise ValueError("the server answers a request for data with no data")

    def _data(self, size: int) -> Iterator[bytes]:
        """What follows a number: the length, and so many bytes."""
        left = int.from_bytes(self._take(4), "big")
        more = size - 4 - left  # nothing, but a server may have its own ideas
        if more < 0:
            raise ValueError("the server says two things of how much it sends")
        while left:
            block = self._some(left)
            left -= len(block)
            yield block
        self._take(more)

    def _take(self, count: int) -> bytes:
        """Exactly so many bytes."""
        if not 0 <= count < 1 << 24:  # as the client; more is no answer
            raise ValueError("what the server sends is not SFTP")
        block = self._some(count) if count else b""
        if len(block) == count:
            return block
        whole = bytearray(block)
        while len(whole) < count:
            whole += self._some(count - len(whole))
        return bytes(whole)

    def _some(self, most: int) -> bytes:
        block = self._channel.recv(most)
        if not block:
            raise EOFError
        return block


class PatientChannel:
    """What SFTPClient needs of a channel; all waiting looks around, and ends with the time-out.

    ``look`` is called every moment.
    """

    def __init__(self, channel: paramiko.Channel, timeout: float, look: Look) -> None:
        # Once so much has been freed, the C library keeps what else is freed for the next packets
        # instead of giving it back page by page (mallopt(3), M_TRIM_THRESHOLD, M_MMAP_THRESHOLD).
        bytes(2 * AHEAD)
        channel.settimeout(GLANCE)
        channel.in_buffer = _Packets()  # type: ignore[assignment]  # all of it that a channel uses
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


class _Packets:
    """What a channel has received and nobody has read: paramiko's ``BufferedPipe``, uncopied.

    A reader who has to wait is woken when there is something to do, not for each packet: what is
    asked for here is sure to come.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._packets: deque[bytes | memoryview] = deque()
        self._size = 0  # bytes in them
        self._wanted = 0  # bytes that a reader waits for
        self._closed = False

    def feed(self, data: bytes) -> None:
        """More has come."""
        with self._changed:
            self._packets.append(data)
            self._size += len(data)
            if self._size >= self._wanted:
                self._changed.notify()

    def close(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def read(self, most: int, timeout: float | None = None) -> bytes:
        """Up to so many bytes; none when all is read and it is closed.  Raises PipeTimeout."""
        with self._changed:
            if not self._packets:
                self._wanted = min(most, _WORTH)
                self._changed.wait_for(self._is_worth_it, timeout)
                self._wanted = 0
            if not self._packets:
                if self._closed:
                    return b""
                raise PipeTimeout
            packet = self._packets[0]
            if len(packet) <= most:
                self._packets.popleft()
                self._size -= len(packet)
                return bytes(packet)  # the packet itself where it is whole
            rest = memoryview(packet)
            self._packets[0] = rest[most:]
            self._size -= most
            return bytes(rest[:most])

    def _is_worth_it(self) -> bool:
        return self._size >= self._wanted or self._closed
