"""NFS as clusters have it: Linux's own server and clients, on nodes with kernels of their own.

A node is a user-mode-linux kernel (docs.kernel.org/virt/uml), an ordinary process of this machine
whose programs and files it has, hostfs, besides its own host name, processes, clock and address.
What is cached, locked and recovered is Linux's NFS at work, so a node can crash, be frozen, or
lose its network, and what happens then is what happens on a cluster.

The nodes' network is a namespace: nothing of it can be seen from outside, and nothing is left.
Files of this machine are at the same place in each node.  There, root should write them: what
another user creates on hostfs belongs to root.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from network.needs import NoFilesystemError, command_path, need, run
from production.batch.processes import session_members

_COMMANDS = ("linux.uml", "modprobe", "rpc.nfsd", "mount.nfs", "rpcbind", "ip", "sshd", "mkfs.ext4")
_PACKAGES = (
    *("user-mode-linux", "kmod", "nfs-kernel-server", "nfs-common", "rpcbind", "iproute2"),
    *("openssh-server", "openssh-client", "e2fsprogs"),
)
_INIT = Path(__file__).with_name("uml_init.sh")
_NETWORK = "10.0.0"
SERVER = f"{_NETWORK}.1"
EXPORTED = Path("/run/disk/shared")  # on the server; uml_init.sh makes it
_MEMORY = 256  # MB that a node has
_DISK = "1G"
_BOOT_PATIENCE = 120.0  # seconds; a server that is away is waited for as well
_PATIENCE = 60.0  # seconds for a command
_SHIFT = """
import sys, time
time.clock_settime(time.CLOCK_REALTIME, time.time() + float(sys.argv[1]))
"""
_HOME = {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}


class Node:
    """One host; see ``NfsNodes``, which makes them.  Has what ``hosts.Host`` asks for."""

    def __init__(
        self,
        name: str,
        address: str,
        shared: Path,
        boot: Callable[[], subprocess.Popen[bytes]],
        inside: Sequence[str],
        key: Path,
    ) -> None:
        self.name = name
        self.address = address
        self.shared = shared
        self._start = boot
        self._inside = inside
        self._key = key
        self._kernel: subprocess.Popen[bytes] | None = None
        self._ahead = 0.0

    # ----------------------------------------------------------------- its life

    def boot(self) -> None:
        """Have it up, its services and mounts too."""
        self.start_boot()
        self.finish_boot()

    def start_boot(self) -> None:
        """Begin with ``boot``; several nodes can do it at the same time."""
        assert self._kernel is None
        self._ahead = 0.0  # a node takes the time from this machine when it boots
        self._kernel = self._start()

    def finish_boot(self) -> None:
        """Wait until it is up; raises NoFilesystemError."""
        assert self._kernel is not None
        assert self._kernel.stdout is not None
        ready, _, _ = select.select([self._kernel.stdout], [], [], _BOOT_PATIENCE)
        if not ready or b"ready" not in self._kernel.stdout.readline():
            raise NoFilesystemError(f"node {self.name} does not come up")

    def crash(self) -> None:
        """Its kernel is gone, without a word to anybody."""
        if self._kernel is None:
            return
        kernel, self._kernel = self._kernel, None
        kernel.kill()
        while left := session_members({kernel.pid}):  # its processes are processes here
            for pid in left[kernel.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
            kernel.poll()
        kernel.wait()
        for stream in (kernel.stdin, kernel.stdout):
            if stream is not None:
                stream.close()

    def freeze(self) -> None:
        """Have it stand still, with all that runs on it."""
        assert self._kernel is not None
        self._kernel.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on as if nothing had been."""
        assert self._kernel is not None
        self._kernel.send_signal(signal.SIGCONT)

    def unplug(self) -> None:
        """Pull the network cable."""
        run(*self._inside, command_path("ip"), "link", "set", f"tap-{self.name}", "down")

    def plug(self) -> None:
        """Put the network cable back."""
        run(*self._inside, command_path("ip"), "link", "set", f"tap-{self.name}", "up")

    def set_clock(self, ahead: float) -> None:
        """See Host; also what runs already sees it at once."""
        self.run(sys.executable, "-c", _SHIFT, ahead - self._ahead)
        self._ahead = ahead

    def mount(self, options: str) -> Path:
        """A further mount of the exported directory, with options of its own; see nfs(5)."""
        point = Path("/run/mounts") / options
        exported = EXPORTED if "vers=3" in options.split(",") else "/"  # 4 has a root of its own
        source = f"{SERVER}:{exported}"
        self.run("mkdir", "-p", point)
        self.run("mount", "-t", "nfs", "-o", options, source, point)
        return point

    # ----------------------------------------------------------------- what runs there

    def command(self, *argv: object, environment: Mapping[str, str]) -> list[str]:
        """See Host."""
        words = ["env", "-i", *(f"{name}={value}" for name, value in environment.items())]
        words += map(str, argv)
        options = {
            "IdentityFile": self._key,
            "UserKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "no",
            "BatchMode": "yes",
            "ConnectTimeout": 30,
            "LogLevel": "ERROR",
        }
        ssh = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        script = f"cd {shlex.quote(str(self.shared))} && exec {shlex.join(words)}"
        return [*self._inside, "ssh", "-F", "none", *ssh, f"root@{self.address}", script]

    def run(self, *argv: object) -> str:
        """Run a command there that must succeed; what it printed."""
        done = subprocess.run(
            self.command(*argv, environment=_HOME),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        if done.returncode:
            raise NoFilesystemError(f"{shlex.join(map(str, argv))} on {self.name}: {done.stderr}")
        return done.stdout


class NfsNodes:
    """A server and its clients, up between ``with`` and its end; raises NoFilesystemError.

    ``base`` is a new directory of this machine.  The exported directory is at ``base/shared`` in
    each of the ``clients``.
    ``lease`` is how many seconds the server keeps the locks of a client that has fallen silent,
    and how many it gives the clients, after it was away, to claim again what they had.
    ``options`` are those of the mounts, see nfs(5).
    """

    def __init__(
        self, base: Path, *, clients: int = 2, lease: int = 10, options: str = "vers=4.2"
    ) -> None:
        self._base = base
        self._count = clients
        self._lease = lease
        self._options = options
        self._namespace: subprocess.Popen[bytes] | None = None
        self._inside: list[str] = []  # the command that goes into the namespace
        self.shared = base / "shared"
        self._nodes: list[Node] = []  # the server first

    @property
    def server(self) -> Node:
        """The file server."""
        return self._nodes[0]

    @property
    def clients(self) -> list[Node]:
        """The hosts."""
        return self._nodes[1:]

    def __enter__(self) -> NfsNodes:
        need(_COMMANDS, _PACKAGES, device="/dev/net/tun")
        try:
            for directory in (self.shared, self._base / "keys", self._base / "console"):
                directory.mkdir(parents=True)
            self._make_keys()
            self._make_disk()
            self._make_network()
            self._nodes.append(self._node("server", 1, EXPORTED))
            for number in range(1, self._count + 1):
                self._nodes.append(self._node(f"client{number}", 1 + number, self.shared))
            for node in self._nodes:
                node.start_boot()
            for node in self._nodes:
                node.finish_boot()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End all of it."""
        for node in self._nodes:
            node.crash()
        if self._namespace is not None:
            self._namespace.kill()
            self._namespace.communicate()
            self._namespace = None

    # ----------------------------------------------------------------- how they are made

    def _make_keys(self) -> None:
        for name in ("host", "login"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._base / "keys" / name)

    def _make_disk(self) -> None:
        run("truncate", "--size", _DISK, self._base / "disk")
        run("mkfs.ext4", "-q", "-F", self._base / "disk")

    def _make_network(self) -> None:
        """A switch that no other process sees."""
        ip = command_path("ip")
        made = (
            f"{ip} link add switch type bridge && {ip} link set switch up && "
            f"{ip} address add {_NETWORK}.254/24 dev switch && echo && exec cat"
        )
        self._namespace = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", made], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._namespace.stdout is not None
        if not self._namespace.stdout.readline():
            raise NoFilesystemError("there can be no network of nodes on this machine")
        self._inside = ["nsenter", f"--net=/proc/{self._namespace.pid}/ns/net", "--"]

    def _node(self, name: str, number: int, shared: Path) -> Node:
        address = f"{_NETWORK}.{number}"
        cable = f"tap-{name}"
        run(*self._inside, command_path("ip"), "tuntap", "add", cable, "mode", "tap")
        run(*self._inside, command_path("ip"), "link", "set", cable, "master", "switch", "up")
        role = "server" if number == 1 else "client"
        kernel = {
            "mem": f"{_MEMORY}M",
            "rootfstype": "hostfs",
            "rootflags": "/",
            **({"ubd0": self._base / "disk"} if role == "server" else {}),
            "init": _INIT,
            "con": "null",
            "con0": "null,fd:2",
            "ssl0": "fd:0,fd:1",
            "umid": name,
            "uml_dir": self._base / "uml",
            "eth0": f"tuntap,{cable},52:54:00:00:00:{number:02x}",
            "PM_NAME": name,
            "PM_ROLE": role,
            "PM_ADDRESS": address,
            "PM_SERVER": SERVER,
            "PM_SHARED": shared,
            "PM_OPTIONS": self._options,
            "PM_LEASE": self._lease,
            "PM_KEYS": self._base / "keys",
        }
        words = [*self._inside, "linux.uml", "rw", "quiet"]
        words += [f"{key}={value}" for key, value in kernel.items()]

        def boot() -> subprocess.Popen[bytes]:
            with (self._base / "console" / name).open("ab") as console:
                return subprocess.Popen(
                    words,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=console,
                    env={**os.environ, "TMPDIR": _memory_directory(self._base)},
                    start_new_session=True,
                )

        return Node(name, address, shared, boot, self._inside, self._base / "keys" / "login")


def _memory_directory(base: Path) -> str:
    """Where the file lies that is a node's memory: in memory, when there is enough of it."""
    shm = "/dev/shm"
    with contextlib.suppress(OSError):
        if shutil.disk_usage(shm).free > (_MEMORY << 20) * 4:
            return shm
    return str(base)
