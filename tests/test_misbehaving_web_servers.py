"""Web servers that are not as they should be: what arrives is right, or there is a clear error."""

from __future__ import annotations

import hashlib
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from archive_behaviour import fetch
from certificates import make_certificates

from production.errors import (
    ArchiveUnavailable,
    FileMissing,
    TransferError,
    TransferFailed,
    TransferStopped,
)
from production.staging.archive import Archive, open_archive

pytestmark = pytest.mark.slow

NAME = "run02091.mid"
GOOD = "run02092.mid"
SIZE = 700_001
CONTENTS = random.Random(1).randbytes(SIZE)


@dataclass
class Web:
    """Serves CONTENTS under any name; the faults are NAME's alone."""

    url: str = ""
    cuts: list[int] = field(default_factory=list)  # hang up after so many bytes, each once
    length: int | None = SIZE  # that is told; None: none at all
    ranges: bool = True  # whether it can begin in the middle
    shift: int = 0  # it begins so many bytes later than it was asked to
    stall: int | None = None  # after so many bytes it says no more
    status: int = 200
    tag: str = '"1"'
    header: bytes = b""  # one more line
    methods: tuple[str, ...] = ("HEAD", "GET")
    asked: list[tuple[str, str]] = field(default_factory=list)  # method and range
    connections: int = 0
    released: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    web: Web

    def setup(self) -> None:
        super().setup()
        self.web.connections += 1

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        web = self.web if self.path.endswith(NAME) else Web()
        wanted = self.headers.get("Range", "")
        self.web.asked.append((self.command, wanted))
        if self.command not in web.methods or web.status != 200:
            self.send_response(web.status if self.command in web.methods else 405)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        begin = 0
        if wanted and web.ranges and self.headers.get("If-Range") == web.tag:
            begin = int(wanted.removeprefix("bytes=").rstrip("-")) + web.shift
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{SIZE - 1}/{SIZE}")
        else:
            self.send_response(200)
        if web.length is not None:
            self.send_header("Content-Length", str(web.length - begin))
        else:
            self.close_connection = True
        self.send_header("ETag", web.tag)
        if web.header:
            self._headers_buffer.append(web.header + b"\r\n")  # type: ignore[attr-defined]
        self.end_headers()
        if with_body:
            self.send(web, begin)

    def send(self, web: Web, begin: int) -> None:
        end = SIZE
        if web.cuts and web.cuts[0] > begin:
            end = web.cuts.pop(0)
            self.close_connection = True
        if web.stall is not None:
            end = web.stall
        self.wfile.write(CONTENTS[begin:end])
        if web.stall is not None:
            self.wfile.flush()
            web.released.wait()

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    """Says nothing of clients that hang up."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Which is their right."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    made = make_certificates(tmp_path_factory.mktemp("web"))
    return made.authority, made.both


@pytest.fixture
def web(
    request: pytest.FixtureRequest,
    authority: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Web]:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
    web, scheme = Web(), getattr(request, "param", "https")
    handler = type("Handler", (Handler,), {"web": web})
    with serving(Server(("127.0.0.1", 0), handler), scheme, authority[1]) as port:
        web.url = f"{scheme}://127.0.0.1:{port}/raw/"
        yield web
        web.released.set()


@contextmanager
def serving(server: Server, scheme: str, pem: Path) -> Iterator[int]:
    if scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def is_right(path: Path) -> bool:
    return hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(CONTENTS).digest()


def check_others(archive: Archive, target: Path) -> None:
    """Nothing of the one is there, and others come."""
    assert [*target.parent.iterdir()] == []
    assert fetch(archive, target.with_name(GOOD), GOOD) == SIZE
    assert is_right(target.with_name(GOOD))


@pytest.mark.parametrize("web", ["http", "https"], indirect=True)
def test_it_goes_on_where_it_was_cut_on_connections_that_are_kept(web: Web, target: Path) -> None:
    web.cuts = [1, 300_000, SIZE - 1]
    archive = open_archive(web.url)
    fetch(archive, target)
    assert is_right(target)
    ranges = [wanted for method, wanted in web.asked if method == "GET"]
    assert ranges == ["", "bytes=1-", "bytes=300000-", f"bytes={SIZE - 1}-"]
    before = web.connections
    for _ in range(3):
        fetch(archive, target)
    assert web.connections == before


@pytest.mark.parametrize("web", ["http", "https"], indirect=True)
def test_a_server_that_cannot_begin_in_the_middle_begins_anew(web: Web, target: Path) -> None:
    web.cuts, web.ranges = [300_000], False
    fetch(open_archive(web.url), target)
    assert is_right(target)
    assert [wanted for method, wanted in web.asked if method == "GET"] == ["", "bytes=300000-", ""]


def test_a_server_that_begins_at_another_byte_is_not_believed(web: Web, target: Path) -> None:
    web.cuts, web.shift = [300_000], 1
    fetch(open_archive(web.url), target)
    assert is_right(target)


def test_tags_that_promise_nothing_are_not_relied_on(web: Web, target: Path) -> None:
    web.cuts, web.tag = [300_000], 'W/"1"'
    fetch(open_archive(web.url), target)
    assert is_right(target)
    assert {wanted for _, wanted in web.asked} == {""}


def test_a_size_that_is_too_large_is_noticed(web: Web, target: Path) -> None:
    web.length = SIZE + 1
    archive = open_archive(web.url, timeout=0.5)
    with pytest.raises(TransferError):
        fetch(archive, target)
    check_others(archive, target)


def test_where_neither_size_nor_end_is_told_nothing_is_believed(web: Web, target: Path) -> None:
    web.length = None
    archive = open_archive(web.url)
    with pytest.raises(TransferFailed, match="neither its size nor its end"):
        fetch(archive, target)
    check_others(archive, target)


def test_a_server_without_head_is_good_enough(web: Web, target: Path) -> None:
    web.methods = ("GET",)
    fetch(open_archive(web.url), target)
    assert is_right(target)


def test_a_server_that_hangs_in_the_middle_is_not_waited_for(web: Web, target: Path) -> None:
    web.stall = 300_000
    archive = open_archive(web.url, timeout=0.3)
    with pytest.raises(TransferFailed, match=r"nothing came for 0\.3 s"):
        fetch(archive, target)
    check_others(archive, target)


@pytest.mark.parametrize("web", ["http", "https"], indirect=True)
def test_stop_ends_a_wait_for_it(web: Web, target: Path) -> None:
    web.stall = 300_000
    stop = threading.Event()
    with pytest.raises(TransferStopped):
        open_archive(web.url, timeout=200).fetch(NAME, target, lambda _, __: stop.set(), stop)
    assert [*target.parent.iterdir()] == []


@pytest.mark.parametrize("status", [500, 502, 503, 507, 429, 408])
def test_a_server_in_trouble_is_left_alone(web: Web, target: Path, status: int) -> None:
    web.status = status
    archive = open_archive(web.url)
    with pytest.raises(ArchiveUnavailable, match=str(status)):
        fetch(archive, target)
    check_others(archive, target)


@pytest.mark.parametrize(("status", "kind"), [(404, FileMissing), (410, FileMissing)])
def test_a_file_that_is_gone(web: Web, target: Path, status: int, kind: type[Exception]) -> None:
    web.status = status
    archive = open_archive(web.url)
    with pytest.raises(kind):
        fetch(archive, target)
    check_others(archive, target)


@pytest.mark.parametrize("header", [b"X-Name: Gr\xfc\xdf Gott", b"X-\xff: \xfe\xff"])
def test_answers_need_not_be_utf8(web: Web, target: Path, header: bytes) -> None:
    web.header = header
    fetch(open_archive(web.url), target)
    assert is_right(target)


@pytest.mark.parametrize(
    "answer", [b"", b"\xff\xfe\r\n\r\n", b"220 FTP here\r\n", b"HTTP/9 x\r\n\r\n"]
)
def test_what_is_no_web_server_is_told(target: Path, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                if answer:
                    connection.recv(1000)
                    connection.sendall(answer)
                else:
                    connection.recv(1)
                    released.wait()

        released = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        archive = open_archive(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=0.3)
        with pytest.raises(ArchiveUnavailable) as raised:
            fetch(archive, target)
        released.set()
        thread.join()
    assert "\n" not in str(raised.value)
    assert [*target.parent.iterdir()] == []


@pytest.mark.parametrize("length", [SIZE - 1, 300_000])
def test_a_size_that_is_too_small_does_not_harm_other_files(
    web: Web, target: Path, length: int
) -> None:
    """That there is more of this one nobody can know by HTTP; checksums tell."""
    web.length = length
    archive = open_archive(web.url)
    assert fetch(archive, target) == length
    assert target.read_bytes() == CONTENTS[:length]
    target.unlink()
    check_others(archive, target)
