"""The tape archive of the example experiment, as an FTP client sees it."""

from __future__ import annotations

import ftplib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from archive import Archive, read_login

ARCHIVE = Path(__file__).resolve().parents[1] / "examples" / "archive.py"
PATIENCE = 60  # seconds that something may take at most
AGES = 3600.0  # seconds of a tape that nobody waits for

DIRECTORY, FILE = "mu2e/run2013", "run02091.mid"
CONTENT = os.urandom(300_000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "archive" / DIRECTORY
    directory.mkdir(parents=True)
    (directory / FILE).write_bytes(CONTENT)
    (directory / "run02092.mid").write_bytes(b"next")
    return tmp_path / "archive"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "archive.log"


def client(port: int, password: str = "secret") -> ftplib.FTP:
    ftp = ftplib.FTP(timeout=PATIENCE)
    ftp.connect("127.0.0.1", port)
    ftp.login("mu2e", password)
    ftp.cwd(DIRECTORY)
    ftp.voidcmd("TYPE I")
    return ftp


def retrieved(ftp: ftplib.FTP, name: str = FILE) -> bytes:
    pieces: list[bytes] = []
    ftp.retrbinary(f"RETR {name}", pieces.append)
    return b"".join(pieces)


def lines_of(log: Path, count: int) -> list[str]:
    """The log, as soon as it has so many lines."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        lines = log.read_text().splitlines() if log.exists() else []
        if len(lines) >= count:
            return lines
        time.sleep(0.01)
    pytest.fail(f"{log} did not get {count} lines")


def test_a_staged_file_is_sent(root: Path, log: Path) -> None:
    with Archive(root, "mu2e", "secret", log=log) as archive, client(archive.port) as ftp:
        assert ftp.sendcmd(f"STAGE {FILE}").startswith("250")
        assert ftp.size(FILE) == len(CONTENT)
        assert retrieved(ftp) == CONTENT
    assert lines_of(log, 2) == [f"staged {DIRECTORY}/{FILE}", f"sent {DIRECTORY}/{FILE}"]


@pytest.mark.parametrize("stage_first", [False, True])
def test_a_file_on_tape_is_not_sent(root: Path, log: Path, stage_first: bool) -> None:
    with (
        Archive(root, "mu2e", "secret", stage_seconds=AGES, log=log) as archive,
        client(archive.port) as ftp,
    ):
        if stage_first:
            ftp.sendcmd(f"STAGE {FILE}")
        for ask in (lambda: ftp.size(FILE), lambda: retrieved(ftp)):
            with pytest.raises(ftplib.error_temp, match=f"450 /{DIRECTORY}/{FILE}: on tape"):
                ask()
    assert log.exists() is stage_first


def test_a_tape_takes_its_time(root: Path, log: Path) -> None:
    with (
        Archive(root, "mu2e", "secret", stage_seconds=0.3, log=log) as archive,
        client(archive.port) as ftp,
    ):
        ftp.sendcmd(f"STAGE {FILE}")
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                assert ftp.size(FILE) == len(CONTENT)
                break
            except ftplib.error_temp:
                assert time.monotonic() < give_up
                ftp.sendcmd(f"STAGE {FILE}")  # asking again does not begin again
                time.sleep(0.01)
    assert log.read_text() == f"staged {DIRECTORY}/{FILE}\n"


def test_staging_holds_for_everybody(root: Path) -> None:
    with Archive(root, "mu2e", "secret") as archive:
        with client(archive.port) as ftp:
            ftp.sendcmd(f"STAGE {FILE}")
        with client(archive.port) as ftp:
            assert ftp.size(FILE) == len(CONTENT)
            with pytest.raises(ftplib.error_temp):
                ftp.size("run02092.mid")


def test_a_transfer_can_be_resumed(root: Path) -> None:
    with Archive(root, "mu2e", "secret") as archive, client(archive.port) as ftp:
        ftp.sendcmd(f"STAGE {FILE}")
        pieces: list[bytes] = []
        ftp.retrbinary(f"RETR {FILE}", pieces.append, rest=299_000)
        assert b"".join(pieces) == CONTENT[299_000:]


@pytest.mark.parametrize("command", ["STAGE", "RETR", "SIZE"])
def test_a_file_that_does_not_exist_is_refused(root: Path, command: str) -> None:
    with (
        Archive(root, "mu2e", "secret") as archive,
        client(archive.port) as ftp,
        pytest.raises(ftplib.error_perm, match="550"),
    ):
        if command == "RETR":
            retrieved(ftp, "run00001.mid")
        else:
            ftp.sendcmd(f"{command} run00001.mid")


@pytest.mark.parametrize("command", [f"DELE {FILE}", "MKD new", "STOR new", "STAGE ../../../log"])
def test_clients_may_only_read_below_the_root(root: Path, command: str) -> None:
    (root.parent / "log").write_text("outside")
    with (
        Archive(root, "mu2e", "secret") as archive,
        client(archive.port) as ftp,
        pytest.raises(ftplib.error_perm, match="550"),
    ):
        ftp.sendcmd(command)


def test_a_wrong_password_is_refused(root: Path) -> None:
    with (
        Archive(root, "mu2e", "secret") as archive,
        pytest.raises(ftplib.error_perm, match="530"),
    ):
        client(archive.port, password="guess")


def test_nothing_is_staged_without_login(root: Path, log: Path) -> None:
    with Archive(root, "mu2e", "secret", log=log) as archive, ftplib.FTP() as ftp:
        ftp.connect("127.0.0.1", archive.port, timeout=PATIENCE)
        with pytest.raises(ftplib.error_perm, match="530"):
            ftp.sendcmd(f"STAGE {DIRECTORY}/{FILE}")
    assert not log.exists()


def test_a_slow_archive_sends_everything(root: Path) -> None:
    with Archive(root, "mu2e", "secret", rate=1_000_000) as archive, client(archive.port) as ftp:
        ftp.sendcmd(f"STAGE {FILE}")
        assert retrieved(ftp) == CONTENT


def test_a_transfer_that_breaks_off_is_logged(root: Path, log: Path) -> None:
    with Archive(root, "mu2e", "secret", rate=20_000, log=log) as archive:
        ftp = client(archive.port)
        ftp.sendcmd(f"STAGE {FILE}")
        data = ftp.transfercmd(f"RETR {FILE}")
        assert data.recv(1) == CONTENT[:1]
        data.close()
        ftp.close()
        assert lines_of(log, 2)[1] == f"broken {DIRECTORY}/{FILE}"


@pytest.mark.parametrize("closed", [True, False])
def test_a_slow_transfer_can_be_replaced_by_another(root: Path, closed: bool) -> None:
    with Archive(root, "mu2e", "secret", rate=20_000) as archive, client(archive.port) as ftp:
        for name in (FILE, "run02092.mid"):
            ftp.sendcmd(f"STAGE {name}")
        for _ in range(3):
            data = ftp.transfercmd(f"RETR {FILE}")
            with data:
                assert data.recv(1) == CONTENT[:1]
                if closed:
                    data.close()
                    with pytest.raises(ftplib.error_temp, match="426"):
                        ftp.voidresp()
                assert retrieved(ftp, "run02092.mid") == b"next"


def test_the_login_is_that_of_the_netrc_file(tmp_path: Path) -> None:
    path = tmp_path / "netrc"
    path.write_text("machine other login x password y\nmachine 127.0.0.1 login mu2e password z\n")
    assert read_login(path) == ("mu2e", "z")
    path.write_text("machine other login x password y\n")
    with pytest.raises(ValueError, match="there is no entry for machine 127"):
        read_login(path)
    path.write_text("machine 127.0.0.1 login mu2e passwd sesame\n")
    with pytest.raises(ValueError, match="not a netrc file") as caught:
        read_login(path)
    assert "sesame" not in str(caught.value)


# --------------------------------------------------------------------------- the command


@pytest.fixture
def port(root: Path, tmp_path: Path) -> Iterator[int]:
    netrc, port_file = tmp_path / "netrc", tmp_path / "port"
    netrc.write_text("machine 127.0.0.1 login mu2e password secret\n")
    arguments: list[str | Path] = [
        "--root",
        root,
        "--password-file",
        netrc,
        "--port-file",
        port_file,
    ]
    process = subprocess.Popen(
        [sys.executable, ARCHIVE, *arguments, "--stage-seconds=0", "--log", tmp_path / "log"]
    )
    try:
        give_up = time.monotonic() + PATIENCE
        while not port_file.exists() and time.monotonic() < give_up:
            assert process.poll() is None
            time.sleep(0.01)
        yield int(port_file.read_text())
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_the_command_serves_until_it_is_ended(port: int, tmp_path: Path) -> None:
    with client(port) as ftp:
        ftp.sendcmd(f"STAGE {FILE}")
        assert retrieved(ftp) == CONTENT
    assert lines_of(tmp_path / "log", 2)[1] == f"sent {DIRECTORY}/{FILE}"


@pytest.mark.parametrize(
    ("netrc", "complaint"),
    [(None, "No such file"), ("machine other login x password y\n", "there is no entry")],
)
def test_the_command_needs_a_login(
    root: Path, tmp_path: Path, netrc: str | None, complaint: str
) -> None:
    path = tmp_path / "netrc"
    if netrc:
        path.write_text(netrc)
    done = subprocess.run(
        [sys.executable, ARCHIVE, "--root", root, "--password-file", path],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("archive: ")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
