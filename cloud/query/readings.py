"""Readings of one series over a span, at their true times, never more than a screen can show.

Above ``max_points`` the span is cut into buckets and each is given by its lowest and its highest reading at their own
times, so a spike of one sample survives any zoom. The worst quality of a bucket is kept with both. A long span, or one
whose readings are gone, is answered from the rollups (cloud/store/rollup.py); they know the same two readings.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from psycopg.rows import class_row

from cloud.query.pool import Connection
from cloud.query.rows import Readings, Series

MAX_POINTS = 2000
_LONG = timedelta(days=3)  # beyond it rollups are read rather than everything
_MOST_ROWS = 20_000  # of a rollup read for one answer


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


_RAW: LiteralString = """
    select (extract(epoch from ts) * 1000)::bigint, value, quality
      from reading_true(%(id)s, %(since)s, %(until)s) order by ts limit %(limit)s
"""
_BUCKETS: LiteralString = """
    with span as (
        select ts, value, quality, width_bucket(extract(epoch from ts)::float8, %(from_s)s, %(to_s)s, %(n)s) as bucket
          from reading_true(%(id)s, %(since)s, %(until)s)
    )
    select count(*),
           (extract(epoch from (array_agg(ts order by value nulls last, ts))[1]) * 1000)::bigint, min(value),
           (extract(epoch from (array_agg(ts order by value desc nulls last, ts desc))[1]) * 1000)::bigint, max(value),
           max(quality)
      from span group by bucket order by bucket
"""
_ROLLED: LiteralString = """
    with span as (
        select r.*, width_bucket(extract(epoch from ts)::float8, %(from_s)s, %(to_s)s, %(n)s) as bucket
          from {table} r where series_id = %(id)s and ts > %(since)s - %(width)s and ts < %(until)s
    )
    select sum(n)::bigint,
           (extract(epoch from (array_agg(coalesce(low_at, ts) order by low nulls last, ts))[1]) * 1000)::bigint,
           min(low),
           (extract(epoch from (array_agg(coalesce(high_at, ts) order by high desc nulls last, ts desc))[1])
             * 1000)::bigint,
           max(high),
           case when sum(n_missing) > 0 then 5 when sum(n_bad) > 0 then 2 when sum(n_suspect) > 0 then 1 else 0 end
      from span group by bucket order by bucket
"""


@dataclass(frozen=True, slots=True)
class _Level:
    """A rollup that may answer: of buckets this wide, made up to ``until``."""

    query: LiteralString
    width: timedelta
    until: datetime


async def _levels(conn: Connection, of: Series, now: datetime) -> tuple[list[_Level], datetime]:
    """Rollups there are of this series, finest first, each with the time from which on it is kept; and since when its
    readings are."""
    found = await (
        await conn.execute(
            "select s.done_1m, s.done, s.done_day, p.m1_days is distinct from 0, p.raw_days from rollup_state s"
            " cross join device d cross join lateral policy_of(d.device_type) p where d.device_id = %s",
            [of.device_id],
        )
    ).fetchone()
    if found is None:
        return [], datetime.fromtimestamp(0, UTC)
    done_1m, done, done_day, minutes, raw_days = found
    levels = [_Level(_ROLLED.replace("{table}", "rollup_1m"), timedelta(minutes=1), done_1m)] if minutes else []
    levels.append(_Level(_ROLLED.replace("{table}", "rollup_1h"), timedelta(hours=1), done))
    levels.append(_Level(_ROLLED.replace("{table}", "rollup_1d"), timedelta(days=1), done_day))
    return levels, datetime.fromtimestamp(0, UTC) if raw_days is None else now - timedelta(days=raw_days)


async def readings(
    conn: Connection,
    of: Series,
    since: datetime,
    until: datetime,
    *,
    max_points: int = MAX_POINTS,
    now: datetime | None = None,
) -> Readings:
    max_points = max(2, min(max_points, MAX_POINTS))
    span: dict[str, Any] = {"id": of.series_id, "since": since, "until": until}
    levels, raw_since = await _levels(conn, of, now or datetime.now(UTC))
    if since >= raw_since or until - since <= timedelta(hours=1):
        raw = await (await conn.execute(_RAW, span | {"limit": max_points + 1})).fetchall()
        if len(raw) <= max_points:
            return Readings(of, False, len(raw), [r[0] for r in raw], [r[1] for r in raw], [r[2] for r in raw])
    ends = {"from_s": since.timestamp(), "to_s": until.timestamp(), "n": max_points // 2}
    if since >= raw_since and until - since <= _LONG:
        return _paired(of, await (await conn.execute(_BUCKETS, span | ends)).fetchall())
    level = next((one for one in levels if (until - since) / one.width <= _MOST_ROWS), levels[-1] if levels else None)
    if level is None or level.until <= since:
        return _paired(of, await (await conn.execute(_BUCKETS, span | ends)).fetchall())
    # What is not rolled up yet comes from the readings themselves.
    edge = min(level.until, until)
    ends["n"] = max(1, max_points // 2 - 2)  # a bucket begins before the span, and one is cut by the edge
    rolled = await (await conn.execute(level.query, span | ends | {"until": edge, "width": level.width})).fetchall()
    rest = await (await conn.execute(_BUCKETS, span | ends | {"since": edge})).fetchall() if edge < until else []
    return _paired(of, [*rolled, *rest], bucket_s=round(level.width.total_seconds()))


def _paired(of: Series, buckets: list[tuple[Any, ...]], *, bucket_s: int = 0) -> Readings:
    """Each bucket by its lowest and its highest reading, in the order of their times."""
    out = Readings(of, True, sum(bucket[0] for bucket in buckets), bucket_s=bucket_s)
    for _, low_ms, low, high_ms, high, quality in buckets:
        pair = sorted({(low_ms, low), (high_ms, high)}, key=lambda p: p[0])
        for ts_ms, value in pair:
            out.ts_ms.append(ts_ms)
            out.values.append(value)
            out.quality.append(quality)
    return out
