#!/usr/bin/env python3
"""How long a production waits for tape, beside the least that its drives and its wire allow.

A simulated tape archive (FTP, with STAGE) has 30 files.  Each needs a drive for 5 s to come to the
archive's disk, in the order in which they were asked for; there are 2 drives, and all transfers
together get 20 MB a second.  A production of 30 runs is made from it, whose jobs take no time.
Then the files are fetched one after the other: as the program of 2014 did it, which asks for a file
and for all that are claimed after it, fetches that one with a connection of its own, and then the
next; and without asking ahead.  When a file is still on tape, that is tried again after the pause
of the loop of 2014, 5 s.  No jobs are run for these.

The least is what the drives need for all files, and then the last two (one of each drive) on the
wire; the wire alone where that is more.  The aim: the whole production within 1.1 times of it, from
the manager's start to its end.  Exits with 1 when that is missed.
"""

from __future__ import annotations

import argparse
import ftplib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT / "tests"), str(PROJECT / "examples"), str(PROJECT)]

from archive import Archive, Tape  # noqa: E402 - found by now
from experiment import LOGIN, experiment  # noqa: E402
from pyftpdlib.handlers import ThrottledDTPHandler  # noqa: E402

AIM = 1.1
AHEAD = 15  # runs that the program of 2014 had claimed: nproc + nprep
BURST = 0.1  # seconds; the server's loop is no finer than half of it
PAUSE = 5.0  # seconds between two rounds of its loop


class Drives(Tape):
    """A tape library: as many files at a time as it has drives, in the order of the requests."""

    latency = 5.0  # seconds
    drives = 2

    def __init__(self, root: Path, stage_seconds: float, log: Path | None) -> None:
        super().__init__(root, stage_seconds, log)
        self._free = [0.0] * self.drives  # when each drive is

    def stage(self, path: str) -> None:
        """See ``Tape.stage``."""
        if path not in self._ready:
            drive = self._free.index(min(self._free))
            self._free[drive] = max(self._free[drive], time.monotonic()) + self.latency
            self._ready[path] = self._free[drive]


class Wire(ThrottledDTPHandler):  # type: ignore[misc]  # pyftpdlib has no types
    """All transfers share one wire."""

    rate = 20_000_000  # bytes a second
    busy_until = 0.0  # monotonic

    def _throttle_bandwidth(self, len_chunk: int, max_speed: int) -> None:
        now = time.monotonic()
        Wire.busy_until = max(Wire.busy_until, now - BURST) + len_chunk / max_speed
        if Wire.busy_until > now + BURST:
            self.del_channel()
            wait = Wire.busy_until - now
            self._throttler = self.ioloop.call_later(wait, self._go_on, _errback=self.handle_error)

    def _go_on(self) -> None:
        self.add_channel(events=self.ioloop.WRITE)


def library(root: Path, port: int = 0) -> Archive:
    """A running archive, all of whose files are on tape."""
    transfer = type("Transfer", (Wire,), {"write_limit": Wire.rate, "ac_out_buffer_size": 2**18})
    archive = Archive(root, *LOGIN, port=port)
    handler = archive._server.handler
    handler.dtp_handler = transfer
    handler.tape = Drives(root.resolve(), 0.0, None)
    return archive


def one_after_the_other(port: int, files: list[str], target: Path, ahead: int) -> None:
    """Fetch each by a connection of its own; ``ahead``: files to ask for with each."""
    for number, file in enumerate(files):
        while True:
            with ftplib.FTP(timeout=60) as ftp:  # noqa: S321 - as it was
                ftp.connect("127.0.0.1", port)
                ftp.login(*LOGIN)
                for asked in files[number : number + ahead]:
                    ftp.sendcmd(f"STAGE {asked}")
                try:
                    with (target / file).open("wb") as sink:
                        ftp.retrbinary(f"RETR {file}", sink.write)
                    break
                except ftplib.error_temp:
                    time.sleep(PAUSE)
        (target / file).unlink()


def timed(action: Callable[[], object]) -> float:
    """Seconds."""
    began = time.monotonic()
    action()
    return time.monotonic() - began


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Waiting for tape; see the file's beginning.")
    parser.add_argument("--files", type=int, default=30)
    parser.add_argument("--size", type=int, default=20_000_000, help="bytes of each")
    parser.add_argument("--latency", type=float, default=Drives.latency, help="seconds of a drive")
    parser.add_argument("--drives", type=int, default=Drives.drives)
    parser.add_argument("--rate", type=int, default=Wire.rate, help="bytes a second of the wire")
    parser.add_argument("--pause", default="1", help="of the manager, in seconds")
    options = parser.parse_args()
    Drives.latency, Drives.drives, Wire.rate = options.latency, options.drives, options.rate
    runs = range(1, options.files + 1)
    wire = options.size / options.rate
    last = min(options.drives, options.files) * wire
    floor = max(-(-options.files // options.drives) * options.latency + last, len(runs) * wire)

    with tempfile.TemporaryDirectory() as name, experiment(Path(name), runs=runs) as lab:
        for run in runs:
            lab.raw(run).write_bytes(bytes(options.size))
        lab._reservation.close()
        with library(lab.tape, lab._port):
            argv = [*lab.command("--transfers=2"), f"--pause={options.pause}"]
            took = timed(lambda: subprocess.run(argv, env=lab.environment, check=True))
        lab.check_all_finished()
        with library(lab.tape) as old:
            files = [lab.raw(run).name for run in runs]
            in_2014 = timed(lambda: one_after_the_other(old.port, files, Path(name), AHEAD))
        with library(lab.tape) as old:
            alone = timed(lambda: one_after_the_other(old.port, files, Path(name), 1))
    print()
    for what, seconds in (
        ("the least that drives and wire allow", floor),
        ("production", took),
        ("one after the other, asked ahead as in 2014", in_2014),
        ("one after the other, each asked for alone", alone),
    ):
        print(f"{what:45}{seconds:7.1f} s{seconds / floor:7.2f}")
    reached = took <= AIM * floor
    print(f"aim: within {AIM}: {'reached' if reached else 'MISSED'}")
    return int(not reached)


if __name__ == "__main__":
    sys.exit(main())
