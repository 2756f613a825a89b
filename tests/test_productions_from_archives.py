"""A whole production, from claims to outputs, with its raw files on each kind of archive."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from archive_behaviour import write_netrc
from archive_servers import (
    Kind,
    archive,
    nginx,
    pyftpdlib,
    pyftpdlib_tls,
    vsftpd,
    vsftpd_tls,
    xrootd,
)
from experiment import experiment

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(vsftpd, id="vsftpd"),
        pytest.param(vsftpd_tls, id="vsftpd-tls"),
        pytest.param(pyftpdlib, id="pyftpdlib"),
        pytest.param(pyftpdlib_tls, id="pyftpdlib-tls"),
        pytest.param(None, id="openssh"),
        pytest.param(nginx, id="nginx-https"),
        pytest.param(xrootd, id="xrootd"),
    ],
)
def test_all_runs_are_finished(kind: Kind | None, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    with archive(kind, tmp_path / "server") as server, experiment(tmp_path / "experiment") as e:
        for run in e.runs:
            shutil.copy(e.raw(run), server.root)
        e.configure(archive=f'url = "{server.url}"')
        write_netrc(e.netrc, server)
        variables = [f"{name}={value}" for name, value in server.environment.items()]
        manager = e.start(prefix=["env", *variables])
        assert manager.wait() == 0, manager.said
        e.check_all_finished()
