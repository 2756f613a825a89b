"""Nobody waits for an archive that says nothing: Ctrl-C ends a manager that is connecting to it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from experiment import Experiment, experiment
from ftp_server import tape_archive, write_netrc

from production.errors import ArchiveUnavailable, TransferStopped
from production.staging.archive import open_archive
from production.staging.patience import beside

# Seconds that a roll-back would wait for transfers: longer than this test waits for its end.
FOR_EVER = "from production.manager import recovery; recovery.STOP_SECONDS = 1000.0"
PROTOCOLS = ("ftp", "ftps", "https", "sftp")


@pytest.fixture
def mute() -> Iterator[int]:
    """A port where connections are made, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def dead() -> Iterator[int]:
    """A port where nobody answers at all, as behind a firewall: its queue is full."""
    with ExitStack() as open_ones:
        server = open_ones.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            client = open_ones.enter_context(socket.socket())
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(server.getsockname())
        yield server.getsockname()[1]


def archive_url(lab: Experiment, protocol: str, port: int) -> None:
    lab.configure(archive=f'url = "{protocol}://127.0.0.1:{port}/runs"')


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ctrl_c_while_an_archive_is_asked_for_its_tapes(
    tmp_path: Path, mute: int, protocol: str
) -> None:
    with experiment(tmp_path, runs=(2091,)) as lab:
        archive_url(lab, protocol, mute)
        manager = lab.start(patch=FOR_EVER)
        manager.until_it_says("Staging runs")
        manager.press_ctrl_c()
        assert manager.wait() == 130
        assert lab.statuses() == "N"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("where", ["mute", "dead"])
def test_a_transfer_that_is_connecting_is_stopped(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
    where: str,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    port = request.getfixturevalue(where)
    archive = open_archive(f"{protocol}://127.0.0.1:{port}/runs", timeout=1000.0)
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(TransferStopped):
        archive.fetch("run02091.mid", tmp_path / "run02091.mid", lambda _, __: None, stop)
    assert not list(tmp_path.glob("run*"))


@pytest.mark.timeout(300)
def test_a_transfer_whose_data_connection_is_dropped_by_a_firewall_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: int
) -> None:
    monkeypatch.setenv("NETRC", str(write_netrc(tmp_path / "netrc")))
    stop = threading.Event()
    with tape_archive(tmp_path / "archive") as server:
        (server.root / "run02091.mid").write_bytes(b"data")
        server.replies["EPSV"] = f"229 Entering extended passive mode (|||{dead}|)."
        server.replies["PASV"] = (
            f"227 Entering passive mode (127,0,0,1,{dead // 256},{dead % 256})."
        )
        archive = open_archive(server.url, timeout=1000.0)
        threading.Timer(0.5, stop.set).start()
        with pytest.raises(TransferStopped):
            archive.fetch("run02091.mid", tmp_path / "run02091.mid", lambda _, __: None, stop)
    assert not list(tmp_path.glob("run*"))


def test_what_was_given_up_is_closed_when_it_comes_late() -> None:
    go_on, closed = threading.Event(), threading.Event()

    def connect() -> str:
        go_on.wait()
        return "connection"

    def look() -> None:
        raise TransferStopped(file="run02091.mid", host="archive")

    with pytest.raises(TransferStopped):
        beside(connect, look, lambda _: closed.set())
    go_on.set()
    assert closed.wait(60)


def test_what_fails_beside_fails_here() -> None:
    def connect() -> None:
        raise ArchiveUnavailable(host="archive", what="refused")

    with pytest.raises(ArchiveUnavailable, match="refused"):
        beside(connect, lambda: None, lambda _: None)


HANGING = """\
import atexit, threading, time
from production import begin, cli

def work():
    threading.Thread(target=time.sleep, args=(1000.0,), daemon=True).start()
    print("done", end="")
    return 3

cli.main = work
atexit.register(print, "taken down")
raise SystemExit(begin.main())
"""


def test_a_thread_that_hangs_in_a_library_does_not_see_python_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "done", "")
