"""Hosts made of namespaces: own name, process table, mounts and clock, but one kernel for all.

Each host has a client mount of its own of a shared filesystem, and sees it under the same name as
all others.  Its first process reaps orphans; with it all the others of the host end, as when a
machine loses its power.  The clock is a library that goes with the environment: no namespace has
a wall clock of its own, and under libfaketime 0.9.10 Python's time.sleep fails (EINVAL).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from network import gluster
from network.needs import NoFilesystemError, need, run

_CLOCK = Path(__file__).with_name("ahead.c")

# $1: the host's name; $2: its mount; $3: where it is seen.  It ends with its standard input.
_FIRST_PROCESS = """
set -e
hostname "$1"
mount -t tmpfs none /dev/shm
mount --bind "$2" "$3"
echo up
read -r _
"""


class NamespaceHost:
    """A host; see ``hosts.Host``."""

    def __init__(self, name: str, mount: Path, shared: Path) -> None:
        self.name = name
        self.shared = shared
        self._clock = mount.with_name(f"{name}.clock.so")
        kinds = ("--uts", "--pid", "--mount", "--ipc", "--fork", "--kill-child", "--mount-proc")
        self._unshare = subprocess.Popen(
            ["unshare", *kinds, "bash", "-c", _FIRST_PROCESS, "init", name, mount, shared],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._unshare.stdout is not None
        if self._unshare.stdout.readline() != b"up\n":
            self.crash()
            raise NoFilesystemError(f"host {name} does not come up")
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        self._init = children.read_text().split()[0]

    def command(self, *argv: object, environment: Mapping[str, str]) -> list[str]:
        """See Host."""
        into = ["nsenter", f"--target={self._init}", "--uts", "--pid", "--mount", "--ipc"]
        clock = {"LD_PRELOAD": str(self._clock)} if self._clock.exists() else {}
        return [*into, *_command(self.shared, {**environment, **clock}, argv)]

    def set_clock(self, ahead: float) -> None:
        """See Host."""
        need(("tcc",), ("tcc",))
        run("tcc", "-shared", "-nostdlib", f"-DAHEAD={ahead:.0f}", "-o", self._clock, _CLOCK)

    def crash(self) -> None:
        """End everything on the host at once."""
        self._unshare.kill()
        for stream in (self._unshare.stdin, self._unshare.stdout):
            if stream is not None:
                stream.close()
        self._unshare.wait()


class ThisMachine:
    """The machine itself, as one of the hosts; see ``hosts.Host``."""

    def __init__(self, name: str, shared: Path) -> None:
        self.name = name
        self.shared = shared

    def command(self, *argv: object, environment: Mapping[str, str]) -> list[str]:
        """See Host."""
        return _command(self.shared, environment, argv)

    def set_clock(self, ahead: float) -> None:
        """Not of a machine that is also somebody else's."""
        raise NotImplementedError


def _command(directory: Path, environment: Mapping[str, str], argv: Iterable[object]) -> list[str]:
    words = [f"{name}={value}" for name, value in environment.items()]
    return ["env", "-i", f"--chdir={directory}", *words, *map(str, argv)]


@contextmanager
def hosts(base: Path, names: Sequence[str]) -> Iterator[Sequence[NamespaceHost]]:
    """Hosts that share a new GlusterFS volume; this machine sees it as they do.

    Raises NoFilesystemError.
    """
    with gluster.volume(base, mounts=1 + len(names)) as volume, ExitStack() as stack:
        shared, *mounts = volume.mounts
        made = []
        for name, mount in zip(names, mounts, strict=True):
            host = NamespaceHost(name, mount, shared)
            stack.callback(host.crash)
            made.append(host)
        yield made
