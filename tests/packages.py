"""Commands that Debian's packages bring: installed when they are missing, which needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import pytest

PATIENCE = 240  # seconds


def need(command: str, package: str) -> str:
    """Where ``command`` is; skips the test, with the reason, when it cannot be had."""
    if found := shutil.which(command):
        return found
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip(f"{command} is not installed, and needs root and apt-get to be")
    for argv in (("update",), ("install", "-y", "--no-install-recommends", package)):
        said = _apt_get(*argv)
        if said:
            pytest.skip(f"apt-get {argv[0]} failed: {said[-300:]}")
    return shutil.which(command) or pytest.skip(f"{package} does not bring {command}")


def _apt_get(*argv: str) -> str:
    """What it says when it fails; others who use it meanwhile are waited for."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(
            ["apt-get", "-q", f"-oDPkg::Lock::Timeout={PATIENCE}", *argv],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return ""
        if "get lock" not in done.stderr or time.monotonic() > deadline:
            return done.stderr or "it says nothing"
        time.sleep(1)
