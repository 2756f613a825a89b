"""An archive at the other end of a network, whatever its protocol."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from production.errors import (
    ArchiveUnavailable,
    ChecksumMissing,
    ChecksumWrong,
    FileMissing,
    LocalTrouble,
    NotOnDisk,
    ProductionError,
    ResumeRefused,
    TransferError,
    TransferFailed,
    TransferStopped,
)
from production.model import Checksum
from production.staging.archive import Arrived, Computes, Door, Facts, Look, Progress, Session
from production.staging.checksum import OFF, Expected, Following, Lookup
from production.staging.limit import Limit
from production.staging.partfile import PartFile, PartStamp
from production.staging.patience import beside

_TRIES = 3  # in a row that bring nothing new, until a transfer that had begun has failed
_DAMAGED = 2  # times that a file comes whole and wrong, until its transfer has failed
_PAUSE = 0.2  # seconds before the next try; longer each time
_IDLE = 60.0  # seconds that a connection is kept


class RemoteArchive:
    """See ``Archive``: connections are kept, and transfers that are cut are resumed."""

    def __init__(self, door: Door, limit: Limit, checksums: str = OFF) -> None:
        self._door = door
        self._limit = limit
        self._lookup = Lookup(checksums)
        self._idle: list[tuple[float, Session]] = []  # since when, monotonic
        # Of the files of which parts were left, and of those parts.
        self._begun: dict[Path, tuple[Facts, PartStamp]] = {}

    @property
    def host(self) -> str:
        """See ``Archive.host``."""
        return self._door.host

    def check(self) -> None:
        """See ``Archive.check``."""
        self._door.check()

    def stage(self, files: Sequence[str]) -> None:
        """See ``Archive.stage``."""
        if files:
            with self._session(lambda: None) as session:
                session.stage(files)

    def look(self, files: Sequence[str]) -> Mapping[str, TransferError | None]:
        """See ``Archive.look``."""
        found: dict[str, TransferError | None] = {}
        while left := [file for file in files if file not in found]:
            with suppress(TransferFailed), self._session(lambda: None) as session:
                for file in left:
                    try:
                        found[file] = None  # or that is what the transfer will tell
                        session.facts(file)
                    except (FileMissing, NotOnDisk) as trouble:
                        found[file] = trouble
        return found

    def names(self, pattern: str) -> list[str]:
        """See ``Archive.names``."""
        directory, slash, name = pattern.rpartition("/")
        with self._session(lambda: None) as session:
            return [f"{directory}{slash}{file}" for file in session.names(directory, name)]

    def fetch(self, file: str, target: Path, progress: Progress, stop: threading.Event) -> Arrived:
        """See ``Archive.fetch``."""

        def look() -> None:
            if stop.is_set():
                raise TransferStopped(file=file, host=self.host)

        part = PartFile(target, file, self.host)
        known, stamp = self._begun.pop(part.path, (None, None))
        if stamp is None or stamp != part.stamp():  # another place's
            known = None
        expected = self._expected(file, look)
        transfer = _Transfer(file, self.host, part, progress, known, expected)
        try:
            while True:
                try:
                    with self._session(look) as session:
                        transfer.go_on(session, self._limit)
                    self._verify(transfer, look)
                    break
                except TransferFailed as failure:
                    if isinstance(failure, LocalTrouble) or transfer.is_hopeless():
                        raise
                stop.wait(_PAUSE * transfer.in_vain)
            part.complete()
        except ArchiveUnavailable:
            stamp = part.stamp()
            if transfer.known is not None and transfer.done and stamp is not None:
                self._begun[part.path] = transfer.known, stamp
            else:
                part.remove()
            raise
        except BaseException:
            part.remove()
            raise
        return Arrived(transfer.done, transfer.checksum)

    def _expected(self, file: str, look: Look) -> Expected | None:
        """What is known of the file's checksum before it comes."""
        try:
            with self._session(look) as session:
                return self._lookup.find(session, file, self.host)
        except ChecksumMissing:
            raise
        except TransferFailed:
            if not self._lookup.may_go_without():
                raise
            return None

    def _verify(self, transfer: _Transfer, look: Look) -> None:
        """Compare the checksum of the file that has come; raises ChecksumWrong."""
        expected = transfer.expected
        if expected is None:
            return
        if expected.value is None:
            try:
                with self._session(look) as session:
                    assert isinstance(session, Computes)  # noqa: S101 - it has said so
                    value = session.checksum(transfer.file, expected.kind)
            except TransferFailed:
                if not self._lookup.may_go_without():
                    raise
                return
            expected = replace(expected, value=value)
        transfer.verify(expected)

    @contextmanager
    def _session(self, look: Look) -> Iterator[Session]:
        look()
        session = self._kept(look) or beside(
            lambda: self._open(look), look, lambda late: late.close()
        )
        try:
            yield session
        except BaseException:
            session.close()
            raise
        self._idle.append((time.monotonic(), session))

    def _open(self, look: Look) -> Session:
        """A new connection; see ``Door.open``."""
        try:
            return self._door.open(look)
        except ProductionError:
            raise
        except Exception as error:
            # A library's surprise is trouble of this archive, and must not end the manager.
            what = f"{type(error).__name__}: {error}"
            raise ArchiveUnavailable(host=self.host, what=what) from error

    def _kept(self, look: Look) -> Session | None:
        """A connection that was used a moment ago."""
        while True:
            try:
                since, session = self._idle.pop()
            except IndexError:
                return None
            session.look = look  # not that of a transfer which may have been stopped since
            try:
                if time.monotonic() - since < _IDLE and session.is_alive():
                    return session
            except BaseException:
                session.close()
                raise
            session.close()


