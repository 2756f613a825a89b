"""A line between a server and its clients that breaks after as many bytes as it is told."""

from __future__ import annotations

import random
import selectors
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

_BLOCK = 64 * 1024  # bytes
_PATIENCE = 20.0  # seconds that one end may take no more, until the line is cut
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what is under way is lost, and the other end is told


class Cutter:
    """Connects ports of ``host`` with ports of 127.0.0.1, in a thread of its own."""

    def __init__(self, host: str, ports: Mapping[int, int], seed: int) -> None:
        self.cuts: list[int] = []  # after so many bytes more that come from servers, each once
        self.made = 0  # cuts so far
        self._hold: int | None = None  # bytes from servers until none is passed on any more
        self._held: set[socket.socket] = set()
        self._chance = random.Random(seed)
        self._others: dict[socket.socket, socket.socket] = {}  # the two ends of each line
        self._servers: set[socket.socket] = set()  # those ends that lead to one
        self._waiting = selectors.DefaultSelector()
        self._listeners = {socket.create_server((host, port)): to for port, to in ports.items()}
        for listener in self._listeners:
            self._waiting.register(listener, selectors.EVENT_READ)
        self._end, self._ending = socket.socketpair()
        self._waiting.register(self._ending, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def hold(self, after: int) -> None:
        """Pass on so many bytes more from servers, and then no more, until ``let_go``."""
        self._hold = after

    def let_go(self) -> None:
        """All that was held back."""
        self._hold = None
        self._end.send(b"go")

    def close(self) -> None:
        """Break all lines; nothing is left of them."""
        self._end.close()
        self._thread.join()

    def _work(self) -> None:
        while True:
            for key, _ in self._waiting.select():
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if ready is self._ending and ready.recv(2):
                    for server in self._held:
                        self._waiting.register(server, selectors.EVENT_READ)
                    self._held.clear()
                elif ready is self._ending:
                    self._cut()
                    for left in (*self._listeners, self._ending):
                        left.close()
                    self._waiting.close()
                    return
                elif ready in self._listeners:
                    self._begin(ready)
                elif ready in self._others:  # and not cut a moment ago
                    self._pass_on(ready)

    def _begin(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._listeners[listener]))
        except OSError:
            client.close()
            return
        self._servers.add(server)
        for one, other in ((client, server), (server, client)):
            one.settimeout(_PATIENCE)
            self._others[one] = other
            self._waiting.register(one, selectors.EVENT_READ)

    def _pass_on(self, source: socket.socket) -> None:
        hold = self._hold if source in self._servers else None
        if hold == 0:
            self._waiting.unregister(source)
            self._held.add(source)
            return
        try:
            block = source.recv(_BLOCK if hold is None else min(hold, _BLOCK))
            if hold is not None:
                self._hold = hold - len(block)
            if not block:
                raise EOFError
            if source in self._servers and self.cuts:
                if len(block) > self.cuts[0]:
                    self.made += 1
                    self._others[source].sendall(block[: self.cuts.pop(0)])
                    self._cut()
                    return
                self.cuts[0] -= len(block)
            self._others[source].sendall(block)
        except (OSError, EOFError):
            self._end_line(source, reset=False)

    def _cut(self) -> None:
        """End all lines, with or without a word."""
        reset = self._chance.random() < 0.5
        for server in [*self._servers]:
            self._end_line(server, reset=reset)

    def _end_line(self, one: socket.socket, *, reset: bool) -> None:
        for end in (one, self._others[one]):
            del self._others[end]
            self._servers.discard(end)
            if end in self._held:
                self._held.remove(end)
            else:
                self._waiting.unregister(end)
            if reset:
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()


@contextmanager
def cutting(host: str, ports: Mapping[int, int], seed: int) -> Iterator[Cutter]:
    """One that works."""
    cutter = Cutter(host, ports, seed)
    try:
        yield cutter
    finally:
        cutter.close()
