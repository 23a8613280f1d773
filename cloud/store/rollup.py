"""Readings of a minute, an hour, a day in one row each: made once an hour is over, made anew where something came late.

```
 reading ─▶ hours before the mark ─▶ rollup_1m ─▶ rollup_1h ─▶ rollup_1d        mark, done, done_day: how far
    ▲            ▲                                  ▲
 ingest ─────────┴── before the mark: rollup_dirty ─┘  these hours of these series anew
```
Ingest must never wait for this, nor may an hour be made before the last transaction that took it for fresh is over. So
the mark is moved first, on its own; the hour is made when every transaction that may have missed the move has ended,
which PostgreSQL can be asked for (``pg_snapshot_xmin``).

Raw rows may be gone when something comes for their hour. Then it is added to the row that is there, and goes too.
"""

# ruff: noqa: S608 - statements are put together from constants of this module

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString

from psycopg import Connection

#: Time is made of blocks this long in one transaction: a district's five minutes are 60 million rows.
_SLICE = timedelta(minutes=5)
_DIRTY_AT_ONCE = 2_000
_DAY: LiteralString = "date_bin('1 day', {}, timestamptz '2000-01-01 00:00+08')"

_COLUMNS: LiteralString = (
    "series_id, ts, n, n_value, n_good, n_suspect, n_bad, n_missing, low, low_at, high, high_at, total,"
    " first, first_at, last, last_at"
)
# The least array is the one with the least first element, of equals the least second: a value and when it was. Without
# `offset 0` the planner would work each of them out once for every place it is used in: twice the time.
_FROM_READINGS: LiteralString = """
    select series_id, bucket, count(*)::int, count(e.x)::int, (count(*) filter (where quality = 0))::int,
           (count(*) filter (where quality = 1))::int, (count(*) filter (where quality = 2))::int,
           (count(*) filter (where quality = 5 or value is null))::int,
           (min(array[e.x, t]) filter (where e.x is not null))[1],
           to_timestamp((min(array[e.x, t]) filter (where e.x is not null))[2]),
           (max(array[e.x, -t]) filter (where e.x is not null))[1],
           to_timestamp(-(max(array[e.x, -t]) filter (where e.x is not null))[2]),
           sum(e.x),
           (min(array[t, e.x]) filter (where e.x is not null))[2],
           to_timestamp((min(array[t, e.x]) filter (where e.x is not null))[1]),
           (max(array[t, e.x]) filter (where e.x is not null))[2],
           to_timestamp((max(array[t, e.x]) filter (where e.x is not null))[1])
      from found cross join lateral (select case when quality not in (2, 5) then value end as x,
                                            date_part('epoch', ts) as t offset 0) e
     group by series_id, bucket
"""
_FROM_ROLLUPS: LiteralString = """
    select series_id, bucket, sum(n)::int, sum(n_value)::int, sum(n_good)::int, sum(n_suspect)::int, sum(n_bad)::int,
           sum(n_missing)::int,
           (min(array[low, date_part('epoch', low_at)]) filter (where low is not null))[1],
           to_timestamp((min(array[low, date_part('epoch', low_at)]) filter (where low is not null))[2]),
           (max(array[high, -date_part('epoch', high_at)]) filter (where high is not null))[1],
           to_timestamp(-(max(array[high, -date_part('epoch', high_at)]) filter (where high is not null))[2]),
           sum(total),
           (min(array[date_part('epoch', first_at), first]) filter (where first is not null))[2],
           min(first_at),
           (max(array[date_part('epoch', last_at), last]) filter (where last is not null))[2],
           max(last_at)
      from found group by series_id, bucket
"""
_REPLACE: LiteralString = """
    on conflict (series_id, ts) do update set
        n = excluded.n, n_value = excluded.n_value, n_good = excluded.n_good, n_suspect = excluded.n_suspect,
        n_bad = excluded.n_bad, n_missing = excluded.n_missing, low = excluded.low, low_at = excluded.low_at,
        high = excluded.high, high_at = excluded.high_at, total = excluded.total, first = excluded.first,
        first_at = excluded.first_at, last = excluded.last, last_at = excluded.last_at
"""
# Adding to a row that stands for readings which are gone.
_ADD: LiteralString = """
    on conflict (series_id, ts) do update set
        n = r.n + excluded.n, n_value = r.n_value + excluded.n_value, n_good = r.n_good + excluded.n_good,
        n_suspect = r.n_suspect + excluded.n_suspect, n_bad = r.n_bad + excluded.n_bad,
        n_missing = r.n_missing + excluded.n_missing,
        low = least(r.low, excluded.low),
        low_at = case when excluded.low < r.low or r.low is null then excluded.low_at else r.low_at end,
        high = greatest(r.high, excluded.high),
        high_at = case when excluded.high > r.high or r.high is null then excluded.high_at else r.high_at end,
        total = coalesce(r.total + excluded.total, r.total, excluded.total),
        first = case when excluded.first_at < r.first_at or r.first_at is null then excluded.first else r.first end,
        first_at = least(r.first_at, excluded.first_at),
        last = case when excluded.last_at >= r.last_at or r.last_at is null then excluded.last else r.last end,
        last_at = greatest(r.last_at, excluded.last_at)
"""


