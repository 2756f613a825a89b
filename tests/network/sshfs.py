"""sshfs: one directory mounted several times, without ssh; locks of two mounts do not meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from network.needs import NoFilesystemError, is_mounted, need, run, unmount, until

_PACKAGES = ("sshfs", "openssh-sftp-server", "fuse3")
_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")


@contextmanager
def mounts(base: Path, count: int = 2) -> Iterator[Sequence[Path]]:
    """``count`` mounts of one new directory below ``base``; raises NoFilesystemError."""
    need(("sshfs", "fusermount3"), _PACKAGES)
    server = next((path for path in _SERVERS if Path(path).exists()), None)
    if server is None:
        raise NoFilesystemError("this machine has no sftp-server")
    files, ssh = base / "files", base / "ssh"
    files.mkdir(parents=True)
    ssh.write_text(f"#!/bin/sh\nexec {server}\n")
    ssh.chmod(0o755)
    points = [base / f"mount{number}" for number in range(1, count + 1)]
    try:
        for point in points:
            point.mkdir()
            run("sshfs", "-o", f"ssh_command={ssh},dcache_timeout=1", f"host:{files}", point)
            until(lambda point=point: is_mounted(point), f"the mount of {point}")  # type: ignore[misc]
        yield points
    finally:
        for point in points:
            unmount(point)
