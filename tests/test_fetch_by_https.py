"""Input files by HTTP and HTTPS, from nginx and from servers that are not as they should be."""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from archive_behaviour import CONTENTS, NAME, SIZE, ArchiveBehaviour, fetch, put, write_netrc
from archive_servers import PASSWORD, Server, nginx, running
from network.needs import NoFilesystemError

from production.errors import ArchiveLoginRefused, ArchiveUnavailable, NetrcError, TransferFailed
from production.staging.archive import open_archive

pytestmark = pytest.mark.slow

# What a server may say; "other" is another host for a client.
MORE = """\
location /open/ {{ alias {base}/root/; }}
location /busy/ {{ return 503; }}
location /slowly/ {{ return 429; }}
location /closed/ {{ deny all; }}
location /moved/ {{ rewrite ^/moved/(.*)$ https://127.0.0.1:$server_port/$1 redirect; }}
location /other/ {{ rewrite ^/other/(.*)$ https://localhost:$server_port/$1 redirect; }}
location /away/ {{ rewrite ^/away/(.*)$ https://localhost:$server_port/open/$1 redirect; }}
location /plain/ {{ rewrite ^/plain/(.*)$ http://127.0.0.1:1/$1 redirect; }}
location /circle/ {{ rewrite ^ $request_uri redirect; }}
"""


def https(base: Path) -> Server:
    """With its places for all cases."""
    return nginx(base, more=MORE.format(base=base))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    try:
        with running(https, tmp_path_factory.mktemp("nginx")) as server:
            yield server
    except NoFilesystemError as reason:
        pytest.skip(str(reason))


class TestHttps(ArchiveBehaviour):
    def test_a_refused_login_is_told(self, server: Server, target: Path, tmp_path: Path) -> None:
        write_netrc(tmp_path / "netrc", server, "wrong-password")
        with pytest.raises(ArchiveLoginRefused, match=r"401 Unauth.*the entry for 127") as refused:
            fetch(open_archive(server.url), target)
        assert "wrong-password" not in str(refused.value)

    def test_what_is_open_to_all_needs_no_login(
        self, server: Server, target: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "netrc").unlink()
        archive = open_archive(f"{server.url}open/")
        archive.check()
        assert fetch(archive, target) == SIZE
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login\n")
        (tmp_path / "netrc").chmod(0o644)
        with pytest.raises(NetrcError, match="chmod 600"):
            archive.check()

    @pytest.mark.parametrize("place", ["busy", "slowly"])
    def test_a_server_in_trouble_is_left_alone(
        self, server: Server, target: Path, place: str
    ) -> None:
        with pytest.raises(ArchiveUnavailable, match=r"503 Service|429 Too"):
            fetch(open_archive(f"{server.url}{place}/"), target)

    def test_a_file_that_is_refused_does_not_hold_up_others(
        self, server: Server, target: Path
    ) -> None:
        with pytest.raises(TransferFailed, match="403 Forbidden") as refused:
            fetch(open_archive(f"{server.url}closed/"), target)
        assert not isinstance(refused.value, ArchiveUnavailable)

    def test_redirections_are_followed(self, server: Server, target: Path) -> None:
        assert fetch(open_archive(f"{server.url}moved/"), target) == SIZE
        assert target.read_bytes() == CONTENTS

    def test_the_login_is_shown_to_no_other_host(self, server: Server, target: Path) -> None:
        assert fetch(open_archive(f"{server.url}away/"), target) == SIZE
        with pytest.raises(ArchiveLoginRefused, match="401"):
            fetch(open_archive(f"{server.url}other/"), target)

    @pytest.mark.parametrize(("place", "said"), [("plain", "without TLS"), ("circle", "a circle")])
    def test_some_redirections_lead_nowhere(
        self, server: Server, target: Path, place: str, said: str
    ) -> None:
        with pytest.raises(ArchiveUnavailable, match=said):
            fetch(open_archive(f"{server.url}{place}/"), target)

    def test_names_may_hold_any_characters(self, server: Server, target: Path) -> None:
        (server.root / "a b#c?ü").mkdir(exist_ok=True)
        (server.root / "a b#c?ü" / "run 1%.mid").write_bytes(b"deep")
        archive = open_archive(f"{server.url}a%20b%23c%3Fü")
        assert fetch(archive, target, "run 1%.mid") == 4

    def test_a_certificate_that_nobody_vouches_for_is_refused(
        self, server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(ArchiveUnavailable, match=r"not trusted \(unable .*SSL_CERT_FILE name"):
            fetch(open_archive(server.url), target)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", server.environment["SSL_CERT_FILE"])
        assert fetch(open_archive(server.url), target) == SIZE

    def test_nobody_listens(self, server: Server, target: Path) -> None:
        with pytest.raises(ArchiveUnavailable, match="Connection refused"):
            fetch(open_archive("https://127.0.0.1:1/"), target)

    def test_the_secrets_of_a_proxy_are_not_told(
        self, server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("https_proxy", "http://me:proxy-secret-17@127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(ArchiveUnavailable, match="proxy: Connection refused") as raised:
            fetch(open_archive(server.url), target)
        assert "secret" not in str(raised.value)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert fetch(open_archive(server.url), target) == SIZE

    @pytest.mark.parametrize(
        "proxy", ["socks5://me:proxy-secret-17@127.0.0.1:1", "http://me:s/x@y"]
    )
    def test_a_proxy_that_cannot_be_used_is_told(
        self, server: Server, target: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
    ) -> None:
        monkeypatch.setenv("https_proxy", proxy)
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(
            ArchiveUnavailable, match=r"\$https_proxy is no http://HOST:PORT"
        ) as raised:
            fetch(open_archive(server.url), target)
        assert "secret" not in str(raised.value)

    def test_a_password_may_hold_any_characters(
        self, server: Server, target: Path, tmp_path: Path
    ) -> None:
        with (server.root.parent / "users").open("a", encoding="utf-8") as users:
            users.write("mu3e:{PLAIN}gehäim-€\n")
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login mu3e password gehäim-€\n", encoding="utf-8")
        assert fetch(open_archive(server.url), target) == SIZE

    def test_connections_are_kept(self, server: Server, target: Path) -> None:
        archive = open_archive(server.url)
        (server.root / "small").write_bytes(b"x")
        (server.root.parent / "access.log").write_text("")
        for _ in range(3):
            fetch(archive, target, "small")


class Proxy(http.server.BaseHTTPRequestHandler):
    """Has every file itself, for those who log in."""

    logins: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        shown = self.headers["Proxy-Authorization"].removeprefix("Basic ")
        self.logins.append(base64.b64decode(shown).decode())
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"data")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def test_a_proxy_may_be_named_without_http_and_with_a_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("no_proxy", "")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        try:
            where = f"me%40lab:geh%C3%A4im%2F17@127.0.0.1:{proxy.server_port}"
            monkeypatch.setenv("http_proxy", where)
            archive = open_archive("http://archive.invalid/runs")
            assert fetch(archive, tmp_path / NAME) == 4
        finally:
            proxy.shutdown()
    assert set(Proxy.logins) == {"me@lab:gehäim/17"}


def test_a_password_is_not_sent_without_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / NAME
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "server").mkdir()
    try:
        with running(lambda base: nginx(base, secure=False), tmp_path / "server") as server:
            put(server)
            write_netrc(tmp_path / "netrc", server)
            with pytest.raises(ArchiveLoginRefused, match="401"):
                fetch(open_archive(server.url), target)
            assert PASSWORD
    except NoFilesystemError as reason:
        pytest.skip(str(reason))
