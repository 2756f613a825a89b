"""A terminal with a program in it, as somebody sees it who looks at it and presses keys."""

from __future__ import annotations

import fcntl
import os
import re
import select
import shlex
import signal
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pyte

HERE = Path(__file__).parent
PATIENCE = 120.0  # seconds; only for the day on which something does not happen


class Terminal:
    """Started by ``run`` or ``start``; ``end`` waits until the program has ended."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.screen = pyte.Screen(80, 24)
        self.received = b""
        self._stream = pyte.ByteStream(self.screen)
        self._child: pexpect.spawn

    def run(self, scenario: str, width: int = 80, height: int = 24, /, **variables: str) -> None:
        """Start the feeder by a shell, which also keeps the terminal's settings and the code."""
        command = f"trap : INT; stty -g >before; {feeder(scenario)}; echo $? >code; stty -g >after"
        self.start(["sh", "-c", command], width, height, **variables)

    def start(
        self, argv: list[str], width: int = 80, height: int = 24, /, **variables: str
    ) -> None:
        self.screen.resize(height, width)
        self._child = pexpect.spawn(
            argv[0],
            argv[1:],
            dimensions=(height, width),
            cwd=str(self.directory),
            env={**ENVIRONMENT, **variables},
            preexec_fn=_heed_interrupts,
        )
        self._child.delaybeforesend = None

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    def shows(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def highlights(self, text: str) -> bool:
        """Whether the line with this text is shown in reverse."""
        rows = [y for y, line in enumerate(self.lines) if text in line]
        return any(self.screen.buffer[y][self.lines[y].index(text)].reverse for y in rows)

    def send(self, keys: str) -> None:
        self._child.send(keys)

    def send_alone(self, keys: str) -> None:
        """Send them, and wait until the program has read them."""
        self.send(keys)
        with Path(f"/proc/{self._child.pid}/fd/0").open("rb", buffering=0) as keyboard:
            waiting = bytearray(4)
            self.read_until(
                lambda: not fcntl.ioctl(keyboard, termios.FIONREAD, waiting) and not any(waiting)
            )

    def press(self, key: str, condition: Callable[[], bool]) -> None:
        """Press a key, and wait for what it does.

        First for all of what was drawn before: what is not there any more, but still on its way,
        must not be taken for the effect.
        """
        self.read_until(lambda: not condition())
        self.send(key)
        self.read_until(condition)

    def end_by(self, key: str) -> int:
        """Press a key that ends the program, which was started by ``start``; its exit code."""
        self.send(key)
        return self.wait()

    def see(self, text: str) -> None:
        """Wait until it is on the screen."""
        self.read_until(lambda: self.shows(text))

    def resize(self, width: int, height: int) -> None:
        self.screen.resize(height, width)
        self._child.setwinsize(height, width)

    def hang_up(self) -> None:
        # Not by the number of the file, which may be another's when all this is cleared away.
        self._child.ptyproc.fileobj.close()

    def touch(self, name: str) -> None:
        (self.directory / name).touch()

    def read_until(self, condition: Callable[[], bool]) -> None:
        """Take what the terminal is sent, until it looks as it should."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.read() and time.monotonic() < deadline, "\n".join(self.lines)

    def read(self) -> bool:
        """Take what is there; False when nothing will come any more."""
        try:
            received = self._child.read_nonblocking(1 << 16, timeout=0.05)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            received = self._last_words()
        self.received += received
        self._stream.feed(received)
        return bool(received)

    def _last_words(self) -> bytes:
        """What was written after pexpect had looked and before the program had ended."""
        try:
            ready, _, _ = select.select([self._child.child_fd], [], [], 0.2)
            return os.read(self._child.child_fd, 1 << 16) if ready else b""
        except (OSError, ValueError):  # all is read, or the terminal was hung up
            return b""

    def end(self) -> int:
        """The feeder's exit code, when the terminal has its settings again."""
        deadline = time.monotonic() + PATIENCE
        while self.read():
            assert time.monotonic() < deadline, "\n".join(self.lines)
        self._child.close()
        before, after, code = (
            (self.directory / name).read_text() for name in ("before", "after", "code")
        )
        assert after == before
        return int(code)

    def wait(self) -> int:
        """The exit code of what was started by ``start``; 128 + n after signal n."""
        deadline = time.monotonic() + PATIENCE
        while self.read():
            assert time.monotonic() < deadline, "\n".join(self.lines)
        self._child.close()
        if self._child.signalstatus is not None:
            return 128 + int(self._child.signalstatus)
        return int(self._child.exitstatus)

    def printed(self) -> list[str]:
        """The messages in the last lines, each without its time."""
        lines = [line for line in self.lines if line]
        stamps = [re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d (.*)", line) for line in lines]
        first = max((at + 1 for at, stamp in enumerate(stamps) if not stamp), default=0)
        return [stamp[1] for stamp in stamps[first:] if stamp]


def _heed_interrupts() -> None:
    """As on any terminal, also where the tests were started by ``&`` in a script, which ignores."""
    for signum in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_DFL)


ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in {"LINES", "COLUMNS"}},
    "PYTHONPATH": str(HERE.parent),
    "LC_ALL": "C.UTF-8",
    "TERM": "linux",
}


def feeder(scenario: str) -> str:
    return shlex.join([sys.executable, str(HERE / "display_feeder.py"), scenario])
