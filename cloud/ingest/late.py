"""Tells the rollups which hours they must make anew: something has come for an hour they hold to be over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from psycopg import Connection

from cloud.ingest.copy import Rows
from protocols.uplink.batch import ClockCorrection

_HOUR_MS = 3_600_000


def note(conn: Connection[Any], rows: Rows) -> None:
    """``rows`` at their true times, just written in the caller's transaction.

    The mark is asked for after the writing: whoever moves it waits for transactions that may not have seen the move."""
    row = conn.execute("select (extract(epoch from mark) * 1000)::bigint from rollup_state").fetchone()
    if row is None:
        return
    late = rows.ts_ms < row[0]
    if not late.any():
        return
    hours = np.unique((rows.series_id[late].astype(np.int64) << 32) | (rows.ts_ms[late] // _HOUR_MS))
    conn.execute(
        "insert into rollup_dirty select s, to_timestamp(h * 3600.0) from unnest(%s::int[], %s::int[]) as u(s, h)",
        ((hours >> 32).tolist(), (hours & 0xFFFFFFFF).tolist()),
    )


def note_corrected(conn: Connection[Any], series: Sequence[int], told: Sequence[ClockCorrection]) -> None:
    """Readings of these series have moved: both the hour they said and the one they are of."""
    for c in told:
        conn.execute(
            "insert into rollup_dirty select distinct r.series_id, h.hour from unnest(%(series)s::int[]) s"
            " join reading r on r.series_id = s and r.clock_run = %(run)s and r.lag_ms = 0"
            " and r.ts >= to_timestamp(%(from)s / 1000.0) and r.ts < to_timestamp(%(to)s / 1000.0)"
            " cross join lateral (values (date_trunc('hour', r.ts)),"
            " (date_trunc('hour', r.ts + %(offset)s * interval '1 millisecond'))) h(hour)"
            " cross join rollup_state m where h.hour < m.mark",
            {
                "series": list(series),
                "run": c.run,
                "from": c.from_ms,
                "to": c.to_ms,
                "offset": c.offset_ms,
            },
        )
