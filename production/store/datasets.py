"""Which runs exist and what they are: run lists, datasets, and what they hold."""

from __future__ import annotations

import csv
import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from production.errors import ImportRefused, UnknownDataset, UnknownLabel, UsageError
from production.store.connection import Database
from production.units import counted

COLUMNS = ("run", "dataset", "tranche", "quality", "geometry", "campaign")
_ALIASES = {"qual": "quality"}  # the wiki of 2014 calls it so


@dataclass(frozen=True)
class Label:
    """One run's place in one dataset."""

    run: int
    dataset: str
    tranche: int | None = None
    quality: str | None = None
    geometry: str | None = None
    campaign: str | None = None


@dataclass(frozen=True)
class DatasetSummary:
    """One line of ``production datasets list``."""

    dataset: str
    runs: int
    first: int
    last: int
    tranches: int
    qualities: str
    campaign: str


def parse_runs(text: str) -> list[int]:
    """The runs of ``2091-2103,2119``, in that order.  Raises UsageError."""
    runs: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})\s*(?:-\s*(\d{1,18})\s*)?", part)
        if not match:
            raise UsageError(
                text=f"'{text}' is no list of runs: '{part}' should be a number or a range, "
                "as in 2091-2103,2119"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UsageError(text=f"the range {part.strip()} ends before it begins")
        if last - first >= 10_000_000:
            raise UsageError(text=f"the range {part.strip()} is longer than 10 million runs")
        runs.update(dict.fromkeys(range(first, last + 1)))
    return list(runs)


def written_runs(runs: Iterable[int]) -> str:
    """``2091-2103,2119``, as ``parse_runs`` reads it."""
    ranges: list[list[int]] = []
    for run in sorted(set(runs)):
        if ranges and run == ranges[-1][1] + 1:
            ranges[-1][1] = run
        else:
            ranges.append([run, run])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def read_csv(path: Path) -> list[Label]:
    """The labels in a run list with a header line.

    Columns: run and dataset, and as they exist tranche, quality (or qual), geometry, campaign;
    an empty field means none.  Raises ImportRefused with file and line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True)
            return _read_rows(((reader.line_num, row) for row in reader), path)
    except OSError as error:
        raise ImportRefused(where=path, what=error.strerror or str(error)) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ImportRefused(where=path, what=f"not a CSV text file ({error})") from None


def _read_rows(rows: Iterable[tuple[int, list[str]]], path: Path) -> list[Label]:
    labels: list[Label] = []
    header: list[str] | None = None
    for number, row in rows:
        fields = [field.strip() for field in row]
        if not any(fields):
            continue
        where = f"{path}:{number}"
        if header is None:
            header = _header(fields, where)
        elif len(fields) != len(header):
            raise ImportRefused(
                where=where,
                what=f"{counted(len(fields), 'field')} where the header has {len(header)}",
            )
        else:
            labels.append(_label(dict(zip(header, fields, strict=True)), where))
    if header is None:
        raise ImportRefused(where=path, what="the file is empty")
    return labels


def _header(fields: list[str], where: str) -> list[str]:
    header = [_ALIASES.get(field.lower(), field.lower()) for field in fields]
    unknown = sorted(set(header) - set(COLUMNS))
    missing = sorted({"run", "dataset"} - set(header))
    if unknown or missing or len(set(header)) < len(header):
        trouble = (
            f"unknown column {unknown[0][:40]!r}"
            if unknown
            else f"no column {missing[0]}"
            if missing
            else "a column stands there twice"
        )
        raise ImportRefused(
            where=where,
            what=f"{trouble}; the first line must name columns among {', '.join(COLUMNS)}",
        )
    return header


def _label(fields: dict[str, str], where: str) -> Label:
    numbers: dict[str, int | None] = {}
    for column in ("run", "tranche"):
        text = fields.get(column, "")
        if text and not re.fullmatch(r"\d{1,18}", text):
            raise ImportRefused(where=where, what=f"{column} {text[:40]!r} is not a number")
        numbers[column] = int(text) if text else None
    run = numbers["run"]
    if run is None or not fields["dataset"]:
        raise ImportRefused(where=where, what="run and dataset must not be empty")
    return Label(
        run,
        fields["dataset"],
        numbers["tranche"],
        fields.get("quality") or None,
        fields.get("geometry") or None,
        fields.get("campaign") or None,
    )


def add(db: Database, labels: Sequence[Label]) -> tuple[int, int]:
    """Record labels; a run that is in the dataset already takes the new values.

    Returns how many are new and how many were changed; what is there with the same values counts
    as neither, so that the same list may be imported again.
    """
    with db.write() as tx:
        return write(tx, labels)


def write(tx: sqlite3.Connection, labels: Sequence[Label]) -> tuple[int, int]:
    """The same within a transaction."""
    _refuse_contradictions(labels)
    before = _count(tx)
    written = tx.executemany(
        """
        INSERT INTO datasets (run, dataset, tranche, quality, geometry, campaign)
        VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (run, dataset) DO UPDATE SET
            tranche = excluded.tranche, quality = excluded.quality,
            geometry = excluded.geometry, campaign = excluded.campaign
        WHERE (tranche, quality, geometry, campaign)
              IS NOT (excluded.tranche, excluded.quality, excluded.geometry, excluded.campaign)
        """,
        (
            (label.run, label.dataset, label.tranche, label.quality, label.geometry, label.campaign)
            for label in dict.fromkeys(labels)
        ),
    ).rowcount
    new = _count(tx) - before
    return new, written - new


def _count(tx: sqlite3.Connection) -> int:
    return int(tx.execute("SELECT count(*) FROM datasets").fetchone()[0])


def _refuse_contradictions(labels: Sequence[Label]) -> None:
    seen: dict[tuple[int, str], Label] = {}
    for label in labels:
        other = seen.setdefault((label.run, label.dataset), label)
        if other != label:
            raise ImportRefused(
                where=f"run {label.run} in dataset {label.dataset}",
                what="the list has it twice with different tranche, quality, geometry or campaign",
            )


def summaries(db: Database) -> list[DatasetSummary]:
    """All datasets with what they hold."""
    found = db.rows(
        """
        SELECT dataset, count(*) AS runs, min(run) AS first, max(run) AS last,
               count(DISTINCT tranche) AS tranches,
               coalesce(group_concat(DISTINCT coalesce(quality, '-')), '') AS qualities,
               coalesce(group_concat(DISTINCT campaign), '') AS campaign
        FROM datasets GROUP BY dataset ORDER BY dataset
        """
    )
    return [DatasetSummary(**dict(row)) for row in found]


def check_known(db: Database, names: Sequence[str]) -> None:
    """Raise UnknownDataset, which lists the valid ones, unless all ``names`` exist."""
    for name in names:
        if db.row("SELECT 1 FROM datasets WHERE dataset = ? LIMIT 1", (name,)) is None:
            known = [row[0] for row in db.rows("SELECT DISTINCT dataset FROM datasets ORDER BY 1")]
            shown = ", ".join(known) or "none yet (production datasets import FILE.csv)"
            raise UnknownDataset(name=name, known=shown)


def check_labels(db: Database, what: str, values: Iterable[object]) -> None:
    """Raise UnknownLabel unless runs have each of these as their ``quality`` or ``tranche``."""
    for value in values:
        if db.row(f"SELECT 1 FROM datasets WHERE {what} = ? LIMIT 1", (value,)) is None:
            listed = f"SELECT DISTINCT {what} FROM datasets WHERE {what} IS NOT NULL ORDER BY 1"
            known = ", ".join(str(row[0]) for row in db.rows(listed))
            raise UnknownLabel(what=what, name=value, known=known or "none")
