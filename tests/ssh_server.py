"""A real OpenSSH server on a free port of loopback, and the home directory of somebody who uses it.

Its users log in as themselves with the key of ``home``; needs root, as sshd does to log anybody in.
"""

from __future__ import annotations

import getpass
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from network.needs import command_path, need, until

CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {base}/host_key
AuthorizedKeysFile {base}/authorized_keys
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin yes
MaxStartups 100:30:200
Subsystem sftp internal-sftp
UseDNS no
"""


class SshServer:
    """``start`` and ``kill`` may alternate; the port stays the same."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.home = base / "home"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        for key in (base / "host_key", self.home / ".ssh" / "id_ed25519"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        authorized = (self.home / ".ssh" / "id_ed25519.pub").read_text()
        (base / "authorized_keys").write_text(authorized)
        self.write_known_hosts(base / "host_key.pub")
        (base / "sshd_config").write_text(CONFIG.format(port=self.port, base=base))

    @property
    def url(self) -> str:
        """Its root directory."""
        return f"sftp://127.0.0.1:{self.port}//"

    def write_known_hosts(self, public_key: Path) -> None:
        """Have the user know the server by this key."""
        kind, key, *_ = public_key.read_text().split()
        known = self.home / ".ssh" / "known_hosts"
        known.write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")

    def start(self) -> None:
        """Begin to listen."""
        Path("/run/sshd").mkdir(exist_ok=True)
        sshd = command_path("sshd") or "sshd"  # wants to be called by its whole name
        argv = [sshd, "-D", "-f", str(self.base / "sshd_config"), "-E", str(self.base / "log")]
        self._process = subprocess.Popen(argv, start_new_session=True)
        until(self._listens, "sshd's listening")

    def kill(self) -> None:
        """End it with all its sessions."""
        sessions = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._process.pid)],
            capture_output=True,
            text=True,
            check=False,
        )
        self._process.kill()
        for pid in sessions.stdout.split():
            subprocess.run(["pkill", "-KILL", "-P", pid], check=False)
            subprocess.run(["kill", "-KILL", pid], capture_output=True, check=False)
        self._process.wait()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def ssh_server(base: Path) -> Iterator[SshServer]:
    """A running server; raises NoFilesystemError where there can be none."""
    need(["sshd", "ssh-keygen"], ["openssh-server", "openssh-client"], device="/dev/null")
    server = SshServer(base)
    server.start()
    try:
        yield server
    finally:
        server.kill()


USER = getpass.getuser()
