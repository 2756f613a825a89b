"""On which filesystem a directory lies, and whether its kind and options suit a shared SQLite file.

SQLite locks byte ranges with fcntl(2), and trusts that after it got a lock it reads what others
wrote before they let go of theirs.  So two things must reach from host to host: the locks, and
what was written.  Sources: proc_pid_mountinfo(5), nfs(5), mount.cifs(8), sshfs(1), the Lustre
manual (flock options), the manuals of the others; for GlusterFS, MooseFS, NFS and sshfs
measurements of lost updates.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from production.doctor.findings import Finding, Level, error, note, ok

CHECK = "filesystem"
_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


# --------------------------------------------------------------------------- the mount table


@dataclass(frozen=True)
class Mount:
    """A line of the mount table."""

    point: Path
    kind: str  # nfs4, ext4, fuse.sshfs, …
    source: str
    device: str  # major:minor
    options: frozenset[str]  # those of the mount and those of the filesystem


def parse_mountinfo(text: str) -> list[Mount]:
    """The mounts in the kernel's order; lines that make no sense are passed over."""
    mounts = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if not separator or len(left) < 6 or len(right) < 2:
            continue
        options = {*left[5].split(","), *(right[2].split(",") if len(right) > 2 else ())}
        mounts.append(
            Mount(
                point=Path(_plain(left[4])),
                kind=right[0],
                source=_plain(right[1]),
                device=left[2],
                options=frozenset(options),
            )
        )
    return mounts


def _plain(text: str) -> str:
    """Blanks and the like are written as octal numbers."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def mount_of(path: Path, mounts: list[Mount], device: str | None = None) -> Mount | None:
    """The mount that holds the absolute ``path``.

    One mount may hide another that is deeper; which it is, the number of the path's ``device``
    tells.
    """
    holding = [mount for mount in mounts if path.is_relative_to(mount.point)]
    same = [mount for mount in holding if mount.device == device]
    best = None
    for mount in same or holding:
        if best is None or len(mount.point.parts) >= len(best.point.parts):
            best = mount
    return best


def find_mount(path: Path) -> Mount | None:
    """The mount that holds an existing ``path``, on this host; raises OSError."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    text = _MOUNTINFO.read_text(errors="surrogateescape")
    return mount_of(path.resolve(), parse_mountinfo(text), number)


# --------------------------------------------------------------------------- what is known


@dataclass(frozen=True)
class Kind:
    """What is known of a kind of filesystem."""

    shared: bool  # other hosts can reach it
    level: Level = Level.OK
    what: str = ""
    remedy: str = ""
    doubtful: bool = False  # whether locks and contents reach other hosts, only a trial can tell


_ELSEWHERE = (
    "Move the database to a filesystem with locks between hosts: NFS 4, GPFS, Lustre, CephFS"
)
_TRY = "Try it between two hosts: production doctor --other-host=HOST"

_DISK = Kind(False, Level.NOTE, "a disk of this host: only managers on this host can share it")
_FLEETING = Kind(
    False,
    Level.WARNING,
    "it is gone when this host, or the container, ends",
    "Move the database to a disk",
)
_CLUSTER = Kind(True)
_DOUBTFUL = Kind(
    True, Level.NOTE, "whether its locks reach other hosts depends on its settings", doubtful=True
)
_OBJECTS = Kind(
    True, Level.ERROR, "it has no locks between hosts and rewrites whole files", _ELSEWHERE
)
_LOCAL_LOCKS = Kind(True, Level.ERROR, "its locks do not reach other hosts", _ELSEWHERE)
_UNKNOWN = Kind(True, Level.NOTE, "nothing is known of it here", doubtful=True)

_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(
        ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "jfs", "f2fs", "bcachefs", "reiserfs"),
        _DISK,
    ),
    **dict.fromkeys(("tmpfs", "ramfs", "overlay", "aufs", "fuse.fuse-overlayfs"), _FLEETING),
    **dict.fromkeys(
        ("nfs", "nfs4", "gpfs", "lustre", "gfs2", "ocfs2", "panfs", "wekafs"), _CLUSTER
    ),
    **dict.fromkeys(("ceph", "fuse.ceph", "fuse.ceph-fuse", "fuse.mfs", "fuse.juicefs"), _CLUSTER),
    **dict.fromkeys(
        ("fuse.s3fs", "fuse.gcsfuse", "fuse.goofys", "fuse.rclone", "fuse.blobfuse", "fuse.davfs"),
        _OBJECTS,
    ),
    **dict.fromkeys(("fuse.blobfuse2", "fuse.mount-s3", "fuse", "davfs"), _OBJECTS),
    **dict.fromkeys(("fuse.sshfs", "afs", "openafs", "orangefs", "pvfs2"), _LOCAL_LOCKS),
    **dict.fromkeys(("vboxsf", "fuse.vmhgfs-fuse", "prl_fs"), _LOCAL_LOCKS),
    **dict.fromkeys(("cifs", "smb3", "9p", "virtiofs", "beegfs", "fuse.eosxd"), _DOUBTFUL),
    "fuse.glusterfs": Kind(
        True,
        Level.NOTE,
        "with its default caches SQLite loses updates without a message: mounts need "
        "--direct-io-mode=enable --attribute-timeout=0 --entry-timeout=0, the volume needs "
        "performance.strict-o-direct on and the other performance.* translators off",
        doubtful=True,
    ),
}


