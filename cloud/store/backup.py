"""A backup of the core's database while it runs: one file, one moment, checked before it is believed.

```
 snapshot (repeatable read) ─▶ each table by COPY ─▶ frames ─▶ zstd ─▶ FILE.part ─▶ fsync ─▶ FILE
 file     magic · frame*                       frame   kind (1 byte) · length (4, big-endian) · content
 frames   H header JSON · T table JSON · D rows as COPY text · … · E SHA-256 of all frames before
```
Text, not a dump of pages: it is read by another PostgreSQL, with or without TimescaleDB. The schema is not in it; the
migrations make it, and the header says which ones there were. Keys are not in it either: those of the certificate
authority, of sessions and of the audit log lie in files (see ``keys.py``).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, Any

import psycopg
from backports import zstd
from psycopg import Connection
from psycopg import sql as build

from cloud.store import timescale
from protocols.core.errors import StoreError

MAGIC = b"citybrain backup 1\n"
MOST_FRAME_BYTES = 16 << 20
_LEVEL = 3
#: What another server makes anew, or what means nothing there.
_NOT_KEPT = frozenset({"schema_migration", "ingest_worker"})


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    columns: list[str]


@dataclass(frozen=True, slots=True)
class Summary:
    """``taken_at``: the moment the backup shows. ``rows`` by table."""

    taken_at: datetime
    rows: dict[str, int]
    bytes: int


def tables(conn: Connection[Any]) -> list[Table]:
    """All tables, those that others refer to first; partitions are part of theirs."""
    names = [
        row[0]
        for row in conn.execute(
            "select c.relname from pg_class c where c.relnamespace = 'public'::regnamespace"
            " and c.relkind in ('r', 'p') and not c.relispartition order by c.relname"
        )
        if row[0] not in _NOT_KEPT
    ]
    refers: dict[str, set[str]] = {name: set() for name in names}
    for child, parent in conn.execute(
        "select c.relname, p.relname from pg_constraint k join pg_class c on c.oid = k.conrelid"
        " join pg_class p on p.oid = k.confrelid where k.contype = 'f' and c.relname <> p.relname"
    ):
        if child in refers and parent in refers:
            refers[child].add(parent)
    ordered: list[str] = []
    while refers:
        free = sorted(name for name, parents in refers.items() if not parents - set(ordered))
        if not free:
            raise StoreError(f"tables that refer to each other in a circle: {', '.join(sorted(refers))}")
        ordered += free
        for name in free:
            del refers[name]
    return [Table(name, _columns(conn, name)) for name in ordered]


def _days(conn: Connection[Any]) -> list[date]:
    """Days that have a partition (a chunk) of their own: a wrong clock's days share one, here and there."""
    if timescale.active(conn):
        return timescale.days(conn)
    return [
        datetime.strptime(row[0], "reading_%Y%m%d").replace(tzinfo=UTC).date()
        for row in conn.execute(
            "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid"
            " where i.inhparent = 'reading'::regclass and c.relname ~ '^reading_[0-9]{8}$' order by 1"
        )
    ]


def _columns(conn: Connection[Any], table: str) -> list[str]:
    return [
        row[0]
        for row in conn.execute(
            "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped"
            " and attgenerated = '' order by attnum",
            (f'"{table}"',),
        )
    ]


class _Writer:
    def __init__(self, out: zstd.ZstdFile) -> None:
        self._out = out
        self._sum = hashlib.sha256(MAGIC)

    def frame(self, kind: bytes, content: bytes) -> None:
        frame = kind + len(content).to_bytes(4) + content
        self._sum.update(frame)
        self._out.write(frame)

    def end(self) -> None:
        self._out.write(b"E" + (32).to_bytes(4) + self._sum.digest())


def write(dsn: str, path: Path) -> Summary:
    """Raises StoreError; then no file of that name is there that was not there before."""
    part = path.with_name(path.name + ".part")
    try:
        with (
            psycopg.connect(dsn, autocommit=True, application_name="citybrain-backup") as conn,
            _private(part) as file,
        ):
            file.write(MAGIC)
            with zstd.ZstdFile(file, "wb", level=_LEVEL) as packed:
                summary = _write(conn, packed)
            file.flush()
            os.fsync(file.fileno())
        size = part.stat().st_size
        part.replace(path)
        _sync_folder(path.parent)
    except (psycopg.Error, OSError) as error:
        part.unlink(missing_ok=True)
        raise StoreError(f"backup to {path}: {str(error).strip()}") from error
    return Summary(summary.taken_at, summary.rows, size)


def _write(conn: Connection[Any], out: zstd.ZstdFile) -> Summary:
    writer = _Writer(out)
    rows: dict[str, int] = {}
    conn.execute("set statement_timeout = 0")
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read, read only")
        row = conn.execute("select now(), current_setting('server_version')").fetchone()
        taken_at: datetime = row[0] if row else datetime.now(UTC)
        migrations = [name for (name,) in conn.execute("select name from schema_migration order by name")]
        header = {
            "taken_at": taken_at.isoformat(),
            "server": row[1] if row else "",
            "migrations": migrations,
            "days": [day.isoformat() for day in _days(conn)],
        }
        writer.frame(b"H", json.dumps(header).encode())
        for table in tables(conn):
            writer.frame(b"T", json.dumps({"name": table.name, "columns": table.columns}).encode())
            copy = build.SQL("copy (select {} from {}) to stdout").format(
                build.SQL(", ").join(map(build.Identifier, table.columns)), build.Identifier(table.name)
            )
            rows[table.name] = _copy_out(conn, copy, writer)
        writer.end()
    return Summary(taken_at, rows, 0)


def _copy_out(conn: Connection[Any], copy: build.Composed, writer: _Writer) -> int:
    count, waiting, size = 0, [], 0
    with conn.cursor() as cursor, cursor.copy(copy) as stream:
        for chunk in stream:
            data = bytes(chunk)
            count += data.count(b"\n")  # a line break inside a text is written as \n, two characters
            waiting.append(data)
            size += len(data)
            if size >= MOST_FRAME_BYTES // 4:
                _put(writer, waiting)
                waiting, size = [], 0
    _put(writer, waiting)
    return count


def _put(writer: _Writer, waiting: list[bytes]) -> None:
    data = b"".join(waiting)
    for at in range(0, len(data), MOST_FRAME_BYTES):
        writer.frame(b"D", data[at : at + MOST_FRAME_BYTES])


@contextmanager
def _private(path: Path) -> Iterator[IO[bytes]]:
    """Readable by us alone from the first byte on: people's names and what they did are in it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def frames(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of every frame but the last, whose sum is compared. Raises StoreError for a file that is no
    backup, is cut short or has been changed."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise StoreError(f"{path} is no backup of citybrain")
            total = hashlib.sha256(MAGIC)
            with zstd.ZstdFile(file, "rb") as packed:
                while True:
                    head = packed.read(5)
                    if len(head) < 5:
                        raise StoreError(f"{path} is cut short")
                    kind, size = head[:1], int.from_bytes(head[1:])
                    if size > MOST_FRAME_BYTES:
                        raise StoreError(f"{path} is damaged: a frame of {size} bytes")
                    content = packed.read(size)
                    if len(content) < size:
                        raise StoreError(f"{path} is cut short")
                    if kind == b"E":
                        if content != total.digest():
                            raise StoreError(f"{path} is damaged: its sum is another")
                        if packed.read(1):
                            raise StoreError(f"{path} is damaged: something follows its end")
                        return
                    total.update(head + content)
                    yield kind, content
    except (OSError, EOFError, zstd.ZstdError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
