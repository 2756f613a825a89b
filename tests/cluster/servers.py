"""Real batch systems on this machine, each in a directory and on ports of its own.

Debian's packages are installed when they are missing, which needs root, as the servers do.  An
ordinary user submits.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

USER = "prodtest"
PATIENCE = 120.0  # seconds; only for the day on which something does not happen


class CannotStart(Exception):
    """Why there is no such server on this machine."""


class Server(ABC):
    """One batch system: its daemons, and how its users reach it."""

    name: str
    packages: Sequence[str]
    commands: Sequence[str]  # that the packages bring

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise CannotStart(f"starting {self.name} needs root")
        self._install()
        self.user = _ordinary_user()
        self.base = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir="/var/tmp"))
        self.base.chmod(0o755)  # for the user
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """By which the commands find this server."""

    @abstractmethod
    def start(self) -> None:
        """Start all daemons and wait until jobs can run."""

    @property
    @abstractmethod
    def brain(self) -> str:
        """The daemon that takes submissions and answers queries."""

    def as_user(self, argv: Sequence[str]) -> list[str]:
        """The command under the user's account.

        It may read what only root may: the interpreter and its packages may be root's own.
        """
        who = [f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--clear-groups"]
        capability = "+dac_read_search"
        extra = [f"--inh-caps={capability}", f"--ambient-caps={capability}"]
        return ["setpriv", *who, *extra, *argv]

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the system as root, whatever it answers."""
        return subprocess.run(
            argv,
            env={**os.environ, **self.environment, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def freeze(self) -> None:
        """Have the server not answer, as a machine under water does."""
        self._daemons[self.brain].send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """End ``freeze``."""
        self._daemons[self.brain].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End all daemons and jobs, and remove everything."""
        self.thaw()
        for daemon in reversed(list(self._daemons.values())):
            daemon.terminate()
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        _kill_all_in(self.base)
        shutil.rmtree(self.base, ignore_errors=True)

    def _spawn(self, name: str, *argv: str, **extra: str) -> None:
        with (self.base / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                ["nice", *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment, **extra},
                cwd=self.base,
                start_new_session=True,
            )

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            dead = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if dead or time.monotonic() > deadline:
                logs = "\n".join(
                    f"{path.name}: {path.read_text(errors='replace')[-1500:]}"
                    for path in (*self.base.glob("*.out"), *self.base.glob("*.log"))
                )
                self.stop()
                raise CannotStart(f"{what} did not happen ({dead} ended):\n{logs}")
            time.sleep(0.1)

    def _install(self) -> None:
        if all(shutil.which(command, path=f"{os.environ['PATH']}:/usr/sbin") for command in self.commands):
            return
        if not shutil.which("apt-get"):
            raise CannotStart(f"{self.name} is not installed, and there is no apt-get")
        for argv in (("update",), ("install", "-y", "--no-install-recommends", *self.packages)):
            done = subprocess.run(
                ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=600", *argv],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise CannotStart(f"apt-get {argv[0]} failed: {done.stderr[-300:]}")


def _ordinary_user() -> pwd.struct_passwd:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(USER)
    subprocess.run(["useradd", "--create-home", "--shell=/bin/bash", USER], check=True)
    return pwd.getpwnam(USER)


def _kill_all_in(directory: Path) -> None:
    """SIGKILL for what has its working directory, or a spool on its command line, in here."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            inside = os.readlink(entry / "cwd").startswith(str(directory))
            if inside or str(directory).encode() in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --------------------------------------------------------------------------- SLURM

SLURM_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket
StateSaveLocation={base}/state
SlurmctldPidFile={base}/slurmctld.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdPidFile={base}/slurmd.%n.pid
SlurmdLogFile={base}/slurmd.%n.log
SlurmdSpoolDir={base}/%n
# without cgroups and systemd, with more processors than there are
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=5,batch_sched_delay=0
MinJobAge=300
InactiveLimit=0
KillWait=5
MessageTimeout=10
SlurmctldTimeout=30
SlurmdTimeout=30
AccountingStorageType=accounting_storage/none
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{node1},{node2}] CPUs=4 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
PartitionName=short Nodes=n1 MaxTime=10
"""


class Slurm(Server):
    """munged, slurmctld, and two slurmd of four processors; no accounting."""

    name = "slurm"
    packages = ("slurm-wlm", "munge")
    commands = ("sbatch", "slurmctld", "slurmd", "munged")
    brain = "slurmctld"

    @property
    def environment(self) -> Mapping[str, str]:
        """See Server."""
        return {"SLURM_CONF": str(self.base / "slurm.conf")}

    def start(self) -> None:
        """See Server."""
        base = self.base
        text = SLURM_CONF.format(
            host=socket.gethostname().partition(".")[0],
            base=base,
            port=free_port(),
            node1=free_port(),
            node2=free_port(),
        )
        (base / "slurm.conf").write_text(text)
        # Release 22.05 always loads a cgroup plugin; this one works where there are none.
        (base / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        (base / "munge.key").write_bytes(os.urandom(128))
        (base / "munge.key").chmod(0o600)
        files = [
            f"--{what}={base}/munge.{suffix}"
            for what, suffix in (
                ("key-file", "key"),
                ("pid-file", "pid"),
                ("log-file", "log"),
                ("seed-file", "seed"),
                ("socket", "socket"),
            )
        ]
        self._spawn("munged", "/usr/sbin/munged", "--foreground", *files)
        self._until((base / "munge.socket").exists, "munged's socket")
        self._spawn("slurmctld", "/usr/sbin/slurmctld", "-D", "-f", str(base / "slurm.conf"))
        for node in ("n1", "n2"):
            (base / node).mkdir()
            conf = str(base / "slurm.conf")
            self._spawn(node, "/usr/sbin/slurmd", "-D", "-N", node, "-f", conf)
        self._until(self._ready, "two idle nodes")

    def _ready(self) -> bool:
        return self.run("sinfo", "--noheader", "-N", "-o", "%t").stdout.split().count("idle") >= 2
