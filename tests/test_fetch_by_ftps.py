"""Input files by FTP with TLS: vsftpd, which wants sessions reused, pyftpdlib; IPv6; modes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from archive_behaviour import CONTENTS, NAME, SIZE, ArchiveBehaviour, fetch, put, write_netrc
from archive_servers import Kind, Server, pyftpdlib, pyftpdlib_tls, running, vsftpd, vsftpd_tls
from network.needs import NoFilesystemError

from production.errors import ArchiveLoginRefused, ArchiveUnavailable, TransferFailed
from production.staging import ftp_connection
from production.staging.archive import open_archive

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[vsftpd_tls, pyftpdlib_tls])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    try:
        with running(request.param, tmp_path_factory.mktemp("ftps")) as server:
            yield server
    except NoFilesystemError as reason:
        pytest.skip(str(reason))


class TestFtps(ArchiveBehaviour):
    def test_a_refused_login_is_told(self, server: Server, target: Path, tmp_path: Path) -> None:
        write_netrc(tmp_path / "netrc", server, "wrong-password")
        with pytest.raises(ArchiveLoginRefused, match="530 ") as refused:
            fetch(open_archive(server.url), target)
        assert "wrong-password" not in str(refused.value)

    def test_a_certificate_that_nobody_vouches_for_is_refused(
        self, server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(ArchiveUnavailable, match=r"not trusted \(unable .*SSL_CERT_FILE name"):
            fetch(open_archive(server.url), target)
        authority = server.environment["SSL_CERT_FILE"]
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority)
        assert fetch(open_archive(server.url), target) == SIZE
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
        with pytest.raises(ArchiveUnavailable, match=r"REQUESTS_CA_BUNDLE \(/nowhere.pem\)"):
            fetch(open_archive(server.url), target)

    def test_a_certificate_of_another_host_is_refused(
        self, server: Server, target: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "netrc").write_text("default login mu2e password x\n")
        with pytest.raises(ArchiveUnavailable, match=r"not trusted \(.*mismatch"):
            fetch(open_archive(server.url.replace("127.0.0.1", "127.1")), target)

    def test_without_tls_nothing_is_told_to_it(self, server: Server, target: Path) -> None:
        with pytest.raises(ArchiveUnavailable, match=r"5[35]0 "):
            fetch(open_archive(server.url.replace("ftps://", "ftp://")), target)

    def test_the_server_calls_back_in_active_mode(self, server: Server, target: Path) -> None:
        assert fetch(open_archive(f"{server.url}?mode=active"), target) == SIZE
        assert target.read_bytes() == CONTENTS


def serve(kind: Kind, base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server for one test, with the file on it and its login known."""
    base.mkdir()
    (base / "raw").mkdir()
    try:
        with running(kind, base) as server:
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("NETRC", str(base / "netrc"))
            write_netrc(base / "netrc", server)
            put(server)
            yield server
    except NoFilesystemError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def special(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    yield from serve(request.param, tmp_path / "special", monkeypatch)


@pytest.mark.parametrize(
    "special",
    [
        partial(vsftpd, host="::1"),
        partial(vsftpd, host="::1", secure=True),
        partial(pyftpdlib, host="::1"),
        partial(vsftpd, more="pasv_enable=NO\n"),
        partial(vsftpd, secure=True, more="pasv_enable=NO\n"),
        partial(vsftpd, host="::1", more="pasv_enable=NO\n"),
    ],
    ids=["ipv6", "ipv6-tls", "pyftpdlib-ipv6", "active", "active-tls", "ipv6-active"],
    indirect=True,
)
def test_it_finds_a_way_for_the_data(special: Server, tmp_path: Path) -> None:
    target = tmp_path / "special" / "raw" / NAME
    archive = open_archive(special.url)
    archive.stage([NAME])
    assert fetch(archive, target) == SIZE
    assert target.read_bytes() == CONTENTS


@pytest.mark.parametrize("special", [partial(vsftpd, more="port_enable=NO\n")], indirect=True)
def test_a_server_that_refuses_the_mode_that_was_asked_for(special: Server, tmp_path: Path) -> None:
    with pytest.raises(TransferFailed, match="550 "):
        fetch(open_archive(f"{special.url}?mode=active"), tmp_path / "special" / "raw" / NAME)


@pytest.mark.parametrize("special", [partial(vsftpd, secure=True, implicit=True)], indirect=True)
def test_at_its_own_port_tls_begins_with_the_first_byte(
    special: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ftp_connection, "IMPLICIT_TLS_PORT", special.port)
    assert fetch(open_archive(special.url), tmp_path / "special" / "raw" / NAME) == SIZE