@dataclass(frozen=True)
class Rule:
    """What an option of a mount means; ``option`` as a word or ``name=value``."""

    kinds: tuple[str, ...]  # empty: all
    option: str
    level: Level
    what: str
    remedy: str


_NFS = ("nfs", "nfs4")
_SMB = ("cifs", "smb3")
_ONE_HOST = "its locks hold on this host only: managers on others do the same runs"
_LATE = "it reads old contents from its cache: updates get lost"


def _remount(wanted: str) -> str:
    return f"Have it mounted {wanted}"


_RULES = (
    Rule((), "ro", Level.ERROR, "nothing can be written there", _remount("with rw")),
    Rule(
        _NFS, "nolock", Level.ERROR, _ONE_HOST, _remount("without nolock, with rpc.statd running")
    ),
    Rule(_NFS, "local_lock=all", Level.ERROR, _ONE_HOST, _remount("with local_lock=none")),
    Rule(_NFS, "local_lock=posix", Level.ERROR, _ONE_HOST, _remount("with local_lock=none")),
    *(
        Rule(
            _NFS,
            option,
            Level.WARNING,
            "when the server is slow, writes fail that the program takes for done",
            _remount("with hard"),
        )
        for option in ("soft", "softerr")
    ),
    Rule(
        _NFS,
        "nocto",
        Level.WARNING,
        "what one host has written the others may not see when they open the file",
        _remount("without nocto"),
    ),
    *(
        Rule(
            _NFS,
            f"vers={version}",
            Level.NOTE,
            f"NFS {version} locks through lockd: it and rpc.statd must run on all hosts",
            _remount("with vers=4.1 or 4.2 where the server has it"),
        )
        for version in (2, 3)
    ),
    Rule(("lustre",), "localflock", Level.ERROR, _ONE_HOST, _remount("with -o flock")),
    Rule(_SMB, "nobrl", Level.ERROR, _ONE_HOST, _remount("without nobrl")),
    Rule(_SMB, "cache=loose", Level.ERROR, _LATE, _remount("with cache=none or strict")),
    Rule(_SMB, "soft", Level.WARNING, "writes may fail after a while", _remount("with hard")),
    *(
        Rule(("9p",), f"cache={mode}", Level.ERROR, _LATE, _remount("with cache=none"))
        for mode in ("loose", "fscache", "mmap", "readahead")
    ),
)


def kind_of(mount: Mount) -> Kind:
    """What is known of the mount's kind."""
    return _KINDS.get(mount.kind, _UNKNOWN)


def judge(mount: Mount, place: Path) -> Iterator[Finding]:
    """What the kind and the options of a mount mean for a database in the directory ``place``."""
    shown = f"{place} is on {mount.kind} ({mount.source})"
    kind = kind_of(mount)
    troubles = [
        Finding(CHECK, rule.level, f"{shown} mounted with {rule.option}: {rule.what}", rule.remedy)
        for rule in _RULES
        if (not rule.kinds or mount.kind in rule.kinds) and rule.option in mount.options
    ]
    # Without the option the client refuses locks; it is on by default only in recent releases.
    if mount.kind == "lustre" and not {"flock", "localflock"} & mount.options:
        troubles.append(
            error(CHECK, f"{shown} mounted without flock: it refuses locks", _remount("-o flock"))
        )
    if kind.what:
        remedy = kind.remedy or (_TRY if kind.doubtful else "")
        yield Finding(CHECK, kind.level, f"{shown}: {kind.what}", remedy)
    elif not troubles:
        yield ok(CHECK, shown)
    yield from troubles


def check_filesystem(place: Path) -> Iterator[Finding]:
    """What can be said of the filesystem of an existing directory; raises OSError."""
    mount = find_mount(place)
    if mount is None:
        yield note(CHECK, f"{place}: this host does not tell on which filesystem it is")
    else:
        yield from judge(mount, place)
