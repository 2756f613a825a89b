"""Which mounted filesystem holds a directory, as the kernel tells (proc(5), /proc/pid/mounts)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")


@dataclass(frozen=True)
class Mount:
    """One line: the device, or whatever the filesystem calls what is mounted."""

    source: str
    point: Path
    kind: str  # ext4, nfs4, lustre, ...


def existing(directory: Path) -> Path:
    """The directory or, as long as it is not there, the one that it will be made in."""
    place = Path(os.path.realpath(directory))
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    return place


def mount_of(directory: Path) -> Mount | None:
    """The filesystem that holds ``directory``; None where the kernel does not tell."""
    try:
        text = MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return None
    return find(text, existing(directory))


def find(text: str, place: Path) -> Mount | None:
    """The last one mounted of those deepest on the way to ``place``, an absolute path."""
    best: Mount | None = None
    for line in text.splitlines():
        fields = [_unescaped(field) for field in line.split(" ")]
        if len(fields) < 3:
            continue
        mount = Mount(fields[0], Path(fields[1]), fields[2])
        deeper = best is None or len(mount.point.parts) >= len(best.point.parts)
        if deeper and place.is_relative_to(mount.point):
            best = mount
    return best


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
