"""Archives that speak plain FTP, with the raw command STAGE that tape archives add to it."""

from __future__ import annotations

import contextlib
import ftplib
import io
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from production.errors import (
    ArchiveLoginRefused,
    ArchiveUnavailable,
    FileMissing,
    NotOnDisk,
    ResumeRefused,
    TransferError,
    TransferFailed,
)
from production.staging.archive import Facts, Look
from production.staging.credentials import Credentials, login_for

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK = 256 * 1024  # bytes
_GLANCE = 200  # milliseconds between two looks at the stop event

_COMMAND_UNKNOWN = ("500", "502", "504")

# All that a network, a server, or text from either can do to ftplib.
_TROUBLE: tuple[type[Exception], ...] = (*ftplib.all_errors, ValueError, OverflowError)


class FtpDoor:
    """An archive at ``ftp://host:port/directory``; see ``Door``."""

    def __init__(self, host: str, port: int | None, directory: str, timeout: float) -> None:
        self.host = host
        self._port = port or ftplib.FTP_PORT
        self._directory = directory
        self._timeout = timeout

    def check(self) -> None:
        """See ``Door.check``."""
        login_for(self.host)

    def open(self, look: Look) -> FtpSession:
        """See ``Door.open``."""
        credentials = login_for(self.host)
        session = FtpSession(self.host, self._timeout, look)
        try:
            self._log_in(session.ftp, credentials)
        except BaseException:
            session.close()
            raise
        return session

    def _log_in(self, ftp: _Connection, credentials: Credentials) -> None:
        doing = f"port {self._port}"
        try:
            ftp.open(self.host, self._port)
            doing = "login"
            ftp.login(credentials.user, credentials.password)
            if self._directory:
                doing = f"directory {self._directory}"
                ftp.cwd(self._directory)
        except _TROUBLE as error:
            said = _said(error)
            if credentials.password:  # there are servers that repeat what they do not like
                said = said.replace(credentials.password, "********")
            if doing == "login" and isinstance(error, ftplib.error_perm):
                raise ArchiveLoginRefused(host=self.host, what=said) from None
            raise ArchiveUnavailable(host=self.host, what=f"{doing}: {said}") from None


class FtpSession:
    """A connection that is logged in and in the directory; see ``Session``."""

    def __init__(self, host: str, timeout: float, look: Look) -> None:
        self.host = host
        self.look = look
        self.ftp = _Connection(timeout, lambda: self.look())
        self._tells_times = True

    def stage(self, files: Sequence[str]) -> None:
        """See ``Session.stage``."""
        try:
            _stage(self.ftp, files)
        except _TROUBLE as error:
            raise ArchiveUnavailable(host=self.host, what=_said(error)) from None

    def facts(self, file: str) -> Facts:
        """See ``Session.facts``."""
        with self._refusals(file):
            self.ftp.voidcmd("TYPE I")  # many servers tell no SIZE in text mode
            return Facts(_size(self.ftp, file), self._time(file))

    def blocks(self, file: str, offset: int) -> Iterator[memoryview]:
        """See ``Session.blocks``."""
        with self._refusals(file):
            if offset:
                self._begin_at(offset, file)
            data = self.ftp.transfercmd(f"RETR {file}")
        with data:
            buffer = memoryview(bytearray(_BLOCK))
            reader = self.ftp.patient(data)
            try:
                while count := reader.readinto(buffer):
                    yield buffer[:count]
                self.ftp.voidresp()
            except _TROUBLE as error:
                raise TransferFailed(file=file, host=self.host, what=_said(error)) from None

    def is_alive(self) -> bool:
        """See ``Session.is_alive``."""
        try:
            self.ftp.voidcmd("NOOP")
        except _TROUBLE:
            return False
        return True

    def close(self) -> None:
        """See ``Session.close``."""
        with contextlib.suppress(*_TROUBLE, AttributeError):
            self.ftp.putcmd("QUIT")  # its answer is of no interest and might never come
        self.ftp.close()

    def _begin_at(self, offset: int, file: str) -> None:
        try:
            self.ftp.sendcmd(f"REST {offset}")
        except ftplib.error_perm as refusal:
            raise ResumeRefused(file=file, host=self.host, what=_said(refusal)) from None

    def _time(self, file: str) -> str:
        """When the file was changed, as the server tells it (RFC 3659); '' when it does not."""
        if not self._tells_times:
            return ""
        try:
            return self.ftp.voidcmd(f"MDTM {file}")[4:]
        except ftplib.error_perm:
            self._tells_times = False
            return ""

    @contextmanager
    def _refusals(self, file: str) -> Iterator[None]:
        """What it means when the server will not begin to send ``file``."""
        try:
            yield
        except _TROUBLE as error:
            what = _said(error)
            kind = _meaning(_code(error))
            raise kind(file=file, host=self.host, what=what) from None


def _meaning(code: str) -> type[TransferError]:
    """The error that a reply code to SIZE or RETR stands for (RFC 959, section 4.2)."""
    match code:
        case "421":
            return ArchiveUnavailable
        case "425" | "426":  # about the data connection, not about the file
            return TransferFailed
        case "530":
            return ArchiveLoginRefused
        case "550":
            return FileMissing
    return NotOnDisk if code.startswith("4") else TransferFailed


def _stage(ftp: ftplib.FTP, files: Sequence[str]) -> None:
    for file in files:
        try:
            ftp.sendcmd(f"STAGE {file}")
        except (ftplib.error_perm, ftplib.error_temp, ValueError) as refusal:
            code = _code(refusal)
            if code in _COMMAND_UNKNOWN:
                return  # no tape here
            if code == "421":
                raise


def _size(ftp: ftplib.FTP, file: str) -> int | None:
    """The file's size in bytes, or None when the server has no SIZE command."""
    try:
        return int(ftp.voidcmd(f"SIZE {file}")[4:])
    except ftplib.error_perm as refusal:
        if _code(refusal) in _COMMAND_UNKNOWN:
            return None
        raise


def _code(error: Exception) -> str:
    """The reply code of a server's refusal; '' for any other trouble."""
    return str(error)[:3] if isinstance(error, (ftplib.error_perm, ftplib.error_temp)) else ""


def _said(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the connection was closed"
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or "an empty reply"


class _Connection(ftplib.FTP):
    """An FTP connection whose waiting for the server ends early when ``look`` raises.

    It also takes whatever bytes the server's messages consist of: umlauts are not always UTF-8.
    """

    def __init__(self, timeout: float, look: Look) -> None:
        super().__init__(timeout=timeout)
        self._patience = timeout
        self._look = look

    def open(self, host: str, port: int) -> None:
        """As ``connect``, with a patient reader."""
        self._look()
        self.host, self.port = host, port
        self.sock = socket.create_connection((host, port), self._patience)
        self.af = self.sock.family
        reader = io.BufferedReader(self.patient(self.sock))
        self.file = io.TextIOWrapper(reader, encoding=self.encoding, errors="replace")
        self.welcome = self.getresp()

    def patient(self, sock: socket.socket) -> _PatientReader:
        """A reader of ``sock``, for instance of the data connection."""
        return _PatientReader(sock, self._patience, self._look)


class _PatientReader(io.RawIOBase):
    """Reads a socket; waits ``timeout`` seconds at most and calls ``look`` all the while."""

    def __init__(self, sock: socket.socket, timeout: float, look: Look) -> None:
        self._sock = sock
        self._timeout = timeout
        self._look = look
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        deadline = time.monotonic() + self._timeout
        self._look()
        while not self._poll.poll(_GLANCE):
            self._look()
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing came for {self._timeout:g} s")
        return self._sock.recv_into(buffer)
