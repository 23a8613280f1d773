"""The database's side of the comparison: rows as they lie there, in columns, whatever their number.

Rows come by binary COPY into NumPy arrays, for there are 24 million of them after 20 minutes at full load. ``xmin``,
the number of the transaction that wrote a row, tells the order in which rows were committed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.sql import SQL, Composed, Literal

_HEADER_BYTES = 19  # PGCOPY signature, flags, no extension
_CHUNK_ROWS = 500_000
#: PostgreSQL counts microseconds from 2000-01-01.
_PG_EPOCH_US = 946_684_800_000_000

_READING = np.dtype(
    [
        ("fields", ">i2"),
        ("l0", ">i4"), ("series", ">i4"),
        ("l1", ">i4"), ("us", ">i8"),
        ("l2", ">i4"), ("value", ">f8"),
        ("l3", ">i4"), ("quality", ">i2"),
        ("l4", ">i4"), ("xid", ">u4"),
    ]
)  # fmt: skip
_EVENT = np.dtype(
    [("fields", ">i2"), ("l0", ">i4"), ("number", ">i8"), ("l1", ">i4"), ("xid", ">u4")],
)
Table = NDArray[np.void]


def readings(conn: psycopg.Connection[Any], gateway: str) -> Iterator[Table]:
    """Columns ``series`` (series_id), ``us`` (since 2000), ``value`` (NaN: none), ``quality``, ``xid``; in chunks."""
    yield from _copy(
        conn,
        SQL(
            "copy (select r.series_id, r.ts, coalesce(r.value, 'NaN'::float8), r.quality, r.xmin from reading r"
            " join series s using (series_id) join device d using (device_id)"
            " where d.gateway_id = {}) to stdout (format binary)"
        ).format(Literal(gateway)),
        _READING,
    )


def events(conn: psycopg.Connection[Any], gateway: str) -> Iterator[Table]:
    """Columns ``number`` (of the source's event) and ``xid``. Events of other makers (the core's own) are left out."""
    yield from _copy(
        conn,
        SQL(
            "copy (select right(event_id, 10)::bigint, xmin from event where gateway_id = {}"
            " and event_id ~ {}) to stdout (format binary)"
        ).format(Literal(gateway), Literal(f"^{gateway}-[0-9]{{10}}$")),
        _EVENT,
    )


def to_ms(us: NDArray[np.int64]) -> NDArray[np.int64]:
    """UTC milliseconds from PostgreSQL's microseconds."""
    return (us.astype(np.int64) + _PG_EPOCH_US) // 1000


def _copy(conn: psycopg.Connection[Any], statement: Composed, layout: np.dtype[np.void]) -> Iterator[Table]:
    """Rows of fixed width: every field is there in every row (no nulls)."""
    rest = bytearray()
    begun = False
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for block in copy:
            rest += block
            if not begun and len(rest) >= _HEADER_BYTES:
                del rest[:_HEADER_BYTES]
                begun = True
            if len(rest) >= _CHUNK_ROWS * layout.itemsize:
                yield _cut(rest, layout)
    if len(rest) >= layout.itemsize:
        yield _cut(rest, layout)


def _cut(rest: bytearray, layout: np.dtype[np.void]) -> Table:
    count = len(rest) // layout.itemsize
    table = np.frombuffer(bytes(rest[: count * layout.itemsize]), dtype=layout)
    del rest[: count * layout.itemsize]
    return table
