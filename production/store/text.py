"""The database as SQL text that git can compare: sorted, and one row a line.

``production restore`` and the sqlite3 shell can make a database of it.  What triggers derive from
the rest is not written but made anew at the end, and objects and rows stand in the order of their
names and keys, so that the text tells nothing but what is recorded.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator

from production.store.migrations import FILL, statements

HEADER = "-- A production database as text."
DERIVED = ("tally", "unclaimed")
_OPENING = f"""{HEADER}
-- Make a database of it with: production restore THIS_FILE --database=NEW_FILE
PRAGMA foreign_keys = OFF;
BEGIN;
"""
_CLOSING = "COMMIT;\n"


class _Text(bytes):
    """A text value as it is stored; a BLOB is plain bytes."""


def dump(connection: sqlite3.Connection) -> Iterator[str]:
    """The text, piece by piece.  Changes how ``connection`` reads texts."""
    connection.text_factory = _Text
    connection.row_factory = None
    yield _OPENING
    for pragma in ("application_id", "user_version"):
        yield f"PRAGMA {pragma} = {connection.execute(f'PRAGMA {pragma}').fetchone()[0]};\n"
    tables = _objects(connection, "table")
    for name, sql in tables:
        yield f"{sql};\n"
        if name not in DERIVED:
            yield from _rows(connection, name)
    for kind in ("index", "view"):
        yield from (f"{sql};\n" for _, sql in _objects(connection, kind))
    if {name for name, _ in tables}.issuperset(DERIVED):
        yield from (f"{' '.join(statement.split())}\n" for statement in statements(FILL.strip()))
    yield from (f"{sql};\n" for _, sql in _objects(connection, "trigger"))
    yield _CLOSING


def _objects(connection: sqlite3.Connection, kind: str) -> list[tuple[str, str]]:
    found = connection.execute(
        "SELECT name, sql FROM sqlite_master "
        "WHERE type = ? AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
        (kind,),
    )
    return [(bytes(name).decode(), bytes(sql).decode()) for name, sql in found]


def _rows(connection: sqlite3.Connection, table: str) -> Iterator[str]:
    """One INSERT for each row, by the table's key."""
    quoted = _name(table)
    about = connection.execute(f"PRAGMA table_xinfo({quoted})").fetchall()
    stored = [_name(bytes(name).decode()) for _, name, *_, hidden in about if not hidden]
    keys = sorted((key, _name(bytes(name).decode())) for _, name, _, _, _, key, _ in about if key)
    names = "" if len(stored) == len(about) else f"({', '.join(stored)})"
    order = ", ".join(name for _, name in keys) or ", ".join(stored)
    for row in connection.execute(f"SELECT {', '.join(stored)} FROM {quoted} ORDER BY {order}"):
        yield f"INSERT INTO {quoted}{names} VALUES({','.join(map(_literal, row))});\n"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: object) -> str:
    """A value as SQL writes it, in one line."""
    if value is None:
        return "NULL"
    if isinstance(value, _Text):
        try:
            return _quoted(value.decode())
        except UnicodeDecodeError:
            return f"CAST(X'{value.hex()}' AS TEXT)"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    return "9e999" if value == float("inf") else "-9e999" if value == -float("inf") else repr(value)


def _quoted(value: str) -> str:
    if "\0" in value:
        return f"CAST(X'{value.encode().hex()}' AS TEXT)"
    literal = "'" + value.replace("'", "''") + "'"
    for character, mark in (("\n", "\\n"), ("\r", "\\r")):
        if character in value:
            while mark in value:
                mark = f"\\{mark}"
            marked = literal.replace(character, mark)
            literal = f"replace({marked},'{mark}',char({ord(character)}))"
    return literal


def load(
    lines: Iterable[str],
    connection: sqlite3.Connection,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Execute what ``dump`` has written on a new database.

    Raises sqlite3.Error, and ValueError when the end is missing.
    """
    connection.set_authorizer(_only_here)
    pending, done = "", 0
    for line in lines:
        pending += line
        if sqlite3.complete_statement(pending):
            connection.execute(pending)
            done += len(pending)
            progress(done)
            pending = ""
    connection.set_authorizer(None)
    if pending.strip() or connection.in_transaction:
        raise ValueError("it is cut off")


def _only_here(action: int, *_: object) -> int:
    """A text that somebody hands on must not write to other files."""
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK
