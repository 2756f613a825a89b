"""Fetching a file: it arrives whole and checked, or there is a clear error and no trace of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ftp_server import PASSWORD, TapeArchive, tape_archive, write_netrc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from production.errors import (
    ArchiveLoginRefused,
    ArchiveUnavailable,
    ConfigurationError,
    FileMissing,
    NetrcError,
    NoSpaceLeft,
    NotOnDisk,
    ProductionError,
    TransferError,
    TransferFailed,
    TransferStopped,
)
from production.staging.archive import Archive, open_archive

SIZE = 700_001
DATA = bytes(range(251)) * (SIZE // 251 + 1)
NAME = "run02091.mid"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TapeArchive]:
    with tape_archive(tmp_path / "archive") as archive:
        (archive.root / NAME).write_bytes(DATA[:SIZE])
        yield archive


@pytest.fixture(autouse=True)
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write_netrc(tmp_path / "netrc")
    monkeypatch.setenv("NETRC", str(path))
    return path


def fetch(
    archive: Archive | TapeArchive,
    target: Path,
    name: str = NAME,
    stop: threading.Event | None = None,
) -> int:
    if isinstance(archive, TapeArchive):
        archive = open_archive(archive.url)
    return archive.fetch(name, target, lambda _, __: None, stop or threading.Event()).size


def left_behind(target: Path) -> list[str]:
    return [path.name for path in target.parent.iterdir()]


# --------------------------------------------------------------------------- what should happen


def test_file_arrives_under_its_name_with_its_size(server: TapeArchive, target: Path) -> None:
    assert fetch(server, target) == SIZE
    assert target.read_bytes() == DATA[:SIZE]
    assert left_behind(target) == [NAME]


def test_empty_file_arrives(server: TapeArchive, target: Path) -> None:
    (server.root / NAME).write_bytes(b"")
    assert fetch(server, target) == 0
    assert target.read_bytes() == b""


def test_progress_tells_bytes_of_bytes(server: TapeArchive, target: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    open_archive(server.url).fetch(
        NAME, target, lambda done, size: seen.append((done, size)), threading.Event()
    )
    assert seen[0] == (0, SIZE)
    assert seen[-1] == (SIZE, SIZE)
    assert seen == sorted(seen)


def test_final_name_is_not_there_before_the_end(server: TapeArchive, target: Path) -> None:
    seen: list[list[str]] = []
    open_archive(server.url).fetch(
        NAME, target, lambda _, __: seen.append(left_behind(target)), threading.Event()
    )
    assert {name for names in seen for name in names} == {NAME + ".part"}


def test_older_file_and_older_part_are_replaced(server: TapeArchive, target: Path) -> None:
    target.write_bytes(b"old")
    target.with_name(NAME + ".part").write_bytes(b"x" * (SIZE + 10))
    fetch(server, target)
    assert target.read_bytes() == DATA[:SIZE]
    assert left_behind(target) == [NAME]


@pytest.mark.parametrize("directory", ["mu2e/run2013", "/mu2e/run2013", "mu2e%2Frun2013/"])
def test_files_lie_in_the_directory_of_the_url(
    server: TapeArchive, target: Path, directory: str
) -> None:
    (server.root / "mu2e/run2013").mkdir(parents=True)
    (server.root / "mu2e/run2013/run1.mid").write_bytes(b"deep")
    archive = open_archive(server.url + directory)
    assert fetch(archive, target, "run1.mid") == 4


def test_server_without_size_command_is_good_enough(server: TapeArchive, target: Path) -> None:
    server.replies["SIZE"] = "500 Command not understood."
    seen: list[int | None] = []
    archive = open_archive(server.url)
    archive.fetch(NAME, target, lambda _, size: seen.append(size), threading.Event())
    assert target.read_bytes() == DATA[:SIZE]
    assert set(seen) == {None}


def test_login_is_read_when_it_is_needed(server: TapeArchive, target: Path, netrc: Path) -> None:
    netrc.unlink()
    archive = open_archive(server.url)
    with pytest.raises(NetrcError):
        archive.check()
    with pytest.raises(NetrcError):
        fetch(archive, target)
    assert server.connections == 0
    write_netrc(netrc)
    archive.check()
    assert fetch(archive, target) == SIZE


# --------------------------------------------------------------------------- what goes wrong


def test_missing_file(server: TapeArchive, target: Path) -> None:
    with pytest.raises(FileMissing, match=r"run9\.mid is not on the archive 127\.0\.0\.1"):
        fetch(server, target, "run9.mid")
    assert left_behind(target) == []


@pytest.mark.parametrize("fault", ["ends", "errors", "cuts"])
@pytest.mark.parametrize("after", [0, 1, 300_000, SIZE - 1])
def test_transfer_that_breaks_leaves_nothing(
    server: TapeArchive, target: Path, fault: str, after: int
) -> None:
    server.fault, server.fault_after = fault, after
    with pytest.raises(TransferFailed):
        fetch(server, target)
    assert left_behind(target) == []


def test_transfer_that_breaks_leaves_the_older_file(server: TapeArchive, target: Path) -> None:
    target.write_bytes(b"old")
    server.fault = "ends"
    with pytest.raises(TransferFailed):
        fetch(server, target)
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize(("fault", "said"), [("errors", "426 "), ("cuts", "was closed")])
def test_without_a_size_the_last_word_of_the_server_counts(
    server: TapeArchive, target: Path, fault: str, said: str
) -> None:
    server.replies["SIZE"] = "502 Command not implemented."
    server.fault, server.fault_after = fault, 300_000
    with pytest.raises(TransferFailed, match=said):
        fetch(server, target)
    assert left_behind(target) == []


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_wrong_size_is_noticed(server: TapeArchive, target: Path, size: int) -> None:
    server.replies["SIZE"] = f"213 {size}"
    with pytest.raises(TransferFailed, match=f"{SIZE} bytes came, the archive has {size}"):
        fetch(server, target)
    assert left_behind(target) == []


@pytest.mark.parametrize("verb", ["TYPE", "SIZE", "PASV", "RETR"])
@pytest.mark.parametrize("reply", ["", None, "999 what?", "599 no", "199 hm"])
def test_strange_answers_are_failures(
    server: TapeArchive, target: Path, verb: str, reply: str | None
) -> None:
    server.replies[verb] = reply
    with pytest.raises(TransferFailed):
        fetch(open_archive(server.url, timeout=0.2), target)
    assert left_behind(target) == []


def test_server_that_hangs_in_the_middle_is_not_waited_for(
    server: TapeArchive, target: Path
) -> None:
    server.fault, server.fault_after = "stalls", 300_000
    with pytest.raises(ArchiveUnavailable, match=r"nothing came for 0\.3 s"):
        fetch(open_archive(server.url, timeout=0.3), target)
    assert not target.exists()


@pytest.mark.parametrize("code", ["421", "530"])
def test_session_that_the_server_ends(server: TapeArchive, target: Path, code: str) -> None:
    server.replies["RETR"] = f"{code} Good bye."
    with pytest.raises(ArchiveUnavailable, match="Good bye"):
        fetch(server, target)


def test_data_connection_trouble_is_not_taken_for_tape(server: TapeArchive, target: Path) -> None:
    server.replies["RETR"] = "425 Cannot open data connection."
    with pytest.raises(TransferFailed):
        fetch(server, target)


@pytest.mark.parametrize("reply", ["452 No space on the server.", "552 Over its limit."])
def test_a_server_without_space_is_not_taken_for_tape_or_absence(
    server: TapeArchive, target: Path, reply: str
) -> None:
    server.replies["NLST"] = server.replies["RETR"] = reply
    archive = open_archive(server.url)
    with pytest.raises(TransferFailed, match=reply):
        archive.names("run*.mid")
    with pytest.raises(TransferFailed, match=reply):
        fetch(archive, target)
    assert left_behind(target) == []
    server.replies.clear()
    assert archive.names("run*.mid") == [NAME]
    assert fetch(archive, target) == SIZE


@pytest.mark.parametrize(
    ("replies", "asked"),
    [
        ({}, {"STAGE": ["a", "b"]}),
        ({"STAGE": "500 Unknown.", "SITE": "200 Yes."}, {"STAGE": ["a"], "SITE": ["a", "b"]}),
        ({"STAGE": "502 Unknown.", "SITE": "550 Not a."}, {"STAGE": ["a"], "SITE": ["a", "b"]}),
        ({"STAGE": "502 Unknown.", "SITE": "500 Unknown."}, {"STAGE": ["a"], "SITE": ["a"]}),
        ({"STAGE": "550 Not that."}, {"STAGE": ["a", "b"], "SITE": []}),
    ],
)
def test_tapes_are_asked_for_in_the_words_that_the_server_knows(
    server: TapeArchive, replies: dict[str, str | None], asked: dict[str, list[str]]
) -> None:
    server.replies = replies
    open_archive(server.url).stage(["a", "b"])
    for verb, files in asked.items():
        site = "STAGE " if verb == "SITE" else ""
        assert server.said(verb) == [f"{site}{file}" for file in files]


def test_full_disk_names_the_path_and_the_reason(server: TapeArchive, target: Path) -> None:
    part = target.with_name(NAME + ".part")
    part.symlink_to("/dev/full")
    with pytest.raises(NoSpaceLeft, match=f"{part}: No space left on device"):
        fetch(server, target)
    assert left_behind(target) == []


def test_missing_local_directory_names_the_path(server: TapeArchive, tmp_path: Path) -> None:
    with pytest.raises(TransferFailed, match=r"/nowhere/run1\.part: No such file or directory"):
        fetch(server, tmp_path / "nowhere/run1")


def test_directory_in_the_way_of_the_target(server: TapeArchive, target: Path) -> None:
    target.mkdir()
    with pytest.raises(TransferFailed, match="Is a directory"):
        fetch(server, target)
    assert left_behind(target) == [NAME]


def test_error_of_the_caller_comes_through(server: TapeArchive, target: Path) -> None:
    def progress(done: int, size: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_archive(server.url).fetch(NAME, target, progress, threading.Event())
    assert left_behind(target) == []


def test_file_name_cannot_smuggle_commands(server: TapeArchive, target: Path) -> None:
    with pytest.raises(TransferFailed):
        fetch(server, target, "x\r\nPWD")
    assert server.said("PWD") == []


# --------------------------------------------------------------------------- stopping


def test_stop_ends_a_transfer(server: TapeArchive, target: Path) -> None:
    stop = threading.Event()
    archive = open_archive(server.url)
    with pytest.raises(TransferStopped):
        archive.fetch(NAME, target, lambda _, __: stop.set(), stop)
    assert left_behind(target) == []


@pytest.mark.parametrize("where", ["data", "USER", "SIZE", "RETR"])
def test_stop_ends_a_wait_for_the_server(server: TapeArchive, target: Path, where: str) -> None:
    server.replies[where] = ""
    server.fault = "stalls" if where == "data" else None
    stop = threading.Event()
    timer = threading.Timer(0.1, stop.set)
    timer.start()
    with pytest.raises(TransferStopped):
        fetch(open_archive(server.url, timeout=200), target, stop=stop)
    timer.join()
    assert left_behind(target) == []


def test_stop_before_the_start_connects_to_nobody(server: TapeArchive, target: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(TransferStopped):
        fetch(server, target, stop=stop)
    assert server.connections == 0


# --------------------------------------------------------------------------- no archive there


def test_nobody_listens(target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ArchiveUnavailable, match=f"port {port}: Connection refused"):
        fetch(open_archive(f"ftp://127.0.0.1:{port}/"), target)


def test_archive_that_never_answers(target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        archive = open_archive(f"ftp://127.0.0.1:{listener.getsockname()[1]}/", timeout=0.2)
        with pytest.raises(ArchiveUnavailable, match=r"nothing came for 0\.2 s"):
            fetch(archive, target)


def test_host_that_cannot_be_a_name(target: Path) -> None:
    with pytest.raises(ArchiveUnavailable):
        fetch(open_archive(f"ftp://{'x' * 70}.invalid/"), target)


def test_archive_that_is_full(server: TapeArchive, target: Path) -> None:
    server.replies["greeting"] = "421 Too many users."
    with pytest.raises(ArchiveUnavailable, match="421 Too many users"):
        fetch(server, target)


def test_directory_that_is_not_there(server: TapeArchive, target: Path) -> None:
    with pytest.raises(ArchiveUnavailable, match="directory mu2e/run2099: 550"):
        fetch(open_archive(server.url + "mu2e/run2099"), target)


# --------------------------------------------------------------------------- logins


def test_refused_login_names_host_and_remedy(
    server: TapeArchive, target: Path, netrc: Path
) -> None:
    write_netrc(netrc, "wrong-password")
    with pytest.raises(ArchiveLoginRefused, match=r"127\.0\.0\.1 refused .* netrc") as raised:
        fetch(server, target)
    assert "wrong-password" not in str(raised.value)


@pytest.mark.parametrize("code", ["500", "530", "421"])
def test_password_that_the_server_repeats_is_not_shown(
    server: TapeArchive, target: Path, code: str
) -> None:
    server.replies["PASS"] = f"{code} 'PASS {PASSWORD}' is not accepted."
    archive = open_archive(server.url)
    with pytest.raises(ArchiveUnavailable, match="not accepted") as raised:
        fetch(archive, target)
    shown = str(raised.value) + repr(raised.value) + repr(raised.value.fields)
    assert PASSWORD not in shown + repr(archive) + repr(vars(archive))


# --------------------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "gsiftp://archive.example.org/data",
            "'gsiftp' is not known; known: file://, ftp://, ftps",
        ),
        ("archive.example.org", "protocol '' is not known"),
        ("ftp:///data", "names no host"),
        ("ftp://archive.example.org:port/", "not a URL"),
        ("ftp://[::1/", "not a URL"),
        ("ftp://me:s3cret@archive.example.org/", r"must not hold a login; .*netrc"),
        ("ftp://archive.example.org/%0d%0aDELE", "control characters"),
    ],
)
def test_urls_that_make_no_sense(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        open_archive(url)
    assert "s3cret" not in str(raised.value)


# --------------------------------------------------------------------------- servers gone mad


@contextmanager
def mad_server(replies: list[bytes]) -> Iterator[str]:
    """Answers the greeting and each command with the next of ``replies``, then hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as commands:
            for reply in replies:
                try:
                    connection.sendall(reply + b"\r\n")
                    if not commands.readline():
                        break
                except OSError:
                    break

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"ftp://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        thread.join()
        listener.close()


