"""A small experiment whose managers get into trouble: everything it needs in one directory.

Database, recipe, archive and configuration are real, and so are managers and jobs, which are
processes of their own.  The payload is a few lines of bash that keep a ledger, so that a test can
count executions; files under ``hold/`` make a phase of a run last as long as a test needs it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from archive import Archive

from production.model import DEFAULT_QUALITY
from production.store import datasets, migrations
from production.store.connection import Database

PROJECT = Path(__file__).parent.parent
PATIENCE = 120.0  # seconds; only for the day on which something does not happen
LAST_WORDS = 5.0  # seconds that a wrapper may live on when it has left its record
HOST = "127.0.0.1"
LOGIN = ("mu2e", "secret")
RUNS = (2091, 2092, 2093)
RAW_SIZE = 200_000  # bytes
DEFAULTS = 'pause = 0.2\nspacelim = "100%"\nback_off = 0.5'  # of the configuration

RECIPE = """\
name = "count"
description = "raw file -> how long it is"

[input.raw]
from = "archive"

[job]
script = "count.sh"
arguments = ["{raw}", "{bytes}"]

[output.bytes]
path = "bytes/v{version}/bytes{run:05d}.txt"

[exit_codes]
7 = "the detector was off"
"""

WITHOUT_INPUT = """\
name = "count"
description = "what its script writes"

[job]
script = "count.sh"
arguments = ["{bytes}"]

[output.bytes]
path = "bytes/v{version}/bytes{run:05d}.txt"

[exit_codes]
7 = "the detector was off"
"""

TOTAL = """\
name = "total"
description = "how long the outputs of count are"
base = "count"

[input.bytes]
from = "base"
output = "bytes"

[job]
script = "count.sh"
arguments = ["{bytes}", "{total}"]

