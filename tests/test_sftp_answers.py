"""A file by SFTP is what the server has, in whatever order and pieces its answers come."""

from __future__ import annotations

import random
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import paramiko
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paramiko import sftp

from production.staging import sftp_reader
from production.staging.sftp_reader import Reader

CONTENT = random.Random(5).randbytes(400_000)


def packet(kind: int, number: int, rest: bytes) -> bytes:
    return struct.pack(">IBI", len(rest) + 5, kind, number) + rest


def data(block: bytes) -> bytes:
    return struct.pack(">I", len(block)) + block


STATUS_EOF = struct.pack(">III", sftp.SFTP_EOF, 0, 0)
STATUS_FAILURE = struct.pack(">III", sftp.SFTP_FAILURE, 0, 0)


class Server:
    """The other end of a channel: reads requests, answers what has been asked when it likes."""

    def __init__(self, chance: random.Random, *, most: int, early: float) -> None:
        self._chance = chance
        self._most = most  # bytes that it sends at once
        self._early = early  # how likely a later request is answered before this one
        self._open: list[tuple[int, int, int]] = []
        self._requests = b""
        self._out: deque[bytes] = deque([struct.pack(">IBI", 5, sftp.CMD_VERSION, 3)])
        self.answer: Callable[[int, int, int], bytes] = self.honest

    def send(self, block: bytes) -> int:
        """As a socket's, now and then not all of it."""
        sent = self._chance.randint(1, len(block))
        self._requests += block[:sent]
        while len(self._requests) >= 4:
            size = int.from_bytes(self._requests[:4], "big")
            if len(self._requests) < 4 + size:
                break
            self._take(self._requests[4 : 4 + size])
            self._requests = self._requests[4 + size :]
        return sent

    def _take(self, request: bytes) -> None:
        if request[0] == sftp.CMD_READ:
            message = paramiko.Message(request[1:])
            number, _, offset = message.get_int(), message.get_binary(), message.get_int64()
            self._open.append((number, offset, message.get_int()))

    def honest(self, number: int, offset: int, length: int) -> bytes:
        """The answer to a request."""
        block = CONTENT[offset : offset + min(length, self._most)]
        if not block:
            return packet(sftp.CMD_STATUS, number, STATUS_EOF)
        return packet(sftp.CMD_DATA, number, data(block))

    def recv(self, most: int) -> bytes:
        """As a channel's: some of what was sent."""
        while not self._out:
            if not self._open:
                return b""
            first = self._chance.random() >= self._early
            which = 0 if first else self._chance.randrange(len(self._open))
            self._out.append(self.answer(*self._open.pop(which)))
        block = self._out.popleft()
        count = min(most, self._chance.choice([1, 5, 9, 100, 32_768, len(block)]))
        if count < len(block):
            self._out.appendleft(block[count:])
        return block[:count]

    def close(self) -> None:
        """As a channel's."""

    def get_name(self) -> str:
        """As a channel's."""
        return "server"


def read(server: Server, offset: int = 0, size: int = len(CONTENT)) -> bytes:
    channel: Any = server
    client = paramiko.SFTPClient(channel)
    return b"".join(Reader(client, channel, b"handle", offset, size).blocks())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    most=st.sampled_from([1000, 16_384, 32_768, 261_120, 10**6]),
    early=st.sampled_from([0.0, 0.3, 1.0]),
    offset=st.integers(0, len(CONTENT)),
    told=st.sampled_from([len(CONTENT), 0, 100, 3 * len(CONTENT)]),
)
def test_what_is_read_is_the_file(
    seed: int, most: int, early: float, offset: int, told: int
) -> None:
    """Also when it has grown, or shrunk, since the server told its size."""
    server = Server(random.Random(seed), most=most, early=early)
    assert read(server, offset, told) == CONTENT[offset:]


def lying(answer: Callable[[int], bytes], *, after: int = 50_000) -> Server:
    """A server that goes wrong at some offset."""
    server = Server(random.Random(1), most=10_000, early=0.0)
    server.answer = lambda number, offset, length: (
        answer(number) if offset > after else server.honest(number, offset, length)
    )
    return server


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (lambda number: packet(sftp.CMD_STATUS, number, STATUS_FAILURE), OSError),
        (lambda number: packet(sftp.CMD_STATUS, number, bytes(4)), ValueError),
        (lambda number: packet(sftp.CMD_DATA, number, struct.pack(">I", 99)), ValueError),
        (lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", ValueError),
        (lambda _: b"", EOFError),
        (lambda number: packet(sftp.CMD_DATA, number, data(b"abc"))[:-1], EOFError),
    ],
    ids=["refusal", "success without data", "data that is not there", "no SFTP", "cut", "cut late"],
)
def test_an_answer_that_is_none_ends_the_transfer(
    answer: Callable[[int], bytes], what: type[Exception]
) -> None:
    with pytest.raises(what):
        read(lying(answer))


def test_what_comes_after_the_data_is_left_alone() -> None:
    server = Server(random.Random(2), most=10_000, early=0.0)
    server.answer = lambda number, offset, length: (
        packet(sftp.CMD_DATA, number, data(CONTENT[offset : offset + min(length, 10_000)]) + b"\1")
        if offset < len(CONTENT)
        else packet(sftp.CMD_STATUS, number, STATUS_EOF)
    )
    assert read(server) == CONTENT


def test_no_more_is_asked_for_than_may_wait_in_memory() -> None:
    server = Server(random.Random(3), most=sftp_reader._REQUEST, early=0.0)
    channel: Any = server
    client = paramiko.SFTPClient(channel)
    reader = Reader(client, channel, b"handle", 0, 10**9)
    next(reader.blocks())
    asked = sum(length for _, _, length in server._open)
    assert sftp_reader.AHEAD / 2 < asked <= sftp_reader.AHEAD
