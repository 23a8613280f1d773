"""The one module that knows whether TimescaleDB is there.

With it `reading` becomes a hypertable with a columnstore; without it `cloud/store/partitions.py` keeps day partitions.
Everything else in the core is written for both.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import psycopg


def available(conn: psycopg.Connection[Any]) -> bool:
    return conn.execute("select 1 from pg_available_extensions where name = 'timescaledb'").fetchone() is not None


def active(conn: psycopg.Connection[Any]) -> bool:
    return conn.execute("select 1 from pg_extension where extname = 'timescaledb'").fetchone() is not None


def install(conn: psycopg.Connection[Any]) -> bool:
    """Turn the empty `reading` table into a hypertable. False if the extension is not there."""
    if not available(conn):
        return False
    conn.execute("create extension if not exists timescaledb")
    conn.execute("drop table reading")
    conn.execute(
        "create table reading (series_id integer not null, ts timestamptz not null, value double precision,"
        " lag_ms integer not null default 0, quality smallint not null default 0)"
        " with (tsdb.hypertable, tsdb.partition_column = 'ts', tsdb.segmentby = 'series_id', tsdb.orderby = 'ts desc',"
        " tsdb.chunk_interval = '1 day')"
    )
    conn.execute("create index if not exists reading_series_ts on reading (series_id, ts desc)")
    return True


def days(conn: psycopg.Connection[Any]) -> list[date]:
    """Days for which `reading` has a chunk."""
    rows = conn.execute(
        "select distinct (range_start at time zone 'UTC')::date from timescaledb_information.chunks"
        " where hypertable_name = 'reading' order by 1"
    )
    return [row[0] for row in rows]
