"""The simulated stations' own book against the rows: is every upload that got its answer in the database?

An upload is there if a row has its time, or if there was nothing to say of it: the gateway reports by exception, and
each of the upload's values lies within the deadband of the last one that is stored for its point. It is *thinned* if
it is not, and the gateway has declared that it gave up readings of those points then (its disk was full).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from firmware_sim import ledger as ledgers
from protocols.core.errors import ConfigError
from protocols.devices import load

_REALTIME = "2011"  # HJ 212-2017, table 9: real-time data
_MOST_NAMED = 20


def sensor_ledger(conn: psycopg.Connection[Any], ledger: Path) -> dict[str, Any]:
    """Uploads the stations got an answer for; how many of them gave way as declared; how many the database does not
    hold though nobody said so, and which (the first 20)."""
    out: dict[str, Any] = {"uploads_acknowledged": 0, "uploads_thinned": 0, "uploads_lost": 0}
    named: list[str] = []
    if not ledger.exists():
        return out
    for device, did in ledgers.devices_of(ledgers.read(ledger)):
        wanted = {
            _data_time_ms(time): did.uploads.get((cn, time), {}) for cn, time in did.acknowledged if cn == _REALTIME
        }
        if not wanted:
            continue
        found = {
            int(row[0])
            for row in conn.execute(
                "select distinct (extract(epoch from r.ts) * 1000)::bigint from reading r"
                " join series s using (series_id) where s.device_id = %s",
                (device,),
            )
        }
        out["uploads_acknowledged"] += len(wanted)
        for ms in sorted(wanted.keys() - found):
            why = _why(conn, device, ms, wanted[ms])
            if why == "lost":
                named.append(f"{device} {datetime.fromtimestamp(ms / 1000, UTC).isoformat()}")
            elif why == "thinned":
                out["uploads_thinned"] += 1
    out["uploads_lost"] = len(named)
    if named:
        out["lost_uploads"] = named[:_MOST_NAMED]
    return out


def _why(conn: psycopg.Connection[Any], device: str, ms: int, values: Mapping[str, Any]) -> str:
    """Why no row has the upload's time: quiet | thinned | lost."""
    rows = conn.execute(
        "select distinct on (s.point) s.point, r.value, s.decimals, d.device_type,"
        " (extract(epoch from r.ts) * 1000)::bigint, s.series_id from reading r"
        " join series s using (series_id) join device d using (device_id)"
        " where s.device_id = %s and r.ts < to_timestamp(%s / 1000.0) order by s.point, r.ts desc",
        (device, ms),
    ).fetchall()
    last = {row[0]: row for row in rows}
    if not values or not rows:
        return "lost"
    try:
        deadbands = {point.name: point.deadband for point in load(rows[0][3]).points}
    except ConfigError:
        return "lost"
    why = "quiet"
    for name, text in values.items():
        if name not in last:
            return "lost"
        _, value, decimals, _, last_ms, series = last[name]
        steps = 10**decimals
        moved = abs(round(float(text) * steps) - round(value * steps))
        if moved <= round(deadbands.get(name, 0.0) * steps):
            continue
        if not _gave_way(conn, series, last_ms, ms):
            return "lost"
        why = "thinned"
    return why


def _gave_way(conn: psycopg.Connection[Any], series: int, since_ms: int, ms: int) -> bool:
    """Whether readings of the series between the last one stored and this time are declared thinned."""
    found = conn.execute(
        "select 1 from ledger_gap where series_id = %s and kind = 'thinned'"
        " and last_at > to_timestamp(%s / 1000.0) and first_at <= to_timestamp(%s / 1000.0) limit 1",
        (series, since_ms, ms),
    ).fetchone()
    return found is not None


def _data_time_ms(text: str) -> int:
    """HJ 212 DataTime, local time of China without a zone."""
    return round(datetime.strptime(text + "+0800", "%Y%m%d%H%M%S%z").timestamp() * 1000)
