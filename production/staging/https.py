"""Archives that are web servers: any that tells sizes, best one that can go on in the middle.

Logins of the netrc file are sent by TLS only, and only to the host that the URL names, wherever its
answers may lead.
"""

from __future__ import annotations

import io
import socket
import ssl
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from production.errors import (
    ArchiveLoginRefused,
    ArchiveUnavailable,
    FileMissing,
    ResumeRefused,
    TransferError,
    TransferFailed,
)
from production.locations import fits
from production.staging import tls
from production.staging.archive import Facts, Look
from production.staging.credentials import login_if_any
from production.staging.patience import PatientReader, beside
from production.staging.web_listing import names_in

_BLOCK = 256 * 1024  # bytes
_LARGEST_PAGE = 64 * 1024 * 1024  # bytes; a line of a listing has some 100
_REDIRECTS = 5  # more must be a circle
_REDIRECTING = (301, 302, 303, 307, 308)
_NO_HEAD = (405, 501)  # the server does not know the method

# All that a network, a server and urllib3 can come up with.
_TROUBLE = (urllib3.exceptions.HTTPError, OSError, ValueError)


class HttpDoor:
    """An archive at ``https://host:port/directory``, or without TLS; see ``Door``."""

    def __init__(
        self, scheme: str, host: str, port: int | None, directory: str, timeout: float
    ) -> None:
        self.host = host
        name = f"[{host}]" if ":" in host else host
        where = f"{scheme}://{name}{f':{port}' if port else ''}"
        self._base = f"{where}/{quote(directory.strip('/'))}".rstrip("/") + "/"
        self._timeout = timeout

    def check(self) -> None:
        """See ``Door.check``: an archive may be open to all."""
        login_if_any(self.host)

    def open(self, look: Look) -> HttpSession:
        """See ``Door.open``."""
        headers = {"Accept-Encoding": "identity"}  # ranges are of what the server would send
        if self._base.startswith("https:") and (login := login_if_any(self.host)):
            shown = _utf8(f"{login.user}:{login.password}")
            headers.update(urllib3.make_headers(basic_auth=shown))
        try:
            return HttpSession(self.host, self._base, headers, self._timeout, look)
        except (OSError, ValueError) as error:
            raise ArchiveUnavailable(host=self.host, what=_said(error)) from None


