"""Checksums that the archive tells: what comes wrong is noticed, and nothing is read twice."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from experiment import RUNS, experiment
from ftp_server import TapeArchive, tape_archive, write_netrc

from production.config import parse_configuration
from production.errors import (
    ArchiveUnavailable,
    ChecksumMissing,
    ChecksumWrong,
    ConfigurationError,
    NotOnDisk,
    TransferStopped,
)
from production.model import CHECKSUM_KINDS, Checksum
from production.staging import checksum, ftp_checksums, remote
from production.staging.archive import Archive, open_archive
from production.staging.checksum import DIGITS, Following, new_hash, read_list

NAME = "run02091.mid"
CONTENTS = random.Random(1).randbytes(1_000_003)
SUMS = {
    "sha256": hashlib.sha256(CONTENTS).hexdigest(),
    "sha1": hashlib.sha1(CONTENTS, usedforsecurity=False).hexdigest(),
    "md5": hashlib.md5(CONTENTS, usedforsecurity=False).hexdigest(),
    "adler32": f"{zlib.adler32(CONTENTS):08x}",
    "crc32": f"{zlib.crc32(CONTENTS):08x}",
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TapeArchive]:
    monkeypatch.setenv("NETRC", str(write_netrc(tmp_path / "netrc")))
    with tape_archive(tmp_path / "archive") as server:
        (server.root / NAME).write_bytes(CONTENTS)
        yield server


def fetch(server: TapeArchive, target: Path, mode: str = "auto", name: str = NAME) -> None:
    archive = open_archive(server.url, checksums=mode)
    archive.fetch(name, target, lambda _, __: None, threading.Event())
    assert target.read_bytes() == CONTENTS
    assert [path.name for path in target.parent.iterdir()] == [NAME]


def wrong(value: str) -> str:
    return value[:-1] + ("0" if value[-1] != "0" else "1")


# --------------------------------------------------------------------------- how they are written


@pytest.mark.parametrize("kind", CHECKSUM_KINDS)
def test_each_kind_is_computed(kind: str) -> None:
    made = new_hash(kind)
    for start in range(0, len(CONTENTS), 100_000):
        made.update(memoryview(CONTENTS)[start : start + 100_000])
    assert made.hexdigest() == SUMS[kind]
    assert len(made.hexdigest()) == DIGITS[kind]


def test_both_forms_of_lines_are_read() -> None:
    text = f"""
{SUMS["md5"]}  run1.mid
{SUMS["md5"].upper()} *data/run 2.mid
# a comment
SHA256 (data/run(3).mid) = {SUMS["sha256"]}
SHA-1 (run4.mid) = {SUMS["sha1"]}
CKSUM (run5.mid) = 77
{SUMS["sha256"]}  of-another-kind
{SUMS["md5"]}
"""
    assert list(read_list(text, "md5")) == [
        ("run1.mid", "md5", SUMS["md5"]),
        ("run 2.mid", "md5", SUMS["md5"]),
        ("run(3).mid", "sha256", SUMS["sha256"]),
        ("run4.mid", "sha1", SUMS["sha1"]),
        ("", "md5", SUMS["md5"]),
    ]
    assert list(read_list("1f run6.mid", "adler32")) == [("run6.mid", "adler32", "0000001f")]


def test_what_a_server_computes_is_known_from_its_features() -> None:
    features = "211-Features:\n HASH SHA-256;SHA-512;MD5*\n XMD5\n XCRC filename;start;end\n211 End"
    assert ftp_checksums.offered(features) == {
        "sha256": ("OPTS HASH SHA-256", "HASH"),
        "md5": ("OPTS HASH MD5", "HASH"),
        "crc32": ("XCRC",),
    }


def test_a_part_that_is_kept_is_read_again_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(CONTENTS)
    following = Following("md5")
    following.begin_at(400_000, path, lambda: None)  # left by somebody else
    following.add(CONTENTS[400_000:])
    assert following.checksum == Checksum("md5", SUMS["md5"])
    path.write_bytes(bytes(10))  # is not read: all of it went through our hands
    following.begin_at(len(CONTENTS), path, lambda: None)
    assert following.checksum == Checksum("md5", SUMS["md5"])
    path.write_bytes(CONTENTS)
    following.begin_at(500_000, path, lambda: None)  # cut back
    following.add(CONTENTS[500_000:])
    assert following.checksum == Checksum("md5", SUMS["md5"])


def cut_at(server: TapeArchive, target: Path, count: int) -> Archive:
    """An archive that was down when so much of the file had come."""
    (server.root / f"{NAME}.md5").write_text(SUMS["md5"])
    server.fault, server.fault_after = "stalls", count
    first = open_archive(server.url, timeout=0.3, checksums="require")
    with pytest.raises(ArchiveUnavailable):
        first.fetch(NAME, target, lambda _, __: None, threading.Event())
    server.come_back()
    return first


def test_while_a_part_is_read_again_progress_is_told(
    server: TapeArchive, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or other managers would take the one that reads for dead."""
    archive = cut_at(server, target, 600_000)
    monkeypatch.setattr(checksum, "_BLOCK", 60_000)  # of a part of ten blocks
    told: list[int] = []
    archive.fetch(NAME, target, lambda done, _: told.append(done), threading.Event())
    assert told.count(600_000) > 10
    assert told == sorted(told)
    assert target.read_bytes() == CONTENTS


