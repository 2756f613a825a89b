"""One production on several hosts that share a directory, for tests in which hosts get lost.

The hosts are whatever ``network.hosts`` knows.  Managers and jobs are processes on them; database,
spool and outputs lie in the directory that they share, which this machine need not see.  The
payload is a few lines of bash that refuse to run an attempt twice.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from experiment import PATIENCE, WITHOUT_INPUT, ManagerProcess
from laboratory import PROJECT
from network.hosts import Host

from production.model import DEFAULT_QUALITY
from production.store import datasets, migrations
from production.store.connection import Database

Rows = list[list[object]]

LEASE = 10  # seconds; the shortest that there is

# As long as there is hold.HOST, the jobs on that host work.
PAYLOAD = """\
attempt=${PM_SPOOL##*/}
mkdir "$SHARED_WORK/ledger/$attempt" || exit
while [[ -e $SHARED_WORK/hold.$(uname -n) ]]; do sleep 0.2; done
echo "$attempt" > "$1"
"""

CONFIGURATION = """\
data = "data"
[batch.local]
slots = 3
[space]
probe = "statvfs"
[defaults]
pause = 0.5
spacelim = "100%"
back_off = 0.5
"""

# What is usual, half a minute between two looks for dead managers and ten until a host whose jobs
# give no sign of life is lost, is long for a test.
_PROGRAM = """
from production.batch import local
from production.manager import loop
loop.REPAIR_EVERY = 1.0
local.SILENCE = 5.0
from production.cli import run_production
exit(run_production())
"""

# A process in a transaction until a file is there.
_TRANSACTION = """
import os, sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
while True:
    try:
        connection.execute(f"BEGIN {sys.argv[2]}")
        break
    except sqlite3.OperationalError as error:
        print(error)
connection.execute("INSERT INTO datasets (run, dataset) VALUES (99, ?)", (sys.argv[3],))
print("inside", flush=True)
while not os.path.exists(sys.argv[3]):
    time.sleep(0.05)
try:
    connection.execute("COMMIT")
except sqlite3.Error as error:
    print("refused:", error, flush=True)
else:
    print("committed", flush=True)
"""

# All that is looked at is looked at in one go: a command on a node takes its time.
_LOOK = """
import json, os, sqlite3, sys
from pathlib import Path
connection = sqlite3.connect(sys.argv[1], timeout=60)
found = [connection.execute(sql).fetchall() for sql in sys.argv[2:]]
data = Path(sys.argv[1]).parent / "data"
files = {str(path): path.read_text(errors="replace") for path in data.rglob("*") if path.is_file()}
print(json.dumps([found, files]))
"""


class Transaction:
    """A process in the midst of a transaction, which enters a label."""

    def __init__(self, process: ManagerProcess, end: Path) -> None:
        self.process = process
        self.label = str(end)
        self._end = end
        process.until_it_says("inside")

    def end(self) -> None:
        """Let it come to its COMMIT."""
        self._end.touch()

    @property
    def committed(self) -> bool:
        """Whether that was accepted; waits for it."""
        assert self.process.wait() == 0
        return "committed" in self.process.said


class SharedWork:
    """A new production in ``name``, a new directory of those that the hosts share.

    ``directory`` is one of this machine.  Use it by ``with``, which ends what was started.
    """

    def __init__(self, directory: Path, hosts: Sequence[Host], name: str, runs: int) -> None:
        self.hosts = list(hosts)
        self.runs = range(1, runs + 1)
        self.path = hosts[0].shared / name
        self.database = self.path / "production.db"
        self._directory = directory
        self._begun = False  # the production
        self._processes: list[ManagerProcess] = []
        self._lay_out(directory / "new")
        self.run(hosts[0], "cp", "-r", directory / "new", self.path)

    def __enter__(self) -> SharedWork:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()

    def _lay_out(self, new: Path) -> None:
        (new / "ledger").mkdir(parents=True)
        (new / "count.toml").write_text(WITHOUT_INPUT)
        (new / "count.sh").write_text(PAYLOAD)
        (new / "production.toml").write_text(CONFIGURATION)
        migrations.create(new / "production.db")
        with Database(new / "production.db") as db:
            labels = [datasets.Label(run, "SiR2", quality=DEFAULT_QUALITY) for run in self.runs]
            datasets.add(db, labels)

    # ----------------------------------------------------------------- what is done

    @property
    def environment(self) -> dict[str, str]:
        """All that processes on the hosts find in their environment."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path),
            "PYTHONPATH": str(PROJECT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C.UTF-8",
            "SHARED_WORK": str(self.path),
        }

    def run(self, host: Host, *argv: object) -> str:
        """A command on a host that must go well; what it prints."""
        done = subprocess.run(
            host.command(*argv, environment=self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, host: Host, *argv: object) -> ManagerProcess:
        """A process on a host.  What it says is seen here at once, whatever becomes of the host."""
        output = self._directory / f"{host.name}.{len(self._processes)}.out"
        output.touch()
        into = 'exec "$@" >> "$0" 2>&1'
        command = host.command("sh", "-c", into, output, *argv, environment=self.environment)
        process = ManagerProcess(command, dict(os.environ), output)
        self._processes.append(process)
        return process

    def manager(self, host: Host, *options: str) -> ManagerProcess:
        """A manager of the production, which the first one begins."""
        new = () if self._begun else ("--new=v1",)
        self._begun = True
        options = (f"--database={self.database}", f"--lease={LEASE}", *new, *options)
        return self.start(host, sys.executable, "-c", _PROGRAM, "--production=count", *options)

    def begin(self, host: Host, kind: str = "IMMEDIATE") -> Transaction:
        """A transaction on a host; an EXCLUSIVE one has all locks that there are."""
        end = self._directory / f"end{len(self._processes)}"
        argv = (sys.executable, "-c", _TRANSACTION, self.database, kind, end)
        return Transaction(self.start(host, *argv), end)

    def hold(self, host: Host) -> None:
        """Have the jobs on a host go on and on."""
        self.run(self.hosts[-1], "touch", self.path / f"hold.{host.name}")

    def let_go(self, host: Host) -> None:
        """End ``hold``."""
        self.run(self.hosts[-1], "rm", self.path / f"hold.{host.name}")

    # ----------------------------------------------------------------- what is seen

    def rows(self, sql: str) -> Rows:
        """What people would see with the sqlite3 shell on the last of the hosts."""
        ((rows,), _) = self._look(sql)
        return rows

    def begun(self) -> list[str]:
        """The attempts whose payload has been started: ``run00003.a1``."""
        return self.run(self.hosts[-1], "ls", self.path / "ledger").split()

    def labelled(self, transaction: Transaction) -> int:
        """How often the transaction has left what it entered."""
        sql = f"SELECT count(*) FROM datasets WHERE dataset = '{transaction.label}'"
        ((count,),) = self.rows(sql)
        return int(str(count))

    def _look(self, *queries: str) -> tuple[list[Rows], dict[str, str]]:
        """What the queries find, and all files below the data directory with their contents."""
        look = (sys.executable, "-c", _LOOK, self.database, *queries)
        found, files = json.loads(self.run(self.hosts[-1], *look))
        return found, files

    def check_all_finished(self) -> None:
        """Every run was finished by one attempt, whose output is there, and nothing else is."""
        for host in self.hosts:  # a job that was given up may still be at its end
            self.run(host, "sh", "-c", f"while pgrep -f '[j]ob.sh {self.path}'; do sleep 0.2; done")
        queries = (
            "PRAGMA integrity_check",
            "PRAGMA foreign_key_check",
            "SELECT run FROM run WHERE status <> 'F'",
            "SELECT run, attempt FROM attempt WHERE outcome IS NULL",
            "SELECT run, attempt FROM attempt WHERE outcome = 'finished' ORDER BY run",
            "SELECT bytes FROM count_v1 ORDER BY run",
            "SELECT olog FROM attempt UNION SELECT elog FROM attempt",
        )
        found, files = self._look(*queries)
        sound, violations, unfinished, under_way, finished, outputs, logs = found
        assert sound == [["ok"]]
        assert violations == unfinished == under_way == []
        assert [run for run, _ in finished] == list(self.runs)
        written = [files[str(path)] for (path,) in outputs]
        assert written == [f"run{run:05d}.a{attempt}\n" for run, attempt in finished]
        known = {path for (path,) in (*outputs, *logs)}
        unknown = set(files) - known
        assert not unknown, f"nothing tells of {sorted(unknown)}"