class HttpSession:
    """Connections that are kept between requests; see ``Session``."""

    def __init__(
        self, host: str, base: str, headers: Mapping[str, str], timeout: float, look: Look
    ) -> None:
        self.host = host
        self.look = look
        self._base = base
        self._headers = headers
        self._pools = _pools(base, timeout, lambda: self.look())
        self._facts = Facts(None)  # of the file that was asked for last

    def stage(self, files: Sequence[str]) -> None:
        """See ``Session.stage``: HTTP has no word for it."""

    def facts(self, file: str) -> Facts:
        """See ``Session.facts``."""
        with self._troubles(file, ArchiveUnavailable):
            answer, _ = self._first("HEAD", file)
            answer.drain_conn()
        if answer.status in _NO_HEAD:
            self._facts = Facts(None)
        else:
            self._need(answer, file, 200)
            self._facts = _facts(answer)
        return self._facts

    def blocks(self, file: str, offset: int) -> Iterator[bytes]:
        """See ``Session.blocks``."""
        known = self._facts
        part = {"Range": f"bytes={offset}-", "If-Range": known.stamp} if offset else {}
        with self._troubles(file, ArchiveUnavailable):
            answer, _ = self._ask("GET", file, part)
        with closing(answer):
            if not offset:
                self._need(answer, file, 200)
                if known.size is not None and _facts(answer) != known:
                    raise TransferFailed(file=file, host=self.host, what="it changes meanwhile")
            elif not _is_the_rest(answer, offset, known.size):
                self._need(answer, file, 200, 206, 416)
                what = f"the server answers {answer.status} to a request for the rest"
                raise ResumeRefused(file=file, host=self.host, what=what)
            yield from self._body(answer, file)

    def names(self, directory: str, pattern: str) -> list[str]:
        """See ``Session.names``: of the page that the server shows of the directory."""
        where = f"{directory}/" if directory else ""
        file = f"{where}{pattern}"
        with self._troubles(file, ArchiveUnavailable):
            answer, url = self._first("GET", where)
        page = bytearray()
        with closing(answer):
            try:
                self._need(answer, file, 200)
            except FileMissing:
                return []
            for block in self._body(answer, file):
                page += block
                if len(page) > _LARGEST_PAGE:
                    what = "the list of its directory is too large"
                    raise TransferFailed(file=file, host=self.host, what=what)
        with self._troubles(file, TransferFailed):
            there = names_in(page, answer.headers.get("Content-Type", ""), url)
        return [name for name in there if fits(name, pattern)]

    def is_alive(self) -> bool:
        """See ``Session.is_alive``: connections that were closed are made anew."""
        return True

    def close(self) -> None:
        """See ``Session.close``."""
        self._pools.clear()

    def _body(self, answer: urllib3.BaseHTTPResponse, file: str) -> Iterator[bytes]:
        """All that the answer brings; at its end that is known to be all."""
        left = _length(answer)
        if left is None and not answer.chunked:
            what = "the server tells neither its size nor its end"
            raise TransferFailed(file=file, host=self.host, what=what)
        while True:
            with self._troubles(file, TransferFailed):
                block = answer.read1(_BLOCK, decode_content=False)
            if not block:
                break
            left = None if left is None else left - len(block)
            yield block
        if left:
            what = f"the connection was closed {left} bytes before the end"
            raise TransferFailed(file=file, host=self.host, what=what)

    def _first(self, method: str, file: str) -> tuple[urllib3.BaseHTTPResponse, str]:
        """As ``_ask``, after a while in which nothing was asked."""
        try:
            return self._ask(method, file)
        except urllib3.exceptions.ProtocolError:  # a connection that was kept too long, perhaps
            self._pools.clear()
            return self._ask(method, file)

    def _ask(
        self, method: str, file: str, more: Mapping[str, str] | None = None
    ) -> tuple[urllib3.BaseHTTPResponse, str]:
        """The answer, its body not yet read, and its URL.

        Redirections are followed, without the login.
        """
        url = self._base + quote(file)
        own = urlsplit(url)[:2]
        for _ in range(_REDIRECTS + 1):
            headers = {**self._headers, **(more or {})}
            if urlsplit(url)[:2] != own:
                headers.pop("authorization", None)
            self.look()
            request = partial(self._pools.request, method, url, headers=headers)
            answer = beside(
                partial(request, retries=False, redirect=False, preload_content=False),
                self.look,
                lambda late: late.close(),
            )
            where = answer.headers.get("Location")
            if answer.status not in _REDIRECTING or where is None:
                return answer, url
            answer.drain_conn()
            url = urljoin(url, where)
            if own[0] == "https" and not url.startswith("https:"):
                raise ValueError("it leads to a place without TLS")
        raise ValueError("its redirections lead in a circle")

    def _need(self, answer: urllib3.BaseHTTPResponse, file: str, *good: int) -> None:
        """Raise what an answer that is none of the good ones means (RFC 9110, section 15)."""
        if answer.status in good:
            return
        what = f"{answer.status} {answer.reason or ''}".strip()
        kind: type[TransferError] = TransferFailed
        match answer.status:
            case 401:
                kind = ArchiveLoginRefused
            case 404 | 410:
                kind = FileMissing
            case 407 | 408 | 429:
                kind = ArchiveUnavailable
            case status if status >= 500:
                kind = ArchiveUnavailable
        raise kind(file=file, host=self.host, what=what)

    @contextmanager
    def _troubles(self, file: str, kind: type[TransferError]) -> Iterator[None]:
        try:
            yield
        except _TROUBLE as error:
            raise kind(file=file, host=self.host, what=_said(error)) from None


