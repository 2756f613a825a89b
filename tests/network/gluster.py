"""GlusterFS: one brick and several client mounts, as if each were on a host of its own.

Without its management daemon: a volume file for the brick and one for the clients are enough, so
that all is up in half a second, and several volumes live side by side.  Each client mount has its
own caches, and its locks meet those of the others in the brick.

With the options of ``volume`` it is a good filesystem for SQLite; with ``cached`` SQLite loses
updates without a message, with ``locks=False`` nothing can be locked.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from network.needs import NoFilesystemError, command_path, is_mounted, need, unmount, until

_PACKAGES = ("glusterfs-server", "glusterfs-client", "fuse3")
_SAFE = ("--direct-io-mode=enable", "--attribute-timeout=0", "--entry-timeout=0")
_CACHED = ("--attribute-timeout=1", "--entry-timeout=1")


class Volume:
    """A volume and its mounts; see ``volume``."""

    def __init__(
        self, base: Path, *, mounts: int, cached: bool, locks: bool, delay: int, errors: str
    ) -> None:
        self.brick = base / "brick"  # where the files are on the server
        self.mounts = [base / f"mount{number}" for number in range(1, mounts + 1)]
        self._base = base
        self._options = _CACHED if cached else _SAFE
        self._port = _free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self._clients: dict[Path, subprocess.Popen[bytes]] = {}
        self.brick.mkdir(parents=True)
        self.brick.chmod(0o1777)
        for directory in (*self.mounts, base / "log"):
            directory.mkdir()
        server = _server_volume(self.brick, self._port, locks, delay, errors)
        (base / "server.vol").write_text(server)
        (base / "client.vol").write_text(_client_volume(self._port))

    def start_server(self) -> None:
        """Start the brick; clients find it again by themselves."""
        self._server = self._start("glusterfsd", "server")
        until(self._answers, "the brick's answer")

    def kill_server(self) -> None:
        """End the brick without a warning: what the clients had locked is forgotten."""
        _end(self._server)
        self._server = None

    def signal_server(self, number: signal.Signals) -> None:
        """Freeze it (SIGSTOP) and let it go on (SIGCONT), for instance."""
        if self._server is not None:
            self._server.send_signal(number)

    def mount(self, point: Path) -> None:
        """Mount the volume on one of ``mounts``."""
        self._clients[point] = self._start("glusterfs", "client", *self._options, str(point))
        until(lambda: is_mounted(point), f"the mount of {point}")
        until(lambda: _can_be_read(point), f"an answer through {point}")

    def kill_client(self, point: Path) -> None:
        """A host with that mount crashes: its locks are freed, the mount point is dead."""
        _end(self._clients.pop(point, None))
        unmount(point)

    def signal_client(self, point: Path, number: signal.Signals) -> None:
        """Freeze what a host does on the filesystem, or let it go on."""
        self._clients[point].send_signal(number)

    def stop(self) -> None:
        """Unmount everything and end all daemons, frozen ones as well."""
        with contextlib.suppress(ProcessLookupError):
            self.signal_server(signal.SIGCONT)
        for point, client in self._clients.items():
            client.send_signal(signal.SIGCONT)
            unmount(point)
            _end(client)
        self._clients.clear()
        self.kill_server()

    def _start(self, program: str, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = self._base / "log" / f"{name}{len(self._clients) + 1}.log"
        argv = [command_path(program) or program, "--no-daemon", "-L", "WARNING"]
        files = ["-f", str(self._base / f"{name}.vol"), "-l", str(log)]
        return subprocess.Popen(
            [*argv, *files, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _answers(self) -> bool:
        if self._server is None or self._server.poll() is not None:
            log = (self._base / "log" / "server1.log").read_text(errors="replace")
            raise NoFilesystemError(f"the brick does not start: {log[-500:]}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


@contextmanager
def volume(
    base: Path,
    *,
    mounts: int = 2,
    cached: bool = False,
    locks: bool = True,
    delay: int = 0,
    errors: str = "",
) -> Iterator[Volume]:
    """A new volume below ``base``, mounted ``mounts`` times, and nothing of it left at the end.

    ``cached``: clients keep what they read for a second.  ``locks=False``: the server knows none.
    ``delay``: microseconds that every operation takes.  ``errors``: "PERCENT ERRNO OP,OP", such as
    "1 EIO write,fsync".  Raises NoFilesystemError.
    """
    need(("glusterfsd", "glusterfs", "fusermount3"), _PACKAGES)
    for directory in ("/var/log/glusterfs", "/run/gluster"):  # it insists
        Path(directory).mkdir(parents=True, exist_ok=True)
    made = Volume(base, mounts=mounts, cached=cached, locks=locks, delay=delay, errors=errors)
    try:
        made.start_server()
        for point in made.mounts:
            made.mount(point)
        yield made
    finally:
        made.stop()


def _server_volume(brick: Path, port: int, locks: bool, delay: int, errors: str) -> str:
    layers = [("posix", "storage/posix", {"directory": str(brick)})]
    if locks:
        layers.append(("locks", "features/locks", {}))
    if delay:
        slow = {"delay-duration": str(delay), "delay-percentage": "100"}
        layers.append(("delay", "debug/delay-gen", slow))
    if errors:
        percent, number, operations = errors.split()
        failing = {"failure": percent, "error-no": number, "enable": operations}
        layers.append(("errors", "debug/error-gen", failing))
    layers.append(("brick", "performance/io-threads", {"thread-count": "8"}))
    listening = {
        "transport-type": "tcp",
        "transport.address-family": "inet",
        "transport.socket.bind-address": "127.0.0.1",
        "transport.socket.listen-port": str(port),
        "auth.addr.brick.allow": "*",
    }
    return _text([*layers, ("server", "protocol/server", listening)])


def _client_volume(port: int) -> str:
    reaching = {
        "transport-type": "tcp",
        "transport.address-family": "inet",
        "remote-host": "127.0.0.1",
        "remote-port": str(port),
        "remote-subvolume": "brick",
        "ping-timeout": "10",
    }
    return _text([("client", "protocol/client", reaching)])


def _text(layers: list[tuple[str, str, dict[str, str]]]) -> str:
    """A volume file: each layer stands on the one before it."""
    lines = []
    below = ""
    for name, kind, options in layers:
        lines += [f"volume {name}", f" type {kind}"]
        lines += [f" option {key} {value}" for key, value in options.items()]
        lines += [f" subvolumes {below}"] if below else []
        lines += ["end-volume", ""]
        below = name
    return "\n".join(lines)


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        process.wait()


def _can_be_read(point: Path) -> bool:
    try:
        os.listdir(point)  # noqa: PTH208 - whose answer counts, not its contents
    except OSError:
        return False
    return True


def _free_port() -> int:
    """Not one of those that other programs are given for their outgoing connections."""
    for port in random.sample(range(24000, 32000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise NoFilesystemError("no port is free")
