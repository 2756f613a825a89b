"""Inside a manager: counts its steps, and kills it at one of them, or has that one fail.

A step is a statement to the database, an operation on a file, or a command.  Statements are seen
by a class of connections, before and after they take effect; files and commands by Python's audit
events, which come before the operation, and may raise what it would raise (sys.addaudithook).
Only what concerns the experiment counts, not Python's own imports.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import astuple, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
LOG = "steps"  # in the experiment's directory: a line a step


class Kind(StrEnum):
    """What a step is."""

    STATEMENT = "statement"
    ROLLBACK = "rollback"  # which asks nobody
    DONE = "done"  # the end of a statement
    COMMITTED = "committed"  # the end of a statement that ends a transaction
    READ = "read"  # of a file or directory
    WRITE = "write"  # anything that changes files or directories
    COMMAND = "command"
    ANSWER = "answer"  # of a command


@dataclass(frozen=True)
class Step:
    """One step of a manager's life."""

    kind: Kind
    what: str


@dataclass(frozen=True)
class Injection:
    """What happens at step ``at``, counted from 1; 0: nothing.

    ``error``: the name of an errno or of an SQLite error, or ``timeout``; "" is kill -9.
    ``kind``: only such steps count, and fail.  ``lasting``: all of them from then on.
    """

    at: int = 0
    error: str = ""
    kind: Kind | None = None
    lasting: bool = False

    def struck(self, directory: Path) -> bool:
        """Whether it has happened in this experiment: no two lives have quite as many steps."""
        counted = [step for step in read_log(directory) if self.kind in (None, step.kind)]
        return len(counted) >= self.at

    @property
    def patch(self) -> str:
        """Python that arms a manager with it."""
        directory = str(Path(__file__).parent.parent)
        fields = json.dumps(astuple(self))
        return (
            # In place of the working directory, in which Python would look for modules.
            f"import json, sys; sys.path[0] = {directory!r}\n"
            "from steps.injector import Injection, arm\n"
            f"arm(Injection(*json.loads({fields!r})))"
        )


def read_log(directory: Path) -> list[Step]:
    """The steps of the manager that was armed last in this experiment."""
    found = []
    log = directory / LOG
    for line in log.read_text(errors="replace").splitlines() if log.exists() else ():
        kind, _, what = line.partition(" ")
        found.append(Step(Kind(kind), what))
    return found


# ------------------------------------------------------------------------------- in the manager

_CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_OPERATIONS = {
    "os.listdir": Kind.READ,
    "os.scandir": Kind.READ,
    **dict.fromkeys(
        (
            *("os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"),
            *("os.symlink", "os.truncate", "os.utime"),
        ),
        Kind.WRITE,
    ),
}


class _Steps:
    def __init__(self, injection: Injection, directory: str) -> None:
        self._injection = injection
        self.directory = directory
        self._log = os.open(
            f"{directory}/{LOG}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644
        )
        self._lock = threading.Lock()
        self._count = 0  # of those that count

    def step(self, kind: Kind, what: str) -> bool:
        """Count a step; whether it is to fail."""
        plan = self._injection
        with self._lock:
            line = f"{kind} {' '.join(what.split())}\n"
            os.write(self._log, line.encode(errors="replace"))
            if plan.kind not in (None, kind):
                return False
            self._count += 1
            if self._count == plan.at and not plan.error:
                os.kill(os.getpid(), signal.SIGKILL)
            return self._count == plan.at or (plan.lasting and self._count > plan.at)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's audit hook."""
        if event == "open":
            path, _, flags = arguments
            kind = Kind.WRITE if flags & _CHANGING else Kind.READ
        elif event in _OPERATIONS:
            path, kind = arguments[0], _OPERATIONS[event]
        elif event == "subprocess.Popen":
            path, kind = self.directory, Kind.COMMAND
        else:
            return
        name = _name(path, arguments)
        if not name.startswith(self.directory):
            return
        what = f"{event} {name}" if kind is not Kind.COMMAND else f"{arguments[1]}"
        if self.step(kind, what):
            code = getattr(errno, self._injection.error)
            raise OSError(code, os.strerror(code), name)

    def statement(self, kind: Kind, sql: str) -> None:
        """Count a statement, or its end; raises what SQLite would raise."""
        if self.step(kind, sql):
            raise _sqlite_error(self._injection.error)

    def answered(self, communicate: Callable[..., Any]) -> Callable[..., Any]:
        """``Popen.communicate`` that counts, and may not answer in time."""

        @functools.wraps(communicate)
        def wrapped(process: Any, *arguments: Any, **options: Any) -> Any:
            if self.step(Kind.ANSWER, str(process.args)):
                raise subprocess.TimeoutExpired(process.args, 60.0)
            return communicate(process, *arguments, **options)

        return wrapped


