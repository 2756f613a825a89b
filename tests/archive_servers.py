"""Real archives on loopback: vsftpd, pyftpdlib, nginx, Apache and XRootD, as they are installed.

They need root, as daemons do that begin as root.  All that they write is below one directory.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from certificates import Certificates, make_certificates
from network.needs import NoFilesystemError, command_path, need, run, until
from ssh_server import ssh_server

HOST = "127.0.0.1"
PASSWORD = "quark-gluon-42"


@dataclass
class Server:
    """``start`` and ``kill`` may alternate; the port stays the same."""

    url: str  # of ``root``
    root: Path  # what it serves
    login: tuple[str, str] | None  # user and password
    argv: Sequence[str]
    port: int
    log: Path
    host: str = HOST
    environment: Mapping[str, str] = field(default_factory=dict)  # that its clients need
    home: Path = Path()  # where the key of a client is
    passive: Sequence[int] = ()  # ports for FTP's data, where they are known

    def start(self) -> None:
        """Begin to listen."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._listens, f"{self.argv[0]}'s listening")

    def kill(self) -> None:
        """End it with all its sessions, without a warning."""
        _kill(self._process.pid)
        self._process.wait()

    def cut(self) -> None:
        """Break all connections."""
        self.kill()
        self.start()

    def _listens(self) -> bool:
        assert self._process.poll() is None, self.log.read_text(errors="replace")[-1000:]
        with socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET) as probe:
            return probe.connect_ex((self.host, self.port)) == 0


Kind = Callable[[Path], Server]


@contextmanager
def running(kind: Kind, base: Path) -> Iterator[Server]:
    """A server of that kind; raises NoFilesystemError where there can be none."""
    (base / "root").mkdir()
    server = kind(base)
    server.start()
    try:
        yield server
    finally:
        server.kill()


# --------------------------------------------------------------------------- FTP

VSFTPD = """\
listen={ipv4}
listen_ipv6={ipv6}
listen_address{suffix}={host}
listen_port={port}
background=NO
anonymous_enable=YES
secure_email_list_enable=YES
email_password_file={base}/passwords
delay_failed_login=0
anon_root=/mnt
anon_world_readable_only=NO
secure_chroot_dir={base}/empty
seccomp_sandbox=NO
xferlog_enable=YES
vsftpd_log_file={base}/vsftpd.log
"""
VSFTPD_TLS = """\
ssl_enable=YES
allow_anon_ssl=YES
force_anon_logins_ssl=YES
force_anon_data_ssl=YES
require_ssl_reuse=YES
ssl_tlsv1=NO
rsa_cert_file={certificate}
rsa_private_key_file={key}
"""


def vsftpd(
    base: Path, *, secure: bool = False, implicit: bool = False, host: str = HOST, more: str = ""
) -> Server:
    """It knows only anonymous users here, but those need the password."""
    need(["vsftpd"], ["vsftpd"], device="/dev/null")
    port = free_port()
    (base / "empty").mkdir()
    (base / "passwords").write_text(f"{PASSWORD}\n")
    ipv6 = ":" in host
    words = {"ipv4": _yes(not ipv6), "ipv6": _yes(ipv6), "suffix": "6" if ipv6 else ""}
    text = VSFTPD.format(base=base, port=port, host=host, **words)
    environment = {}
    if secure:
        made = make_certificates(base)
        text += VSFTPD_TLS.format(certificate=made.certificate, key=made.key)
        text += f"implicit_ssl={_yes(implicit)}\n"
        environment = _trusting(made)
    (base / "vsftpd.conf").write_text(text + more)
    argv = _mounted(base / "root", "vsftpd", str(base / "vsftpd.conf"))
    name = f"[{host}]" if ipv6 else host
    url = f"{'ftps' if secure else 'ftp'}://{name}:{port}/"
    login = ("anonymous", PASSWORD)
    return Server(url, base / "root", login, argv, port, base / "log", host, environment)


def vsftpd_tls(base: Path) -> Server:
    """The same, which wants TLS, and its session for the data connections again."""
    return vsftpd(base, secure=True)


def pyftpdlib(base: Path, *, secure: bool = False, host: str = HOST) -> Server:
    """As the example experiment's archive."""
    port, login = free_port(), ("mu2e", PASSWORD)
    script = str(Path(__file__).with_name("pyftpd.py"))
    argv = [sys.executable, "-W", "ignore", script, str(base / "root"), host, str(port), *login]
    environment = {}
    if secure:
        made = make_certificates(base)
        argv.append(str(made.both))
        environment = _trusting(made)
    name = f"[{host}]" if ":" in host else host
    url = f"{'ftps' if secure else 'ftp'}://{name}:{port}/"
    return Server(url, base / "root", login, argv, port, base / "log", host, environment)


def pyftpdlib_tls(base: Path) -> Server:
    """The same, which wants TLS."""
    return pyftpdlib(base, secure=True)


# --------------------------------------------------------------------------- HTTP

NGINX = """\
daemon off;
user root;
worker_processes 1;
pid {base}/nginx.pid;
error_log {base}/error.log;
events {{}}
http {{
    access_log {base}/access.log;
    client_body_temp_path {base}/body;
    proxy_temp_path {base}/proxy;
    fastcgi_temp_path {base}/fastcgi;
    uwsgi_temp_path {base}/uwsgi;
    scgi_temp_path {base}/scgi;
    default_type application/octet-stream;
    server {{
        listen {host}:{port}{ssl};
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        root {base}/root;
        location / {{ auth_basic archive; auth_basic_user_file {base}/users; }}
        {more}
    }}
}}
"""


