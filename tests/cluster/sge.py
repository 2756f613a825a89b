"""Grid Engine: sge_qmaster and one sge_execd with eight slots; accounting in a file."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from servers import USER, Server, free_port

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
GLOBAL = {
    "execd_spool_dir": "{base}/execd",
    "mailer": "/bin/true",
    "load_report_time": "00:00:02",
    "reporting_params": "accounting=true reporting=false flush_time=00:00:01 joblog=false "
    "sharelog=00:00:00 accounting_flush_time=00:00:01",
}
SCHEDULER = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "job_load_adjustments": "NONE",
    "load_adjustment_decay_time": "0:0:0",
}
HOST = """\
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
PARALLEL_ENVIRONMENT = """\
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
QUEUE = {
    "qname": "all.q",
    "hostlist": "{host}",
    "load_thresholds": "NONE",
    "pe_list": "smp",
    "slots": "8",
    "shell": "/bin/bash",
    "shell_start_mode": "unix_behavior",
}
# Jobs may wait there.
CLOSED = {"qname": "closed.q", "initial_state": "disabled"}


class GridEngine(Server):
    """One machine."""

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
    other_queue = "closed.q"
    node = ("execd",)
    guard = "sge_shepherd"

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
        self.start_brain()
        self._until(lambda: self.run("qconf", "-sconf").returncode == 0, "qmaster's answer")
        self._configure(host)
        self._start_node()
        self._until(self._ready, "a report of the node")

    def start_brain(self) -> None:
        """See Server."""
        self._spawn("qmaster", "/usr/sbin/sge_qmaster", SGE_ND="true")

    def repair_node(self) -> None:
        """See Server: only then it tells what became of its jobs."""
        self._start_node()

    def _start_node(self) -> None:
        self._spawn("execd", "/usr/sbin/sge_execd", SGE_ND="true")

    def end_all_jobs(self) -> None:
        """See Server."""
        self.run("qdel", "-f", "-u", USER)

    def _fill_spool(self) -> None:
        share, tools = "/usr/share/gridengine", "/usr/lib/gridengine"
        defaults = Path(f"{share}/default-configuration").read_text()
        (self.base / "global").write_text(self._changed(defaults, GLOBAL))
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
            ("-Msconf", self._changed(scheduler, SCHEDULER)),
            ("-Ae", HOST.format(host=host)),
            ("-Ap", PARALLEL_ENVIRONMENT),
            ("-Aq", self._changed(queue, QUEUE)),
            ("-Aq", self._changed(queue, {**QUEUE, **CLOSED})),
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

    def _ready(self) -> bool:
        lines = self.run("qhost").stdout.splitlines()
        return bool(lines) and lines[-1].split()[3:4] not in ([], ["-"])