def test_a_transfer_is_stopped_while_a_part_is_read_again(
    server: TapeArchive, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = cut_at(server, target, 600_000)
    monkeypatch.setattr(checksum, "_BLOCK", 60_000)
    stop = threading.Event()
    read: list[int] = []

    class Stopping(Following):
        def add(self, block: bytes | memoryview) -> None:
            read.append(len(block))
            stop.set()

    monkeypatch.setattr(remote, "Following", Stopping)
    with pytest.raises(TransferStopped):
        archive.fetch(NAME, target, lambda _, __: None, stop)
    assert read == [60_000]


# --------------------------------------------------------------------------- where they are found


@pytest.mark.parametrize("kind", CHECKSUM_KINDS)
def test_a_file_beside_it_is_compared(server: TapeArchive, target: Path, kind: str) -> None:
    beside = server.root / f"{NAME}.{kind}"
    beside.write_text(f"{SUMS[kind]}  /raid/{NAME}\n")
    fetch(server, target, "require")
    beside.write_text(f"{wrong(SUMS[kind])}\n")
    told = rf"damaged: its {kind} is {SUMS[kind]}, {NAME}\.{kind} says {wrong(SUMS[kind])}"
    with pytest.raises(ChecksumWrong, match=told):
        fetch(server, target)
    assert server.said("RETR").count(NAME) == 3  # brought once more before that is believed
    assert [path.name for path in target.parent.iterdir()] == [NAME]  # of the first time
    fetch(server, target, "off")


@pytest.mark.parametrize("list_name", ["SHA256SUMS", "SHA1SUMS", "MD5SUMS"])
def test_a_list_in_its_directory_is_compared(
    server: TapeArchive, target: Path, list_name: str
) -> None:
    kind = list_name.removesuffix("SUMS").lower()
    (server.root / "R13").mkdir()
    (server.root / NAME).rename(server.root / "R13" / NAME)
    listed = server.root / "R13" / list_name
    listed.write_text(f"{wrong(SUMS[kind])}  other.mid\n{SUMS[kind]}  {NAME}\n")
    fetch(server, target, "require", f"R13/{NAME}")
    listed.write_text(f"{kind.upper()} ({NAME}) = {wrong(SUMS[kind])}\n")
    with pytest.raises(ChecksumWrong, match=f"R13/{list_name} says"):
        fetch(server, target, "auto", f"R13/{NAME}")


def test_a_list_is_read_once_for_many_files(server: TapeArchive, tmp_path: Path) -> None:
    names = [f"run{run:05d}.mid" for run in RUNS]
    for name in names:
        (server.root / name).write_bytes(CONTENTS)
    (server.root / "MD5SUMS").write_text("".join(f"{SUMS['md5']}  {name}\n" for name in names))
    archive = open_archive(server.url, checksums="require")
    for name in names:
        archive.fetch(name, tmp_path / name, lambda _, __: None, threading.Event())
    assert server.said("RETR").count("MD5SUMS") == 1


@pytest.mark.parametrize(
    ("feature", "command", "kind"),
    [("HASH MD5;SHA-256*", "HASH", "sha256"), ("XMD5", "XMD5", "md5"), ("XCRC", "XCRC", "crc32")],
)
def test_the_server_is_asked_when_the_file_is_here(
    server: TapeArchive, target: Path, feature: str, command: str, kind: str
) -> None:
    server.replies["FEAT"] = f"211-Features:\r\n {feature}\r\n211 End."
    server.replies["OPTS"] = "200 Yes."
    server.replies[command] = f"213 {SUMS[kind].upper()}"
    fetch(server, target, "require")
    assert server.commands.index(f"RETR {NAME}") < server.commands.index(f"{command} {NAME}")
    server.replies[command] = f"213 {wrong(SUMS[kind])}"
    with pytest.raises(ChecksumWrong, match="the server says"):
        fetch(server, target)


# --------------------------------------------------------------------------- where there are none


def test_an_archive_without_checksums_serves_unless_one_is_required(
    server: TapeArchive, target: Path
) -> None:
    fetch(server, target, "auto")
    fetch(server, target, "off")
    with pytest.raises(ChecksumMissing, match=r"has no checksum at 127\.0\.0\.1: the conf"):
        fetch(server, target, "require")


@pytest.mark.parametrize("verb", ["SIZE", "FEAT"])
@pytest.mark.parametrize("reply", ["501 I do not know what you mean.", "211 Yes"])
def test_an_archive_that_dislikes_questions_is_asked_no_more(
    server: TapeArchive, target: Path, verb: str, reply: str
) -> None:
    class Sizes(dict[str, str | None]):
        """A reply to questions about files that are not there."""

        def __contains__(self, asked: object) -> bool:
            if asked != verb or (verb == "SIZE" and server.commands[-1] == f"SIZE {NAME}"):
                return False
            return super().__contains__(asked)

    server.replies = Sizes({verb: reply})
    archive = open_archive(server.url, checksums="auto")
    for _ in range(4):
        archive.fetch(NAME, target, lambda _, __: None, threading.Event())
        assert target.read_bytes() == CONTENTS
    asked = server.said(verb)
    archive.fetch(NAME, target, lambda _, __: None, threading.Event())
    assert server.said(verb)[len(asked) :] == ([NAME] if verb == "SIZE" else [])


def test_a_checksum_on_tape_is_waited_for_only_where_one_is_required(
    server: TapeArchive, target: Path
) -> None:
    (server.root / f"{NAME}.md5").write_text(SUMS["md5"])
    server.on_tape.add(f"{NAME}.md5")
    with pytest.raises(NotOnDisk, match=r"run02091\.mid\.md5 is still on tape"):
        fetch(server, target, "require")
    assert server.said("STAGE") == [f"{NAME}.md5"]
    fetch(server, target, "require")
    server.on_tape.add(f"{NAME}.md5")
    fetch(server, target, "auto")


# --------------------------------------------------------------------------- transfers that are cut


def test_a_transfer_that_is_cut_is_right_in_the_end(server: TapeArchive, target: Path) -> None:
    (server.root / f"{NAME}.sha256").write_text(SUMS["sha256"])
    time = 1_500_000_000
    os.utime(server.root / NAME, (time, time))
    server.cuts = [100_000, 300_001, 900_000]
    fetch(server, target, "require")
    assert server.said("REST") == ["100000", "300001", "900000"]


def test_a_part_that_was_damaged_here_is_noticed(server: TapeArchive, target: Path) -> None:
    (server.root / f"{NAME}.sha1").write_text(SUMS["sha1"])
    archive = open_archive(server.url, checksums="require")
    server.cuts = [600_000]

    def bring() -> None:
        archive.fetch(NAME, target, lambda _, __: None, threading.Event())

    archive.look([NAME])  # one connection is kept
    server.replies["greeting"] = "421 Going down."
    with pytest.raises(ArchiveUnavailable):
        bring()
    del server.replies["greeting"]
    part = target.with_name(f"{NAME}.part")
    assert part.stat().st_size == 600_000
    times = part.stat()
    with part.open("r+b") as file:
        file.write(b"damage")
    os.utime(part, ns=(times.st_atime_ns, times.st_mtime_ns))
    bring()
    assert server.said("REST") == ["600000"]
    assert target.read_bytes() == CONTENTS


# --------------------------------------------------------------------------- a whole production


@pytest.mark.slow
def test_a_run_whose_file_stays_wrong_fails_alone(tmp_path: Path) -> None:
    with experiment(tmp_path) as lab:
        for run in RUNS:
            digest = hashlib.md5(lab.raw(run).read_bytes(), usedforsecurity=False).hexdigest()
            line = f"{digest if run != 2092 else wrong(digest)}  run{run:05d}.mid\n"
            (lab.tape / f"run{run:05d}.mid.md5").write_text(line)
        lab.configure(
            archive=f'url = "{lab.archive_url}"\nchecksums = "require"',
            defaults='pause = 0.2\nspacelim = "100%"\nback_off = 0.1\nmax_attempts = 2',
        )
        lab.open_archive()
        assert lab.start().wait() == 40
        assert lab.statuses() == "FEF"
        assert "is damaged: its md5 is " in str(lab.reasons()[2092])
        assert lab.archive_log("sent").count("run02092.mid") == 4  # twice in each attempt
        lab.check_nothing_under_way()


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r":2: 'checksums' must be one of auto, require"):
        parse_configuration("[archive]\nchecksums = 'yes'", Path("/p.toml"))
