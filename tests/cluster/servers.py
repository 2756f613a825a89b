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
# Seconds; only for the day on which something does not happen, and for a site's queues.
PATIENCE = float(os.environ.get("SITE_PATIENCE", "120"))


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
    node: Sequence[str] = ()  # the daemons of the machine that can crash
    guard = ""  # how the names of the processes begin that stand between these and a job
    queries_a_poll = 2  # by user, and since the tests' own process is root's, by id as well
    options: Sequence[str] = ()  # with which everything is submitted
    queue: str | None = None
    other_queue: str | None = None  # into which jobs can be moved
    knows_its_queues = True  # and moves jobs to no other

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
    def start_brain(self) -> None:
        """Start the daemon that takes submissions and answers queries."""

    @abstractmethod
    def end_all_jobs(self) -> None:
        """End what a test has left in the queue."""

    def path_of(self, command: str) -> str | None:
        """Where a command is, whatever stands before it on the PATH; None: nowhere."""
        return f"/usr/bin/{command}"

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

    def kill_brain(self) -> None:
        """End the server without a warning; ``start_brain`` brings it back."""
        self.kill(self.brain)

    def kill(self, name: str) -> None:
        """End a daemon without a warning."""
        self._daemons[name].kill()
        self._daemons.pop(name).wait()

    def crash_node(self) -> None:
        """A machine with all jobs on it, and what belongs to them there, is suddenly no more."""
        for name in self.node:
            self.kill(name)
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                guard = (entry / "comm").read_text().startswith(self.guard)
                ours = str(self.base).encode() in (entry / "environ").read_bytes()
                if guard and ours:
                    os.kill(int(entry.name), signal.SIGKILL)

    def repair_node(self) -> None:
        """End ``crash_node``."""
        raise ServerMissingError(f"{self.name} has no node here that could be spared")

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

    def _must(self, *argv: str) -> str:
        """What a command prints without which there is no server."""
        done = self.run(*argv)
        if done.returncode:
            self.stop()
            raise ServerMissingError(f"{' '.join(argv)} failed: {done.stdout}{done.stderr}")
        return done.stdout

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
