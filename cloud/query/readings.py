"""Readings of one series over a span, never more than a screen can show.

Above ``max_points`` the span is cut into buckets and each is given by its lowest and its highest reading at their own
times, so a spike of one sample survives any zoom. The worst quality of a bucket is kept with both.
"""

from __future__ import annotations

from datetime import datetime

from psycopg.rows import class_row

from cloud.query.pool import Connection
from cloud.query.rows import Readings, Series

MAX_POINTS = 2000


async def series(conn: Connection, series_id: int) -> Series | None:
    async with conn.cursor(row_factory=class_row(Series)) as cur:
        await cur.execute(
            "select series_id, device_id, point, unit, decimals from series where series_id = %s", [series_id]
        )
        return await cur.fetchone()


async def device_series(conn: Connection, device_id: str) -> list[Series]:
    async with conn.cursor(row_factory=class_row(Series)) as cur:
        await cur.execute(
            "select series_id, device_id, point, unit, decimals from series where device_id = %s order by series_id",
            [device_id],
        )
        return await cur.fetchall()


_RAW = """
    select (extract(epoch from ts) * 1000)::bigint, value, quality
      from reading where series_id = %(id)s and ts >= %(since)s and ts < %(until)s order by ts limit %(limit)s
"""
_BUCKETS = """
    with span as (
        select ts, value, quality, width_bucket(extract(epoch from ts)::float8, %(from_s)s, %(to_s)s, %(n)s) as bucket
          from reading where series_id = %(id)s and ts >= %(since)s and ts < %(until)s
    )
    select count(*),
           (extract(epoch from (array_agg(ts order by value nulls last, ts))[1]) * 1000)::bigint, min(value),
           (extract(epoch from (array_agg(ts order by value desc nulls last, ts desc))[1]) * 1000)::bigint, max(value),
           max(quality)
      from span group by bucket order by bucket
"""


async def readings(
    conn: Connection, of: Series, since: datetime, until: datetime, *, max_points: int = MAX_POINTS
) -> Readings:
    max_points = max(2, min(max_points, MAX_POINTS))
    span = {"id": of.series_id, "since": since, "until": until}
    raw = await (await conn.execute(_RAW, span | {"limit": max_points + 1})).fetchall()
    if len(raw) <= max_points:
        return Readings(of, False, len(raw), [r[0] for r in raw], [r[1] for r in raw], [r[2] for r in raw])
    ends = {"from_s": since.timestamp(), "to_s": until.timestamp(), "n": max_points // 2}
    out = Readings(of, True, 0)
    total = 0
    for count, low_ms, low, high_ms, high, quality in await (await conn.execute(_BUCKETS, span | ends)).fetchall():
        total += count
        pair = sorted({(low_ms, low), (high_ms, high)}, key=lambda p: p[0])
        for ts_ms, value in pair:
            out.ts_ms.append(ts_ms)
            out.values.append(value)
            out.quality.append(quality)
    return Readings(of, True, total, out.ts_ms, out.values, out.quality)
