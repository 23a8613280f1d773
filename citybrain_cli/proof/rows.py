"""The rows themselves: how many, how often, in which order, and what they come to. Nothing is assumed of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg

from protocols.core.model import Quality
from protocols.uplink.batch import quantise
from protocols.uplink.digest import add, digest, series_hash

_CHUNK = 200_000

_COUNT = """
select count(*), count(*) - count(distinct (r.series_id, r.ts, r.value, r.quality, r.clock_run)), min(r.ts)
  from reading r join series s using (series_id) join device d using (device_id) where d.gateway_id = %s
"""
_READ = """
select r.series_id, (extract(epoch from r.ts) * 1000)::bigint, r.value, r.quality, s.decimals, s.device_id, s.point
  from reading r join series s using (series_id) join device d using (device_id) where d.gateway_id = %s
"""
#: By when the gateway saw them (a station may send yesterday's hour today), each run of its clock for itself: a clock
#: that was set has shown an hour twice. Rows are as old as their transactions (no row is ever updated); where they lie
#: says nothing once two workers have written to one table.
_LATE = """
select count(*) from (
    select seen, max(seen) over (partition by series_id, clock_run order by age desc
                                 groups between unbounded preceding and 1 preceding) as before
      from (select r.series_id, r.clock_run, age(r.xmin) as age, r.ts + r.lag_ms * interval '1 millisecond' as seen
              from reading r join series s using (series_id) join device d using (device_id)
             where d.gateway_id = %s) as stored) as ordered
 where seen < before
"""


@dataclass(frozen=True, slots=True)
class Recount:
    """``repeated``: rows that say the same as another one, word for word. ``late``: rows that were stored after one of
    their series that the gateway saw later, None: the storage does not tell. ``digest`` 0..2^64."""

    rows: int
    repeated: int
    digest: int
    late: int | None
    first_at: Any
    ambiguous: int  # series whose resolution has changed: the digest of their older rows cannot be had from the rows
    removed: bool  # the storage policy has removed readings, of whichever gateway


def committed_of(conn: psycopg.Connection[Any], gateway: str) -> dict[str, int]:
    """From the rows themselves: how many, how many twice, and their digest."""
    found = recount(conn, gateway)
    return {"readings": found.rows, "duplicated": found.repeated, "digest": found.digest}


def recount(conn: psycopg.Connection[Any], gateway: str) -> Recount:
    """Reads every row of the gateway once, in pieces."""
    row = conn.execute(_COUNT, (gateway,)).fetchone()
    count, repeated, first_at = row if row else (0, 0, None)
    ambiguous = conn.execute(
        "select count(*) from (select series_id from series_alias a where gateway_id = %s group by series_id"
        " having count(distinct decimals) > 1) x",
        (gateway,),
    ).fetchone()
    total = 0
    with conn.transaction(), conn.cursor(name="proof") as cursor:
        cursor.itersize = _CHUNK
        cursor.execute(_READ, (gateway,))
        while rows := cursor.fetchmany(_CHUNK):
            total = add(total, _digest_rows(rows))
    removed = conn.execute(
        "select 1 from audit_entry where action = 'retention.remove' and what = 'reading' limit 1"
    ).fetchone()
    return Recount(
        int(count),
        int(repeated),
        total,
        _late(conn, gateway),
        first_at,
        int(ambiguous[0]) if ambiguous else 0,
        removed is not None,
    )


def _late(conn: psycopg.Connection[Any], gateway: str) -> int | None:
    """Where rows are plain rows of ours, their transactions have the order in which they were stored. Not so
    compressed chunks."""
    native = conn.execute("select 1 from pg_partitioned_table where partrelid = 'reading'::regclass").fetchone()
    if native is None:
        return None
    row = conn.execute(_LATE, (gateway,)).fetchone()
    return int(row[0]) if row else 0


def _digest_rows(rows: list[tuple[Any, ...]]) -> int:
    names: dict[int, tuple[int, int]] = {}
    for series_id, _, _, _, decimals, device, point in rows:
        if series_id not in names:
            names[series_id] = (series_hash(device, point), decimals)
    hashes = np.array([names[row[0]][0] for row in rows], dtype=np.uint64)
    decimals = np.array([names[row[0]][1] for row in rows], dtype=np.int64)
    times = np.array([row[1] for row in rows], dtype=np.int64)
    values = np.array([np.nan if row[2] is None else row[2] for row in rows], dtype=np.float64)
    quality = np.array([row[3] for row in rows], dtype=np.uint8)
    integers = np.zeros(len(rows), dtype=np.int64)
    for places in np.unique(decimals).tolist():
        where = decimals == places
        integers[where], _ = quantise(
            np.where(np.isnan(values[where]), 0.0, values[where]), quality[where], int(places)
        )
    integers[quality == Quality.MISSING] = 0
    return digest(hashes, times, integers, quality)
