"""How the doctor speaks to a half of the lock test: through the pipes of a process, here or by ssh.

Not through production.commands: here requests and answers go to and fro.  Every answer has its
time-out, and whatever happens, nothing is left running.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import production
from production.doctor.half import Message

_CONNECT = 20  # seconds that ssh may take
_MODULE = "production.doctor.half"


class SilentError(Exception):
    """A half does not answer, or not in words; why."""


class AbsentError(SilentError):
    """A half that was met by chance is not there, or busy with something else; why."""


class Channel(Protocol):
    """Where requests are sent and answers come from, in turn."""

    def send(self, request: Message) -> None:
        """Ask; raises SilentError."""
        ...

    def receive(self, timeout: float) -> Message:
        """The answer; raises SilentError when it does not come within ``timeout`` seconds."""
        ...


class Pipe:
    """A half in a process of ours."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._rest = b""

    def send(self, request: Message) -> None:
        """See Channel."""
        assert self._process.stdin is not None  # noqa: S101 - it was started so
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise SilentError(self._last_words()) from None

    def receive(self, timeout: float) -> Message:
        """See Channel."""
        assert self._process.stdout is not None  # noqa: S101 - it was started so
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise SilentError(f"no answer within {timeout:g} s")
                block = os.read(self._process.stdout.fileno(), 65536)
                if not block:
                    raise SilentError(self._last_words())
                self._rest += block
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            # A login script that prints something, for instance.
            raise SilentError(f"it answers {line[:100].decode(errors='replace')!r}")
        return answer

    def _last_words(self) -> str:
        """What a process that has ended said last."""
        assert self._process.stderr is not None  # noqa: S101 - it was started so
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        os.set_blocking(self._process.stderr.fileno(), False)
        said = (self._process.stderr.read() or b"").decode(errors="replace").strip()
        return said.splitlines()[-1] if said else f"it ended with {self._process.returncode}"


@contextmanager
def here() -> Iterator[Pipe]:
    """A half in a new process on this host."""
    with _started([sys.executable, "-m", _MODULE]) as pipe:
        yield pipe


@contextmanager
def there(host: str) -> Iterator[Pipe]:
    """A half on another host, by ssh; the program must have the same path there."""
    remote = shlex.join(["env", f"PYTHONPATH={_program()}", sys.executable, "-m", _MODULE])
    options = ["BatchMode=yes", f"ConnectTimeout={_CONNECT}", "ServerAliveInterval=15"]
    words = [word for option in options for word in ("-o", option)]
    with _started(["ssh", *words, "--", host, remote]) as pipe:
        yield pipe


def _program() -> Path:
    """The directory that holds the package."""
    return Path(production.__file__).resolve().parent.parent


@contextmanager
def _started(argv: list[str]) -> Iterator[Pipe]:
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(_program())},
            start_new_session=True,  # Ctrl-C is for the doctor
        )
    except OSError as error:
        raise SilentError(f"{argv[0]} cannot be started: {error.strerror}") from None
    try:
        yield Pipe(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        # One that hangs in a filesystem may take its time.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