def test_messages_need_not_be_utf8(target: Path) -> None:
    replies = [b"220 Gr\xfc\xdf Gott", b"331 Pa\xdfwort?", b"530 Ung\xfcltig"]
    with mad_server(replies) as url, pytest.raises(ArchiveLoginRefused, match="530 Ung"):
        fetch(open_archive(url), target)


REPLY = st.one_of(
    st.binary(max_size=30),
    st.builds(
        lambda code, text: str(code).encode() + text,
        st.sampled_from([120, 150, 200, 213, 220, 227, 230, 331, 332, 421, 450, 500, 530, 550]),
        st.one_of(
            st.sampled_from([b" ok", b" 99", b"-more", b" (1,2,3,4,5,6)", b" (1,2,3,4,999,999)"]),
            st.binary(max_size=10),
        ),
    ),
)
OPENING = st.sampled_from([[], [b"220 hi", b"331 ?", b"230 in", b"200 I", b"213 5"]])


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(opening=OPENING, replies=st.lists(REPLY, max_size=8))
def test_whatever_a_server_says_the_error_is_ours(
    target: Path, opening: list[bytes], replies: list[bytes]
) -> None:
    with mad_server(opening + replies) as url, pytest.raises(TransferError) as raised:
        fetch(open_archive(url, timeout=0.1), target)
    assert isinstance(raised.value, ProductionError)
    assert "\n" not in str(raised.value)
    assert left_behind(target) == []


def test_tape_and_absence_are_told_apart(server: TapeArchive, target: Path) -> None:
    server.on_tape.add(NAME)
    with pytest.raises(NotOnDisk):
        fetch(server, target)
    with pytest.raises(FileMissing):
        fetch(server, target, "run00000.mid")
