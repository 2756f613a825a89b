"""What the filesystems here have in common: root, packages, mounting and unmounting."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PATIENCE = 30.0  # seconds; only for the day on which something does not happen
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class NoFilesystemError(Exception):
    """Why there is no such filesystem on this machine."""


def need(commands: Sequence[str], packages: Sequence[str], *, device: str = "/dev/fuse") -> None:
    """Have root, the device and the commands, which Debian's packages bring; NoFilesystemError."""
    if os.geteuid() != 0:
        raise NoFilesystemError("mounting filesystems needs root")
    if not os.access(device, os.R_OK | os.W_OK):
        raise NoFilesystemError(f"this machine has no {device}")
    if all(map(command_path, commands)):
        return
    if not shutil.which("apt-get"):
        raise NoFilesystemError(f"{', '.join(packages)} are not installed; there is no apt-get")
    for argv in (("update",), ("install", "-y", "--no-install-recommends", *packages)):
        done = subprocess.run(
            ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=600", *argv],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NoFilesystemError(f"apt-get {argv[0]} failed: {done.stderr[-300:]}")


def command_path(name: str) -> str | None:
    """Where a command is; ordinary users' PATH does not have those of administrators."""
    return shutil.which(name, path=_PATH)


def run(*argv: object) -> None:
    """Run a command that must succeed; NoFilesystemError with what it said."""
    words = list(map(str, argv))
    words[0] = command_path(words[0]) or words[0]
    # Not to a pipe, which a daemon that the command leaves behind would hold open.
    done = subprocess.run(words, stdin=subprocess.DEVNULL, check=False, timeout=PATIENCE)
    if done.returncode:
        raise NoFilesystemError(f"{' '.join(words)} failed with exit code {done.returncode}")


def is_mounted(point: Path) -> bool:
    """From the mount table: looking at a mount whose server is gone may take for ever."""
    escaped = str(point).replace("\\", "\\134").replace(" ", "\\040")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split(" ")[4] == escaped for line in mounts)


def unmount(point: Path) -> None:
    """Also when the server is gone, or somebody is still there."""
    if is_mounted(point):
        argv = ["umount", str(point)]
        if subprocess.run(argv, capture_output=True, check=False, timeout=PATIENCE).returncode:
            subprocess.run([*argv, "-l"], capture_output=True, check=False, timeout=PATIENCE)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that must happen; NoFilesystemError."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise NoFilesystemError(f"{what} did not happen")
        time.sleep(0.02)
