#!/usr/bin/env python3
"""How long files take by FTP and by SFTP, beside what a user would type, from the same server.

    sudo python3 benchmarks/transfers.py [--files=20] [--size=50M] [--rounds=3] [--directory=DIR]

Starts vsftpd and OpenSSH on loopback, as the tests do, and fetches all the files in turn with an
archive of the manager's own (in one process, with one and with two transfers at a time; timed from
the login on, for a manager is up already) and with lftp, curl, sftp and rsync.  With two, the
others are started with as many where they know how (lftp, curl), or as two processes (sftp, rsync).
Ours puts each file on the disk before it counts; so that the disk is not measured, everything is in
memory (/dev/shm) by default.  Ratios are of medians, ours to the fastest of the others.  The time
on a processor is that of the clients, for machines on which others work.  The aims: at most 1.1
times as long, less than 100 MB of memory.  Exits with 1 when one is missed.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from archive_servers import Server, openssh, running, vsftpd  # noqa: E402 - the path comes first
from network.needs import NoFilesystemError, need  # noqa: E402

from production.staging.archive import open_archive  # noqa: E402
from production.units import parse_memory  # noqa: E402

AIM = 1.1
MEMORY = 100_000_000  # bytes


def names(count: int) -> list[str]:
    """Of the files on the server."""
    return [f"run{number:05d}.mid" for number in range(1, count + 1)]


def fetch(url: str, target: Path, count: int, at_a_time: int) -> None:
    """Ours; prints seconds, those of them on a processor, and the process's largest memory."""
    archive = open_archive(url)
    begin, worked = time.monotonic(), processor_time(resource.RUSAGE_SELF)

    def bring(name: str) -> int:
        came = archive.fetch(name, target / name, lambda _, __: None, threading.Event())
        return came.size

    with ThreadPoolExecutor(at_a_time) as pool:
        sum(pool.map(bring, names(count)))
    seconds = time.monotonic() - begin
    worked = processor_time(resource.RUSAGE_SELF) - worked
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(f"{seconds} {worked} {memory}\n")


def processor_time(whose: int) -> float:
    """Seconds of a processor's time that were used so far."""
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime


def by_ftp(server: Server, target: Path, count: int, at_a_time: int) -> dict[str, list[list[str]]]:
    """Commands by the names of their programs; all those of one are started together."""
    user, password = server.login or ("", "")
    lftp = f"set net:timeout 60; open -u {user},{password} {server.url}; "
    lftp += f"mirror --parallel={at_a_time} / {target}"
    curl = [
        "curl",
        "-sS",
        "--no-progress-meter",
        "--user",
        f"{user}:{password}",
        "--output-dir",
        str(target),
    ]
    if at_a_time > 1:
        curl += ["--parallel", "--parallel-immediate", "--parallel-max", str(at_a_time)]
    for name in names(count):
        curl += ["-O", f"{server.url}{name}"]
    return {"lftp": [["lftp", "-c", lftp]], "curl": [curl]}


def by_ssh(server: Server, target: Path, count: int, at_a_time: int) -> dict[str, list[list[str]]]:
    """The same."""
    known = f"UserKnownHostsFile={server.home}/.ssh/known_hosts"
    key = f"{server.home}/.ssh/id_ed25519"
    options = ["-o", known, "-i", key]
    batch = target.parent / "batch"
    sftp, rsync = [], []
    for part in range(at_a_time):
        mine = names(count)[part::at_a_time]
        script = batch.with_name(f"batch{part}")
        script.write_text("".join(f"get {server.root}/{name} {target}/\n" for name in mine))
        sftp.append(
            ["sftp", "-q", "-P", str(server.port), *options, "-b", str(script), "127.0.0.1"]
        )
        shell = " ".join(["ssh", "-p", str(server.port), *options])
        sources = [f"127.0.0.1:{server.root}/{name}" for name in mine]
        rsync.append(["rsync", "-W", "-e", shell, *sources, f"{target}/"])
    return {"sftp": sftp, "rsync": rsync}


