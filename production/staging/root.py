"""Archives that speak XRootD, by its own client library: the package ``xrootd``, an extra here.

The library has threads of its own, which do the waiting; they call back, so that the thread of the
transfer can look around meanwhile.  Who may read is settled between the library and the server
(Kerberos tickets, proxies, tokens); the netrc file has no part in it.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

from production.errors import (
    ArchiveUnavailable,
    ConfigurationError,
    FileMissing,
    NotOnDisk,
    RootLoginRefused,
    TransferError,
    TransferFailed,
)
from production.locations import fits
from production.model import CHECKSUM_KINDS
from production.staging.archive import Facts, Look
from production.staging.checksum import DIGITS
from production.staging.patience import GLANCE, patiently

try:
    from XRootD import client
    from XRootD.client.flags import OpenFlags, PrepareFlags, QueryCode, StatInfoFlags
except ImportError:
    raise ConfigurationError(
        where="archive",
        what="root:// needs the client of XRootD: pip install 'production-manager[root]'",
    ) from None

_PORT = 1094
_BLOCK = 2 * 1024 * 1024  # bytes
_AHEAD = 4  # blocks that are asked for at a time

# Codes of the library (XrdCl/XrdClStatus.hh) ...
_LOGIN_FAILED = (203, 204)
_SERVER_SAYS = 400  # an error of the server's own:
# ... and of servers (XProtocol/XProtocol.hh, XErrorCode).
_MEANINGS: dict[int, type[TransferError]] = {
    3011: FileMissing,
    3012: ArchiveUnavailable,  # it is in trouble itself
    3014: ArchiveUnavailable,  # none of its servers is up
    3024: ArchiveUnavailable,  # overloaded
    3030: RootLoginRefused,
}

_Answer = tuple[Any, Any]  # the library's status and response

# Trouble is told at once, for who asks has a way of his own to try again.
for _name, _value in {"ConnectionRetry": 1, "StreamErrorWindow": 0, "TimeoutResolution": 1}.items():
    client.EnvPutInt(_name, _value)
# Jobs are forked and at once become other programs: nothing has to be mended for the library after
# a fork, and its threads need not be stopped before one.
client.EnvPutInt("RunForkHandler", 0)


class RootDoor:
    """An archive at ``root://host:port//directory``; see ``Door``."""

    def __init__(self, host: str, port: int | None, directory: str, timeout: float) -> None:
        self.host = host
        name = f"[{host}]" if ":" in host else host
        self._url = f"root://{name}:{port or _PORT}"
        self._directory = directory
        self._timeout = timeout

    def check(self) -> None:
        """See ``Door.check``: what the library has to show, it finds by itself."""

    def open(self, look: Look) -> RootSession:
        """See ``Door.open``."""
        session = RootSession(self.host, self._url, self._directory, self._timeout, look)
        session.greet()
        return session


