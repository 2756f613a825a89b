"""A real HTCondor pool on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from servers import Server, ServerMissingError, free_port

# Debian 12 has no HTCondor, so its programs come from Debian 13, into a tree of their own which
# is made once for all tests on this machine.  They run where everything else does: each finds
# the libraries that it was made with, and its loader, in the tree.
RELEASE = "trixie"
TREE = Path(f"/var/tmp/production-tests-condor-{RELEASE}")
MIRROR = "http://deb.debian.org/debian/"  # where apt does not know a better one
# In the tree; $1 is where it will stand.
EQUIP = """\
printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d || exit
apt-get -q update && apt-get -q install -y --no-install-recommends condor patchelf || exit
apt-get clean
for program in /usr/bin/condor_* /usr/sbin/condor_* /usr/libexec/condor/condor_*; do
    patchelf --print-interpreter "$program" > /dev/null 2>&1 || continue
    patchelf --set-interpreter "$1/usr/lib64/ld-linux-x86-64.so.2" --force-rpath \\
        --set-rpath "$1/usr/lib/x86_64-linux-gnu:$1/usr/lib" "$program" || exit
done
mkdir /commands && cd /commands && ln -s ../usr/bin/condor_* . || exit
"""

CONFIG = """\
RELEASE_DIR = {tree}/usr
BIN = $(RELEASE_DIR)/bin
SBIN = $(RELEASE_DIR)/sbin
LIB = $(RELEASE_DIR)/lib/condor
LIBEXEC = $(RELEASE_DIR)/libexec/condor
SHARE = $(RELEASE_DIR)/share/condor
LOCAL_DIR = {base}
LOG = {base}/log
RUN = {base}/run
LOCK = {base}/run
SPOOL = {base}/spool
EXECUTE = {base}/execute
LOCAL_DISK_LOCK_DIR = {base}/locks
LOCAL_CONFIG_FILE =
LOCAL_CONFIG_DIR =
# Files that are root's nor the user's belong to the account daemon.
CONDOR_IDS = 1.1

# without a condor_master, on loopback, and without touching the machine's settings
USE_SHARED_PORT = False
COLLECTOR_HOST = 127.0.0.1:{port}
NETWORK_INTERFACE = 127.0.0.1
BIND_ALL_INTERFACES = False
NO_DNS = True
DEFAULT_DOMAIN_NAME = tests
UID_DOMAIN = tests
FILESYSTEM_DOMAIN = tests
ENABLE_KERNEL_TUNING = False
BASE_CGROUP =
RUNBENCHMARKS = False
FILETRANSFER_PLUGINS =
JAVA =
# Jobs see the machine's own /tmp: the interpreter may stand there.
MOUNT_UNDER_SCRATCH =
COLLECTOR_BOOTSTRAP_SSL_CERTIFICATE = False
STARTD_DETECT_GPUS = False

SEC_USE_FAMILY_SESSION = False
SEC_DEFAULT_AUTHENTICATION = REQUIRED
SEC_DEFAULT_AUTHENTICATION_METHODS = FS
ALLOW_ADMINISTRATOR = root@tests, condor@tests, daemon@tests
ALLOW_DAEMON = root@tests, condor@tests, daemon@tests
ALLOW_NEGOTIATOR = $(ALLOW_DAEMON)
ALLOW_READ = *
ALLOW_WRITE = *

# one machine with more than there is, that turns a job out only for its memory
NUM_CPUS = 8
MEMORY = 16000
NUM_SLOTS_TYPE_1 = 1
SLOT_TYPE_1 = 100%
SLOT_TYPE_1_PARTITIONABLE = True
START = True
SUSPEND = False
PREEMPT = False
KILL = False
JOB_DEFAULT_REQUESTMEMORY = 1000
use POLICY : HOLD_IF_MEMORY_EXCEEDED
# Not more than the slot has: it may have been made for an earlier job, which needed more.
MEMORY_EXCEEDED = MemoryUsage > RequestMemory

# limits of the pool for jobs that have these attributes
SYSTEM_PERIODIC_REMOVE = JobStatus == 2 && time() - JobCurrentStartDate > MaxRuntime
SYSTEM_PERIODIC_HOLD = ResidentSetSize > MaxMemory * 1024

