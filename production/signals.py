"""What Ctrl-C, SIGTERM and SIGHUP do to a program: end it, and leave nothing half done behind.

Python answers SIGINT with an exception, wherever it happens to be.  Amid imports and at exit nobody
can catch it; in a callback of the import machinery it is printed and then forgotten
(https://docs.python.org/3/library/signal.html#note-on-signal-handlers-and-exceptions).  So as long
as nothing has begun that would have to be undone, and when all is done, SIGINT ends the process, as
the others do by themselves.  In between they are exceptions as well.

This is imported before anything else, so it imports little.
"""

from __future__ import annotations

import os
import signal

INTERRUPTED = 128 + signal.SIGINT
_OTHERS = (signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """SIGTERM or SIGHUP has come; like KeyboardInterrupt no failure that anybody may handle."""

    def __init__(self, signum: int) -> None:
        self.exit_code = 128 + signum


class _AtOnce:
    def __init__(self, code: int) -> None:
        self._code = code

    def __call__(self, _signum: int, _frame: object) -> None:
        os._exit(self._code)


def end_at_once(code: int = INTERRUPTED) -> None:
    """From now on Ctrl-C ends the process with ``code``, but where SIGINT is ignored."""
    present = signal.getsignal(signal.SIGINT)
    if present is signal.default_int_handler or isinstance(present, _AtOnce):
        _answer_with(signal.SIGINT, _AtOnce(code))


def end_by_exception() -> None:
    """From now on Ctrl-C is a KeyboardInterrupt again, so that what was begun is undone."""
    if isinstance(signal.getsignal(signal.SIGINT), _AtOnce):
        _answer_with(signal.SIGINT, signal.default_int_handler)


class Stoppable:
    """``with Stoppable():`` SIGTERM and SIGHUP raise Stopped, but where ignored, as under nohup."""

    def __init__(self) -> None:
        self._ours = [signum for signum in _OTHERS if signal.getsignal(signum) is signal.SIG_DFL]

    def __enter__(self) -> None:
        for signum in self._ours:
            _answer_with(signum, _stop)

    def __exit__(self, *_: object) -> None:
        for signum in self._ours:
            _answer_with(signum, signal.SIG_DFL)


def _stop(signum: int, _frame: object) -> None:
    raise Stopped(signum)


def _answer_with(signum: int, handler: object) -> None:
    try:
        signal.signal(signum, handler)  # type: ignore[arg-type]
    except ValueError:  # only the main thread can; the others get no signals
        return