class RootSession:
    """See ``Session`` and ``Computes``; the library keeps the connections."""

    def __init__(self, host: str, url: str, directory: str, timeout: float, look: Look) -> None:
        self.host = host
        self.look = look
        self._url = url
        self._directory = f"/{directory.strip('/')}".rstrip("/")
        self._timeout = timeout
        self._files = client.FileSystem(url)

    def greet(self) -> None:
        """Connect; raises ArchiveUnavailable."""
        with self._troubles("", ArchiveUnavailable):
            self._ask(self._files.ping)

    def stage(self, files: Sequence[str]) -> None:
        """See ``Session.stage``."""
        if not self._stage(files):  # because of one of them, perhaps
            for file in files:
                self._stage([file])

    def facts(self, file: str) -> Facts:
        """See ``Session.facts``."""
        with self._troubles(file, ArchiveUnavailable):
            found = self._ask(self._files.stat, self._path(file))
        if found.flags & (StatInfoFlags.IS_DIR | StatInfoFlags.OTHER):
            raise TransferFailed(file=file, host=self.host, what="it is not a file")
        if found.flags & StatInfoFlags.OFFLINE:
            raise NotOnDisk(file=file, host=self.host, what="offline")
        return Facts(found.size, str(found.modtime))

    def names(self, directory: str, pattern: str) -> Sequence[str]:
        """See ``Session.names``."""
        try:
            with self._troubles(directory, ArchiveUnavailable):
                found = self._ask(self._files.dirlist, self._path(directory))
        except FileMissing:
            return []
        return [entry.name for entry in found if fits(entry.name, pattern)]

    def checksums(self) -> Sequence[str]:
        """See ``Computes.checksums``."""
        with self._troubles("", ArchiveUnavailable):
            said = self._query(QueryCode.CONFIG, "chksum")
        return [kind for kind in CHECKSUM_KINDS if kind in re.split(r"[:,\s]", said)]

    def checksum(self, file: str, kind: str) -> str:
        """See ``Computes.checksum``."""
        # A server that takes too long for it is not down: it may have to read the whole file.
        with self._troubles(file, TransferFailed):
            said = self._query(QueryCode.CHECKSUM, f"{self._path(file)}?cks.type={kind}").split()
        if len(said) != 2 or said[0] != kind:
            raise TransferFailed(file=file, host=self.host, what=f"no {kind}: {' '.join(said)}")
        # A program of the laboratory's own may leave zeros out.
        return said[1].lower().zfill(DIGITS[kind])

    def blocks(self, file: str, offset: int) -> Iterator[bytes]:
        """See ``Session.blocks``."""
        source = client.File()
        # It would go on by itself after a cut, without a look whether the file is still the same.
        source.set_property("ReadRecovery", "false")
        with self._troubles(file, ArchiveUnavailable):
            self._ask(source.open, f"{self._url}/{self._path(file)}", OpenFlags.READ)
        asked: deque[Future[_Answer]] = deque()
        try:
            while True:
                with self._troubles(file, TransferFailed):
                    while len(asked) < _AHEAD:
                        asked.append(self._begin(source.read, offset, _BLOCK))
                        offset += _BLOCK
                    block = self._end(asked.popleft())
                if block:
                    yield block
                if len(block) < _BLOCK:
                    return
        finally:
            with suppress(TimeoutError, _RefusalError):
                self._begin(source.close).result(GLANCE)

    def is_alive(self) -> bool:
        """See ``Session.is_alive``."""
        try:
            self.greet()
        except TransferError:
            return False
        return True

    def close(self) -> None:
        """See ``Session.close``: the library closes what nobody uses."""

    def _path(self, file: str) -> str:
        return f"{self._directory}/{file}"

    def _stage(self, files: Sequence[str]) -> bool:
        """Whether the server has taken the request."""
        try:
            with self._troubles("", ArchiveUnavailable):
                self._ask(self._files.prepare, list(map(self._path, files)), PrepareFlags.STAGE)
        except ArchiveUnavailable:
            raise
        except TransferError:
            return False
        return True

    # ----------------------------------------------------------------- asking the library

    def _ask(self, call: Callable[..., Any], *arguments: object) -> Any:
        """What a call of the library finds out; raises _RefusalError, TimeoutError."""
        return self._end(self._begin(call, *arguments))

    def _query(self, code: int, argument: str) -> str:
        answer: bytes = self._ask(self._files.query, code, argument)
        return answer.decode(errors="replace").strip("\0\n ")

    def _begin(self, call: Callable[..., Any], *arguments: object) -> Future[_Answer]:
        future: Future[_Answer] = Future()

        def answered(status: Any, response: Any, _hosts: Any) -> None:
            future.set_result((status, response))

        seconds = max(1, math.ceil(self._timeout))
        status = call(*arguments, timeout=seconds, callback=answered)
        if not status.ok:
            raise _RefusalError(status)
        return future

    def _end(self, future: Future[_Answer]) -> Any:
        status, response = patiently(lambda: future.result(GLANCE), self._timeout, self.look)
        if not status.ok:
            raise _RefusalError(status)
        return response

    @contextmanager
    def _troubles(self, file: str, kind: type[TransferError]) -> Iterator[None]:
        """``kind`` is what trouble of the connection means."""
        try:
            yield
        except TimeoutError as error:
            raise kind(file=file, host=self.host, what=error) from None
        except _RefusalError as refusal:
            status = refusal.status
            if status.code == _SERVER_SAYS:
                kind = _MEANINGS.get(status.errno, TransferFailed)
            elif status.code in _LOGIN_FAILED:
                kind = RootLoginRefused
            raise kind(file=file, host=self.host, what=_said(status)) from None


class _RefusalError(Exception):
    """The library's status, when that is not that all is well."""

    def __init__(self, status: Any) -> None:
        super().__init__(status)
        self.status = status


def _said(status: Any) -> str:
    text = re.sub(r"^\[\w+\] (Server responded with an error: \[\d+\] )?", "", str(status.message))
    return " ".join(text.split()) or "no reason"
