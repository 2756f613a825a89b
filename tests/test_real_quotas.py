"""Productions on filesystems that are really limited, with transfers that together would not fit.

A btrfs qgroup limits a subvolume on every kernel that has btrfs; a tmpfs has a size.  On ext4 the
quota tools keep their figures themselves, where the kernel cannot.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from experiment import Experiment, ManagerProcess, experiment
from network.needs import NoFilesystemError, command_path, need, run, unmount

from production.config import Space as Asked
from production.model import Unit, Usage
from production.space.probe import open_probe

pytestmark = pytest.mark.slow

RUNS = range(1, 13)
MB = 1_000_000
LIMIT = 20 * MB
RAW = 3 * MB  # of which ten do not fit
OUTPUT = 400_000
EXCEEDED = ("Disk quota exceeded", "No space left on device")
SHORT = "Disk space is short"
AGAIN = "Disk space has become available"
EAGER = "from production.manager import room; room.LEARN_EVERY = room.ASKING_SHARE = 0"

# Asks the kernel for what it has counted so far, as root may.
QGROUP = """\
#!/bin/sh
btrfs qgroup show -r --raw --sync "$1" | awk '$4 ~ /^[0-9]+$/ { print $2, $4 }'
"""


@contextmanager
def btrfs(lab: Experiment) -> Iterator[str]:
    """The data directory is a subvolume with a limit; what [space] is to say."""
    need(["mkfs.btrfs", "btrfs"], ["btrfs-progs"], device="/dev/loop-control")
    image, whole = lab.directory / "btrfs.img", lab.directory / "whole"
    with image.open("wb") as file:
        file.truncate(150 << 20)  # the least that mkfs.btrfs takes is 109 MiB
    whole.mkdir()
    run("mkfs.btrfs", "-q", image)
    try:
        run("mount", "-o", "loop", image, whole)
        run("btrfs", "-q", "quota", "enable", whole)
        run("btrfs", "-q", "subvolume", "create", whole / "data")
        run("btrfs", "-q", "qgroup", "limit", LIMIT, whole / "data")
        run("mount", "--bind", whole / "data", lab.data)
        lab.add_command("our_quota", QGROUP)
        yield f'probe = "command"\ncommand = ["our_quota", "{lab.data}"]'
    finally:
        unmount(lab.data)
        unmount(whole)


@contextmanager
def tmpfs(lab: Experiment) -> Iterator[str]:
    """The data directory is a filesystem of that size."""
    need([], [], device="/dev/null")
    try:
        run("mount", "-t", "tmpfs", "-o", f"size={LIMIT}", "tmpfs", lab.data)
        yield 'probe = "statvfs"'
    finally:
        unmount(lab.data)


@contextmanager
def limited(lab: Experiment) -> Iterator[str]:
    """The quota, or where this machine has none of the kind, at least a small filesystem."""
    with ExitStack() as stack:
        try:
            space = stack.enter_context(btrfs(lab))
        except NoFilesystemError as reason:
            sys.stdout.write(f"on a small tmpfs, for: {reason}\n")
            space = stack.enter_context(tmpfs(lab))
        yield space


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Experiment]:
    """Ten and more raw files, and payloads that write something."""
    with experiment(tmp_path, RUNS) as made:
        made.data.mkdir()
        for number in RUNS:
            made.raw(number).write_bytes(bytes(RAW))
        script = made.directory / "count.sh"
        write = f'head -c {OUTPUT} /dev/zero > "$2" || exit'
        script.write_text(script.read_text().replace('wc -c < "$1" > "$2" || exit', write))
        with ExitStack() as stack:
            try:
                space = stack.enter_context(limited(made))
            except NoFilesystemError as reason:
                pytest.skip(str(reason))
            made.configure(
                space=space,
                defaults='pause = 0.2\nspacelim = "90%"\nback_off = 0.5',
                batch__local="slots = 2",
            )
            yield made
            made.kill_everything()


def start(lab: Experiment, *options: str, patch: str = EAGER) -> ManagerProcess:
    """A manager that may have ten transfers at a time, each of which takes half a second."""
    lab.open_archive(rate=2 * RAW)
    return lab.start("--transfers=10", "--nproc=2", "--nprep=10", *options, patch=patch)


def check_all_done(lab: Experiment) -> None:
    lab.check_nothing_under_way()
    assert lab.statuses() == "F" * len(RUNS)


def test_parallel_transfers_never_meet_the_limit(lab: Experiment) -> None:
    manager = start(lab)
    assert manager.wait() == 0, manager.said
    check_all_done(lab)
    assert not any(words in manager.said for words in EXCEEDED)
    assert SHORT not in manager.said
    assert "wait for space" in manager.said
    assert all(lab.outcomes(number) == ["finished"] for number in RUNS)
    assert len(lab.archive_log("sent")) == len(RUNS)


def test_without_reservation_they_would(lab: Experiment) -> None:
    careless = "from production.space.reserve import Reservations as R; R.take = lambda *_: True"
    once = "from production.manager import room; room.ASKING_SHARE = 1e9"
    lab.hold("payload")
    manager = start(lab, patch=f"{careless}; {once}")
    manager.until(lambda: any(words in manager.said for words in EXCEEDED), "an overrun")


def fill(filler: Path) -> None:
    """Write until nothing more can be written."""
    with filler.open("wb", buffering=0) as file:
        for size in (MB, 100_000, 4096):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    os.fsync(file.fileno())


def test_filled_up_from_outside_it_pauses_and_goes_on_when_there_is_room(lab: Experiment) -> None:
    lab.hold("payload")
    manager = start(lab, "--nprep=0")
    manager.until(lambda: lab.statuses().count("R") == 2, "the jobs")
    fill(lab.data / "filler")
    manager.until_it_says(SHORT)
    lab.let_go("payload")
    # Neither the outputs nor the records of the jobs, nor any word on them, can be written.
    words = (*EXCEEDED, "the disk was full")
    manager.until(lambda: any(word in manager.said for word in words), "the jobs' end")
    assert "F" not in lab.statuses()
    lab.open_archive()
    (lab.data / "filler").unlink()
    manager.until_it_says(AGAIN)
    assert manager.wait() == 0, manager.said
    check_all_done(lab)
    assert outcomes(lab) == {"rolled back": 2, "finished": len(RUNS)}
    assert lab.rows("SELECT DISTINCT failures FROM run") == [(0,)]


def outcomes(lab: Experiment) -> Counter[object]:
    return Counter(outcome for number in RUNS for outcome in lab.outcomes(number))


# --------------------------------------------------------------------------- quota(1)


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """An ext4 filesystem with a quota for this user, above whose soft limit it is."""
    image, point = tmp_path / "ext4.img", tmp_path / "ext4"
    try:
        need(["quota", "setquota", "quotacheck"], ["quota"], device="/dev/loop-control")
        with image.open("wb") as file:
            file.truncate(30 << 20)
        point.mkdir()
        run("mkfs.ext4", "-q", "-F", image)
        run("mount", "-o", "loop,usrquota", image, point)
    except NoFilesystemError as reason:
        pytest.skip(str(reason))
    try:
        (point / "data").mkdir()
        (point / "data" / "raw").write_bytes(bytes(5 * MB))
        run("sync", "-f", point)
        run("quotacheck", "-cum", point)
        run("setquota", "-u", "root", 2000, 10000, 100, 200, point)
        yield point
    finally:
        unmount(point)


def test_quota_of_a_real_filesystem(ext4: Path) -> None:
    report = [command_path("repquota") or "repquota", "-u", "-O", "csv", str(ext4)]
    text = subprocess.run(report, capture_output=True, text=True, check=False, timeout=60).stdout
    (fields,) = (line.split(",") for line in text.splitlines() if line.startswith("root,"))
    used, files = int(fields[3]), int(fields[7])
    assert used > 4000
    space = open_probe(Asked("quota"), ext4 / "data").probe()
    blocks, inodes = space.limits
    assert (blocks.used, blocks.limit, blocks.unit) == (used * 1024, 2000 * 1024, Unit.BYTES)
    assert blocks.source.startswith("quota /dev/loop")
    assert inodes == Usage(files, 100, f"{blocks.source.partition(',')[0]}, files", Unit.FILES)
    assert open_probe(Asked("auto"), ext4 / "data").probe().limits == space.limits


def test_a_real_filesystem_without_quota(ext4: Path) -> None:
    run("setquota", "-u", "root", 0, 0, 0, 0, ext4)
    space = open_probe(Asked("quota"), ext4 / "data").probe()
    assert space.remark.startswith("No quota is set on /dev/loop")
    assert space.limits[0].source == f"statvfs {ext4}/data"
