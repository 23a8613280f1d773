"""A backup into an empty database: all of it in one transaction, after the whole file has been checked.

Afterwards gateways ask what the core has. What their outboxes still hold comes by itself; where they have deleted what
was committed after the backup they begin a new epoch (``core_forgot``) and say up to where it had been acknowledged; by
``restore_point`` and ``restored_seq`` the ledger (cloud/ledger/forgotten.py) names those rows as lost, and why.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection
from psycopg import sql as build

from cloud.audit.log import Entry, record
from cloud.store import backup
from cloud.store.migrate import migrate
from cloud.store.partitions import DAY_MS, DayPartitions
from protocols.core.errors import StoreError


@dataclass(frozen=True, slots=True)
class Restored:
    taken_at: datetime
    restored_at: datetime
    rows: dict[str, int]


def restore(path: Path, dsn: str, *, source: str = "") -> Restored:
    """Raises StoreError with nothing restored: a damaged file, a database that is not empty, one of a newer schema."""
    header = _check(path)
    migrate(dsn)
    try:
        with psycopg.connect(dsn, autocommit=True, application_name="citybrain-restore") as conn:
            conn.execute("set statement_timeout = 0")
            _refuse_unless_empty(conn)
            ours = {row[0] for row in conn.execute("select name from schema_migration")}
            if newer := sorted(set(header["migrations"]) - ours):
                raise StoreError(f"the backup is of a newer version of citybrain: it has {', '.join(newer)}")
            taken_at = datetime.fromisoformat(header["taken_at"])
            with conn.transaction():
                rows = _load(conn, path)
                _sequences(conn)
                point = conn.execute(
                    "insert into restore_point (taken_at, source) values (%s, %s) returning restored_at",
                    (taken_at, source or path.name),
                ).fetchone()
                # Where each lane stood in the backup: the ledger tells by it what this restore has cost.
                conn.execute("update lane_cursor set restored_seq = seq")
                detail = {"taken_at": header["taken_at"], "rows": sum(rows.values())}
                record(conn, Entry("system", "database.restore", f"backup/{path.name}", detail))
            conn.execute("analyze")
    except psycopg.Error as error:
        raise StoreError(f"restore of {path}: {str(error).strip()}") from error
    assert point is not None  # noqa: S101 - it returns what it inserts
    return Restored(taken_at, point[0], rows)


def _check(path: Path) -> dict[str, Any]:
    """The header, after the sum of the whole file was found right: until then nothing in it means anything."""
    first: tuple[bytes, bytes] | None = None
    for frame in backup.frames(path):
        first = first or frame
    if first is None or first[0] != b"H":
        raise StoreError(f"{path} is damaged: it begins without a header")
    header: dict[str, Any] = json.loads(first[1])
    return header


def _refuse_unless_empty(conn: Connection[Any]) -> None:
    for table in ("gateway", "reading", "operator", "audit_entry"):
        row = conn.execute(build.SQL("select exists (select from {})").format(build.Identifier(table))).fetchone()
        if row and row[0]:
            raise StoreError(f"the database is not empty (table {table}): restore into a new one")


def _load(conn: Connection[Any], path: Path) -> dict[str, int]:
    tables = backup.tables(conn)
    known = {table.name: set(table.columns) for table in tables}
    for table in reversed(tables):
        quoted = build.Identifier(table.name)
        row = conn.execute(build.SQL("select exists (select from {})").format(quoted)).fetchone()
        if row and row[0]:  # what the migrations put there; the backup brings its own
            conn.execute(build.SQL("delete from {}").format(quoted))
    rows: dict[str, int] = {}
    partitions = DayPartitions(conn)
    frames = backup.frames(path)
    header = json.loads(next(frames)[1])
    for text in header["days"]:
        day = (date.fromisoformat(text) - date(1970, 1, 1)).days
        partitions.ensure(conn, {day}, day * DAY_MS)  # a day is a day, however long ago the backup was made
    title = next((content for kind, content in frames if kind == b"T"), None)
    while title is not None:
        head = json.loads(title)
        name, columns = str(head["name"]), list(head["columns"])
        if name not in known or not set(columns) <= known[name]:
            raise StoreError(f"{path}: table {name} with columns that this version does not have")
        statement = build.SQL("copy {} ({}) from stdin").format(
            build.Identifier(name), build.SQL(", ").join(map(build.Identifier, columns))
        )
        title = None
        with conn.cursor() as cursor:
            with cursor.copy(statement) as stream:
                for kind, content in frames:
                    if kind == b"T":
                        title = content
                        break
                    stream.write(content)
            rows[name] = cursor.rowcount
    return rows


def _sequences(conn: Connection[Any]) -> None:
    """Numbers given from now on follow those that were given."""
    for table, column in conn.execute(
        "select c.relname, a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid"
        " where a.attidentity <> '' and c.relnamespace = 'public'::regnamespace and not c.relispartition"
    ).fetchall():
        conn.execute(
            build.SQL("select setval(pg_get_serial_sequence(%s, %s), greatest((select max({}) from {}), 1))").format(
                build.Identifier(column), build.Identifier(table)
            ),
            (f'"{table}"', column),
        )
