"""FTP itself, on top of ftplib: waiting that can be ended, active and passive mode, TLS."""

from __future__ import annotations

import ftplib
import io
import socket
import ssl
from contextlib import suppress

from production.staging import tls
from production.staging.archive import Look
from production.staging.patience import GLANCE, PatientReader, beside, patiently

IMPLICIT_TLS_PORT = 990  # where TLS begins with the first byte (IANA: ftps)

# What a server says that knows no passive mode or allows none, to PASV or EPSV.
_NOT_PASSIVE = ("500", "502", "504", "522", "550")


class Connection(ftplib.FTP):
    """An FTP connection whose waiting for the server ends early when ``look`` raises.

    It also takes whatever bytes the server's messages consist of: umlauts are not always UTF-8.
    """

    sock: socket.socket

    def __init__(self, timeout: float, look: Look, *, active: bool = False) -> None:
        super().__init__(timeout=timeout)
        self._patience = timeout
        self._look = look
        self.set_pasv(not active)

    def open(self, host: str, port: int) -> None:
        """Connect, and hear the server's greeting."""
        self.reach(host, port)
        self.listen()

    def protect(self) -> None:
        """After the login: have what comes be as safe as it can be."""

    def reach(self, host: str, port: int) -> None:
        """Connect."""
        self._look()
        self.host, self.port = host, port
        self.sock = socket.create_connection((host, port), self._patience)
        self.af = self.sock.family

    def listen(self) -> None:
        """Hear the greeting."""
        self.read_from_here()
        self.welcome = self.getresp()

    def read_from_here(self) -> None:
        """Forget what has come so far; what the server says from here on is heard."""
        reader = io.BufferedReader(self.patient(self.sock))
        self.file = io.TextIOWrapper(reader, encoding=self.encoding, errors="replace")

    def channel(self) -> socket.socket:
        """Where the data of the next command come: connected, or listening in active mode."""
        if self.passiveserver:
            try:
                where = self.makepasv()
                return beside(
                    lambda: socket.create_connection(where, self._patience),
                    self._look,
                    lambda late: late.close(),
                )
            except ftplib.error_perm as refusal:
                if not str(refusal).startswith(_NOT_PASSIVE):
                    raise
                self.set_pasv(False)
        try:
            return self.makeport()
        except ftplib.error_perm as refusal:  # not of the file, whose 550 would be another
            raise ftplib.error_reply(str(refusal)) from None  # noqa: S321

    def begin(self, command: str) -> None:
        """Have the server start to send over the channel."""
        answer = self.sendcmd(command)
        if answer.startswith("2"):  # some say so before it begins; ftplib knows them as well
            answer = self.getresp()
        if not answer.startswith("1"):
            raise ftplib.error_reply(answer)  # noqa: S321 (a class)

    def data(self, channel: socket.socket) -> socket.socket:
        """The data connection that ``begin`` has made of the channel."""
        if self.passiveserver:
            return channel
        channel.settimeout(GLANCE)
        while True:
            data, (host, *_) = patiently(channel.accept, self._patience, self._look)
            if host == self.sock.getpeername()[0]:
                return data
            data.close()  # somebody who has nothing to say here

    def end(self, data: socket.socket) -> None:
        """After the last byte of a data connection."""
        data.close()

    def patient(self, sock: socket.socket) -> PatientReader:
        """A reader of ``sock``, for instance of the data connection."""
        return PatientReader(sock, self._patience, self._look)


class TlsConnection(Connection):
    """The same by TLS (RFC 4217), data as well; never without."""

    def __init__(self, timeout: float, look: Look, *, active: bool = False) -> None:
        super().__init__(timeout, look, active=active)
        self._context = tls.context()

    def open(self, host: str, port: int) -> None:
        """See ``Connection.open``."""
        self.reach(host, port)
        if port != IMPLICIT_TLS_PORT:
            self.listen()
            self.voidcmd("AUTH TLS")
        self.sock = self._secured(self.sock)
        if port == IMPLICIT_TLS_PORT:
            self.listen()
        else:
            # What stood in the clear behind the answer to AUTH may be anybody's, and is lost.
            self.read_from_here()

    def protect(self) -> None:
        """See ``Connection.protect``."""
        self.voidcmd("PBSZ 0")
        self.voidcmd("PROT P")

    def data(self, channel: socket.socket) -> socket.socket:
        """See ``Connection.data``."""
        return self._secured(super().data(channel))

    def end(self, data: socket.socket) -> None:
        """See ``Connection.end``: servers such as vsftpd wait for the end of TLS."""
        if isinstance(data, ssl.SSLSocket):
            with suppress(OSError):  # others have not waited
                patiently(data.unwrap, self._patience, self._look)
        super().end(data)

    def _secured(self, sock: socket.socket) -> ssl.SSLSocket:
        # Servers such as vsftpd take data connections only with the TLS session of the control
        # connection, which shows that both are the same client's.  ftplib does not reuse it:
        # https://github.com/python/cpython/issues/63699
        session = self.sock.session if isinstance(self.sock, ssl.SSLSocket) else None
        secured = self._context.wrap_socket(
            sock, server_hostname=self.host, session=session, do_handshake_on_connect=False
        )
        try:
            secured.settimeout(GLANCE)
            patiently(secured.do_handshake, self._patience, self._look)
        except BaseException:
            secured.close()
            raise
        return secured