[output.total]
path = "total/v{version}/total{run:05d}.txt"
"""

# What a run's own lines do (make it fail, for instance) stands in trouble/RUN.
PAYLOAD = """\
attempt=${PM_SPOOL##*/}
echo "begin $attempt" >> "$EXPERIMENT/ledger"
[[ ! -e $EXPERIMENT/trouble/$RUN ]] || source "$EXPERIMENT/trouble/$RUN"
while [[ -e $EXPERIMENT/hold/payload || -e $EXPERIMENT/hold/payload.$RUN ]]; do sleep 0.05; done
wc -c < "$1" > "$2" || exit
echo "done $attempt" >> "$EXPERIMENT/ledger"
"""

# Stands before the real one on the PATH, so that the wrapper's last phase can be made to last.
SHA256SUM = """\
#!/usr/bin/env bash
echo "checksum ${PWD##*/}" >> "$EXPERIMENT/ledger"
while [[ -e $EXPERIMENT/hold/checksum ]]; do sleep 0.05; done
exec %s "$@"
"""


class ManagerProcess:
    """A ``run_production.py`` at work, leader of a process group as under a shell.

    ``patience``: seconds in which what is waited for must happen.
    """

    patience = PATIENCE

    def __init__(self, argv: Sequence[str], environment: dict[str, str], output: Path) -> None:
        self._output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=output.parent,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def said(self) -> str:
        """Standard output and error so far."""
        return self._output.read_text()

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._process.poll() is not None

    def send(self, signum: signal.Signals) -> None:
        """A signal to the manager alone."""
        self._process.send_signal(signum)

    def press_ctrl_c(self) -> None:
        """What a terminal does: SIGINT for the whole foreground process group."""
        os.killpg(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL, harmless when it has ended, and wait."""
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        """The exit code; -n when signal n ended it."""
        return self._process.wait(self.patience)

    def until_it_says(self, text: str, times: int = 1) -> None:
        """Wait for a message."""
        self.until(lambda: self.said.count(text) >= times, text)

    def until(self, condition: Callable[[], bool], what: str = "it") -> None:
        """Wait for something that must happen while this manager works."""
        deadline = time.monotonic() + self.patience
        while not condition():
            assert not self.ended, f"ended before {what} happened; it said:\n{self.said}"
            assert time.monotonic() < deadline, f"{what} did not happen; it said:\n{self.said}"
            time.sleep(0.02)


class Experiment:
    """Use it by ``with experiment(tmp_path) as e``, which ends all processes that it started."""

    def __init__(self, directory: Path, runs: Sequence[int]) -> None:
        self.directory = directory
        self.runs = tuple(runs)
        self.type = "count"  # of the production
        self.database = directory / "production.db"
        self.data = directory / "data"
        self.tape = directory / "tape"  # what the archive serves
        self.netrc = directory / "netrc"
        self.bin = directory / "bin"  # first on the PATH of managers and jobs
        self._managers: list[ManagerProcess] = []
        self._archive: Archive | None = None
        self._reservation = _bound_socket(0)  # keeps the port while the archive is down
        self._port = self._reservation.getsockname()[1]
        self.archive_url = f"ftp://{HOST}:{self._port}/"
        self._silence: socket.socket | None = None
        self._build()

    def _build(self) -> None:
        for name in ("tape", "bin", "hold", "trouble"):
            (self.directory / name).mkdir()
        for run in self.runs:
            self.raw(run).write_bytes(bytes(RAW_SIZE + run))
        self.write_login(*LOGIN)
        (self.directory / "count.toml").write_text(RECIPE)
        (self.directory / "count.sh").write_text(PAYLOAD)
        self.add_command("sha256sum", SHA256SUM % shutil.which("sha256sum"))
        self.configure()
        migrations.create(self.database)
        with Database(self.database) as db:
            labels = [datasets.Label(run, "SiR2", quality=DEFAULT_QUALITY) for run in self.runs]
            datasets.add(db, labels)

    # ----------------------------------------------------------------- arranging

    def configure(self, **sections: str) -> None:
        """Write the configuration anew; ``sections`` replace tables or add some."""
        tables = {
            "archive": f'url = "{self.archive_url}"',
            "batch.local": "slots = 3",
            "space": 'probe = "statvfs"',
            "defaults": DEFAULTS,
            **{name.replace("__", "."): text for name, text in sections.items()},
        }
        text = "".join(f"[{name}]\n{text}\n" for name, text in tables.items())
        (self.directory / "production.toml").write_text(f'data = "data"\n{text}')

    def open_archive(self, *, stage_seconds: float = 0.0, rate: int = 0) -> None:
        """Serve the tapes; an archive that is open already is replaced, and forgets."""
        self.close_archive()
        log = self.directory / "archive.log"
        archive = Archive(
            self.tape, *LOGIN, port=self._port, stage_seconds=stage_seconds, rate=rate, log=log
        )
        self._archive = archive.__enter__()

    def silence_archive(self) -> None:
        """Have the archive take connections and never say a word."""
        self.close_archive()
        self._silence = _bound_socket(self._port)
        self._silence.listen()

    def close_archive(self) -> None:
        """Take the archive down; its connections break."""
        if self._archive is not None:
            self._archive.__exit__(None, None, None)
            self._archive = None
        if self._silence is not None:
            self._silence.close()
            self._silence = None

    def raw(self, run: int) -> Path:
        """The run's raw file on the archive."""
        return self.tape / f"run{run:05d}.mid"

    def write_login(self, user: str, password: str) -> None:
        """The netrc file."""
        self.netrc.write_text(f"machine {HOST} login {user} password {password}\n")
        self.netrc.chmod(0o600)

    def add_command(self, name: str, text: str) -> None:
        """A command that managers and jobs find before all others."""
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def hold(self, what: str) -> None:
        """Have each job wait in its ``payload`` (``payload.2091``: that run's) or ``checksum``."""
        (self.directory / "hold" / what).touch()

    def let_go(self, what: str) -> None:
        """End ``hold``."""
        (self.directory / "hold" / what).unlink(missing_ok=True)

    def trouble(self, run: int, lines: str) -> None:
        """Lines of bash for the payload of one run; "" for none any more."""
        (self.directory / "trouble" / str(run)).write_text(lines)

    # ----------------------------------------------------------------- managers

    @property
    def environment(self) -> dict[str, str]:
        """All that a manager finds in its environment."""
        return {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(self.directory),
            "NETRC": str(self.netrc),
            "PYTHONPATH": str(PROJECT),
            "LC_ALL": "C.UTF-8",
            "EXPERIMENT": str(self.directory),
        }

    def command(self, *arguments: str, patch: str = "", prefix: Sequence[str] = ()) -> list[str]:
        """The command of a manager: of the production, or of a new one the first time.

        ``patch`` is Python that is executed before the program, for trouble that cannot be had
        otherwise; ``prefix`` is a command that starts it, such as nohup.
        """
        code = f"{patch}\nfrom production.cli import run_production\nexit(run_production())"
        program = ["-c", code] if patch else [str(PROJECT / "run_production.py")]
        new = () if self.rows("SELECT 1 FROM productions") else ("--new=v1",)
        options = [f"--production={self.type}", f"--database={self.database}", *new]
        in_order = "--transfers=1"  # else runs would overtake each other
        return [*prefix, sys.executable, *program, *options, in_order, *arguments]

    def start(self, *arguments: str, patch: str = "", prefix: Sequence[str] = ()) -> ManagerProcess:
        """A manager, without waiting for anything."""
        output = self.directory / f"manager{len(self._managers)}.out"
        argv = self.command(*arguments, patch=patch, prefix=prefix)
        manager = ManagerProcess(argv, self.environment, output)
        self._managers.append(manager)
        return manager

    def finish(self, *arguments: str) -> ManagerProcess:
        """A manager for which everything goes well, and which must finish all runs."""
        for held in (self.directory / "hold").iterdir():
            self.let_go(held.name)
        self.open_archive()
        manager = self.start(*arguments)
        assert manager.wait() == 0, manager.said
        self.check_all_finished()
        return manager

    def production(self, *arguments: str) -> str:
        """``production COMMAND``, which must go well; what it prints."""
        argv = [sys.executable, "-m", "production", *arguments, f"--database={self.database}"]
        return subprocess.run(
            argv, env=self.environment, check=True, capture_output=True, text=True, timeout=PATIENCE
        ).stdout

    def processes(self) -> list[int]:
        """All living processes of this experiment, known by their environment."""
        mark = f"EXPERIMENT={self.directory}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has just ended
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def kill_everything(self) -> None:
        """SIGKILL for managers and jobs."""
        while pids := self.processes():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def close(self) -> None:
        """End all that was started."""
        self.kill_everything()
        for manager in self._managers:
            manager.wait()
        self.close_archive()
        self._reservation.close()

    # ----------------------------------------------------------------- looking

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """What people would see with the sqlite3 shell."""
        connection = sqlite3.connect(self.database, timeout=PATIENCE)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def statuses(self) -> str:
        """The letter of each run, in order of the runs: ``NCR``."""
        return "".join(str(row[0]) for row in self.rows("SELECT status FROM run ORDER BY run"))

    def reasons(self) -> dict[object, object]:
        """Why each run failed, as the view tells it."""
        return dict(self.rows(f"SELECT run, reason FROM {self.type}_v1"))  # type: ignore[arg-type]

    def outcomes(self, run: int) -> list[object]:
        """How the attempts at a run ended, in their order."""
        sql = f"SELECT outcome FROM attempt WHERE run = {run} ORDER BY attempt"
        return [row[0] for row in self.rows(sql)]

    def ledger(self, what: str) -> list[str]:
        """Which attempts (``run02091.a1``) have come to ``begin``, ``checksum`` or ``done``."""
        path = self.directory / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split()[1] for line in lines if line.startswith(f"{what} ")]

    def completions(self) -> dict[int, int]:
        """How often the payload of each run came to its end."""
        return Counter(int(attempt[3:8]) for attempt in self.ledger("done"))

    def archive_log(self, what: str) -> list[str]:
        """Which files the archive has ``staged`` or ``sent``."""
        path = self.directory / "archive.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split()[1] for line in lines if line.startswith(f"{what} ")]

    def partly_downloaded(self) -> int:
        """How many bytes of the raw file under way are here."""
        sizes = [0]
        for part in self.data.glob("raw/*/*/*.part"):
            with contextlib.suppress(FileNotFoundError):  # it is complete now
                sizes.append(part.stat().st_size)
        return max(sizes)

    def wrapper(self, run: int) -> int:
        """The pid of the process that has the run's job in its hands."""
        (notes,) = self.data.glob(f"spool/*/run{run:05d}.a*/started/pid")
        return int(notes.read_text().split()[0])

    def records(self) -> list[Path]:
        """The exit records of jobs that nobody has settled yet."""
        return list(self.data.glob("spool/*/run*/record"))

    def files(self) -> set[Path]:
        """All files below the data directory."""
        return {path for path in self.data.rglob("*") if not path.is_dir()}

    # ----------------------------------------------------------------- what must always hold

    def check_nothing_under_way(self) -> None:
        """No process, no claim, no file that the bookkeeping does not name, a sound database."""
        deadline = time.monotonic() + LAST_WORDS
        while left := self.processes():
            assert time.monotonic() < deadline, f"processes {left} go on"
            time.sleep(0.01)
        assert self.rows("PRAGMA integrity_check") == [("ok",)]
        assert self.rows("PRAGMA foreign_key_check") == []
        assert set(self.statuses()) <= set("NFE")
        assert self.rows("SELECT * FROM attempt WHERE outcome IS NULL") == []
        recorded = self.rows(
            "SELECT path FROM output UNION SELECT olog FROM attempt UNION SELECT elog FROM attempt"
        )
        unknown = self.files() - {Path(str(path)) for (path,) in recorded}
        assert not unknown, f"nothing tells of {sorted(map(str, unknown))}"

    def check_all_finished(self) -> None:
        """Every run is finished once, and its output is what and where the bookkeeping says."""
        self.check_nothing_under_way()
        assert self.statuses() == "F" * len(self.runs)
        for run, path, olog, elog in self.rows("SELECT run, bytes, olog, elog FROM count_v1"):
            assert Path(str(path)).read_text() == f"{self.raw(int(str(run))).stat().st_size}\n"
            assert Path(str(olog)).exists()
            assert Path(str(elog)).exists()
        for run in self.runs:
            assert self.outcomes(run).count("finished") == 1
        assert self.rows(
            "SELECT run, file, size FROM attempt LEFT JOIN input ON list = inputs "
            "WHERE outcome = 'finished' ORDER BY run"
        ) == [(run, self.raw(run).name, self.raw(run).stat().st_size) for run in self.runs]
        begun = self.ledger("begin")
        assert len(begun) == len(set(begun)), "an attempt ran twice"
        assert self.rows("SELECT count(*) FROM productions WHERE stop IS NULL") == [(0,)]


def _bound_socket(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((HOST, port))
    return made


@contextmanager
def experiment(directory: Path, runs: Sequence[int] = RUNS) -> Iterator[Experiment]:
    """An experiment with its archive down and no manager yet."""
    made = Experiment(directory, runs)
    try:
        yield made
    finally:
        made.close()
