"""Quotas of IBM Storage Scale (GPFS), from its command mmlsquota.

The command prints one row per filesystem, fileset and kind of quota, as a table or, in newer
releases with ``-Y``, as lines of colon-separated fields that a header line names.  Sizes are in
KiB.  ``in_doubt`` is what has been handed out to nodes and not yet been accounted for, so it
counts as used.  A limit of 0 is none.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote

from production.commands import run
from production.errors import CommandError, CommandTimeout, ProbeFailed
from production.model import Space
from production.space.mounts import mount_of
from production.space.quotas import KIB, Count, Quota, as_space

_COMMAND = "mmlsquota"
_USUAL_PLACE = "/usr/lpp/mmfs/bin/mmlsquota"  # often not on the PATH of users
_TIMEOUT = 30.0  # seconds


def find_command() -> str | None:
    """The path of mmlsquota, or None where there is none."""
    return shutil.which(_COMMAND) or shutil.which(_USUAL_PLACE)


class MmlsquotaProbe:
    """The quotas of the user who runs this, of the user's group, and of the fileset.

    On ``device`` (``gpfs01`` or ``gpfs01:fileset``), else on the filesystem that holds
    ``directory``, else, when that cannot be told, on all of them.
    """

    def __init__(self, directory: Path, device: str | None) -> None:
        self._directory = directory
        self._device = device

    def probe(self) -> Space:
        """See ``Probe``.  Raises NoQuotaSet, ProbeFailed."""
        where = self._device or "the quota filesystems"
        device = [self._device] if self._device else []
        filesystem, _, fileset = _split(self._device or "")
        remark = ""
        try:
            rows = _ask(device)
            if rows is None:
                what = f"the output of {_COMMAND} was not understood"
                raise ProbeFailed(where=where, what=what)
            further = [["-g", str(os.getgid()), *device]]
            if fileset:
                further.append(["-j", fileset, filesystem])
            for arguments in further:
                try:
                    rows += _ask(arguments) or []
                except CommandTimeout:
                    raise
                except CommandError as error:  # quotas of that kind are not in use there
                    remark = f"Not all quotas could be asked for: {error}"
        except CommandError as error:
            raise ProbeFailed(where=where, what=str(error)) from None
        return as_space(self._choose(rows), _COMMAND, where, remark)

    def _choose(self, rows: Sequence[Quota]) -> Iterable[Quota]:
        if self._device:
            return of_device(rows, self._device)
        mount = mount_of(self._directory)
        here = of_device(rows, mount.source) if mount is not None else []
        return dict.fromkeys(here or rows)


def _split(device: str) -> tuple[str, str, str]:
    return device.removeprefix("/dev/").partition(":")


def of_device(rows: Iterable[Quota], device: str) -> list[Quota]:
    """Those of a filesystem, or of one of its filesets."""
    filesystem, _, fileset = _split(device)
    wanted = []
    for row in dict.fromkeys(rows):
        its, _, its_fileset = row.place.partition(":")
        if its == filesystem and fileset in ("", its_fileset):
            wanted.append(row)
    return wanted


def _ask(arguments: Sequence[str]) -> list[Quota] | None:
    command = find_command() or _COMMAND
    try:
        rows = parse_fields(run([command, "-Y", *arguments], timeout=_TIMEOUT).stdout)
    except CommandTimeout:
        raise
    except CommandError:
        rows = None  # perhaps a release without -Y
    if rows is None:
        rows = parse_table(run([command, *arguments], timeout=_TIMEOUT).stdout)
    return rows


# --------------------------------------------------------------------------- what it prints

_SUFFIXES = " KMGTPE"
_SIZE = r"[0-9]{1,18}(?:\.[0-9]{1,9})?[KMGTPE]?"
_NUMBER = r"[0-9]{1,18}"
_GRACE = r"[^|]{1,40}?"
_ROW = re.compile(
    r"(?P<filesystem>\S+)\s+(?:(?P<fileset>\S+)\s+)?(?P<kind>USR|GRP|FILESET)\s+"
    rf"(?:no limits\s.*|(?P<used>{_SIZE})\s+(?P<soft>{_SIZE})\s+(?P<hard>{_SIZE})"
    rf"\s+(?P<doubt>{_SIZE})\s+(?P<grace>{_GRACE})\s*\|"
    rf"\s*(?P<files>{_NUMBER})\s+(?P<files_soft>{_NUMBER})\s+(?P<files_hard>{_NUMBER})"
    rf"\s+(?P<files_doubt>{_NUMBER})\s+(?P<files_grace>none|expired|[0-9]+ \w+)(?:\s.*)?)"
)
_HEADING = re.compile(r"\s*Block Limits\s|Filesystem\s+(?:Fileset\s+)?type\s")


def parse_table(text: str) -> list[Quota] | None:
    """The rows of the table, or None when that is no such table.

    A row says ``no limits`` instead of figures where there are none, and no output at all means
    that no quota is set.  Figures have a unit only when the site's defaults say so.
    """
    rows: list[Quota] = []
    heading = False
    for line in text.splitlines():
        if _HEADING.match(line):
            heading = True
        elif match := _ROW.fullmatch(line + " "):
            fileset = match["fileset"] or ""
            rows.append(_row(match.groupdict("0") | {"fileset": fileset}))
        elif "|" in line:
            return None  # a quota that would be overlooked
    return rows if heading or not text.strip() else None


_FIELDS = {
    "filesystemName": "filesystem",
    "filesetname": "fileset",
    "quotaType": "kind",
    "blockUsage": "used",
    "blockQuota": "soft",
    "blockLimit": "hard",
    "blockInDoubt": "doubt",
    "blockGrace": "grace",
    "filesUsage": "files",
    "filesQuota": "files_soft",
    "filesLimit": "files_hard",
    "filesInDoubt": "files_doubt",
    "filesGrace": "files_grace",
}


def parse_fields(text: str) -> list[Quota] | None:
    """The rows of ``-Y`` output, or None when that is none.

    Releases differ in their columns, so only the header's names count; in values, special
    characters are written as ``%3A``.
    """
    rows: list[Quota] = []
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


def _row(values: dict[str, str]) -> Quota:
    place = ":".join(filter(None, (values["filesystem"], values["fileset"])))
    blocks = Count(
        _bytes(values["used"]) + _bytes(values["doubt"]),
        _bytes(values["soft"]),
        _bytes(values["hard"]),
        values["grace"],
    )
    files = Count(
        _number(values["files"]) + _number(values["files_doubt"]),
        _number(values["files_soft"]),
        _number(values["files_hard"]),
        values["files_grace"],
    )
    return Quota(place, values["kind"], blocks, files)


def _bytes(figure: str) -> int:
    """A size as bytes; without a unit it is in KiB.  Raises ValueError."""
    if not re.fullmatch(_SIZE, figure):
        raise ValueError(figure)
    number = figure.rstrip(_SUFFIXES)
    unit = figure[len(number) :] or "K"
    return int(Fraction(number) * KIB ** _SUFFIXES.index(unit))


def _number(figure: str) -> int:
    if not re.fullmatch(_NUMBER, figure):
        raise ValueError(figure)
    return int(figure)