def nginx(base: Path, *, secure: bool = True, more: str = "") -> Server:
    """``more``: further lines of its configuration."""
    need(["nginx"], ["nginx-light"], device="/dev/null")
    port, login = free_port(), ("mu2e", PASSWORD)
    made = make_certificates(base)
    (base / "users").write_text(f"{login[0]}:{{PLAIN}}{login[1]}\n")
    text = NGINX.format(
        base=base,
        host=HOST,
        port=port,
        ssl=" ssl" if secure else "",
        certificate=made.certificate,
        key=made.key,
        more=more,
    )
    (base / "nginx.conf").write_text(text)
    conf = ["-c", str(base / "nginx.conf"), "-e", str(base / "error.log")]
    argv = [command_path("nginx") or "nginx", *conf]
    url = f"{'https' if secure else 'http'}://{HOST}:{port}/"
    return Server(url, base / "root", login, argv, port, base / "log", environment=_trusting(made))


APACHE = """\
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule alias_module {modules}/mod_alias.so
LoadModule autoindex_module {modules}/mod_autoindex.so
ServerName {host}
Listen {host}:{port}
User nobody
PidFile {base}/apache.pid
ErrorLog {base}/error.log
Alias /list/ /mnt/
<Directory /mnt>
    Options Indexes
    IndexOptions FancyIndexing HTMLTable
</Directory>
"""


def apache(base: Path) -> Server:
    """Shows its root as /list/."""
    need(["apache2"], ["apache2-bin"], device="/dev/null")
    port = free_port()
    text = APACHE.format(base=base, host=HOST, port=port, modules="/usr/lib/apache2/modules")
    (base / "apache.conf").write_text(text)
    argv = _mounted(base / "root", "apache2", "-X", "-f", str(base / "apache.conf"))
    return Server(f"http://{HOST}:{port}/", base / "root", None, argv, port, base / "log")


# --------------------------------------------------------------------------- XRootD

XROOTD = """\
all.export /
oss.localroot /mnt/root
all.adminpath /mnt/admin
all.pidpath /mnt/run
xrd.port {port}
xrootd.async off
"""


def xrootd(base: Path, *, more: str = "", sums: str = "max 2 adler32") -> Server:
    """``more``: further lines of its configuration; ``sums``: how it computes checksums, if."""
    need(["xrootd"], ["xrootd-server"], device="/dev/null")
    port = free_port()
    for name in ("admin", "run"):
        (base / name).mkdir()
        (base / name).chmod(0o777)
    (base / "xrootd.cfg").write_text(XROOTD.format(port=port) + more)
    if sums:
        with (base / "xrootd.cfg").open("a") as configuration:
            configuration.write(f"xrootd.chksum {sums}\n")
    base.chmod(0o755)
    argv = _mounted(base, "xrootd", "-n", "test", "-I", "v4", "-R", "nobody")
    argv += ["-c", "/mnt/xrootd.cfg"]
    return Server(f"root://{HOST}:{port}//", base / "root", None, argv, port, base / "log")


# --------------------------------------------------------------------------- SSH


@contextmanager
def openssh(base: Path) -> Iterator[Server]:
    """OpenSSH in the shape of the others, but that it is started already."""
    root = base / "root"
    root.mkdir()
    with ssh_server(base) as server:
        made = Server(f"{server.url}{root}", root, None, (), server.port, base / "log")
        made.environment = {"HOME": str(server.home)}
        made.home = server.home
        yield made


@contextmanager
def archive(kind: Kind | None, base: Path) -> Iterator[Server]:
    """One that runs, of that kind or, without one, OpenSSH; skips where there can be none."""
    base.mkdir()
    try:
        with openssh(base) if kind is None else running(kind, base) as server:
            yield server
    except NoFilesystemError as reason:
        pytest.skip(str(reason))


# --------------------------------------------------------------------------- what they share


def _kill(pid: int) -> None:
    """A process and all that it has started: sessions may be process groups of their own."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    with suppress(OSError):
        os.kill(pid, signal.SIGSTOP)  # nothing new
        until(lambda: _state(pid) in "TZX", f"process {pid}'s stop")
        found = children.read_text().split()
        os.kill(pid, signal.SIGKILL)
        for child in found:
            _kill(int(child))


def free_port(count: int = 1) -> int:
    """The first of some; not of those that programs are given for outgoing connections."""
    for port in random.sample(range(22000, 32000), 100):
        with ExitStack() as probes, suppress(OSError):
            for number in range(port, port + count):
                probes.enter_context(socket.socket()).bind((HOST, number))
            return port
    raise AssertionError("no port is free")


def _trusting(made: Certificates) -> dict[str, str]:
    return {"SSL_CERT_FILE": str(made.authority)}


def _state(pid: int) -> str:
    """Its letter in /proc: T for stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _mounted(directory: Path, *argv: str) -> list[str]:
    """A command that finds the directory at /mnt; its user may not enter those of tests."""
    run("unshare", "--mount", "true")  # or there can be no such server here
    alone = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /mnt && exec "$@"']
    return [*alone, str(directory), command_path(argv[0]) or argv[0], *argv[1:]]


def _yes(so: bool) -> str:
    return "YES" if so else "NO"
