"""Hosts that share a directory: what a test may ask of one, whatever it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Host(Protocol):
    """A host with its own name, process table, caches of the shared directory, and clock."""

    @property
    def name(self) -> str:
        """What the host calls itself, as hostname(1) prints it there."""

    @property
    def shared(self) -> Path:
        """The directory that all the hosts share, under the same name on each of them."""

    def command(self, *argv: object, environment: Mapping[str, str]) -> list[str]:
        """The command that, started on this machine, runs another on that host, as root.

        Standard streams and exit code are passed on; it runs in the host's ``shared``, with this
        environment and nothing else.
        """

    def set_clock(self, ahead: float) -> None:
        """Have the host's clock be so many seconds ahead of this machine's.

        Holds for what is started there from now on.
        """
