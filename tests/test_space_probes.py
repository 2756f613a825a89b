"""Probes of the space: which commands they run, and what they make of the answers."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from production.config import Space as Asked
from production.errors import ConfigurationError, ProbeFailed
from production.model import Space, Unit, Usage
from production.space import mounts
from production.space.probe import Probe, open_probe

KIB = 1024
DATA = Path(__file__).parent / "data"


def probe(name: str, directory: Path, device: str | None = None) -> Probe:
    return open_probe(Asked(name, device), directory)


def sources(space: Space) -> list[str]:
    return [limit.source for limit in space.limits]


# --------------------------------------------------------------------------- the commands

Install = Callable[[str, str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a stand-in for a command on the PATH; it records its arguments in ``calls``."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")

    def install(name: str, body: str) -> Path:
        command = directory / name
        calls = tmp_path / "calls"
        command.write_text(f'#!/bin/sh\n# a stand-in\necho "$*" >> {calls}\n{body}\n')
        command.chmod(0o755)
        return calls

    return install


def mount(monkeypatch: pytest.MonkeyPatch, directory: Path, kind: str, source: str = "x") -> None:
    """Have the kernel tell that such a filesystem is mounted at ``directory``."""
    table = directory / "mounts"
    table.write_text(f"rootfs / rootfs rw 0 0\n{source} {directory} {kind} rw 0 0\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)


HOME = Usage(3_200_000 * KIB, 4_000_000 * KIB, "mmlsquota home USR")
WORK = "mmlsquota work USR, above its soft limit, grace: 5 days"
WITHOUT_FIELDS = f"""
case $1 in -Y) echo 'mmlsquota: Incorrect option: -Y' >&2; exit 1;; esac
cat {DATA}/mmlsquota_table.txt"""
OWN_GROUP = f"-g {os.getgid()}"


def test_mmlsquota_is_asked_for_fields_of_user_and_group(install: Install, tmp_path: Path) -> None:
    calls = install("mmlsquota", f"cat {DATA}/mmlsquota_fields.txt")
    assert HOME in probe("mmlsquota", tmp_path).probe().limits
    assert calls.read_text().splitlines() == ["-Y", f"-Y {OWN_GROUP}"]


def test_an_older_mmlsquota_is_asked_for_the_table(install: Install, tmp_path: Path) -> None:
    calls = install("mmlsquota", WITHOUT_FIELDS)
    assert HOME in probe("mmlsquota", tmp_path, "home").probe().limits
    asked = calls.read_text().splitlines()
    assert asked == ["-Y home", "home", f"-Y {OWN_GROUP} home", f"{OWN_GROUP} home"]


def test_mmlsquota_that_ignores_the_option(install: Install, tmp_path: Path) -> None:
    install("mmlsquota", f"cat {DATA}/mmlsquota_table.txt")
    assert sources(probe("mmlsquota", tmp_path).probe()) == [
        "mmlsquota home USR",
        "mmlsquota home USR, files",
        WORK,
    ]


def test_the_fileset_of_mmlsquota_has_a_quota_as_well(install: Install, tmp_path: Path) -> None:
    calls = install("mmlsquota", f"cat {DATA}/mmlsquota_filesets.txt")
    assert sources(probe("mmlsquota", tmp_path, "store:kaons").probe()) == [
        "mmlsquota store:kaons FILESET"
    ]
    assert "-j kaons store" in calls.read_text().splitlines()


def test_a_kind_of_quota_that_is_not_in_use_is_told_of(install: Install, tmp_path: Path) -> None:
    body = f"""case "$*" in *-g*) echo 'mmlsquota: no group quotas' >&2; exit 1;; esac
    cat {DATA}/mmlsquota_table.txt"""
    install("mmlsquota", body)
    space = probe("mmlsquota", tmp_path).probe()
    assert HOME in space.limits
    assert "mmlsquota: no group quotas" in space.remark


def test_mmlsquota_of_the_filesystem_that_holds_the_data(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("mmlsquota", f"cat {DATA}/mmlsquota_table.txt")
    mount(monkeypatch, tmp_path, "gpfs", "/dev/home")
    assert probe("auto", tmp_path).probe().fullest == HOME


def test_failing_command_is_a_failed_probe_with_its_words(install: Install, tmp_path: Path) -> None:
    install("mmlsquota", "echo 'mmlsquota: 6027-1508 GPFS daemon is down' >&2; exit 2")
    for name in ("mmlsquota", "auto"):
        with pytest.raises(ProbeFailed, match="GPFS daemon is down"):
            probe(name, tmp_path).probe()


@pytest.mark.parametrize("name", ["mmlsquota", "lfs", "quota", "eos"])
def test_strange_output_is_a_failed_probe(install: Install, tmp_path: Path, name: str) -> None:
    install(name, "echo hello")
    with pytest.raises(ProbeFailed, match=f"output of {name}.* was not understood"):
        probe(name, tmp_path, "work").probe()


@pytest.mark.parametrize("name", ["mmlsquota", "lfs", "quota", "eos", "du"])
def test_hanging_command_is_a_failed_probe(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(f"production.space.{name}._TIMEOUT", 0.2)
    install(name, "sleep 1000")
    with pytest.raises(ProbeFailed, match=r"did not answer within 0\.2 s"):
        open_probe(Asked(name, limit=100), tmp_path).probe()


@pytest.mark.parametrize("name", ["mmlsquota", "lfs", "quota", "eos"])
def test_missing_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProbeFailed, match=f"`{name}` was not found"):
        probe(name, tmp_path).probe()


def test_quota_is_asked_for_the_filesystem_of_the_data_only(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = install("quota", f"cat {DATA}/quota/quota_over.txt; exit 1")  # above a limit
    mount(monkeypatch, tmp_path, "nfs4", "fileserver:/export/mu2e/data")
    name = "quota fileserver:/export/mu2e/data user mu2e"
    for which in ("auto", "quota"):
        assert sources(probe(which, tmp_path / "later").probe()) == [
            f"{name}, above its soft limit, grace: 1795842531",
            f"{name}, files",
        ]
    assert set(calls.read_text().splitlines()) == {f"-w -p -u -g -f {tmp_path}"}
    calls.unlink()
    mount(monkeypatch, tmp_path, "xfs", "/dev/sdb1")
    probe("quota", tmp_path).probe()
    assert calls.read_text() == "-w -p -u -g -f /dev/sdb1\n"


@pytest.mark.parametrize(
    "said",
    [
        "quota: Mountpoint (or device) /data not found or has no quota enabled.",
        "quota: Not all specified mountpoints are using quota.",
        "quota: Cannot find mountpoint for device /dev/vda",
        "quota: Error while getting quota from fileserver:/export for 1001: Connection refused",
        "fileserver: RPC: Program not registered",
    ],
)
def test_a_server_without_quotas_has_none(install: Install, tmp_path: Path, said: str) -> None:
    install("quota", f"echo '{said}' >&2; exit 1")
    space = probe("quota", tmp_path).probe()
    assert sources(space)[0] == f"statvfs {tmp_path}"
    assert space.remark.startswith("No quota is set on ")


def test_quota_that_fails_is_a_failed_probe(install: Install, tmp_path: Path) -> None:
    install("quota", "echo 'quota: fileserver: RPC: Timed out' >&2; exit 1")
    with pytest.raises(ProbeFailed, match="fileserver: RPC: Timed out"):
        probe("quota", tmp_path).probe()


def test_lfs_is_asked_for_user_group_and_project(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f"""case $1 in project) echo ' 1000 P {tmp_path}'; exit;; esac
    cat {DATA}/quota/lfs_inexact.txt"""
    calls = install("lfs", body)
    mount(monkeypatch, tmp_path, "lustre", "10.0.0.1@tcp:/lustre")
    space = probe("auto", tmp_path).probe()
    assert space.fullest == Usage(1041408 * KIB, 5242880 * KIB, "lfs quota /fast usr mu2e")
    assert "does not answer" in space.remark
    assert calls.read_text().splitlines() == [
        f"quota -u {os.getuid()} {tmp_path}",
        f"quota -g {os.getgid()} {tmp_path}",
        f"project -d {tmp_path}",
        f"quota -p 1000 {tmp_path}",
    ]


def test_lfs_without_projects(install: Install, tmp_path: Path) -> None:
    body = f"""case $1 in project) echo 'lfs: not supported' >&2; exit 95;; esac
    cat {DATA}/quota/lfs_plain.txt"""
    install("lfs", body)
    space = probe("lfs", tmp_path).probe()
    assert set(sources(space)) == {"lfs quota /lustre usr mu2e"}


def test_eos_is_asked_for_the_node_above_the_data(install: Install, tmp_path: Path) -> None:
    line = (DATA / "quota/eos_monitoring.txt").read_text().splitlines()[0]
    own = line.replace("uid=mu2e", f"uid={os.getuid()}").replace("/eos/mu2e/user/", str(tmp_path))
    calls = install("eos", f"echo '{own}'")
    space = probe("eos", tmp_path / "later").probe()
    assert space.fullest.fraction == pytest.approx(0.002)
    assert calls.read_text() == f"-b quota ls -m -p {tmp_path}\n"


def test_du_against_a_limit(tmp_path: Path) -> None:
    data = tmp_path / "data"
    both = open_probe(Asked("du", limit=10**6, files=10), data)
    assert [limit.used for limit in both.probe().limits] == [0, 0]  # not there yet
    (data / "raw").mkdir(parents=True)
    (data / "raw/run").write_bytes(bytes(100_000))
    (data / "raw/again").hardlink_to(data / "raw/run")
    space, files = both.probe().limits
    assert 100_000 <= space.used < 200_000
    assert (space.limit, space.source) == (10**6, f"du {data}")
    assert (files.used, files.limit, files.unit) == (3, 10, Unit.FILES)
    assert len(open_probe(Asked("du", files=10), data).probe().limits) == 1


@pytest.mark.parametrize("name", ["du", "command"])
def test_what_is_missing_in_the_configuration_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} needs .*: write .* into "):
        probe(name, tmp_path)


def test_a_command_of_ones_own(tmp_path: Path) -> None:
    def own(text: str) -> Space:
        return open_probe(Asked("command", command=("sh", "-c", text)), tmp_path).probe()

    assert own("echo 5 100; echo 6 200 7 8").limits == (
        Usage(5, 100, "sh"),
        Usage(6, 200, "sh"),
        Usage(7, 8, "sh, files", Unit.FILES),
    )
    assert own("echo 5 0").remark == "No quota is set on your quota: the whole filesystem counts"
    with pytest.raises(ProbeFailed, match="did not print lines of 2 or 4 numbers"):
        own("echo plenty")
    with pytest.raises(ProbeFailed, match="exit code 3: no idea"):
        own("echo no idea >&2; exit 3")


@pytest.mark.parametrize("body", ["", f"cat {DATA}/mmlsquota_nolimits.txt"])
@pytest.mark.parametrize("name", ["auto", "mmlsquota"])
def test_where_no_quota_is_set_the_filesystem_counts(
    install: Install, tmp_path: Path, body: str, name: str
) -> None:
    install("mmlsquota", body)
    space = probe(name, tmp_path).probe()
    assert sources(space)[0] == f"statvfs {tmp_path}"
    said = "No quota is set on the quota filesystems: the whole filesystem counts"
    assert space.remark == said


@pytest.mark.parametrize("kind", ["ext4", "lustre", "fuse.eosxd"])
def test_auto_takes_the_filesystem_where_there_is_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    mount(monkeypatch, tmp_path, kind)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sources(probe("auto", tmp_path).probe())[0] == f"statvfs {tmp_path}"


# --------------------------------------------------------------------------- the filesystem


def test_statvfs_agrees_with_df(tmp_path: Path) -> None:
    usage = probe("statvfs", tmp_path).probe().limits[0]
    disk = shutil.disk_usage(tmp_path)
    assert usage.limit - usage.used == pytest.approx(disk.free, rel=0.05)
    assert usage.used == pytest.approx(disk.used, rel=0.05)


def test_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "later/raw")
    (tmp_path / "file").write_text("")
    for path in ("later/raw", "link", "link/more"):
        source = probe("statvfs", tmp_path / path).probe().limits[0].source
        assert source == f"statvfs {tmp_path}"
    source = probe("statvfs", tmp_path / "file/raw").probe().limits[0].source
    assert source == f"statvfs {tmp_path}/file"


def test_relative_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert probe("statvfs", Path("later")).probe().limits[0].source == f"statvfs {tmp_path}"


def test_directory_that_cannot_be_reached(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ProbeFailed, match=f"The space on {tmp_path}/loop .* symbolic links"):
        probe("statvfs", tmp_path / "loop").probe()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is a filesystem without a size")
def test_filesystem_without_a_size() -> None:
    with pytest.raises(ProbeFailed, match="does not tell its size"):
        probe("statvfs", Path("/proc")).probe()


# --------------------------------------------------------------------------- names


def test_unknown_probe_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'df' is not known; known: auto, mmlsquota, lfs"):
        probe("df", tmp_path)
