"""Logging in over SSH as ssh(1) does it: by the agent's keys, by keys in files, by a password last.

Nobody is asked for anything.  A key with a passphrase serves when the agent has it.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko

# As ssh(1) looks for them when its configuration names none.
_USUAL = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")

_PATIENCE = 30.0  # seconds that the agent may be silent: somebody may have to touch a token

# What reading a key ends in when it has a passphrase.
_LOCKED = (TypeError, paramiko.PasswordRequiredException)

# How private keys are written (openssh-portable, PROTOCOL.key): the public part can be read by all.
_PRIVATE = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_MAGIC = b"openssh-key-v1\0"


class KeyLockedError(paramiko.AuthenticationException):
    """Nothing that is at hand opens the door, but there is a key with a passphrase."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(what)
        self.path = path
        self.what = what


@dataclass
class Login:
    """Who logs in, and with what; an ``AuthStrategy`` for paramiko, for one connection."""

    user: str
    files: Sequence[Path]  # that the configuration names; none: the usual ones
    only_files: bool  # whether the agent may show no other keys
    password: str | None
    _refusals: list[Exception] = field(default_factory=list)

    def authenticate(self, transport: paramiko.Transport) -> list[str]:
        """Log in; raises KeyLockedError, SSHException."""
        usual = [Path(name).expanduser() for name in _USUAL]
        files = [path for path in self.files or usual if path.is_file()]
        locked: list[Path] = []
        agent = _Agent()
        try:
            held = self._held(agent)
            if not (
                self._show(transport, held)
                or self._show(transport, self._read(files, held, locked))
                or self._say(transport)
            ):
                self._give_up(locked, agent)
        finally:
            agent.close()
        return []

    def _held(self, agent: _Agent) -> list[paramiko.AgentKey]:
        """The agent's keys: those of the files first, for a server takes no more than a few."""
        try:
            keys = agent.list()
        except paramiko.SSHException as error:
            self._refusals.append(error)
            return []
        named = {blob for path in self.files for blob in _public(path)}
        first = [key for key in keys if key.blob in named]
        return first if self.only_files else [*first, *(key for key in keys if key not in first)]

    def _read(
        self, files: Iterable[Path], held: Iterable[paramiko.AgentKey], locked: list[Path]
    ) -> Iterator[paramiko.PKey]:
        """The keys in the files, but those that the agent has shown already."""
        shown = {key.blob for key in held}
        for path in files:
            if shown.intersection(_public(path)):
                continue
            try:
                yield paramiko.PKey.from_path(path)
            except _LOCKED:
                locked.append(path)
            except Exception as error:  # noqa: BLE001 - each kind of key has a way of its own
                what = getattr(error, "strerror", None) or "no key that can be used here"
                self._refusals.append(ValueError(f"{path}: {what}"))

    def _show(self, transport: paramiko.Transport, keys: Iterable[paramiko.PKey]) -> bool:
        return any(self._try(transport, transport.auth_publickey, key) for key in keys)

    def _say(self, transport: paramiko.Transport) -> bool:
        if self.password is None:
            return False
        return self._try(transport, transport.auth_password, self.password)

    def _try(
        self, transport: paramiko.Transport, way: Callable[[str, Any], list[str]], shown: object
    ) -> bool:
        """Whether that was enough."""
        if not transport.is_active():
            raise self._refusals[-1] if self._refusals else EOFError
        try:
            if more := way(self.user, shown):
                raise paramiko.AuthenticationException(f"it wants {' or '.join(more)} as well")
        except paramiko.SSHException as refusal:
            self._refusals.append(refusal)
        return transport.is_authenticated()

    def _give_up(self, locked: Sequence[Path], agent: _Agent) -> None:
        if locked:
            what = "does not have it" if agent.is_there else "is not there ($SSH_AUTH_SOCK)"
            raise KeyLockedError(locked[0], f"the SSH agent {what}")
        if self._refusals:
            raise paramiko.AuthenticationException(str(self._refusals[-1]))
        raise paramiko.AuthenticationException("there is neither a key nor a password")


class _Agent(paramiko.Agent):
    """The agent that ``$SSH_AUTH_SOCK`` names; it is not waited for without end."""

    def __init__(self) -> None:
        self.is_there = False
        self._silent: paramiko.SSHException | None = None
        super().__init__()

    def list(self) -> Sequence[paramiko.AgentKey]:
        """Its keys; raises SSHException when it does not answer."""
        if self._silent:
            raise self._silent
        return self.get_keys()

    def _connect(self, connection: socket.socket) -> None:
        self.is_there = True
        connection.settimeout(_PATIENCE)
        try:
            super()._connect(connection)  # type: ignore[misc]
        except paramiko.SSHException as error:
            self._silent = error

    def _send_message(self, message: Any) -> tuple[int, paramiko.Message]:
        try:
            return super()._send_message(message)  # type: ignore[misc,no-any-return]
        except OSError as error:
            raise paramiko.SSHException(f"the SSH agent does not answer ({error})") from None


def _public(path: Path) -> Iterator[bytes]:
    """The public parts of a key: in its file, which may itself be no more, and in those beside."""
    for file in (path, Path(f"{path}.pub"), Path(f"{path}-cert.pub")):
        try:
            text = file.read_bytes()
            if text.startswith(_PRIVATE):
                yield _of_private(text)
            else:
                yield paramiko.pkey.PublicBlob.from_string(text.decode()).key_blob
        except (OSError, ValueError):
            continue


def _of_private(text: bytes) -> bytes:
    """Raises ValueError."""
    content = base64.b64decode(b"".join(text.split(b"-----")[2].split()))
    if not content.startswith(_MAGIC):
        raise ValueError("not such a key")
    message = paramiko.Message(content[len(_MAGIC) :])
    for _ in ("cipher", "derivation", "its options"):
        message.get_binary()
    message.get_int()  # the number of keys, which is one
    return message.get_binary()
