"""Hosts that are cut off, stand still, or crash with their kernel; a file server that restarts.

The others go on within the filesystem's own recovery time, nothing is lost, and the one that comes
back does no harm: what it finishes too late is refused, and it goes on with what is its own.
On GlusterFS with hosts that are namespaces, and on NFS with hosts that have kernels of their own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest
from experiment import ManagerProcess
from network import gluster
from network.hosts import Host
from network.namespaces import NamespaceHost
from network.needs import NoFilesystemError, until
from network.nfs import NfsNodes
from shared_work import SharedWork

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAMES = ("one", "two")


class Site(Protocol):
    """Hosts that share a directory, and what befalls them."""

    @property
    def hosts(self) -> Sequence[Host]:
        """At present: a host that was booted again may be another object."""

    def crash(self, number: int) -> None:
        """One is gone, with its locks."""

    def boot(self, number: int) -> None:
        """One that had crashed is back."""

    def freeze(self, number: int) -> None:
        """One stands still."""

    def thaw(self, number: int) -> None:
        """It goes on."""

    def restart_server(self) -> None:
        """The file server crashes, and is back as soon as it can be."""


class GlusterSite:
    """Each host has its own client of the volume, which goes with it."""

    def __init__(self, volume: gluster.Volume) -> None:
        self._volume = volume
        self._shared, *self._mounts = volume.mounts
        self.hosts = [self._new(number) for number in range(len(NAMES))]

    def _new(self, number: int) -> NamespaceHost:
        return NamespaceHost(NAMES[number], self._mounts[number], self._shared)

    def crash(self, number: int) -> None:
        self._volume.kill_client(self._mounts[number])  # before anything could be unlocked
        self.hosts[number].crash()

    def boot(self, number: int) -> None:
        self._volume.mount(self._mounts[number])
        self.hosts[number] = self._new(number)

    def freeze(self, number: int) -> None:
        self._signal_all(number, "STOP")
        self._volume.signal_client(self._mounts[number], signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        self._volume.signal_client(self._mounts[number], signal.SIGCONT)
        self._signal_all(number, "CONT")

    def restart_server(self) -> None:
        self._volume.kill_server()
        self._volume.start_server()
        for mount in self._mounts:
            until(lambda mount=mount: os.access(mount, os.R_OK), "the clients' return")  # type: ignore[misc]

    def _signal_all(self, number: int, name: str) -> None:
        kill = self.hosts[number].command("bash", "-c", f"kill -{name} -1", environment={})
        subprocess.run(kill, check=True, timeout=60)


class NfsSite:
    """Each host is a node."""

    def __init__(self, nodes: NfsNodes) -> None:
        self._nodes = nodes
        self.hosts = nodes.clients

    def crash(self, number: int) -> None:
        self.hosts[number].crash()

    def boot(self, number: int) -> None:
        self.hosts[number].boot()

    def freeze(self, number: int) -> None:
        self.hosts[number].freeze()

    def thaw(self, number: int) -> None:
        self.hosts[number].thaw()

    def unplug(self, number: int) -> None:
        """One has no network."""
        self.hosts[number].unplug()

    def plug(self, number: int) -> None:
        """It has it again."""
        self.hosts[number].plug()

    def restart_server(self) -> None:
        self._nodes.server.crash()
        self._nodes.server.boot()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NfsNodes]:
    """Booted once for all tests, for that takes longest."""
    try:
        with NfsNodes(tmp_path_factory.mktemp("nfs") / "nodes", clients=len(NAMES)) as made:
            yield made
    except NoFilesystemError as error:
        pytest.skip(str(error))


@pytest.fixture
def nfs(nodes: NfsNodes) -> NfsSite:
    return NfsSite(nodes)


@pytest.fixture(params=["gluster", "nfs"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "nfs":
        yield request.getfixturevalue("nfs")
        return
    try:
        with gluster.volume(tmp_path / "gluster", mounts=1 + len(NAMES)) as volume:
            made = GlusterSite(volume)
            yield made
            for host in made.hosts:
                host.crash()
    except NoFilesystemError as error:
        pytest.skip(str(error))


@pytest.fixture
def work(site: Site, tmp_path: Path) -> Iterator[SharedWork]:
    with SharedWork(tmp_path, site.hosts, tmp_path.name, runs=8) as made:
        yield made


LOST = 0  # the number of the host that gets lost


def claims(work: SharedWork, host: Host) -> ManagerProcess:
    """A manager on a host with two jobs that do not end, and a claim that has none yet."""
    work.hold(host)
    manager = work.manager(host, "--nproc=2", "--nprep=1")
    manager.until(lambda: len(work.begun()) == 2, "its jobs")
    running = "SELECT run FROM run WHERE status = 'R'"
    manager.until(lambda: len(work.rows(running)) == 2, "their submission")
    return manager


def finish(work: SharedWork, first: ManagerProcess, second: ManagerProcess) -> None:
    """The first manager was lost, and is back; the second one went on."""
    # One claim had no job yet, two had jobs of which nothing was heard any more.
    second.until_it_says("Released run: 3: its manager is gone")
    second.until_it_says("has given no sign of life", times=2)
    first.until_it_says("was taken over by somebody else", times=3)
    # It claims what is left, while the other one works.
    lost, other = work.hosts
    work.let_go(lost)
    first.until_it_says("Finished run")
    work.let_go(other)
    assert (first.wait(), second.wait()) == (0, 0), f"{first.said}\n{second.said}"
    said = first.said + second.said
    assert "Cancelling" not in said
    assert "Traceback" not in said
    assert sorted(map(int, re.findall(r"Finished run: (\d+)", said))) == list(work.runs)
    work.check_all_finished()


def test_a_host_that_stood_still_does_no_harm_when_it_goes_on(work: SharedWork, site: Site) -> None:
    lost, other = work.hosts
    first = claims(work, lost)
    work.hold(other)
    # Where it would keep the others out as long as it stands still, it shall have no lock.
    transaction = work.begin(other, "EXCLUSIVE")
    site.freeze(LOST)
    transaction.end()
    assert transaction.committed
    second = work.manager(other, "--nproc=3", "--nprep=0")
    second.until_it_says("has given no sign of life", times=2)
    site.thaw(LOST)
    first.send(signal.SIGCONT)  # nsenter(1) stands still with what it has started
    finish(work, first, second)


def test_a_host_that_was_cut_off_does_no_harm_when_it_is_back(nfs: NfsSite, tmp_path: Path) -> None:
    with SharedWork(tmp_path, nfs.hosts, tmp_path.name, runs=8) as work:
        lost, other = work.hosts
        first = claims(work, lost)
        work.hold(other)
        transaction = work.begin(lost)
        nfs.unplug(LOST)
        second = work.manager(other, "--nproc=3", "--nprep=0")
        second.until_it_says("has given no sign of life", times=2)
        nfs.plug(LOST)
        transaction.end()
        assert not transaction.committed
        finish(work, first, second)
        assert work.labelled(transaction) == 0


def test_the_others_do_what_a_crashed_host_has_left(work: SharedWork, site: Site) -> None:
    lost, other = work.hosts
    first = claims(work, lost)
    work.hold(other)
    second = work.manager(other, "--nproc=3", "--nprep=0")
    second.until_it_says("Submitting run", times=3)
    transaction = work.begin(lost)
    site.crash(LOST)
    for process in (first, transaction.process):
        process.kill()
    second.until_it_says("Repairing runs [1, 2, 3]")
    work.let_go(other)
    assert second.wait() == 0, second.said
    assert "Traceback" not in second.said
    site.boot(LOST)
    work.hosts = list(site.hosts)
    assert work.manager(work.hosts[LOST]).wait() == 0  # finds nothing to do
    work.check_all_finished()
    assert work.labelled(transaction) == 0


def test_the_file_server_restarts_in_the_middle_of_a_transaction(
    work: SharedWork, site: Site
) -> None:
    one, two = work.hosts
    work.hold(two)
    managers = []
    for host in (one, two):
        managers.append(work.manager(host, "--nproc=2", "--nprep=0"))
        managers[-1].until_it_says("Submitting run")
    transaction = work.begin(one)
    site.restart_server()
    transaction.end()
    work.let_go(two)
    assert [manager.wait() for manager in managers] == [0, 0], [m.said for m in managers]
    assert "Traceback" not in "".join(manager.said for manager in managers)
    work.check_all_finished()
    # Whether it was recorded whose end met an I/O error nobody knows.
    assert work.labelled(transaction) == 1 or not transaction.committed
