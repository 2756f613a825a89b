"""Passwords and keys stay where their owner has put them: they are searched for everywhere else."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from archive_behaviour import write_netrc
from archive_servers import Kind, Server, archive, nginx, vsftpd
from experiment import Experiment, experiment

pytestmark = pytest.mark.slow


def secrets_of(server: Server, home: Path) -> list[bytes]:
    """All that nobody may see, as it is kept and as it is sent."""
    if server.login is None:
        lines = (home / ".ssh" / "id_ed25519").read_bytes().splitlines()
        return [line for line in lines if line and not line.startswith(b"-----")]
    user, password = server.login
    return [password.encode(), base64.b64encode(f"{user}:{password}".encode())]


def holding(secrets: Iterable[bytes], paths: Iterable[Path]) -> set[Path]:
    """Those of the files that hold one of the secrets."""
    found = set()
    for path in paths:
        try:
            contents = path.read_bytes()
        except OSError:  # gone, or no file
            continue
        if any(secret in contents for secret in secrets):
            found.add(path)
    return found


def files_of(e: Experiment) -> list[Path]:
    """Home, data, spool with job scripts and records, database with its raw bytes, messages."""
    return [path for path in e.directory.rglob("*") if path.is_file()]


def processes_of(e: Experiment) -> list[Path]:
    """What everybody, or every process of one's own, can see of managers and jobs."""
    pids = e.processes()
    assert len(pids) > 1  # a manager and its jobs
    return [Path(f"/proc/{pid}/{what}") for pid in pids for what in ("cmdline", "environ")]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(vsftpd, id="ftp"),
        pytest.param(nginx, id="https"),
        pytest.param(None, id="sftp"),
    ],
)
def test_a_whole_production_tells_it_to_nobody(kind: Kind | None, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    with archive(kind, tmp_path / "server") as server, experiment(tmp_path / "experiment") as e:
        for run in e.runs:
            shutil.copy(e.raw(run), server.root)
        e.trouble(e.runs[0], "exit 1")  # it has something to tell as well
        e.configure(archive=f'url = "{server.url}"')
        write_netrc(e.netrc, server)
        if server.login is None:
            shutil.copytree(server.home, e.directory, dirs_exist_ok=True)
        secrets = secrets_of(server, e.directory)
        own = {e.netrc} if server.login else {e.directory / ".ssh" / "id_ed25519"}
        environment = {**server.environment, "HOME": str(e.directory)}
        e.hold("payload")
        manager = e.start(
            "--max-attempts=1",
            f"--log-file={e.directory}/log.json",
            prefix=["env", *(f"{k}={v}" for k, v in environment.items())],
        )
        manager.until(lambda: len(e.ledger("begin")) == len(e.runs), "the jobs' begin")
        assert holding(secrets, files_of(e)) == own
        assert holding(secrets, processes_of(e)) == set()
        e.let_go("payload")
        assert manager.wait() == 40, manager.said  # one run has failed
        assert e.statuses() == "EFF"
        assert e.rows("SELECT url FROM place") == [(server.url,)]
        assert holding(secrets, files_of(e)) == own


@pytest.mark.parametrize("kind", [pytest.param(vsftpd, id="ftp"), pytest.param(nginx, id="https")])
def test_a_login_that_is_refused_tells_it_to_nobody(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    with archive(kind, tmp_path / "server") as server, experiment(tmp_path / "experiment") as e:
        e.configure(archive=f'url = "{server.url}"')
        write_netrc(e.netrc, server, "wrong-strange-43")
        user = (server.login or ("", ""))[0]
        basic = base64.b64encode(f"{user}:wrong-strange-43".encode())
        manager = e.start(prefix=["env", *(f"{k}={v}" for k, v in server.environment.items())])
        manager.until_it_says("refused the login")
        assert holding([b"wrong-strange-43", basic], files_of(e)) == {e.netrc}