def move_mark(conn: Connection[Any], now_ms: int) -> bool:
    """An hour more is over (five minutes ago): say so to ingest. True if the mark was moved."""
    moved = conn.execute(
        "update rollup_state set mark = h, horizon = null"
        " from date_trunc('hour', to_timestamp(%s / 1000.0) - interval '5 minutes') h"
        " where mark < h and mark = done and horizon is null returning mark",
        (now_ms,),
    ).fetchone()
    conn.execute(
        "update rollup_state set horizon = pg_snapshot_xmax(pg_current_snapshot())"
        " where mark > done and horizon is null"
    )
    return moved is not None


def settled(conn: Connection[Any]) -> bool:
    """Whether there is something to be made, and everybody who is still writing knows the mark."""
    row = conn.execute(
        "select mark > done and horizon is not null and pg_snapshot_xmin(pg_current_snapshot()) >= horizon"
        " from rollup_state"
    ).fetchone()
    return bool(row and row[0])


def make_slice(conn: Connection[Any]) -> bool:
    """The next five minutes, hour or day, in one transaction; False if all is made up to the mark."""
    with conn.transaction():
        row = conn.execute(
            "select mark, done_1m, done, done_day, exists (select from retention_policy where m1_days is distinct"
            " from 0) from rollup_state for update"
        ).fetchone()
        if row is None:
            return False
        mark, done_1m, done, done_day, minutes = row
        ready = settled(conn)
        if ready and done_1m < mark and minutes:
            _make_minutes(conn, done_1m, mark)
        elif ready and done < mark:
            _make_hour(conn, done)
        elif done_day + timedelta(days=1) <= done:
            _make_day(conn, done_day)
        else:
            return False
    return True


def _make_minutes(conn: Connection[Any], start: datetime, mark: datetime) -> None:
    span = {"a": start, "b": min(start + _SLICE, mark)}
    conn.execute("delete from rollup_1m where ts >= %(a)s and ts < %(b)s", span)
    conn.execute(
        "with wanted as materialized (select s.series_id from series s join device d using (device_id)"
        " where (policy_of(d.device_type)).m1_days is distinct from 0),"
        " found as (select r.*, date_bin('1 minute', r.ts, 'epoch') as bucket from readings_true(%(a)s, %(b)s) r"
        f" join wanted using (series_id)) insert into rollup_1m ({_COLUMNS}) {_FROM_READINGS}",
        span,
    )
    conn.execute("update rollup_state set done_1m = %(b)s", span)


def _make_hour(conn: Connection[Any], start: datetime) -> None:
    span = {"a": start, "b": start + timedelta(hours=1)}
    conn.execute("delete from rollup_1h where ts >= %(a)s and ts < %(b)s", span)
    conn.execute(
        "with found as (select r.*, %(a)s::timestamptz as bucket from readings_true(%(a)s, %(b)s) r)"
        f" insert into rollup_1h ({_COLUMNS}) {_FROM_READINGS}",
        span,
    )
    conn.execute(
        "update rollup_state set done = %(b)s, done_1m = greatest(done_1m, %(b)s),"
        " horizon = case when mark > %(b)s then horizon end",
        span,
    )


def _make_day(conn: Connection[Any], start: datetime) -> None:
    span = {"a": start, "b": start + timedelta(days=1)}
    conn.execute("delete from rollup_1d where ts >= %(a)s and ts < %(b)s", span)
    conn.execute(
        "with found as (select r.*, %(a)s::timestamptz as bucket from rollup_1h r where ts >= %(a)s and ts < %(b)s)"
        f" insert into rollup_1d ({_COLUMNS}) {_FROM_ROLLUPS}",
        span,
    )
    conn.execute("update rollup_state set done_day = %(b)s", span)


