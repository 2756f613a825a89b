"""Waiting for the other end of a network: with a time-out, and looking around all the while."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, TypeVar

from production.staging.archive import Look

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

GLANCE = 0.2  # seconds between two looks

_T = TypeVar("_T")


def patiently(step: Callable[[], _T], timeout: float, look: Look) -> _T:
    """What ``step`` returns, which raises TimeoutError every ``GLANCE`` and is then called again.

    Raises TimeoutError after ``timeout`` seconds, and whatever ``look`` raises.
    """
    deadline = time.monotonic() + timeout
    look()
    while True:
        try:
            return step()
        except TimeoutError:
            look()
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing came for {timeout:g} s") from None


def beside(work: Callable[[], _T], look: Look, discard: Callable[[_T], None]) -> _T:
    """What ``work`` returns or raises, where it waits deep in a library that knows no ``look``.

    When ``look`` raises, ``work`` is left to itself; should it return, ``discard`` gets the result.
    """
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            outcome.set_exception(error)

    def late(ended: Future[_T]) -> None:
        if ended.exception() is None:
            discard(ended.result())

    threading.Thread(target=run, name="connect", daemon=True).start()
    try:
        while not wait([outcome], GLANCE).done:
            look()
    except BaseException:
        outcome.add_done_callback(late)
        raise
    return outcome.result()


class PatientReader(io.RawIOBase):
    """Reads a socket, also one with TLS, patiently."""

    def __init__(self, sock: socket.socket, timeout: float, look: Look) -> None:
        sock.settimeout(GLANCE)
        self._sock = sock
        self._timeout = timeout
        self._look = look

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """As a raw file's; 0 at the end."""
        return patiently(lambda: self._sock.recv_into(buffer), self._timeout, self._look)
