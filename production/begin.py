"""The first and the last moments of the programs, when Ctrl-C must not end in a traceback.

Python answers SIGINT with an exception, wherever it happens to be.  Amid imports and at exit nobody
can catch it; in a callback of the import machinery it is printed and then forgotten
(https://docs.python.org/3/library/signal.html#note-on-signal-handlers-and-exceptions).  So as long
as nothing has begun that would have to be undone, and when all is done, SIGINT ends the process.
What is imported here is imported before that holds, so it is little.
"""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 128 + signal.SIGINT


class _AtOnce:
    def __init__(self, code: int) -> None:
        self._code = code

    def __call__(self, _signum: int, _frame: object) -> None:
        os._exit(self._code)


def end_at_once(code: int = INTERRUPTED) -> None:
    """From now on Ctrl-C ends the process with ``code``, but where SIGINT is ignored."""
    present = signal.getsignal(signal.SIGINT)
    if present is signal.default_int_handler or isinstance(present, _AtOnce):
        _answer_with(_AtOnce(code))


def end_by_exception() -> None:
    """From now on Ctrl-C is a KeyboardInterrupt again, so that what was begun is undone."""
    if isinstance(signal.getsignal(signal.SIGINT), _AtOnce):
        _answer_with(signal.default_int_handler)


def _answer_with(handler: object) -> None:
    try:
        signal.signal(signal.SIGINT, handler)  # type: ignore[arg-type]
    except ValueError:  # only the main thread can; the others get no signals
        return


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
