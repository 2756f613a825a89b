"""Logins from the netrc file, read at the moment they are needed.

The format is that of ftp(1) and of Python's netrc module, which is not used because its errors
quote words of the file (a password with a space in it, say) and count comment lines wrongly.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from production.errors import NetrcError, NoLogin


@dataclass(frozen=True)
class Credentials:
    """A login; the password stays out of ``repr``."""

    user: str
    password: str = field(repr=False)


def netrc_path() -> Path:
    """``$NETRC``, or ``~/.netrc``."""
    return Path(os.path.expanduser(os.environ.get("NETRC") or "~/.netrc"))  # noqa: PTH111 (never fails)


def login_for(host: str) -> Credentials:
    """The login for ``host`` from the netrc file: its own entry, otherwise the default one.

    Raises NetrcError with the remedy when the file is missing, open to others, not understood, or
    has no complete entry.  No part of the file's text is ever in an error.
    """
    path = netrc_path()
    try:
        return _choose(host, parse(_read(path)))
    except _AbsenceError as absence:
        raise NoLogin(host=host, path=path, what=absence) from None
    except _ObjectionError as objection:
        what = str(objection)
    except OSError as error:
        what = f"the file cannot be read: {error.strerror}"
    raise NetrcError(host=host, path=path, what=what)


def login_if_any(host: str) -> Credentials | None:
    """The same where a login need not be: None without a file or an entry.

    Raises NetrcError for a file that there is and that cannot be used.
    """
    try:
        return login_for(host)
    except NoLogin:
        return None


class _ObjectionError(Exception):
    """Why a netrc file is of no use, in words for the user."""


class _AbsenceError(_ObjectionError):
    """There is nothing for this host."""


def _read(path: Path) -> str:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise _AbsenceError(
            "there is no such file. Write one with the line: machine HOST login USER password "
            f"PASSWORD, then: chmod 600 {path}"
        ) from None
    if objection := objection_to(status, path, os.geteuid()):
        raise _ObjectionError(objection)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _ObjectionError(f"line {line} is not UTF-8 text") from None


def objection_to(status: os.stat_result, path: Path, reader: int) -> str:
    """What is wrong with keeping secrets in this file, as user id ``reader`` sees it, or ''."""
    if not stat.S_ISREG(status.st_mode):
        return "that is not a regular file"
    if reader not in (status.st_uid, 0):
        return f"the file belongs to another user (uid {status.st_uid}); use a file of your own"
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return f"other users may read the file. Close it with: chmod 600 {path}"
    return ""


def _choose(host: str, entries: list[dict[str, str]]) -> Credentials:
    for name in (host.casefold(), ""):
        for entry in entries:
            if entry["machine"].casefold() == name:
                return _complete(entry)
    raise _AbsenceError(
        f"the file has no entry for this host. Add the line: machine {host} login USER "
        "password PASSWORD"
    )


def _complete(entry: dict[str, str]) -> Credentials:
    for keyword in ("login", "password"):
        if keyword not in entry:
            raise _ObjectionError(f"the entry has no {keyword}; add: {keyword} ...")
    return Credentials(entry["login"], entry["password"])


# --------------------------------------------------------------------------- the format

_VALUES = {"login": "login", "user": "login", "account": "account", "password": "password"}
_WORD = re.compile(r'[ \t\r]*(?:"((?:\\.|[^"\\])*)"|((?!")(?:\\.|[^ \t\r\\])+))', re.DOTALL)


def parse(text: str) -> list[dict[str, str]]:
    """The entries in the file's order; the default entry's ``machine`` is empty."""
    entries: list[dict[str, str]] = []
    keyword = ""  # the one whose value comes next
    in_macro = False
    for number, line in enumerate(text.split("\n"), 1):
        if in_macro:
            in_macro = bool(line.strip())
            continue
        for word in _words(line, number):
            if keyword == "machine":
                entries.append({"machine": word})
                keyword = ""
            elif keyword:
                entries[-1][_VALUES[keyword]] = word
                keyword = ""
            elif word.startswith("#"):
                break
            elif word == "macdef":
                in_macro = True
                break
            elif word == "default":
                entries.append({"machine": ""})
            elif word == "machine" or (word in _VALUES and entries):
                keyword = word
            else:
                raise _ObjectionError(
                    f"line {number} cannot be understood. Words that may stand there are machine, "
                    "default, login, password, account, macdef; a password with spaces needs "
                    'quotes: "..."'
                )
    if keyword:
        raise _ObjectionError(f"the file ends after the word {keyword}")
    return entries


def _words(line: str, number: int) -> Iterator[str]:
    rest = line.rstrip(" \t\r")
    while rest:
        match = _WORD.match(rest)
        if match is None:
            raise _ObjectionError(f"line {number} has a quote or a backslash without its partner")
        quoted, plain = match.groups()
        yield re.sub(r"\\(.)", r"\1", plain or quoted or "", flags=re.DOTALL)
        rest = rest[match.end() :]
