"""The ways a notice can go: a command of the user's, and mail.

Passwords come from the netrc file only, and go to nobody but a server that encrypts the line or is
this machine (RFC 4954, section 4).
"""

from __future__ import annotations

import os
import smtplib
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Protocol

from production.commands import run
from production.errors import NoticeNotSent, ProductionError
from production.notify.notices import Notice

TIMEOUT = 30.0  # seconds for each way
HERE = ("localhost", "127.0.0.1", "::1")

Login = tuple[str, str]  # user and password
FindLogin = Callable[[str], Login | None]  # for a host; raises NetrcError


class Channel(Protocol):
    """A way to somebody."""

    @property
    def name(self) -> str:
        """Which way, for people."""

    def send(self, notice: Notice) -> None:
        """Send it, within a time-out.  Raises ProductionError."""


@dataclass(frozen=True)
class CommandChannel:
    """A command that gets the subject as its last argument and the text on standard input."""

    argv: Sequence[str]

    @property
    def name(self) -> str:
        """See Channel."""
        return f"command {self.argv[0]}"

    def send(self, notice: Notice) -> None:
        """See Channel."""
        encoding = sys.getfilesystemencoding()  # commands are spoken to in no other
        subject, text = (
            os.fsdecode(words.encode(encoding, "replace"))
            for words in (notice.subject, notice.text)
        )
        run([*self.argv, subject], stdin=text, timeout=TIMEOUT)


@dataclass(frozen=True)
class MailChannel:
    """Mail by SMTP, with STARTTLS where the server has it, and a login where netrc has one."""

    receivers: Sequence[str]
    sender: str
    server: str
    port: int
    login: FindLogin

    @property
    def name(self) -> str:
        """See Channel."""
        return f"mail server {self.server}:{self.port}"

    def send(self, notice: Notice) -> None:
        """See Channel."""
        message = EmailMessage()
        try:
            message["Subject"] = _encodable(notice.subject)
            message["From"] = self.sender
            message["To"] = ", ".join(self.receivers)
            message.set_content(_encodable(notice.text))
            with smtplib.SMTP(self.server, self.port, timeout=TIMEOUT) as smtp:
                self._secure(smtp)
                smtp.send_message(message)
        except ProductionError:
            raise
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise self._failure(_in_words(error)) from None

    def _secure(self, smtp: smtplib.SMTP) -> None:
        smtp.ehlo()
        encrypted = smtp.has_extn("starttls")
        if encrypted:
            smtp.starttls(context=ssl.create_default_context())
            smtp.ehlo()
        if smtp.has_extn("auth") and (login := self.login(self.server)):
            if not encrypted and self.server not in HERE:
                raise self._failure("it offers no STARTTLS, so the password is not sent to it")
            smtp.login(*login)

    def _failure(self, what: str) -> NoticeNotSent:
        return NoticeNotSent(way=self.name, what=what)


def _in_words(error: Exception) -> str:
    """What a server said; never what we said to it, for that may hold the login."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "; ".join(f"{who}: {_text(said)}" for who, (_, said) in error.recipients.items())
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{error.smtp_code} {_text(error.smtp_error)}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _encodable(text: str) -> str:
    """Without the bytes of file names that are no text."""
    return text.encode(errors="replace").decode()


def _text(said: bytes | str) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return " ".join(text.split())


@dataclass(frozen=True)
class Herald:
    """All ways that are configured."""

    channels: Sequence[Channel] = ()

    def send(self, notice: Notice) -> None:
        """By all of them; the first trouble is raised, as ProductionError, when all are tried."""
        troubles: list[ProductionError] = []
        for channel in self.channels:
            try:
                channel.send(notice)
            except ProductionError as trouble:
                troubles.append(trouble)
            except Exception as error:  # noqa: BLE001 - nobody's jobs may suffer from a notice
                what = f"{type(error).__name__}: {error}"
                troubles.append(NoticeNotSent(way=channel.name, what=what))
        if troubles:
            raise troubles[0]
