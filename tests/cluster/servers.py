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


class ServerMissingError(Exception):
    """Why there is no such server on this machine."""


class Server(ABC):
    """One batch system: its daemons, and how its users reach it."""

    name: str
    packages: Sequence[str]
    commands: Sequence[str]  # that the packages bring
    brain: str  # the daemon that takes submissions and answers queries
    submission: str  # the commands by name
    query: str
    hold: Sequence[str]  # options of a submission that is not to start
    some_options: Sequence[str]  # harmless ones
    word_for_cancelled: str | None  # None: of a job that never started there is no account
    takes_what_it_did_not_answer: bool  # a submission that timed out becomes a job later on

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise ServerMissingError(f"starting {self.name} needs root")
        self._install()
        self._outside = dict(os.environ)  # tests put other commands in front of the real ones
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

    @abstractmethod
    def end_all_jobs(self) -> None:
        """End what a test has left in the queue."""

    def as_user(self, argv: Sequence[str]) -> list[str]:
        """The command under the user's account.

        It may read what only root may: the interpreter and its packages may be root's own.
        """
        who = [f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--clear-groups"]
        capability = "+dac_read_search"
        extra = [f"--inh-caps={capability}", f"--ambient-caps={capability}"]
        return ["setpriv", *who, *extra, *argv]

    def check_readable(self, path: Path) -> None:
        """Raise ServerMissingError when jobs of the user could not read this file."""
        account = ["setpriv", f"--reuid={self.user.pw_uid}", "--clear-groups"]
        if subprocess.run([*account, "test", "-r", str(path)], check=False).returncode:
            self.stop()
            raise ServerMissingError(f"{path} is not readable for ordinary users")

    def new_directory(self) -> Path:
        """An empty directory of the user's."""
        path = Path(tempfile.mkdtemp(prefix="work", dir=self.base))
        self.give_to_user(path)
        return path

    def give_to_user(self, directory: Path) -> None:
        """Have everything below the directory belong to the user, as if the user had made it."""
        owner = f"{self.user.pw_uid}:{self.user.pw_gid}"
        subprocess.run(["chown", "-R", owner, str(directory)], check=True)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the system as root, whatever it answers."""
        return subprocess.run(
            argv,
            env={**self._outside, **self.environment, "LC_ALL": "C"},
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
        if self.brain in self._daemons:
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
                env={**self._outside, **self.environment, **extra},
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
                raise ServerMissingError(f"{what} did not happen ({dead} ended):\n{logs}")
            time.sleep(0.1)

    def _install(self) -> None:
        if all(
            shutil.which(command, path=f"{os.environ['PATH']}:/usr/sbin")
            for command in self.commands
        ):
            return
        if not shutil.which("apt-get"):
            raise ServerMissingError(f"{self.name} is not installed, and there is no apt-get")
        for argv in (("update",), ("install", "-y", "--no-install-recommends", *self.packages)):
            done = subprocess.run(
                ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=600", *argv],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise ServerMissingError(f"apt-get {argv[0]} failed: {done.stderr[-300:]}")


def _ordinary_user() -> pwd.struct_passwd:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(USER)
    subprocess.run(["useradd", "--create-home", "--shell=/bin/bash", USER], check=True)
    return pwd.getpwnam(USER)


def _kill_all_in(directory: Path) -> None:
    """SIGKILL for what has its working directory, or a spool on its command line, in here."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            inside = str((entry / "cwd").readlink()).startswith(str(directory))
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
    submission = "sbatch"
    query = "squeue"
    hold = ("--hold",)
    some_options = ("--nice=10", "--comment=tests")
    word_for_cancelled = "cancelled (CANCELLED)"
    takes_what_it_did_not_answer = True

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

    def end_all_jobs(self) -> None:
        """See Server."""
        self.run("scancel", f"--user={USER}")

    def _ready(self) -> bool:
        return self.run("sinfo", "--noheader", "-N", "-o", "%t").stdout.split().count("idle") >= 2


# --------------------------------------------------------------------------- Grid Engine

BOOTSTRAP = """\
admin_user root
default_domain none
ignore_fqdn false
spooling_method berkeleydb
spooling_lib libspoolb
spooling_params {base}/spool
binary_path /usr/sbin
qmaster_spool_dir {base}/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""

# What differs from Debian's defaults: everything sooner, and no mail.
SGE_GLOBAL = {
    "execd_spool_dir": "{base}/execd",
    "mailer": "/bin/true",
    "load_report_time": "00:00:02",
    "reporting_params": "accounting=true reporting=false flush_time=00:00:01 joblog=false "
    "sharelog=00:00:00 accounting_flush_time=00:00:01",
}
SGE_SCHEDULER = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "job_load_adjustments": "NONE",
    "load_adjustment_decay_time": "0:0:0",
}
SGE_HOST = """\
hostname {host}
load_scaling NONE
complex_values NONE
user_lists NONE
xuser_lists NONE
projects NONE
xprojects NONE
usage_scaling NONE
report_variables NONE
"""
SGE_ENVIRONMENT = """\
pe_name smp
slots 99
user_lists NONE
xuser_lists NONE
start_proc_args /bin/true
stop_proc_args /bin/true
allocation_rule $pe_slots
control_slaves FALSE
job_is_first_task TRUE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
"""
# It takes any load: a machine under test is always busy.
SGE_QUEUE = {
    "qname": "all.q",
    "hostlist": "{host}",
    "load_thresholds": "NONE",
    "pe_list": "smp",
    "slots": "8",
    "shell": "/bin/bash",
    "shell_start_mode": "unix_behavior",
}


class GridEngine(Server):
    """sge_qmaster and one sge_execd with eight slots, accounting in a file."""

    name = "sge"
    packages = ("gridengine-master", "gridengine-exec", "gridengine-client")
    commands = ("qsub", "sge_qmaster", "sge_execd")
    brain = "qmaster"
    submission = "qsub"
    query = "qstat"
    hold = ("-h",)
    some_options = ("-p", "-10", "-ac", "comment=tests")
    word_for_cancelled = None
    takes_what_it_did_not_answer = False

    def __init__(self) -> None:
        super().__init__()
        self._ports = {"SGE_QMASTER_PORT": str(free_port()), "SGE_EXECD_PORT": str(free_port())}

    @property
    def environment(self) -> Mapping[str, str]:
        """See Server."""
        return {"SGE_ROOT": str(self.base / "root"), "SGE_CELL": "default", **self._ports}

    def start(self) -> None:
        """See Server."""
        base, host = self.base, socket.gethostname()
        common = base / "root" / "default" / "common"
        common.mkdir(parents=True)
        for name in ("qmaster/job_scripts", "execd", "spool"):
            (base / name).mkdir(parents=True)
        for name in ("bin", "lib", "util", "utilbin"):
            (base / "root" / name).symlink_to(f"/var/lib/gridengine/{name}")
        (common / "bootstrap").write_text(BOOTSTRAP.format(base=base))
        (common / "act_qmaster").write_text(f"{host}\n")
        # All names of the loopback interface are one host: which is first differs.
        names = [host, "localhost"]
        for line in Path("/etc/hosts").read_text().splitlines():
            if line.startswith(("127.", "::1")):
                names += [name for name in line.split()[1:] if name not in names]
        (common / "host_aliases").write_text(" ".join(names) + "\n")
        self._fill_spool()
        self._spawn("qmaster", "/usr/sbin/sge_qmaster", SGE_ND="true")
        self._until(lambda: self.run("qconf", "-sconf").returncode == 0, "qmaster's answer")
        self._configure(host)
        self._spawn("execd", "/usr/sbin/sge_execd", SGE_ND="true")
        self._until(self._ready, "a report of the node")

    def end_all_jobs(self) -> None:
        """See Server."""
        self.run("qdel", "-f", "-u", USER)

    def _fill_spool(self) -> None:
        share, tools = "/usr/share/gridengine", "/usr/lib/gridengine"
        defaults = Path(f"{share}/default-configuration").read_text()
        (self.base / "global").write_text(self._changed(defaults, SGE_GLOBAL))
        for argv in (
            (f"{tools}/spoolinit", "berkeleydb", "libspoolb", str(self.base / "spool"), "init"),
            (f"{tools}/spooldefaults", "configuration", str(self.base / "global")),
            (f"{tools}/spooldefaults", "complexes", f"{share}/util/resources/centry"),
            (f"{tools}/spooldefaults", "usersets", f"{share}/util/resources/usersets"),
            (f"{tools}/spooldefaults", "managers", "root"),
        ):
            self._must(*argv)

    def _configure(self, host: str) -> None:
        scheduler = self._must("qconf", "-ssconf")
        queue = self._must("qconf", "-sq")  # the template
        for option, text in (
            ("-Msconf", self._changed(scheduler, SGE_SCHEDULER)),
            ("-Ae", SGE_HOST.format(host=host)),
            ("-Ap", SGE_ENVIRONMENT),
            ("-Aq", self._changed(queue, SGE_QUEUE)),
        ):
            path = self.base / "object"
            path.write_text(text)
            self._must("qconf", option, str(path))
        self.run("qconf", "-as", host)

    def _changed(self, text: str, changes: Mapping[str, str]) -> str:
        """An object's text with some of its lines replaced."""
        host = socket.gethostname()
        lines = []
        for line in text.splitlines():
            key = line.split(" ")[0].split("\t")[0]
            if key in changes:
                line = f"{key} {changes[key].format(base=self.base, host=host)}"
            lines.append(line)
        return "\n".join(lines) + "\n"

    def _must(self, *argv: str) -> str:
        done = self.run(*argv)
        if done.returncode:
            self.stop()
            raise ServerMissingError(f"{' '.join(argv)} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def _ready(self) -> bool:
        lines = self.run("qhost").stdout.splitlines()
        return bool(lines) and lines[-1].split()[3:4] not in ([], ["-"])