# everything sooner
NEGOTIATOR_INTERVAL = 2
NEGOTIATOR_MIN_INTERVAL = 1
NEGOTIATOR_CYCLE_DELAY = 1
SCHEDD_INTERVAL = 2
UPDATE_INTERVAL = 5
PERIODIC_EXPR_INTERVAL = 2
MAX_PERIODIC_EXPR_INTERVAL = 2
JOB_START_DELAY = 0
# How much memory a job has is looked at once, in its first seconds, and then every five minutes.
STARTER_INITIAL_UPDATE_INTERVAL = 2
STARTER_UPDATE_INTERVAL = 2

# queues, as some sites have them
SUBMIT_REQUIREMENT_NAMES = Flavour
SUBMIT_REQUIREMENT_Flavour = (JobFlavour ?: "short") == "short" || JobFlavour == "long"
SUBMIT_REQUIREMENT_Flavour_REASON = strcat("there is no flavour ", JobFlavour)
"""


class HTCondor(Server):
    """Collector, negotiator, schedd, and one startd with eight cores, of release 23.9."""

    name = "htcondor"
    packages = ("debootstrap",)
    commands = ("debootstrap",)
    brain = "schedd"
    submission = "condor_submit"
    query = "condor_q"
    hold: Sequence[str] = ("hold = True",)
    some_options: Sequence[str] = ("priority = -10", '+Comment = "tests"')
    word_for_cancelled = "removed via condor_rm (by user prodtest)"
    takes_what_it_did_not_answer = False
    other_queue = "long"
    knows_its_queues = False  # they are attributes of the jobs
    queries_a_poll = 0  # the jobs' event logs tell

    @property
    def environment(self) -> Mapping[str, str]:
        """See Server."""
        return {"CONDOR_CONFIG": str(self.base / "condor_config")}

    def start(self) -> None:
        """See Server."""
        for name in ("log", "run", "spool", "execute", "locks"):
            (self.base / name).mkdir()
            shutil.chown(self.base / name, "daemon", "daemon")
        (self.base / "locks").chmod(0o1777)
        port = free_port()
        config = CONFIG.format(tree=TREE, base=self.base, port=port)
        (self.base / "condor_config").write_text(config)
        self._start("collector", "-p", str(port))
        self._start("negotiator")
        self._start("startd")
        self.start_brain()
        self._until(self._ready, "a slot")

    def start_brain(self) -> None:
        """See Server."""
        self._start(self.brain)
        self._until(lambda: self._ask("condor_q").returncode == 0, "schedd's answer")

    def kill_brain(self) -> None:
        """See Server; as a condor_master does, which ends what a dead schedd has left."""
        super().kill_brain()
        for shadow in self.shadows():
            os.kill(shadow, signal.SIGKILL)

    def shadows(self, job: str = "") -> list[int]:
        """The processes by which the schedd watches running jobs, or one of them."""
        ours = f"CONDOR_CONFIG={self.base}/".encode()
        words = f"condor_shadow\0{job}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has just ended
                if (
                    words in (entry / "cmdline").read_bytes()
                    and ours in (entry / "environ").read_bytes()
                ):
                    found.append(int(entry.name))
        return found

    def end_all_jobs(self) -> None:
        """See Server."""
        self._ask("condor_rm", "-all")

    def path_of(self, command: str) -> str | None:
        """See Server."""
        path = TREE / "commands" / command
        return str(path) if path.exists() else None

    def _ask(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run(f"{TREE}/commands/{command}", *options)

    def _start(self, name: str, *options: str) -> None:
        self._spawn(name, f"{TREE}/usr/sbin/condor_{name}", "-f", *options)

    def _ready(self) -> bool:
        return "slot1@" in self._ask("condor_status", "-af", "Name").stdout

    def _install(self) -> None:
        if TREE.exists():
            return
        super()._install()
        # Under another name until it is complete; others may be at it as well.
        unfinished = Path(tempfile.mkdtemp(prefix=f"{TREE.name}.", dir=TREE.parent))
        unfinished.chmod(0o755)
        try:
            _must("debootstrap", "--variant=minbase", RELEASE, str(unfinished), _mirror())
            _must("chroot", str(unfinished), "sh", "-c", EQUIP, "sh", str(TREE))
            if not TREE.exists():
                unfinished.rename(TREE)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _mirror() -> str:
    """Where apt has Debian's packages from."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    known = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()
    return next((uri for uri in known if uri.endswith("/debian/")), MIRROR)


def _must(*argv: str) -> None:
    """A command that may take several minutes; it must not be led astray by our PATH."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {**os.environ, "PATH": path, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-300:]
        raise ServerMissingError(f"{argv[0]} for HTCondor failed: {said}")