def _pools(base: str, timeout: float, look: Look) -> urllib3.PoolManager:
    """What makes and keeps connections, by the proxy that the environment names, if any."""

    class Connection(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            self.sock = _PatientSocket(self.sock, timeout, look)

    class SecureConnection(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            self.sock = _PatientSocket(self.sock, timeout, look)

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = SecureConnection

    options: dict[str, Any] = {
        "timeout": urllib3.Timeout(timeout),
        "ssl_context": tls.context(),
        "maxsize": 1,
    }
    proxy = _proxy_for(base)
    if proxy is None:
        manager = urllib3.PoolManager(**options)
    else:
        manager = _by_proxy(proxy, f"${urlsplit(base).scheme}_proxy", options)
    manager.pool_classes_by_scheme = {"http": Pool, "https": SecurePool}
    return manager


def _by_proxy(proxy: str, named: str, options: Mapping[str, Any]) -> urllib3.ProxyManager:
    """``proxy`` may be no more than HOST:PORT, as other programs take it; raises ValueError."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        login = (
            f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
        )
        headers = urllib3.make_headers(proxy_basic_auth=_utf8(login) if login else None)
        where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        return urllib3.ProxyManager(where, proxy_headers=headers, **options)
    except ValueError:  # which may have the password in it
        raise ValueError(f"{named} is no http://HOST:PORT") from None


def _utf8(login: str) -> str:
    """A login for urllib3, which sends it in Latin-1, so that servers get UTF-8 (RFC 7617)."""
    return login.encode().decode("latin-1")


def _proxy_for(url: str) -> str | None:
    """As other programs do it: ``$https_proxy``, ``$no_proxy``."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)


class _PatientSocket:
    """A socket whose file is read patiently, as http.client reads answers."""

    def __init__(self, sock: socket.socket, timeout: float, look: Look) -> None:
        self._sock = sock
        self._timeout = timeout
        self._look = look

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """See ``socket.makefile``; only for reading."""
        # The raw file keeps the socket open until it is closed.
        return io.BufferedReader(_Answer(self._sock, self._timeout, self._look), _BLOCK)

    def settimeout(self, _: float | None) -> None:
        """It has its own way of waiting."""


class _Answer(PatientReader):
    """Keeps the socket open as long as the answer is read, as files of sockets do."""

    def __init__(self, sock: socket.socket, timeout: float, look: Look) -> None:
        super().__init__(sock, timeout, look)
        self._raw = sock.makefile("rb", buffering=0)

    def close(self) -> None:
        """End reading."""
        self._raw.close()
        super().close()


def _facts(answer: urllib3.BaseHTTPResponse) -> Facts:
    """Size, and what If-Range takes: a strong tag or a time (RFC 9110, section 13.1.5)."""
    tag = answer.headers.get("ETag", "")
    stamp = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
    return Facts(_length(answer), stamp)


def _length(answer: urllib3.BaseHTTPResponse) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _is_the_rest(answer: urllib3.BaseHTTPResponse, offset: int, size: int | None) -> bool:
    """Whether it is the same file from ``offset`` on to its end."""
    if answer.status != 206 or size is None:
        return False
    return answer.headers.get("Content-Range") == f"bytes {offset}-{size - 1}/{size}"


def _said(error: BaseException) -> str:
    """In a few words: what is at the bottom of what urllib3 tells."""
    inner = next((one for one in error.args if isinstance(one, BaseException)), error.__cause__)
    if inner is not None:
        prefix = "proxy: " if isinstance(error, urllib3.exceptions.ProxyError) else ""
        return prefix + _said(inner)
    if isinstance(error, ssl.SSLError):
        return tls.said(error)
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__
