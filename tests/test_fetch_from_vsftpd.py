"""Input files from vsftpd by plain FTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from archive_behaviour import ArchiveBehaviour, fetch, write_netrc
from archive_servers import Server, running, vsftpd
from network.needs import NoFilesystemError

from production.errors import ArchiveLoginRefused
from production.staging.archive import open_archive

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    try:
        with running(vsftpd, tmp_path_factory.mktemp("vsftpd")) as server:
            yield server
    except NoFilesystemError as reason:
        pytest.skip(str(reason))


class TestVsftpd(ArchiveBehaviour):
    def test_a_refused_login_is_told(self, server: Server, target: Path, tmp_path: Path) -> None:
        write_netrc(tmp_path / "netrc", server, "wrong-password")
        with pytest.raises(ArchiveLoginRefused, match="530 Login incorrect") as refused:
            fetch(open_archive(server.url), target)
        assert "wrong-password" not in str(refused.value)
