"""Where both programs begin and end, when Ctrl-C must not end in a traceback."""

from __future__ import annotations

import os
import sys

from production.signals import end_at_once


def main() -> int:
    """``production``."""
    return _program("main")


def run_production() -> int:
    """``run_production.py``."""
    return _program("run_production")


def _program(name: str) -> int:
    end_at_once()
    from production import cli

    code: int = getattr(cli, name)()
    end_at_once(code)
    threading = sys.modules.get("threading")  # --help does without
    if threading is not None and threading.active_count() > 1:
        _leave(code)
    return code


def _leave(code: int) -> None:
    """End although threads hang in libraries, which may crash when Python is taken down there."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)
