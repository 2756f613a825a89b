"""An archive at the other end of a network, whatever its protocol."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from production.errors import (
    ArchiveUnavailable,
    LocalTrouble,
    ResumeRefused,
    TransferFailed,
    TransferStopped,
)
from production.staging.archive import Door, Facts, Look, Progress, Session
from production.staging.limit import Limit
from production.staging.partfile import PartFile

_TRIES = 3  # in a row that bring nothing new, until a transfer that had begun has failed
_PAUSE = 0.2  # seconds before the next try; longer each time
_IDLE = 60.0  # seconds that a connection is kept


class RemoteArchive:
    """See ``Archive``: connections are kept, and transfers that are cut are resumed."""

    def __init__(self, door: Door, limit: Limit) -> None:
        self._door = door
        self._limit = limit
        self._idle: list[tuple[float, Session]] = []  # since when, monotonic
        self._begun: dict[Path, Facts] = {}  # of the files of which parts were left

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

    def fetch(self, file: str, target: Path, progress: Progress, stop: threading.Event) -> int:
        """See ``Archive.fetch``."""

        def look() -> None:
            if stop.is_set():
                raise TransferStopped(file=file, host=self.host)

        part = PartFile(target, file, self.host)
        known = self._begun.pop(part.path, None)
        transfer = _Transfer(file, self.host, part, progress, known)
        try:
            while True:
                try:
                    with self._session(look) as session:
                        transfer.go_on(session, self._limit)
                    break
                except TransferFailed as failure:
                    if isinstance(failure, LocalTrouble) or transfer.is_hopeless():
                        raise
                stop.wait(_PAUSE * transfer.in_vain)
            part.complete()
        except ArchiveUnavailable:
            if transfer.known is not None and transfer.done:
                self._begun[part.path] = transfer.known
            else:
                part.remove()
            raise
        except BaseException:
            part.remove()
            raise
        return transfer.done

    @contextmanager
    def _session(self, look: Look) -> Iterator[Session]:
        look()
        session = self._kept() or self._door.open(look)
        session.look = look
        try:
            yield session
        except BaseException:
            session.close()
            raise
        self._idle.append((time.monotonic(), session))

    def _kept(self) -> Session | None:
        """A connection that was used a moment ago."""
        while True:
            try:
                since, session = self._idle.pop()
            except IndexError:
                return None
            if time.monotonic() - since < _IDLE and session.is_alive():
                return session
            session.close()


class _Transfer:
    """One file on its way, over as many connections as it takes."""

    def __init__(
        self, file: str, host: str, part: PartFile, progress: Progress, known: Facts | None
    ) -> None:
        self.known = known  # facts of the file that the part is of
        self.done = 0
        self.in_vain = 0  # tries in a row that brought nothing new
        self._file = file
        self._host = host
        self._part = part
        self._progress = progress
        self._most = 0  # bytes that there ever were

    def go_on(self, session: Session, limit: Limit) -> None:
        """Bring what is missing; raises the TransferErrors."""
        facts = session.facts(self._file)
        same = facts.are_of_the_same_file(self.known)
        self.known = facts
        self.done = self._part.size() if same else 0
        with self._part.open(self.done) as sink:
            self._progress(self.done, facts.size)
            try:
                for block in session.blocks(self._file, self.done):
                    sink.write(block)
                    self.done += len(block)
                    self._progress(self.done, facts.size)
                    limit.spend(len(block), session.look)
            except ResumeRefused:
                self.known = None
                raise
            if facts.size is not None and self.done != facts.size:
                if self.done > facts.size:
                    self.known = None  # nobody knows what that is
                what = f"{self.done} bytes came, the archive has {facts.size}"
                raise TransferFailed(file=self._file, host=self._host, what=what)

    def is_hopeless(self) -> bool:
        """After a try that failed: whether there have been too many that brought nothing new."""
        if self.done > self._most and self.known is not None:
            self._most, self.in_vain = self.done, 0
        else:
            self.in_vain += 1
        return self.in_vain >= (_TRIES if self._most else 1)
