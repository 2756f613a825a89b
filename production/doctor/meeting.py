"""Two doctors in two shells, on two hosts, who make the lock test together.

They find each other by their scratch directories.  The one whose name comes first leads: it asks
the other through files in its own directory, which the other answers in the same way.  Each file
is new, has a name of its own and appears as a whole: so no cache can show an older one.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from production.doctor.channels import AbsentError, SilentError
from production.doctor.findings import Finding, Level
from production.doctor.half import Half, Message
from production.doctor.scratch import others

_GLANCE = 0.1  # seconds between two looks
_SILENCE = 90.0  # seconds after which a leader that asks nothing more is gone
_FAREWELL = 10.0  # seconds that the partner may take to hear of the end
_END = "end"


class Mailbox:
    """The leader's channel to the doctor that is called ``partner``."""

    def __init__(self, own: Path, partner: str) -> None:
        self._own = own
        self._partner = partner
        self._number = 0

    def send(self, request: Message) -> None:
        """See Channel."""
        self._number += 1
        try:
            _write(self._own / _ask(self._partner, self._number), request)
        except OSError as error:
            raise SilentError(f"{error.filename}: {error.strerror}") from None

    def receive(self, timeout: float) -> Message:
        """See Channel; raises AbsentError."""
        deadline = time.monotonic() + timeout
        wanted = self._own / _answer(self._partner, self._number)
        while time.monotonic() < deadline:
            if not (self._own.parent / self._partner).is_dir():
                raise AbsentError("it has gone")
            if (answer := _read(wanted)) is not None:
                return answer
            time.sleep(_GLANCE)
        raise AbsentError(f"no answer within {timeout:g} s")

    def end(self, findings: Sequence[Finding]) -> None:
        """Let the partner go, with what was found."""
        told = [{**asdict(finding), "level": finding.level.value} for finding in findings]
        with contextlib.suppress(SilentError):
            self.send({"do": _END, "findings": told})
            self.receive(_FAREWELL)  # before it has taken the message this directory must stay


def find_partner(own: Path, patience: float) -> str | None:
    """The name of another doctor, for which ``patience`` seconds are waited; raises OSError."""
    deadline = time.monotonic() + patience
    while True:
        if found := others(own.parent, own):
            # The next one in the order, so that of three doctors two agree.
            return next((name for name in found if name > own.name), found[0])
        if time.monotonic() > deadline:
            return None
        time.sleep(_GLANCE)


def serve(own: Path, leader: str, patience: float) -> list[Finding]:
    """Do what the doctor ``leader`` asks, until it ends the test; what it has found.

    Raises SilentError when it does not begin within ``patience`` seconds, or falls silent.
    """
    directory = own.parent / leader
    half = Half()
    try:
        number = 1
        while True:
            request = _wait_for(
                directory, directory / _ask(own.name, number), patience if number == 1 else _SILENCE
            )
            if "path" in request:  # in the leader's directory, wherever that is here
                request["path"] = str(directory / Path(request["path"]).name)
            ended = request["do"] == _END
            try:
                _write(directory / _answer(own.name, number), {} if ended else half.answer(request))
            except OSError as error:
                raise SilentError(f"{error.filename}: {error.strerror}") from None
            if ended:
                told = request["findings"]
                return [Finding(**{**one, "level": Level(one["level"])}) for one in told]
            number += 1
    finally:
        half.close()


def _wait_for(directory: Path, file: Path, patience: float) -> Message:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if (request := _read(file)) is not None:
            return request
        if not directory.is_dir():
            raise SilentError("it has gone")
        time.sleep(_GLANCE)
    raise SilentError(f"it asked nothing within {patience:g} s")


def _ask(partner: str, number: int) -> str:
    return f"{partner}.ask{number}"


def _answer(partner: str, number: int) -> str:
    return f"{partner}.answer{number}"


def _write(path: Path, message: Message) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(message))
    temporary.replace(path)


def _read(path: Path) -> Message | None:
    """The message in a file; None as long as there is none."""
    # NFS remembers for a while that a file was not there; a change of the directory that we make
    # ourselves has it look again.
    glance = path.with_name(f"{path.name}.glance")
    with contextlib.suppress(OSError):
        glance.touch()
        glance.unlink()
    try:
        message = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None
