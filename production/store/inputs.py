"""Which files from archives an attempt has read: the same ones are stored once."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from production.model import CHECKSUM_KINDS, Checksum, InputFile
from production.store.connection import Database

_LIST = """
    SELECT i.name, i.file, i.size, p.url, i.kind, i.checksum
    FROM input i LEFT JOIN place p ON p.id = i.place WHERE i.list = ? ORDER BY i.name, i.file
"""


def keep(tx: sqlite3.Connection, run: int, attempt: int, files: Sequence[InputFile]) -> int:
    """The number of the list of these files, within a transaction.

    ``attempt``: the id of the attempt at ``run`` that is about to read them.  What another one has
    read, in whichever production, is not stored once more.
    """
    wanted = sorted(files, key=lambda file: (file.name, file.file))
    lists = tx.execute(
        # CROSS: in this order, each step by an index.
        "SELECT DISTINCT a.inputs FROM productions p CROSS JOIN attempt a "
        "ON a.production = p.id AND a.run = ? WHERE a.inputs IS NOT NULL",
        (run,),
    )
    for (known,) in lists.fetchall():
        if _files(tx.execute(_LIST, (known,)).fetchall()) == wanted:
            return int(known)
    tx.executemany(
        "INSERT INTO input (list, name, file, size, place, kind_code, digest) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (attempt, f.name, f.file, f.size, _place(tx, f.place), *_stored(f.checksum))
            for f in wanted
        ],
    )
    return attempt


def of_list(db: Database, number: int | None) -> tuple[InputFile, ...]:
    """The files of a list, by name; none of None."""
    return tuple(_files(db.rows(_LIST, (number,))))


def _files(rows: Sequence[sqlite3.Row]) -> list[InputFile]:
    found = []
    for name, file, size, url, kind, checksum in rows:
        told = None if kind is None else Checksum(kind, checksum)
        found.append(InputFile(name, file, size, url, told))
    return found


def _stored(checksum: Checksum | None) -> tuple[int | None, bytes | None]:
    if checksum is None:
        return None, None
    return CHECKSUM_KINDS.index(checksum.kind), bytes.fromhex(checksum.value)


def _place(tx: sqlite3.Connection, url: str | None) -> int | None:
    """The number of a place, which is stored once."""
    if url is None:
        return None
    tx.execute("INSERT INTO place (url) VALUES (?) ON CONFLICT (url) DO NOTHING", (url,))
    return int(tx.execute("SELECT id FROM place WHERE url = ?", (url,)).fetchone()[0])
