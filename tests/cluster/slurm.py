"""SLURM: munged, slurmctld, two slurmd of four processors; slurmdbd and MariaDB for ``sacct``."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from servers import USER, Server, free_port

CONF = """\
ClusterName={cluster}
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
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=5,batch_sched_delay=0
MinJobAge=300
InactiveLimit=0
KillWait=5
MessageTimeout=10
SlurmctldTimeout=30
SlurmdTimeout=30
# what is over its limits is ended by the node
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{accounting}
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{node1},{node2}] CPUs=4 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=2
PartitionName=short Nodes=n1 MaxTime=10 PriorityTier=2
PartitionName=modest Nodes=n2 PriorityTier=1 PreemptMode=CANCEL
PartitionName=humble Nodes=n2 PriorityTier=1 PreemptMode=REQUEUE
"""
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={base}/munge.socket
"""
NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none\n"
DBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
PidFile={base}/slurmdbd.pid
LogFile={base}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={storage}
StorageUser=slurm
StoragePass=slurm
StorageLoc=accounting
"""
SAVED_AFTER = 6.0  # seconds
DATABASE = """\
CREATE DATABASE accounting;
CREATE USER slurm@'%' IDENTIFIED BY 'slurm';
CREATE USER slurm@localhost IDENTIFIED BY 'slurm';
GRANT ALL ON accounting.* TO slurm@'%';
GRANT ALL ON accounting.* TO slurm@localhost;
"""


class Slurm(Server):
    """With accounting."""

    name = "slurm"
    packages: tuple[str, ...] = (
        *("slurm-wlm", "munge"),
        *("slurmdbd", "slurm-wlm-mysql-plugin", "mariadb-server"),
    )
    commands: tuple[str, ...] = ("sbatch", "slurmctld", "slurmd", "munged", "slurmdbd", "mariadbd")
    brain = "slurmctld"
    submission = "sbatch"
    query = "squeue"
    hold = ("--hold",)
    some_options = ("--nice=10", "--comment=tests")
    word_for_cancelled = "cancelled by prodtest (CANCELLED)"
    takes_what_it_did_not_answer = True

    other_queue = "short"
    node = ("n1",)
    guard = "slurmstepd"

    cluster = "tests"
    accounting = True

    @property
    def environment(self) -> Mapping[str, str]:
        """See Server."""
        return {"SLURM_CONF": str(self.base / "slurm.conf")}

    def start(self) -> None:
        """See Server."""
        base = self.base
        self._start_munge()
        accounting = NO_ACCOUNTING
        if self.accounting:
            accounting = ACCOUNTING.format(port=self._start_accounting(), base=base)
        text = CONF.format(
            cluster=self.cluster,
            host=socket.gethostname().partition(".")[0],
            base=base,
            port=free_port(),
            node1=free_port(),
            node2=free_port(),
            accounting=accounting,
        )
        (base / "slurm.conf").write_text(text)
        # Release 22.05 always loads a cgroup plugin; this one works where there are none.
        (base / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        if self.accounting:
            self._spawn("slurmdbd", "/usr/sbin/slurmdbd", "-D")
            self._until(self._cluster_known, "slurmdbd's answer")
        self.start_brain()
        for node in ("n1", "n2"):
            (base / node).mkdir()
            self.start_node(node)
        self._until(self._ready, "two idle nodes")

    def start_brain(self) -> None:
        """See Server."""
        conf = str(self.base / "slurm.conf")
        self._spawn("slurmctld", "/usr/sbin/slurmctld", "-D", "-f", conf)

    def kill_brain(self) -> None:
        """See Server.

        It saves its state at most every five seconds.  Of what it had been told since, it would
        know nothing, and it would give the ids of those jobs to others.
        """
        time.sleep(SAVED_AFTER)
        super().kill_brain()

    def start_node(self, node: str) -> None:
        """A machine that runs jobs comes up."""
        conf = str(self.base / "slurm.conf")
        self._spawn(node, "/usr/sbin/slurmd", "-D", "-N", node, "-f", conf)

    def crash_node(self) -> None:
        """See Server; the administrator says so before SLURM gives it up by itself."""
        super().crash_node()
        self._must("scontrol", "update", "NodeName=n1", "State=DOWN", "Reason=crashed")

    def repair_node(self) -> None:
        """See Server."""
        self.start_node("n1")
        self._until(self._ready, "two idle nodes")

    def end_all_jobs(self) -> None:
        """See Server."""
        self.run("scancel", f"--user={USER}")

    def _ready(self) -> bool:
        return self.run("sinfo", "--noheader", "-N", "-o", "%t").stdout.split().count("idle") >= 2

    def _start_munge(self) -> None:
        base = self.base
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

    def _start_accounting(self) -> int:
        """MariaDB for slurmdbd, and what slurmdbd is told; the port on which it will listen."""
        base, port, storage = self.base, free_port(), free_port()
        (base / "slurmdbd.conf").write_text(DBD_CONF.format(base=base, port=port, storage=storage))
        (base / "slurmdbd.conf").chmod(0o600)
        data, endpoint = base / "mariadb", base / "mariadb.socket"
        own = ("--no-defaults", "--user=root", f"--datadir={data}")
        self._must(
            *("mariadb-install-db", *own, "--skip-test-db"),
            *("--auth-root-authentication-method=normal", "--skip-name-resolve"),
        )
        (base / "database.sql").write_text(DATABASE)
        self._spawn(
            *("mariadb", "/usr/sbin/mariadbd", *own, f"--socket={endpoint}"),
            *(f"--pid-file={base}/mariadb.pid", f"--port={storage}", "--bind-address=127.0.0.1"),
            *("--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0"),
            *("--innodb-lock-wait-timeout=900", "--skip-name-resolve"),
        )
        client = ("mariadb", "--no-defaults", "--user=root", f"--socket={endpoint}")
        self._until(lambda: self.run(*client, "-e", "SELECT 1").returncode == 0, "MariaDB's answer")
        self._must(*client, "-e", f"source {base}/database.sql")
        return port

    def _cluster_known(self) -> bool:
        added = self.run("sacctmgr", "--immediate", "add", "cluster", self.cluster)
        return added.returncode == 0 or "already exists" in added.stdout + added.stderr


class SlurmWithoutAccounting(Slurm):
    """As small sites have it: what ``squeue`` and ``scontrol`` forget, nobody knows."""

    packages = ("slurm-wlm", "munge")
    commands = ("sbatch", "slurmctld", "slurmd", "munged")
    accounting = False
    word_for_cancelled = "cancelled (CANCELLED)"
