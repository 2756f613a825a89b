"""The one place where external commands are run.

Every command gets a time-out, the C locale, no shell, no terminal to ask questions on, and a
process group of its own, so that a command that hangs is ended with all that it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from production.errors import CommandError, CommandMissing, CommandTimeout, ConfigurationError
from production.units import parse_duration

DEFAULT_TIMEOUT = 60.0  # seconds
SHOWN = 30.0  # seconds that a filesystem may take to show something
LAST_WAIT = 5.0  # seconds until a killed command is left to itself
VARIABLE = "PRODUCTION_TIMEOUT"  # where the environment says otherwise


@dataclass(frozen=True)
class Completed:
    """What a command printed, decoded without ever failing."""

    code: int
    stdout: str
    stderr: str


def default_timeout() -> float:
    """Seconds that a command may take; raises ConfigurationError."""
    text = os.environ.get(VARIABLE, "")
    try:
        return parse_duration(text) if text else DEFAULT_TIMEOUT
    except ValueError as problem:
        raise ConfigurationError(where=f"${VARIABLE}", what=problem) from None


def run(
    argv: Sequence[str],
    *,
    timeout: float | None = None,
    stdin: str = "",
    accept: Sequence[int] = (0,),
    unset: tuple[str, ...] = (),
    variables: Mapping[str, str] | None = None,
) -> Completed:
    """Run ``argv`` and return what it printed.

    It may take ``timeout`` seconds, by default as long as the environment says.  It does not see
    environment variables whose names begin with one of ``unset``, and sees ``variables``.

    Raises CommandMissing, CommandTimeout, or CommandError when the exit code is not one of
    ``accept``; the error carries the first line of stderr.
    """
    shown = " ".join(argv)
    seconds = default_timeout() if timeout is None else timeout
    seen = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
    environment = {**seen, "LC_ALL": "C", "LANG": "C", **(variables or {})}
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise CommandMissing(command=argv[0]) from None
    except OSError as error:
        raise CommandError(command=shown, what=error.strerror or str(error)) from None
    except ValueError as error:  # characters that no argument can have, or not in this locale
        raise CommandError(command=shown, what=error) from None
    try:
        out, err = process.communicate(os.fsencode(stdin), timeout=seconds)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # One that hangs in a filesystem cannot be killed: it ends when that answers.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LAST_WAIT)
        if isinstance(error, subprocess.TimeoutExpired):
            raise CommandTimeout(command=shown, seconds=seconds) from None
        raise
    completed = Completed(
        process.returncode, out.decode(errors="replace"), err.decode(errors="replace")
    )
    if completed.code not in accept:
        said = completed.stderr.strip() or completed.stdout.strip() or "it said nothing"
        what = f"exit code {completed.code}: {said.splitlines()[0]}"
        raise CommandError(command=shown, what=what)
    return completed


def answers(*places: Path) -> bool:
    """Whether something is heard of all of them within SHOWN seconds, be it that they do not exist.

    Another process asks, for whoever asks a file server that has gone may hang for ever.
    """
    argv = ["stat", "--file-system", "--", *map(str, places)]
    try:
        run(argv, timeout=SHOWN, accept=range(256))
    except CommandTimeout:
        return False
    except CommandError:
        pass  # there is no such command: nobody knows
    return True
