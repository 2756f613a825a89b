"""Quotas of IBM Storage Scale (GPFS), from its command mmlsquota.

The command prints one row per filesystem, fileset and kind of quota, as a table or, in newer
releases with ``-Y``, as lines of colon-separated fields that a header line names.  Sizes are in
KiB.  ``in_doubt`` is what has been handed out to nodes and not yet been accounted for, so it
counts as used.  A limit of 0 is none.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from urllib.parse import unquote

from production.commands import run
from production.errors import CommandError, CommandTimeout, NoQuotaSet, ProbeFailed
from production.model import Usage

_COMMAND = "mmlsquota"
_USUAL_PLACE = "/usr/lpp/mmfs/bin/mmlsquota"  # often not on the PATH of users
_TIMEOUT = 30.0  # seconds


@dataclass(frozen=True)
class Row:
    """One quota; sizes in bytes, a limit of 0 is none."""

    filesystem: str
    fileset: str
    kind: str  # USR, GRP or FILESET
    usage: int
    quota: int  # the soft limit
    limit: int  # the hard limit
    in_doubt: int

    @property
    def used(self) -> int:
        """Bytes, with those in doubt."""
        return self.usage + self.in_doubt

    @property
    def allowed(self) -> int:
        """The soft limit, as the first production script took it; else the hard one, else 0."""
        return self.quota or self.limit

    def as_usage(self) -> Usage:
        """In the words of the rest of the program."""
        name = f"{self.filesystem}:{self.fileset}" if self.fileset else self.filesystem
        return Usage(self.used, self.allowed, f"{_COMMAND} {name} {self.kind}")


def find_command() -> str | None:
    """The path of mmlsquota, or None where there is none."""
    return shutil.which(_COMMAND) or shutil.which(_USUAL_PLACE)


class MmlsquotaProbe:
    """The quotas of the user who runs this, on ``device`` (``gpfs01`` or ``gpfs01:fileset``)."""

    def __init__(self, device: str | None) -> None:
        self._device = device

    def probe(self) -> Usage:
        """The fullest of the quotas.  Raises NoQuotaSet, ProbeFailed."""
        where = self._device or "the quota filesystems"
        try:
            rows = self._ask()
        except CommandError as error:
            raise ProbeFailed(where=where, what=str(error)) from None
        if rows is None:
            raise ProbeFailed(where=where, what=f"the output of {_COMMAND} was not understood")
        return fullest(rows, self._device)

    def _ask(self) -> list[Row] | None:
        command = find_command() or _COMMAND
        device = [self._device] if self._device else []
        try:
            rows = parse_fields(run([command, "-Y", *device], timeout=_TIMEOUT).stdout)
        except CommandTimeout:
            raise
        except CommandError:
            rows = None  # perhaps a release without -Y
        if rows is None:
            rows = parse_table(run([command, *device], timeout=_TIMEOUT).stdout)
        return rows


def fullest(rows: Iterable[Row], device: str | None = None) -> Usage:
    """The one quota that is reached first, of ``device`` if one is named.  Raises NoQuotaSet."""
    filesystem, _, fileset = (device or "").removeprefix("/dev/").partition(":")
    quotas = [
        row
        for row in rows
        if row.allowed and filesystem in ("", row.filesystem) and fileset in ("", row.fileset)
    ]
    if not quotas:
        raise NoQuotaSet(where=device or "the quota filesystems")
    return max(quotas, key=lambda row: row.used / row.allowed).as_usage()


# --------------------------------------------------------------------------- what it prints

_SUFFIXES = " KMGTPE"
_SIZE = r"[0-9]{1,18}(?:\.[0-9]{1,9})?[KMGTPE]?"
_ROW = re.compile(
    r"(?P<filesystem>\S+)\s+(?:(?P<fileset>\S+)\s+)?(?P<kind>USR|GRP|FILESET)\s+"
    rf"(?:no limits|(?P<usage>{_SIZE})\s+(?P<quota>{_SIZE})\s+(?P<limit>{_SIZE})"
    rf"\s+(?P<in_doubt>{_SIZE})\s)"
)
_HEADING = re.compile(r"\s*Block Limits\s|Filesystem\s+(?:Fileset\s+)?type\s")


def parse_table(text: str) -> list[Row] | None:
    """The rows of the table, or None when that is no such table.

    A row says ``no limits`` instead of figures where there are none, and no output at all means
    that no quota is set.  Figures have a unit only when the site's defaults say so.
    """
    rows: list[Row] = []
    heading = False
    for line in text.splitlines():
        if _HEADING.match(line):
            heading = True
        elif match := _ROW.match(line):
            rows.append(_row(match.groupdict("0") | {"fileset": match["fileset"] or ""}))
        elif "|" in line:
            return None  # a quota that would be overlooked
    return rows if heading or not text.strip() else None


_FIELDS = {
    "filesystemName": "filesystem",
    "filesetname": "fileset",
    "quotaType": "kind",
    "blockUsage": "usage",
    "blockQuota": "quota",
    "blockLimit": "limit",
    "blockInDoubt": "in_doubt",
}


def parse_fields(text: str) -> list[Row] | None:
    """The rows of ``-Y`` output, or None when that is none.

    Releases differ in their columns, so only the header's names count; in values, special
    characters are written as ``%3A``.
    """
    rows: list[Row] = []
    names: list[str] = []
    for line in text.splitlines():
        fields = line.split(":")
        if fields[0] != _COMMAND:
            continue
        if fields[2:3] == ["HEADER"]:
            names = fields
            continue
        record = dict(zip(names, fields, strict=False))
        try:
            rows.append(_row({ours: unquote(record[name]) for name, ours in _FIELDS.items()}))
        except (KeyError, ValueError):
            return None
    return rows if names else None


def _row(values: dict[str, str]) -> Row:
    return Row(
        filesystem=values["filesystem"],
        fileset=values["fileset"],
        kind=values["kind"],
        usage=_bytes(values["usage"]),
        quota=_bytes(values["quota"]),
        limit=_bytes(values["limit"]),
        in_doubt=_bytes(values["in_doubt"]),
    )


def _bytes(figure: str) -> int:
    """A size as bytes; without a unit it is in KiB.  Raises ValueError."""
    if not re.fullmatch(_SIZE, figure):
        raise ValueError(figure)
    number = figure.rstrip(_SUFFIXES)
    unit = figure[len(number) :] or "K"
    return int(Fraction(number) * 1024 ** _SUFFIXES.index(unit))