def timed(
    commands: Sequence[Sequence[str]], environment: Mapping[str, str]
) -> tuple[float, float, str]:
    """Seconds until all have ended well, those on a processor, and what the first has printed."""
    begin, worked = time.monotonic(), processor_time(resource.RUSAGE_CHILDREN)
    started = [
        subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
        for argv in commands
    ]
    said = [process.communicate()[0] for process in started]
    seconds = time.monotonic() - begin
    if any(process.returncode for process in started):
        raise SystemExit(f"{commands[0][0]} failed")
    return seconds, processor_time(resource.RUSAGE_CHILDREN) - worked, said[0]


def compare(server: Server, options: argparse.Namespace, base: Path, at_a_time: int) -> bool:
    """Measure and print; whether the aims are reached."""
    target = base / "target"
    arrange = by_ftp if server.url.startswith("ftp") else by_ssh
    others = arrange(server, target, options.files, at_a_time)
    ours = [sys.executable, __file__, f"--files={options.files}", f"--fetch={server.url}"]
    ours += [f"--directory={target}", f"--at-a-time={at_a_time}"]
    environment = {**os.environ, **server.environment, "NETRC": str(base / "netrc")}
    if server.login:
        user, password = server.login
        (base / "netrc").write_text(f"default login {user} password {password}\n")
        (base / "netrc").chmod(0o600)
    seconds: dict[str, list[float]] = {}
    work: dict[str, list[float]] = {}
    memory = 0
    for _ in range(options.rounds):
        for name, commands in {"ours": [ours], **others}.items():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            taken, worked, said = timed(commands, environment)
            if name == "ours":
                taken, worked, used = map(float, said.split())
                memory = max(memory, int(used))
            work.setdefault(name, []).append(worked)
            seconds.setdefault(name, []).append(taken)
            for file in names(options.files):
                if (target / file).stat().st_size != options.size:
                    raise SystemExit(f"{name}: {file} has not come")
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    fastest = min(medians[name] for name in others)
    total = options.files * options.size
    for name, taken in medians.items():
        low, high = min(seconds[name]), max(seconds[name])
        line = f"{server.url.partition(':')[0]:5} {at_a_time} at a time  {name:6} {taken:6.2f} s "
        line += f"({low:.2f} … {high:.2f})  {total / taken / 1e6:6.0f} MB/s"
        line += f"  processor {statistics.median(work[name]):5.2f} s"
        if name == "ours":
            line += f"  ratio {taken / fastest:.2f}  memory {memory / 1e6:.0f} MB"
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    return medians["ours"] <= AIM * fastest and memory < MEMORY


def measure(options: argparse.Namespace) -> bool:
    """All of it; whether the aims are reached."""
    need(["lftp", "curl", "sftp", "rsync"], ["lftp", "curl", "rsync"], device="/dev/null")
    reached = []
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        for protocol in options.protocols:
            base = Path(directory, protocol)
            base.mkdir()
            begun = running(vsftpd, base) if protocol == "ftp" else openssh(base)
            with begun as server:
                for name in names(options.files):
                    with (server.root / name).open("wb") as file:
                        for _ in range(0, options.size, 1_000_000):
                            file.write(os.urandom(1_000_000))
                        file.truncate(options.size)
                    (server.root / name).chmod(0o644)
                reached += [compare(server, options, base, number) for number in (1, 2)]
            shutil.rmtree(base)
    return all(reached)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Compare transfers with those of other programs.")
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--size", type=parse_memory, default=50 * 1024**2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"))  # noqa: S108
    parser.add_argument("--fetch", metavar="URL", help="only that, into the directory")
    parser.add_argument("--at-a-time", type=int, default=2)
    parser.add_argument("protocols", nargs="*", default=["ftp", "sftp"])
    options = parser.parse_args()
    if options.fetch:
        fetch(options.fetch, options.directory, options.files, options.at_a_time)
        return 0
    try:
        return 0 if measure(options) else 1
    except NoFilesystemError as reason:
        sys.stderr.write(f"{reason}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
