#!/usr/bin/env python3
"""Plays the tape archive of the example experiment: an FTP server on this host.

A file is on tape until somebody sends ``STAGE file`` and the tape has had its time; before that
``RETR`` and ``SIZE`` answer ``450 … on tape``.  This is how archivftp.psi.ch behaves for a client.
"""

from __future__ import annotations

import argparse
import logging
import netrc
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, ThrottledDTPHandler
from pyftpdlib.handlers.ftp.control import proto_cmds
from pyftpdlib.ioloop import IOLoop
from pyftpdlib.servers import FTPServer

HOST = "127.0.0.1"
MAY_READ = "elr"  # change directory, list, retrieve


class Tape:
    """Which files are on disk, and since when; and the log of what was done with them.

    The log has one line an event: ``staged PATH`` when a tape was asked for, ``sent PATH`` and
    ``broken PATH`` when a transfer was completed or broke off.
    """

    def __init__(self, root: Path, stage_seconds: float, log: Path | None) -> None:
        self.root = root
        self.stage_seconds = stage_seconds
        self.log = log
        self._ready: dict[str, float] = {}  # by real path, in monotonic seconds

    def stage(self, path: str) -> None:
        """Asks for the tape, unless that was done before."""
        if path not in self._ready:
            self._ready[path] = time.monotonic() + self.stage_seconds
            self.note("staged", path)

    def is_on_disk(self, path: str) -> bool:
        """Whether the file can be sent."""
        return time.monotonic() >= self._ready.get(path, float("inf"))

    def note(self, what: str, path: str) -> None:
        """Adds a line to the log."""
        if self.log:
            with self.log.open("a") as log:
                log.write(f"{what} {Path(path).relative_to(self.root)}\n")


class TapeHandler(FTPHandler):  # type: ignore[misc]  # pyftpdlib has no types
    """One client's connection."""

    tape: Tape
    banner = "tape archive of the example experiment"
    auth_failed_timeout = 0.1  # seconds until it says that a password is wrong
    proto_cmds = {  # noqa: RUF012
        **proto_cmds,
        "STAGE": {"perm": "r", "auth": True, "arg": True, "help": "Syntax: STAGE <SP> file-name."},
    }

    def ftp_STAGE(self, path: str) -> None:  # noqa: N802
        """Answers at once, however long the tape takes."""
        if not self.fs.isfile(path):
            self.respond(f"550 {self.fs.fs2ftp(path)}: no such file.")
            return
        self.tape.stage(path)
        self.respond(f"250 {self.fs.fs2ftp(path)}: staging.")

    def ftp_RETR(self, file: str) -> str | None:  # noqa: N802
        """Sends what is on disk."""
        if self._is_on_tape(file):
            self._restart_position = 0
            return None
        sent: str | None = super().ftp_RETR(file)
        return sent

    def ftp_SIZE(self, path: str) -> None:  # noqa: N802
        """Knows the size of what is on disk."""
        if not self._is_on_tape(path):
            super().ftp_SIZE(path)

    def on_file_sent(self, file: str) -> None:
        """A transfer is complete."""
        self.tape.note("sent", file)

    def on_incomplete_file_sent(self, file: str) -> None:
        """A transfer broke off."""
        self.tape.note("broken", file)

    def _is_on_tape(self, path: str) -> bool:
        on_tape = self.fs.isfile(path) and not self.tape.is_on_disk(path)
        if on_tape:
            self.respond(f"450 {self.fs.fs2ftp(path)}: on tape.")
        return on_tape


class SlowTransfer(ThrottledDTPHandler):  # type: ignore[misc]
    """Data on their way to a client, ``write_limit`` bytes per second.

    The limit of pyftpdlib itself lets the first seconds through at full speed, which is all that
    a small file needs.
    """

    def _throttle_bandwidth(self, len_chunk: int, max_speed: int) -> None:
        self.del_channel()
        self._throttler = self.ioloop.call_later(
            len_chunk / max_speed, self._go_on, _errback=self.handle_error
        )

    def _go_on(self) -> None:
        self.add_channel(events=self.ioloop.WRITE)


class Archive:
    """The server; ``with Archive(...) as archive:`` runs it in a thread, for tests.

    ``rate`` limits each transfer, in bytes per second; 0 does not.
    """

    def __init__(
        self,
        root: Path,
        user: str,
        password: str,
        *,
        port: int = 0,
        stage_seconds: float = 0.0,
        rate: int = 0,
        log: Path | None = None,
    ) -> None:
        root = root.resolve()
        authorizer = DummyAuthorizer()
        authorizer.add_user(user, password, str(root), perm=MAY_READ)
        steps = {"ac_out_buffer_size": max(rate // 10, 1)} if rate else {}
        transfer = type("Transfer", (SlowTransfer,), {"write_limit": rate, **steps})
        handler = type(
            "Handler",
            (TapeHandler,),
            {
                "authorizer": authorizer,
                "dtp_handler": transfer,
                "tape": Tape(root, stage_seconds, log),
            },
        )
        logging.getLogger("pyftpdlib").addHandler(logging.NullHandler())  # or it sets up its own
        self._server = FTPServer((HOST, port), handler, ioloop=IOLoop())
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="archive")

    @property
    def port(self) -> int:
        """Where it listens; a free port if 0 was asked for."""
        return int(self._server.address[1])

    def serve_forever(self) -> None:
        """Serves until an exception, from a signal for instance, ends it."""
        try:
            self._server.serve_forever(handle_exit=False)
        finally:
            self._server.close_all()

    def __enter__(self) -> Archive:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            self._server.serve_forever(timeout=0.05, blocking=False, handle_exit=False)
        self._server.close_all()


def read_login(path: Path) -> tuple[str, str]:
    """User and password of the entry for 127.0.0.1 (or the default) in a netrc file.

    The same file serves the client.  ValueError if there is no such entry.
    """
    try:
        entry = netrc.netrc(path).authenticators(HOST)
    except netrc.NetrcParseError as error:
        # its own text would show the password where that is what it stumbled over
        raise ValueError(f"{path}: not a netrc file, near line {error.lineno}") from None
    if entry is None:
        raise ValueError(f"{path}: there is no entry for machine {HOST}")
    user, _, password = entry
    return user, password


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Play a tape archive over FTP on this host.")
    parser.add_argument("--root", type=Path, required=True, help="directory that is its /")
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    parser.add_argument("--port-file", type=Path, help="written when the server is ready")
    parser.add_argument(
        "--password-file", type=Path, required=True, help=f"netrc file with machine {HOST}"
    )
    parser.add_argument("--stage-seconds", type=float, default=0.5, help="time of a tape")
    parser.add_argument("--rate", type=int, default=0, help="bytes per second and transfer")
    parser.add_argument("--log", type=Path, help="one line for each file staged, sent, broken off")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        user, password = read_login(options.password_file)
        archive = Archive(
            options.root,
            user,
            password,
            port=options.port,
            stage_seconds=options.stage_seconds,
            rate=options.rate,
            log=options.log,
        )
        if options.port_file:
            unfinished = options.port_file.with_name(f"{options.port_file.name}.part")
            unfinished.write_text(f"{archive.port}\n")
            unfinished.replace(options.port_file)
    except (OSError, ValueError) as error:
        print(f"archive: {error}", file=sys.stderr)
        return 1
    print(f"ftp://{HOST}:{archive.port} serves {options.root}", flush=True)
    archive.serve_forever()
    return 0


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
