"""Checksums of the archive's files: where they are found, how they are written and computed.

In this order: a file beside it (``run02091.mid.sha256``), a list in its directory
(``SHA256SUMS``), the server itself.  Both forms of lines are read, ``HEX  NAME`` as md5sum and
sha256sum write it, and BSD's ``MD5 (NAME) = HEX``.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from production.errors import ChecksumMissing, FileMissing, NotOnDisk, TransferFailed
from production.model import CHECKSUM_KINDS, Checksum
from production.staging.archive import Computes, Session

AUTO, REQUIRE, OFF = "auto", "require", "off"

_LISTS = {"SHA256SUMS": "sha256", "SHA1SUMS": "sha1", "MD5SUMS": "md5"}
DIGITS = {"sha256": 64, "sha1": 40, "md5": 32, "adler32": 8, "crc32": 8}  # hexadecimal

_BLOCK = 1024 * 1024  # bytes
_LARGEST_LIST = 64 * 1024 * 1024  # bytes
_TROUBLES = 3  # in a row, until an archive is asked no more
_KEEP = 600.0  # seconds that a directory's list is kept
_BSD = re.compile(r"(\w[\w-]*) \((.*)\) = ([0-9A-Fa-f]+)")
_GNU = re.compile(r"([0-9A-Fa-f]+)(?:[ \t]+\*?(.*))?")


@dataclass(frozen=True)
class Expected:
    """What a file's checksum must be."""

    kind: str  # one of CHECKSUM_KINDS
    value: str | None  # hexadecimal, small letters; None: the server is asked when the file is here
    source: str = "the server"  # who says so


class Hash(Protocol):
    """What computes a checksum."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more."""

    def hexdigest(self) -> str:
        """Of all so far."""


class _Small:
    """A checksum of 32 bits as a ``Hash``."""

    def __init__(self, compute: Callable[[bytes | memoryview, int], int], start: int) -> None:
        self._compute = compute
        self._value = start

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = self._compute(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def new_hash(kind: str) -> Hash:
    """A ``Hash`` of nothing so far."""
    if kind == "adler32":
        return _Small(zlib.adler32, 1)
    if kind == "crc32":
        return _Small(zlib.crc32, 0)
    return hashlib.new(kind, usedforsecurity=False)


class Following:
    """The checksum of a file that is being written: each byte is read once where that can be."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._hash = new_hash(kind)
        self._count = 0

    def begin_at(self, offset: int, path: Path, meanwhile: Callable[[], None]) -> None:
        """The file is kept as far as ``offset``; what is not known of it is read.

        That may take minutes: ``meanwhile`` is called after each block, and may raise to end it.
        """
        if offset < self._count:
            self._hash, self._count = new_hash(self._kind), 0
        if offset > self._count:
            with path.open("rb") as file:
                file.seek(self._count)
                while self._count < offset:
                    block = file.read(min(_BLOCK, offset - self._count))
                    if not block:
                        break
                    self.add(block)
                    meanwhile()

    def add(self, block: bytes | memoryview) -> None:
        """The next bytes."""
        self._hash.update(block)
        self._count += len(block)

    @property
    def checksum(self) -> Checksum:
        """Of all so far."""
        return Checksum(self._kind, self._hash.hexdigest())


# --------------------------------------------------------------------------- lists


def read_list(text: str, kind: str) -> Iterator[tuple[str, str, str]]:
    """Each line's file name (without directories, '' when there is none), kind, and value."""
    for line in text.splitlines():
        if match := _BSD.fullmatch(line.strip()):
            said, name, value = match[1].lower().replace("-", ""), match[2], match[3]
        elif match := _GNU.fullmatch(line.strip()):
            said, name, value = kind, match[2] or "", match[1]
        else:
            continue
        if said in CHECKSUM_KINDS and 0 < len(value) <= DIGITS[said]:
            yield name.rpartition("/")[2], said, value.lower().zfill(DIGITS[said])


class Lookup:
    """What one archive says of its files' checksums; used by several threads at a time."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self._lists: dict[str, tuple[float, Mapping[str, Expected]]] = {}  # by directory
        self._lock = threading.Lock()
        self._offered: tuple[str, ...] | None = None  # kinds that the server computes
        self._troubles = 0  # in a row

    def find(self, session: Session, file: str, host: str) -> Expected | None:
        """What is known before the file comes.

        Raises ChecksumMissing where one is required, NotOnDisk where it is on tape, and the
        TransferErrors.
        """
        if self.mode == OFF:
            return None
        found = self._find(session, file, host)
        self._troubles = 0
        if found is None and self.mode == REQUIRE:
            raise ChecksumMissing(file=file, host=host, what="the configuration requires one")
        return found

    def _find(self, session: Session, file: str, host: str) -> Expected | None:
        name = file.rpartition("/")[2]
        for kind in CHECKSUM_KINDS:
            beside = f"{file}.{kind}"
            text = self._text(session, beside, host)
            for named, said, value in read_list(text, kind):
                if named in ("", name):
                    return Expected(said, value, beside)
        if found := self._listed(session, file.removesuffix(name), host).get(name):
            return found
        if self._offered is None:
            self._offered = tuple(session.checksums()) if isinstance(session, Computes) else ()
        for kind in CHECKSUM_KINDS:
            if kind in self._offered:
                return Expected(kind, None)
        return None

    def may_go_without(self) -> bool:
        """After trouble with the question: whether the file may come without an answer.

        An archive that has never anything else is asked no more.
        """
        self._troubles += 1
        if self.mode == AUTO and self._troubles >= _TROUBLES:
            self.mode = OFF
        return self.mode != REQUIRE

    def _listed(self, session: Session, directory: str, host: str) -> Mapping[str, Expected]:
        with self._lock:
            since, found = self._lists.get(directory, (0.0, {}))
        if since and time.monotonic() - since < _KEEP:
            return found
        found = {}
        for file, kind in _LISTS.items():
            text = self._text(session, directory + file, host)
            for name, said, value in read_list(text, kind):
                found.setdefault(name, Expected(said, value, directory + file))
        with self._lock:
            self._lists[directory] = time.monotonic(), found
        return found

    def _text(self, session: Session, file: str, host: str) -> str:
        """A small file's text; '' when there is none."""
        try:
            size = session.facts(file).size
            if size is not None and size > _LARGEST_LIST:
                return ""
            content = bytearray()
            for block in session.blocks(file, 0):
                content += block
                if len(content) > _LARGEST_LIST:
                    raise TransferFailed(file=file, host=host, what="it is too large")
        except FileMissing:
            return ""
        except NotOnDisk:
            session.stage([file])
            if self.mode == REQUIRE:
                raise
            return ""
        return content.decode(errors="replace")