#: A wrong clock said that it was then, long ago: what is to be kept of it is in the hour in which it truly was, and
#: until that is known in the readings (retention.py leaves them).
_DOUBTED: LiteralString = """
    exists (select from ledger_gap g where g.kind = 'clock_unknown' and g.gateway_id = d.gateway_id
               and g.first_at < t.hour + interval '1 hour' and g.last_at >= t.hour)
    or exists (select from clock_correction c where c.gateway_id = d.gateway_id
                  and c.from_at < t.hour + interval '1 hour' and c.to_at > t.hour)
"""


def make_anew(conn: Connection[Any]) -> int:
    """Hours for which something came late: some of them, in one transaction. Returns how many."""
    with conn.transaction():
        rows = conn.execute(
            "with taken as (delete from rollup_dirty where ctid = any(array(select d.ctid from rollup_dirty d,"
            " rollup_state s where d.hour < s.done limit %s for update of d skip locked)) returning series_id, hour)"
            " select t.series_id, t.hour, t.hour < coalesce(r.raw_until, '-infinity'), p.m1_days is distinct from 0"
            " from (select distinct series_id, hour from taken) t join series using (series_id)"
            " join device d using (device_id) cross join lateral policy_of(d.device_type) p"
            " left join retention_done r using (device_class)"
            f" where t.hour >= coalesce(r.raw_until, '-infinity') or not ({_DOUBTED})",
            (_DIRTY_AT_ONCE,),
        ).fetchall()
        if not rows:
            return 0
        for gone in (False, True):
            mine = [row for row in rows if row[2] is gone]
            minutes = [row for row in mine if row[3]]
            if minutes:
                _hours_anew(conn, "rollup_1m", "date_bin('1 minute', t.ts, 'epoch')", minutes, add=gone)
            if mine:
                _hours_anew(conn, "rollup_1h", "d.hour", mine, add=gone)
            if mine and gone:
                conn.execute(
                    "delete from reading r"
                    " using unnest(%(series)s::int[], %(hours)s::timestamptz[]) as d(series_id, hour)"
                    " where r.series_id = d.series_id and r.ts >= d.hour and r.ts < d.hour + interval '1 hour'",
                    _pairs(mine),
                )
        _days_anew(conn, rows)
    return len(rows)


def _pairs(rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    return {"series": [row[0] for row in rows], "hours": [row[1] for row in rows]}


def _hours_anew(
    conn: Connection[Any],
    table: LiteralString,
    bucket: LiteralString,
    rows: Sequence[tuple[Any, ...]],
    *,
    add: bool,
) -> None:
    pairs = _pairs(rows)
    if not add:
        conn.execute(
            f"delete from {table} r using unnest(%(series)s::int[], %(hours)s::timestamptz[]) as d(series_id, hour)"
            " where r.series_id = d.series_id and r.ts >= d.hour and r.ts < d.hour + interval '1 hour'",
            pairs,
        )
    conn.execute(
        "with found as (select d.series_id, t.ts, t.value, t.quality, "
        f"{bucket} as bucket from unnest(%(series)s::int[], %(hours)s::timestamptz[]) as d(series_id, hour)"
        " cross join lateral reading_true(d.series_id, d.hour, d.hour + interval '1 hour') t)"
        f" insert into {table} as r ({_COLUMNS}) {_FROM_READINGS}" + (_ADD if add else ""),
        pairs,
    )


def _days_anew(conn: Connection[Any], rows: Sequence[tuple[Any, ...]]) -> None:
    """From their hours, as long as these are kept."""
    conn.execute(
        "with days as materialized (select distinct d.series_id, b.day"
        " from unnest(%(series)s::int[], %(hours)s::timestamptz[]) as d(series_id, hour)"
        f" cross join lateral (select {_DAY.format('d.hour')} as day) b"
        " join series using (series_id) join device v using (device_id) cross join lateral policy_of(v.device_type) p"
        " cross join rollup_state s where b.day < s.done_day"
        " and (p.h1_days is null or b.day > now() - make_interval(days => p.h1_days))),"
        " found as (select r.*, days.day as bucket from days join rollup_1h r on r.series_id = days.series_id"
        " and r.ts >= days.day and r.ts < days.day + interval '1 day')"
        f" insert into rollup_1d as r ({_COLUMNS}) {_FROM_ROLLUPS} {_REPLACE}",
        _pairs(rows),
    )
