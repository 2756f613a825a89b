"""The main job on real batch systems: the 67 runs of SiR2 through alcapana and rootana.

With ALL_VARIANTS in the environment each system takes all of them in arrays and as single jobs.
Otherwise one system takes all, and the others those that come first.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from archive import Archive
from conftest import OWN_KINDS
from servers import Server

PROJECT = Path(__file__).parent.parent.parent
EXAMPLES = PROJECT / "examples"
ALL = "2091-2103,2119-2172"
SOME = "2091-2103"
LOGIN = ("mu2e", "secret")
VARIANTS = [(name, arrays, ALL) for name in OWN_KINDS for arrays in (True, False)]
if "ALL_VARIANTS" not in os.environ:
    arrays_everywhere = [(name, True, SOME) for name in OWN_KINDS if name != "slurm"]
    VARIANTS = [("slurm", True, ALL), ("slurm", False, SOME), *arrays_everywhere]

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]

CONFIGURATION = """\
data = "data"

[archive]
url = "ftp://127.0.0.1:{port}/"

[environment]
script = "{examples}/thisdaq.sh"

[environment.variables]
PRODUCTION_EXAMPLE_PYTHON = "{python}"

[modules]
alcapana = "{examples}/MODULES"
rootana = "{examples}/production.cfg"

[batch]
system = "{system}"

[batch.{system}]
arrays = {arrays}
"""

# linux/capability.h: revision 2, effective; permitted is CAP_DAC_READ_SEARCH.
MAY_READ = struct.pack("<5I", 0x02000001, 1 << 2, 0, 0, 0)


@pytest.fixture(scope="session")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw files of all runs."""
    directory = tmp_path_factory.mktemp("tape")
    argv = [sys.executable, str(EXAMPLES / "make_raw.py"), str(directory)]
    subprocess.run(argv, check=True, capture_output=True)
    return directory


class Home:
    """A user's directory, with a database that has the runs of SiR2 in it."""

    def __init__(self, server: Server, port: int, runs: str, arrays: bool) -> None:
        self._server = server
        self.directory = server.new_directory()
        self.database = self.directory / "production.db"
        text = CONFIGURATION.format(
            port=port,
            examples=EXAMPLES,
            python=_readable_python(self.directory / "python"),
            system=server.name,
            arrays=json.dumps(arrays),
        )
        (self.directory / "production.toml").write_text(text)
        netrc = self.directory / "netrc"
        netrc.write_text("machine 127.0.0.1 login {} password {}\n".format(*LOGIN))
        netrc.chmod(0o600)
        server.give_to_user(self.directory)
        self.run("-m", "production", "init")
        self.run("-m", "production", "datasets", "add", "SiR2", runs, "--quality=gold")

    @property
    def environment(self) -> Mapping[str, str]:
        """What the user's login has."""
        commands = Path(self._server.path_of(self._server.submission) or "").parent
        return {
            "PATH": f"{os.environ['PATH']}:{commands}",
            "HOME": str(self.directory),
            "NETRC": str(self.directory / "netrc"),
            "PYTHONPATH": str(PROJECT),
            "LC_ALL": "C.UTF-8",
            **self._server.environment,
        }

    def run(self, *arguments: str) -> str:
        """Run a program of the product as the user; what it says."""
        argv = [sys.executable, *arguments, f"--database={self.database}"]
        done = subprocess.run(
            self._server.as_user(argv),
            env=self.environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def rows(self, sql: str) -> Sequence[tuple[object, ...]]:
        """What people would see with the sqlite3 shell."""
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(sql).fetchall()


def _readable_python(directory: Path) -> Path:
    """Our interpreter, with its packages, as jobs of an ordinary user can start it.

    The interpreter may stand where only root may read, and be of no use elsewhere.
    """
    (directory / "bin").mkdir(parents=True)
    python = directory / "bin" / "python3"
    shutil.copyfile(Path(sys.executable).resolve(), python)
    os.chown(python, 0, 0)
    python.chmod(0o755)
    os.setxattr(python, "security.capability", MAY_READ)
    home = Path(sys.base_prefix) / "bin"
    (directory / "pyvenv.cfg").write_text(f"home = {home}\n")
    (directory / "lib").symlink_to(Path(sys.prefix) / "lib")
    return python


@pytest.mark.parametrize(
    ("server", "arrays", "runs"),
    VARIANTS,
    indirect=["server"],
    ids=[f"{name}-{'arrays' if arrays else 'single'}" for name, arrays, _ in VARIANTS],
)
def test_all_runs_through_both_productions(
    server: Server, tape: Path, arrays: bool, runs: str
) -> None:
    with Archive(tape, *LOGIN) as archive:
        home = Home(server, archive.port, runs, arrays)
        for production in ("alcapana", "rootana"):
            options = (f"--production={production}", "--new=v1", "--nproc=20", "--pause=1")
            home.run(str(PROJECT / "run_production.py"), *options)
    count = len(home.rows("SELECT run FROM datasets"))
    assert count == {ALL: 67, SOME: 13}[runs]
    for table in ("alcapana_v1", "rootana_v1"):
        statuses = home.rows(f"SELECT status, count(*) FROM {table} GROUP BY status")
        assert statuses == [("F", count)]
    assert home.rows("SELECT max(attempt) FROM run") == [(1,)]
    outputs = home.rows("SELECT path, size, sha256 FROM output")
    assert len(outputs) == 4 * count
    for path, size, checksum in outputs:
        content = Path(str(path)).read_bytes()
        assert len(content) == size
        assert hashlib.sha256(content).hexdigest() == checksum
    jobs = [str(job) for (job,) in home.rows("SELECT job FROM attempt")]
    submissions = {re.split("[^0-9]", job)[0] for job in jobs}
    assert (len(submissions) < len(jobs)) == arrays
