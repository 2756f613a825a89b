"""A real FTP server (pyftpdlib) that plays a tape archive and fails where a test wants it to."""

from __future__ import annotations

import errno
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.filesystems import AbstractedFS
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.ioloop import IOLoop
from pyftpdlib.servers import FTPServer

USER = "shifter"
PASSWORD = "quark-gluon-42"


class TapeArchive:
    """Serves ``root`` on a free port, from a thread; the attributes may change all the while."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.on_tape: set[str] = set()  # RETR answers 450 until STAGE has brought them
        self.refused: set[str] = set()  # STAGE answers 550
        self.replies: dict[str, str | None] = {}  # verb: canned; '' is silence, None hangs up
        self.fault: str | None = None  # ends, errors, cuts, stalls: what a transfer does ...
        self.fault_after = 0  # ... after so many bytes of the file
        self.cuts: list[int] = []  # after so many bytes of the file, each once, in this order
        self.connections = 0
        self.commands: list[str] = []
        self.sessions: list[Any] = []  # all that there ever were
        self._released = threading.Event()  # no transfer stalls any more
        self._orders: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._ended = False
        self._server = FTPServer(("127.0.0.1", 0), _handler(self), ioloop=IOLoop())
        self._thread = threading.Thread(target=self._serve)

    @property
    def url(self) -> str:
        return f"ftp://127.0.0.1:{self._server.address[1]}/"

    def said(self, verb: str) -> list[str]:
        """The arguments of all commands with this verb."""
        words = [command.partition(" ") for command in self.commands]
        return [argument for first, _, argument in words if first == verb]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended = True
        self._released.set()
        self._thread.join()

    def come_back(self) -> None:
        """End the fault; transfers that stall end as if the file ended there."""
        self.fault = None
        self._released.set()

    def hang_up(self) -> None:
        """Close all connections, and return when they are closed."""
        done = threading.Event()
        self._orders.put(lambda: [session.close() for session in self.sessions])
        self._orders.put(done.set)
        done.wait()

    def misbehave(self, channel: Any) -> bytes:
        """What the file that is being sent reads as where the fault begins."""
        if self.fault == "errors":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.fault == "stalls":
            self._released.wait()
        if self.fault == "cuts":
            return self.cut(channel)
        return b""

    def cut(self, channel: Any) -> bytes:
        """Cut both connections; what the file reads as from there on."""
        for connection in (channel, channel.data_channel):
            connection.socket.shutdown(socket.SHUT_RDWR)
        return b""

    def _serve(self) -> None:
        while not self._ended:
            self._server.ioloop.loop(0.02, blocking=False)
            while not self._orders.empty():
                self._orders.get()()
        self._server.close_all()


@contextmanager
def tape_archive(root: Path) -> Iterator[TapeArchive]:
    """A running archive."""
    root.mkdir(exist_ok=True)
    archive = TapeArchive(root)
    archive.start()
    try:
        yield archive
    finally:
        archive.stop()


def write_netrc(path: Path, password: str = PASSWORD) -> Path:
    """A netrc file with the login for any archive."""
    path.write_text(f"default login {USER} password {password}\n")
    path.chmod(0o600)
    return path


class _File:
    """A file on the archive's disk; the reader meets the archive's fault."""

    def __init__(self, file: BinaryIO, archive: TapeArchive, channel: Any) -> None:
        self._file = file
        self._archive = archive
        self._channel = channel
        self.name = file.name
        self.close = file.close
        self.seek = file.seek

    @property
    def closed(self) -> bool:
        return self._file.closed

    def read(self, count: int) -> bytes:
        cuts = self._archive.cuts
        if cuts and cuts[0] <= self._file.tell():
            cuts.pop(0)
            return self._archive.cut(self._channel)
        if cuts:
            count = min(count, cuts[0] - self._file.tell())
        if self._archive.fault is None:
            return self._file.read(count)
        left = self._archive.fault_after - self._file.tell()
        if left <= 0:
            return self._archive.misbehave(self._channel)
        return self._file.read(min(count, left))


def _handler(archive: TapeArchive) -> type:
    authorizer = DummyAuthorizer()
    authorizer.add_user(USER, PASSWORD, str(archive.root), perm="elr")

    class Disk(AbstractedFS):  # type: ignore[misc]
        def open(self, filename: str, mode: str) -> _File:
            return _File(super().open(filename, mode), archive, self.cmd_channel)

    class Handler(FTPHandler):  # type: ignore[misc]
        abstracted_fs = Disk
        use_sendfile = False
        auth_failed_timeout = 0
        proto_cmds = {  # noqa: RUF012
            **FTPHandler.proto_cmds,
            "STAGE": {"perm": "r", "auth": True, "arg": True, "help": "STAGE <SP> file-name"},
        }

        def on_connect(self) -> None:
            archive.connections += 1
            archive.sessions.append(self)
            if greeting := archive.replies.get("greeting"):
                self.respond(greeting)
                self.close_when_done()

        def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
            archive.commands.append(line)
            if cmd not in archive.replies:
                super().pre_process_command(line, cmd, arg)
            elif reply := archive.replies[cmd]:
                self.respond(reply)
            elif reply is None:
                self.close()

        def ftp_STAGE(self, path: str) -> None:  # noqa: N802
            name = Path(path).name
            if name in archive.refused:
                self.respond("550 No such file on any tape.")
            else:
                archive.on_tape.discard(name)
                self.respond("200 File is on its way to disk.")

        def ftp_RETR(self, path: str) -> str | None:  # noqa: N802
            if Path(path).name in archive.on_tape:
                self.respond("450 File is on tape.")
                return None
            found: str | None = super().ftp_RETR(path)
            return found

    Handler.authorizer = authorizer
    return Handler
