"""Readings as PostgreSQL's binary COPY format, built from arrays.

A row without a null is a fixed 54 bytes, so the whole block is one structured array with big-endian fields; rows
without a value are a second, shorter block. Format: PostgreSQL manual, COPY, "Binary Format".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from protocols.core.model import Float64s, Int32s, Int64s, UInt8s

Int16s = NDArray[np.int16]

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_EPOCH_2000_MS = 946_684_800_000  # timestamptz counts microseconds since 2000-01-01 UTC

_ROW = np.dtype(
    [
        ("fields", ">i2"),
        ("series_len", ">i4"), ("series", ">i4"),
        ("ts_len", ">i4"), ("ts", ">i8"),
        ("value_len", ">i4"), ("value", ">f8"),
        ("lag_len", ">i4"), ("lag", ">i4"),
        ("quality_len", ">i4"), ("quality", ">i2"),
        ("run_len", ">i4"), ("run", ">i2"),
    ]
)  # fmt: skip
_NULL_ROW = np.dtype([(name, _ROW[name]) for name in _ROW.names or () if name != "value"])

COPY_READINGS = "copy reading (series_id, ts, value, lag_ms, quality, clock_run) from stdin (format binary)"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of table `reading` as columns; NaN in ``value`` is null. ``clock_run`` None: all 0."""

    series_id: Int32s
    ts_ms: Int64s
    value: Float64s
    lag_ms: Int32s
    quality: UInt8s
    clock_run: Int16s | None = None

    def __len__(self) -> int:
        return len(self.series_id)


def join(parts: Sequence[Rows]) -> Rows:
    """All rows, in order; at least one part."""
    if len(parts) == 1:
        return parts[0]
    runs = None
    if any(p.clock_run is not None for p in parts):
        runs = np.concatenate([np.zeros(len(p), np.int16) if p.clock_run is None else p.clock_run for p in parts])
    return Rows(
        np.concatenate([p.series_id for p in parts]),
        np.concatenate([p.ts_ms for p in parts]),
        np.concatenate([p.value for p in parts]),
        np.concatenate([p.lag_ms for p in parts]),
        np.concatenate([p.quality for p in parts]),
        runs,
    )


def pick(rows: Rows, where: Any) -> Rows:
    """Some of the rows, by mask or in another order."""
    runs = None if rows.clock_run is None else rows.clock_run[where]
    return Rows(
        rows.series_id[where], rows.ts_ms[where], rows.value[where], rows.lag_ms[where], rows.quality[where], runs
    )


def _block(rows: Rows, dtype: np.dtype[np.void], where: Any) -> bytes:
    out = np.empty(int(np.count_nonzero(where)), dtype=dtype)
    out["fields"] = 6
    out["series_len"], out["series"] = 4, rows.series_id[where]
    out["ts_len"], out["ts"] = 8, (rows.ts_ms[where] - _EPOCH_2000_MS) * 1000
    out["lag_len"], out["lag"] = 4, rows.lag_ms[where]
    out["quality_len"], out["quality"] = 2, rows.quality[where]
    out["run_len"], out["run"] = 2, 0 if rows.clock_run is None else rows.clock_run[where]
    if dtype is _ROW:
        out["value_len"], out["value"] = 8, rows.value[where]
    else:
        out["value_len"] = -1
    return out.tobytes()


def encode(rows: Rows) -> bytes:
    """The whole COPY stream."""
    null = np.isnan(rows.value)
    if not null.any():
        return _HEADER + _block(rows, _ROW, ~null) + _TRAILER
    return _HEADER + _block(rows, _ROW, ~null) + _block(rows, _NULL_ROW, null) + _TRAILER


def copy_in(conn: Connection[Any], rows: Rows) -> None:
    """Write rows in the caller's transaction."""
    if not len(rows):
        return
    with conn.cursor() as cursor, cursor.copy(COPY_READINGS) as copy:
        copy.write(encode(rows))