class _Transfer:
    """One file on its way, over as many connections as it takes."""

    def __init__(
        self,
        file: str,
        host: str,
        part: PartFile,
        progress: Progress,
        known: Facts | None,
        expected: Expected | None,
    ) -> None:
        self.file = file
        self.known = known  # facts of the file that the part is of
        self.expected = expected
        self.done = 0
        self.in_vain = 0  # tries in a row that brought nothing new
        self._damaged = 0  # times that all came, and was wrong
        self._following = Following(expected.kind) if expected else None
        self._host = host
        self._part = part
        self._progress = progress
        self._most = 0  # bytes that there ever were

    def go_on(self, session: Session, limit: Limit) -> None:
        """Bring what is missing; raises the TransferErrors."""
        facts = session.facts(self.file)
        same = facts.are_of_the_same_file(self.known)
        self.known = facts
        self.done = self._part.size() if same else 0
        with self._part.open(self.done) as sink:
            if self._following:

                def meanwhile() -> None:
                    session.look()
                    self._progress(self.done, facts.size)

                self._following.begin_at(self.done, self._part.path, meanwhile)
            self._progress(self.done, facts.size)
            try:
                for block in session.blocks(self.file, self.done):
                    sink.write(block)
                    if self._following:
                        self._following.add(block)
                    self.done += len(block)
                    self._progress(self.done, facts.size)
                    limit.spend(len(block), session.look)
            except ResumeRefused:
                self.known, self._most = None, max(self._most, self.done)
                raise
            if facts.size is not None and self.done != facts.size:
                if self.done > facts.size:
                    self.known = None  # nobody knows what that is
                what = f"{self.done} bytes came, the archive has {facts.size}"
                raise TransferFailed(file=self.file, host=self._host, what=what)

    @property
    def checksum(self) -> Checksum | None:
        """Of what has come; None when there is none to compare it with."""
        return self._following.checksum if self._following else None

    def verify(self, expected: Expected) -> None:
        """When all has come: if it is wrong, begins anew and raises ChecksumWrong."""
        found = self.checksum
        value = found.value if found else None
        if value == expected.value:
            return
        self._part.remove()
        self.known, self.done, self._most, self.in_vain = None, 0, 0, 0
        self._damaged += 1
        what = f"its {expected.kind} is {value}, {expected.source} says {expected.value}"
        raise ChecksumWrong(file=self.file, host=self._host, what=what)

    def is_hopeless(self) -> bool:
        """After a try that failed: whether there have been too many that brought nothing new."""
        if self._damaged >= _DAMAGED:
            return True
        if self.done > self._most and self.known is not None:
            self._most, self.in_vain = self.done, 0
        else:
            self.in_vain += 1
        return self.in_vain >= (_TRIES if self._most or self._damaged else 1)
