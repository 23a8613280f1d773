"""Rollups: what an hour of readings costs, against one bare aggregate of the same rows; and a year of hours read back.

``--readings N`` (default 1 000 000) in one hour of 1 000 series; a year of hourly rollups of one series on top. The
limit is the cheapest statement that looks at each of the rows once: count, lowest, highest and sum by series.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from cloud.query import readings
from cloud.query.pool import Connection
from cloud.store.keeping import tidy
from cloud.store.migrate import migrate
from tests.fixtures.postgres import Postgres

_SERIES = 1_000
_HOUR = datetime(2026, 3, 2, 0, tzinfo=UTC)
_BARE = (
    "select series_id, count(*), min(value), max(value), sum(value) from reading where ts >= %s and ts < %s"
    " group by series_id"
)


def _fill(conn: psycopg.Connection[Any], number: int) -> None:
    conn.execute("insert into gateway (gateway_id, shard) values ('gw', 1)")
    conn.execute("insert into device (device_id, gateway_id) values ('d', 'gw')")
    conn.execute("insert into series (device_id, point) select 'd', n::text from generate_series(1, %s) n", (_SERIES,))
    conn.execute("create table reading_20260302 (like reading including defaults)")
    conn.execute(
        "insert into reading_20260302 (series_id, ts, value) select 1 + n %% %s,"
        " %s::timestamptz + n * interval '1 hour' / %s, n %% 997 / 10.0 from generate_series(0, %s - 1) n",
        (_SERIES, _HOUR, number, number),
    )
    conn.execute(
        "alter table reading attach partition reading_20260302 for values from ('2026-03-02+00') to ('2026-03-03+00')"
    )
    conn.execute("update rollup_state set mark = %s, done_1m = %s, done = %s, done_day = %s", (_HOUR,) * 4)
    conn.execute("vacuum analyze reading")


def _timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _year(conn: psycopg.Connection[Any], dsn: str) -> dict[str, float]:
    """8 760 hours of one series: the chart's own query, warm."""
    start = _HOUR - timedelta(days=365)
    conn.execute(
        "insert into rollup_1h (series_id, ts, n, n_value, n_good, n_suspect, n_bad, n_missing, low, low_at, high,"
        " high_at, total, first, first_at, last, last_at) select 1, h, 60, 60, 60, 0, 0, 0, 1, h, 9, h, 300, 1, h, 9, h"
        " from generate_series(%s::timestamptz, %s::timestamptz - interval '1 hour', interval '1 hour') h",
        (start, _HOUR),
    )

    async def ask() -> tuple[float, int]:
        one: Connection
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as one:
            found = await readings.series(one, 1)
            assert found is not None
            times = []
            for _ in range(7):
                began = time.perf_counter()
                got = await readings.readings(one, found, start, _HOUR, now=_HOUR + timedelta(days=200))
                times.append(time.perf_counter() - began)
            return sorted(times)[len(times) // 2], got.rows

    seconds, rows = asyncio.run(ask())
    return {"ms": round(seconds * 1000, 1), "hours": 8760, "readings_behind": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, default=1_000_000)
    number: int = parser.parse_args().readings
    root = Path(tempfile.mkdtemp(prefix="citybrain-bench-storage-"))
    root.chmod(0o755)
    server = Postgres(root)
    try:
        server.start()
        dsn = server.dsn()
        migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as conn:
            _fill(conn, number)
            span = (_HOUR, _HOUR + timedelta(hours=1))
            conn.execute(_BARE, span)  # both then find the rows in memory
            bare_s = _timed(lambda: conn.execute(_BARE, span).fetchall())
            at_ms = round((_HOUR + timedelta(hours=1, minutes=6)).timestamp() * 1000)
            hour_s = _timed(lambda: tidy(conn, at_ms, steps=1))
            made = conn.execute("select sum(n) from rollup_1h").fetchone()
            year = _year(conn, dsn)
    finally:
        server.kill()
        shutil.rmtree(root, ignore_errors=True)
    print(
        json.dumps(
            {
                "bench": "storage",
                "readings": number,
                "rolled_up": int(made[0]) if made else 0,
                "hour_s_per_million": round(hour_s * 1e6 / number, 3),
                "bare_s_per_million": round(bare_s * 1e6 / number, 3),
                "ratio": round(hour_s / bare_s, 2),
                "year_of_hours": year,
            }
        )
    )


if __name__ == "__main__":
    main()
