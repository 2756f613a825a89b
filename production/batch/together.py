"""Jobs that are submitted with one command: their common name, their script, their notes.

A batch system runs one script; as element of a job array it knows its index.  The script itself
says which spool belongs to which index, so it leaves no files behind and needs none.  Each job of
an array has a note in its spool, by which any manager finds it in the queue.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from production.batch.base import WRAPPER
from production.model import JobOrder

NOTE = "array"

_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([1-9][0-9]{0,8}))?)?", re.ASCII)
_MOST_INDICES = 1_000_000  # more than any array has


@dataclass(frozen=True)
class Place:
    """Where a job stands in a queue: under which name, and with which index in an array."""

    name: str
    index: int | None = None

    def write(self, spool: Path) -> None:
        """Leave in the job's spool what ``read`` reads; raises OSError."""
        if self.index is None:
            (spool / NOTE).unlink(missing_ok=True)
        else:
            (spool / NOTE).write_text(f"{self.name} {self.index}\n", encoding="utf-8")

    @classmethod
    def read(cls, job: str, spool: Path) -> Place:
        """The place of the job named ``job``; raises OSError when that cannot be known now."""
        try:
            note = (spool / NOTE).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return cls(job)
        name, _, index = note.strip().rpartition(" ")
        return cls(name, int(index)) if name and index.isascii() and index.isdigit() else cls(job)


@dataclass(frozen=True)
class Together:
    """Jobs with the same requirements, in the order of their indices, which count from 1."""

    jobs: tuple[JobOrder, ...]

    @property
    def is_array(self) -> bool:
        """Whether they are elements of an array; a job that is alone is none."""
        return len(self.jobs) > 1

    @property
    def name(self) -> str:
        """What the batch system knows them by: as unique as the name of the first job."""
        first = self.jobs[0].name
        return f"{first}.x{len(self.jobs)}" if self.is_array else first

    def place(self, index: int) -> Place:
        """Where the job with this index is found."""
        return Place(self.name, index if self.is_array else None)

    def script(self, index: str, prelude: str = "") -> str:
        """The script that is submitted.

        ``index``: the shell's word for the element's index; ``prelude``: lines to begin with.
        """
        files = [shlex.join(map(str, (job.spool, job.stdout, job.stderr))) for job in self.jobs]
        if self.is_array:
            cases = "".join(
                f"{number}) set -- {those} ;;\n" for number, those in enumerate(files, 1)
            )
            choice = f"case {index} in\n{cases}esac\n"
        else:
            choice = f"set -- {files[0]}\n"
        return f"#!/usr/bin/env bash\n{prelude}{choice}{start_command(shlex.quote(str(WRAPPER)))}\n"


def start_command(wrapper: str) -> str:
    """Shell text that starts a job: ``$1`` is its spool, ``$2`` and ``$3`` are its logs.

    ``wrapper``: the shell's word for it.  A batch system whose server has crashed may start a job
    again that it had forgotten to have started; when that one is settled it has no spool any more,
    and shall not leave new logs behind.
    """
    return f'[ -d "$1" ] || exit 98; exec bash {wrapper} "$1" < /dev/null >> "$2" 2>> "$3"'


def divide(jobs: Sequence[JobOrder], largest: int) -> Iterator[Together]:
    """The jobs in groups with the same requirements, of at most ``largest`` each."""
    groups: dict[object, list[JobOrder]] = {}
    for job in jobs:
        groups.setdefault(job.requirements, []).append(job)
    for group in groups.values():
        for start in range(0, len(group), largest):
            yield Together(tuple(group[start : start + largest]))


def indices(text: str) -> Iterator[int]:
    """Those that systems write as ``1-7:3,9``; raises ValueError for what makes no sense."""
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ValueError(f"{text[:80]!r} are no indices")
        first, last = int(match[1]), int(match[2] or match[1])
        if last - first > _MOST_INDICES:
            raise ValueError(f"{text[:80]!r} are too many indices")
        yield from range(first, last + 1, int(match[3] or 1))
