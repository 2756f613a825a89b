"""The doctor on real network filesystems with two client mounts, as two hosts have them.

A good one, one whose caches make SQLite lose updates without a message, one that refuses locks, and
one whose locks do not reach the other mount.  And NFS, on hosts with kernels of their own, with the
options that are often given to its mounts.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from bookkeeping import GOLD, bookkeeping, run_job
from laboratory import PROJECT
from network import gluster, sshfs
from network.needs import NoFilesystemError
from network.nfs import NfsNodes, Node

from production import commands
from production.doctor import examine
from production.explain import gather
from production.explain.causes import of_production
from production.store import migrations

pytestmark = pytest.mark.slow

SECONDS = "--seconds=1"
Findings = list[dict[str, str]]

# As ssh to a host on which the same directory is the other mount.
SSH = """\
#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift 2
exec unshare --mount sh -c 'mount --bind "$1" "$2" && exec sh -c "$3"' - {other} {mount} "$*"
"""


@contextmanager
def or_skip() -> Iterator[None]:
    """A machine without such filesystems has nothing to test."""
    try:
        yield
    except NoFilesystemError as error:
        pytest.skip(str(error))


def doctors(mounts: Sequence[Path], tmp_path: Path, *arguments: str) -> list[Findings]:
    """What doctors say that look at one database at the same time, one through each mount."""
    began = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "production", "doctor", "--output=json", SECONDS),
                *(f"--database={mount}/production.db", *arguments),
            ],
            env={
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "PYTHONPATH": str(PROJECT),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for mount in mounts
    ]
    said = [process.communicate(timeout=250)[0] for process in began]
    return [json.loads(text) for text in said]


def texts(findings: Findings, check: str, level: str) -> str:
    """What was found there; something must be."""
    found = [f["what"] for f in findings if (f["check"], f["level"]) == (check, level)]
    assert found, findings
    return "\n".join(found)


def no_scratch(directory: Path) -> bool:
    return not list(directory.glob(".production-doctor*"))


def test_a_good_one(tmp_path: Path) -> None:
    with or_skip(), gluster.volume(tmp_path / "gluster") as volume:
        migrations.create(volume.mounts[0] / "production.db")
        for findings in doctors(volume.mounts, tmp_path, "--meet=60"):
            assert "none lost" in texts(findings, "locks", "ok")
            assert "none lost" in texts(findings, "two hosts", "ok")
            assert "fuse.glusterfs" in texts(findings, "filesystem", "note")
            assert texts(findings, "quick_check", "ok")
        assert no_scratch(volume.brick)


def test_caches_that_lose_updates(tmp_path: Path) -> None:
    with or_skip(), gluster.volume(tmp_path / "gluster", cached=True) as volume:
        migrations.create(volume.mounts[0] / "production.db")
        for findings in doctors(volume.mounts, tmp_path, "--meet=60"):
            # One mount has one cache: on one host all is well.
            assert "none lost" in texts(findings, "locks", "ok")
            found = texts(findings, "two hosts", "error")
            assert "caches show old contents" in found
            assert "got lost" in found
        assert no_scratch(volume.brick)


def test_caches_that_lose_updates_found_out_through_ssh(tmp_path: Path) -> None:
    with or_skip(), gluster.volume(tmp_path / "gluster", cached=True) as volume:
        here, there = volume.mounts
        migrations.create(here / "production.db")
        ssh = tmp_path / "ssh"
        ssh.write_text(SSH.format(mount=here, other=there))
        ssh.chmod(0o755)
        (findings,) = doctors([here], tmp_path, "--other-host=there")
        assert "got lost" in texts(findings, "two hosts", "error")
        assert no_scratch(volume.brick)


def test_a_good_one_through_ssh(tmp_path: Path) -> None:
    with or_skip(), gluster.volume(tmp_path / "gluster") as volume:
        here, there = volume.mounts
        migrations.create(here / "production.db")
        ssh = tmp_path / "ssh"
        ssh.write_text(SSH.format(mount=here, other=there))
        ssh.chmod(0o755)
        (findings,) = doctors([here], tmp_path, "--other-host=there")
        assert "none lost" in texts(findings, "two hosts", "ok")
        assert no_scratch(volume.brick)


def test_without_a_second_host_the_doubt_stays(tmp_path: Path) -> None:
    with or_skip(), gluster.volume(tmp_path / "gluster", mounts=1) as volume:
        migrations.create(volume.mounts[0] / "production.db")
        (findings,) = doctors(volume.mounts, tmp_path)
        assert "was not tried" in texts(findings, "two hosts", "warning")


def test_no_locks_at_all(tmp_path: Path) -> None:
    with or_skip(), gluster.volume(tmp_path / "gluster", locks=False) as volume:
        (findings,) = doctors(volume.mounts[:1], tmp_path)
        assert "SQLITE_IOERR_LOCK" in texts(findings, "locks", "error")
        assert no_scratch(volume.brick)


def test_locks_that_do_not_exclude(tmp_path: Path) -> None:
    with or_skip(), sshfs.mounts(tmp_path / "sshfs") as mounts:
        migrations.create(mounts[0] / "production.db")
        for findings in doctors(mounts, tmp_path, "--meet=60"):
            assert "its locks do not reach other hosts" in texts(findings, "filesystem", "error")
            assert "none lost" in texts(findings, "locks", "ok")
            assert "locks do not exclude" in texts(findings, "two hosts", "error")
        assert no_scratch(tmp_path / "sshfs" / "files")


def test_a_server_that_has_gone(tmp_path: Path) -> None:
    with or_skip(), gluster.volume(tmp_path / "gluster", mounts=1) as volume:
        migrations.create(volume.mounts[0] / "production.db")
        volume.kill_server()
        (findings,) = doctors(volume.mounts, tmp_path)
        assert "cannot be looked at: Transport endpoint" in texts(findings, "directory", "error")


def test_one_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "SHOWN", 1.0)
    with or_skip(), gluster.volume(tmp_path / "gluster", mounts=1) as volume:
        # Whoever looks there now cannot even be killed.
        volume.signal_server(signal.SIGSTOP)
        wishes = examine.Wishes(volume.mounts[0] / "production.db")
        findings = list(examine.examine(wishes, lambda text: None))
        assert "does not answer within 1 s" in findings[-1].what


def test_a_data_directory_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "SHOWN", 1.0)
    volumes = gluster.volume(tmp_path / "gluster", mounts=1)
    with or_skip(), bookkeeping(tmp_path) as books, volumes as volume:
        data = volume.mounts[0] / "data"
        (tmp_path / "production.toml").write_text(f'data = "{data}"\n')
        books.label([1])
        production = books.start()
        store = books.manager(production)
        (claim,) = store.claim(1, GOLD)
        run_job(store, claim)
        volume.signal_server(signal.SIGSTOP)
        wishes = examine.Wishes(books.path, seconds=0.1, node=True)
        found = {f.check: f.what for f in examine.examine(wishes, lambda text: None)}
        assert found["data"] == f"{data} does not answer within 1 s"
        assert not {"space", "batch", "node"} & found.keys()
        facts = gather.gather(books.db, production, option="", run=None, config=None, ask=True)
        assert (
            f"{data} could not be found out: it does not answer within 1 s"
            in facts.around.space_trouble
        )
        assert {finding.cause for finding in of_production(facts)} == {"space_unknown", "submitted"}


# --------------------------------------------------------------------------- NFS


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NfsNodes]:
    with or_skip(), NfsNodes(tmp_path_factory.mktemp("nfs") / "nodes") as made:
        # Whatever the options, all mounts show the same directory.
        database = tmp_path_factory.mktemp("new") / "production.db"
        migrations.create(database)
        made.clients[0].run("cp", database, made.shared)
        yield made


def nfs_doctors(nodes: Sequence[Node], place: Path, *arguments: str) -> list[Findings]:
    """What doctors say that look at the database at the same time, one on each node."""
    home = {"HOME": "/root", "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}
    doctor = (sys.executable, "-m", "production", "doctor", "--output=json", SECONDS)
    words = (*doctor, f"--database={place}/production.db", *arguments)
    environment = {"PATH": os.environ["PATH"], **home}
    began = [
        subprocess.Popen(
            node.command(*words, environment=environment), stdout=subprocess.PIPE, text=True
        )
        for node in nodes
    ]
    said = [process.communicate(timeout=250)[0] for process in began]
    return [json.loads(text) for text in said]


def test_nfs(nodes: NfsNodes) -> None:
    late = nodes.clients[1]
    late.set_clock(-300)
    try:
        found = nfs_doctors(nodes.clients, nodes.shared, "--meet=120")
    finally:
        late.set_clock(0)
    for findings in found:
        assert "none lost" in texts(findings, "locks", "ok")
        assert "none lost" in texts(findings, "two hosts", "ok")
        assert "is on nfs4 (10.0.0.1:/)" in texts(findings, "filesystem", "ok")
        assert texts(findings, "quick_check", "ok")
    punctual, unpunctual = found
    assert texts(punctual, "clock", "ok")
    assert re.search(r"differ by (29|30)\d\.", texts(unpunctual, "clock", "warning"))


def test_nfs_whose_locks_hold_on_one_host_only(nodes: NfsNodes) -> None:
    (place,) = {node.mount("vers=3,nolock") for node in nodes.clients}
    for findings in nfs_doctors(nodes.clients, place, "--meet=120"):
        found = texts(findings, "filesystem", "error")
        assert "mounted with nolock: its locks hold on this host only" in found
        assert "none lost" in texts(findings, "locks", "ok")
        assert "locks do not exclude" in texts(findings, "two hosts", "error")


@pytest.mark.parametrize(
    ("options", "level", "what"),
    [
        ("vers=3,local_lock=all", "error", "local_lock=all: its locks hold on this host only"),
        ("vers=4.2,soft", "warning", "soft: when the server is slow, writes fail"),
        ("vers=3", "note", "vers=3: NFS 3 locks through lockd"),
        ("vers=4.2,ro", "error", "ro: nothing can be written there"),
    ],
)
def test_nfs_with_doubtful_options(nodes: NfsNodes, options: str, level: str, what: str) -> None:
    node = nodes.clients[0]
    (findings,) = nfs_doctors([node], node.mount(options))
    assert f"mounted with {what}" in texts(findings, "filesystem", level)