def _name(path: Any, arguments: tuple[Any, ...]) -> str:
    """The absolute name of what an event is about; rmtree speaks of files by descriptors."""
    if isinstance(path, int):
        return _of_descriptor(path)
    name = os.fsdecode(path)
    if name.startswith("/"):
        return name
    directories = [one for one in arguments[1:] if isinstance(one, int) and one > 2]
    return f"{_of_descriptor(directories[-1]) if directories else Path.cwd()}/{name}"


def _of_descriptor(descriptor: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""


def _sqlite_error(name: str) -> sqlite3.OperationalError:
    messages = {
        "SQLITE_BUSY": "database is locked",
        "SQLITE_FULL": "database or disk is full",
        "SQLITE_IOERR": "disk I/O error",
    }
    error = sqlite3.OperationalError(messages[name])
    error.sqlite_errorcode = getattr(sqlite3, name)
    error.sqlite_errorname = name
    return error


def _connections(steps: _Steps) -> type[sqlite3.Connection]:
    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
            return self._counted(sql, lambda: super(Connection, self).execute(sql, *rest))

        def executemany(self, sql: str, *rest: Any) -> sqlite3.Cursor:
            return self._counted(sql, lambda: super(Connection, self).executemany(sql, *rest))

        def rollback(self) -> None:
            self._counted("ROLLBACK", super().rollback)

        def _counted(self, sql: str, action: Callable[[], T]) -> T:
            steps.statement(Kind.ROLLBACK if sql == "ROLLBACK" else Kind.STATEMENT, sql)
            result = action()
            steps.statement(Kind.COMMITTED if sql == "COMMIT" else Kind.DONE, sql)
            return result

    return Connection


def _opening(steps: _Steps) -> Callable[..., sqlite3.Connection]:
    connect, factory = sqlite3.connect, _connections(steps)

    def counted(name: str, **options: Any) -> sqlite3.Connection:
        if steps.directory in name:  # not one that somebody makes in memory
            steps.statement(Kind.STATEMENT, "open")
            options["factory"] = factory
        made: sqlite3.Connection = connect(name, **options)
        return made

    return counted


def arm(injection: Injection) -> None:
    """Make this process, a manager that has not started yet, fail as ``injection`` says."""
    # Not part of the manager's life.
    import production.batch.local
    import production.cli.run_command
    import production.cli.session
    import production.manager.settings
    import production.space.mmlsquota
    import production.space.statvfs
    import production.staging.ftp
    import production.store.connection
    import production.view.console  # noqa: F401

    hasten()
    steps = _Steps(injection, os.environ["EXPERIMENT"])
    sqlite3.connect = _opening(steps)  # type: ignore[assignment]
    subprocess.Popen.communicate = steps.answered(subprocess.Popen.communicate)  # type: ignore[method-assign]
    sys.addaudithook(steps.audit)


def hasten() -> None:
    """Shorten what a manager waits for, so that a life takes no longer than it must."""
    from production.cli import session
    from production.manager.settings import Settings
    from production.store import connection

    connection.SLOW = 0.2
    connection.TROUBLE_PAUSE = 0.05
    vars(session)["Settings"] = functools.partial(Settings, record_grace=0.3)
