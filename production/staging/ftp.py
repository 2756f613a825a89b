"""Archives that speak FTP, plain or by TLS, with the command STAGE that tape archives add to it."""

from __future__ import annotations

import contextlib
import ftplib
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from production.errors import (
    ArchiveLoginRefused,
    ArchiveUnavailable,
    FileMissing,
    NotOnDisk,
    ResumeRefused,
    TransferError,
    TransferFailed,
)
from production.locations import fits
from production.staging import ftp_checksums, tls
from production.staging.archive import Facts, Look
from production.staging.credentials import Credentials, login_for
from production.staging.ftp_connection import Connection, TlsConnection

_BLOCK = 256 * 1024  # bytes

_COMMAND_UNKNOWN = ("500", "502", "504")
_STAGE_COMMANDS = ("STAGE", "SITE STAGE")  # which of them a server knows is found out

# All that a network, a server, or text from either can do to ftplib.
_TROUBLE: tuple[type[Exception], ...] = (*ftplib.all_errors, ValueError, OverflowError)


class FtpDoor:
    """An archive at ``ftp://host:port/directory`` or, ``secure``, ``ftps://``; see ``Door``."""

    def __init__(
        self,
        host: str,
        port: int | None,
        directory: str,
        timeout: float,
        *,
        secure: bool = False,
        active: bool = False,
    ) -> None:
        self.host = host
        self._port = port or ftplib.FTP_PORT
        self._directory = directory
        kind = TlsConnection if secure else Connection
        self._connection = partial(kind, timeout, active=active)

    def check(self) -> None:
        """See ``Door.check``."""
        login_for(self.host)

    def open(self, look: Look) -> FtpSession:
        """See ``Door.open``."""
        credentials = login_for(self.host)
        try:
            session = FtpSession(self.host, self._connection, look)
        except OSError as error:
            raise ArchiveUnavailable(host=self.host, what=_said(error)) from None
        try:
            self._log_in(session.ftp, credentials)
        except BaseException:
            session.close()
            raise
        return session

    def _log_in(self, ftp: Connection, credentials: Credentials) -> None:
        doing = f"port {self._port}"
        try:
            ftp.open(self.host, self._port)
            doing = "login"
            ftp.login(credentials.user, credentials.password)
            doing = "TLS for the data"
            ftp.protect()
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

    def __init__(self, host: str, connection: Callable[[Look], Connection], look: Look) -> None:
        self.host = host
        self.look = look
        self.ftp = connection(lambda: self.look())
        self._tells_times = True
        self._sums: Mapping[str, tuple[str, ...]] | None = None  # commands by kinds; None: unknown

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

    def names(self, directory: str, pattern: str) -> list[str]:
        """See ``Session.names``."""
        where = f"{directory}/" if directory else ""
        # Most servers take patterns, which spares the listing of a hundred thousand runs.
        there = self._list(f" {where}{pattern}") or self._list(f" {directory}".rstrip())
        return [name for name in there if fits(name, pattern)]

    def checksums(self) -> Sequence[str]:
        """See ``Computes.checksums``."""
        try:
            self._sums = ftp_checksums.offered(self.ftp.sendcmd("FEAT"))
        except ftplib.error_perm:
            self._sums = {}
        except _TROUBLE as error:
            raise ArchiveUnavailable(host=self.host, what=_said(error)) from None
        return tuple(self._sums)

    def checksum(self, file: str, kind: str) -> str:
        """See ``Computes.checksum``."""
        if self._sums is None:
            self.checksums()
        with self._refusals(file):
            return ftp_checksums.ask(self.ftp, (self._sums or {}).get(kind, ()), file, kind)

    def blocks(self, file: str, offset: int) -> Iterator[memoryview]:
        """See ``Session.blocks``."""
        return self._data(f"RETR {file}", file, offset)

    def _list(self, what: str) -> list[str]:
        """The names in a directory, or that fit a pattern; none when there is none."""
        with self._refusals(what):
            self.ftp.voidcmd("TYPE A")
        try:
            listing = b"".join(map(bytes, self._data(f"NLST{what}", what.strip() or ".", 0)))
        except (FileMissing, NotOnDisk):  # how servers say that nothing fits
            return []
        lines = listing.decode(self.ftp.encoding, errors="replace").splitlines()
        return [line.rpartition("/")[2] for line in lines]

    def _data(self, command: str, file: str, offset: int) -> Iterator[memoryview]:
        """What comes over a data connection."""
        with ExitStack() as opened:
            with self._refusals(file):
                channel = opened.enter_context(self.ftp.channel())
                if offset:
                    self._begin_at(offset, file)
                self.ftp.begin(command)
                data = opened.enter_context(self.ftp.data(channel))
            buffer = memoryview(bytearray(_BLOCK))
            reader = self.ftp.patient(data)
            try:
                while count := reader.readinto(buffer):
                    yield buffer[:count]
                self.ftp.end(data)
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
        case "425" | "426" | "452":  # about the connection or the server, not about the file
            return TransferFailed
        case "530":
            return ArchiveLoginRefused
        case "550":
            return FileMissing
    return NotOnDisk if code.startswith("4") else TransferFailed


def _stage(ftp: ftplib.FTP, files: Sequence[str]) -> None:
    commands = list(_STAGE_COMMANDS)
    for file in files:
        while commands:  # none is left: no tape here
            try:
                ftp.sendcmd(f"{commands[0]} {file}")
            except (ftplib.error_perm, ftplib.error_temp, ValueError) as refusal:
                code = _code(refusal)
                if code in _COMMAND_UNKNOWN:
                    del commands[0]
                    continue
                if code == "421":
                    raise
            break


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
    if isinstance(error, ssl.SSLError):
        return tls.said(error)
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or "an empty reply"
