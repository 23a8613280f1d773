"""The simulated stations' own book against the rows: is every upload that got its answer in the database?

An upload is there if a row has its time, or if there was nothing to say of it: the gateway reports by exception, and
each of the upload's values lies within the deadband of the last one that is stored for its point.
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
    """Uploads the stations got an answer for, how many of them the database does not hold, and which (the first 20)."""
    acknowledged = lost = 0
    named: list[str] = []
    if not ledger.exists():
        return {"uploads_acknowledged": 0, "uploads_lost": 0}
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
        missing = [ms for ms in sorted(wanted.keys() - found) if not _nothing_to_say(conn, device, ms, wanted[ms])]
        acknowledged += len(wanted)
        lost += len(missing)
        named += [f"{device} {datetime.fromtimestamp(ms / 1000, UTC).isoformat()}" for ms in missing]
    out: dict[str, Any] = {"uploads_acknowledged": acknowledged, "uploads_lost": lost}
    if named:
        out["lost_uploads"] = named[:_MOST_NAMED]
    return out


def _nothing_to_say(conn: psycopg.Connection[Any], device: str, ms: int, values: Mapping[str, Any]) -> bool:
    """Whether every value lies within the deadband of the last one stored before it."""
    rows = conn.execute(
        "select distinct on (s.point) s.point, r.value, s.decimals, d.device_type from reading r"
        " join series s using (series_id) join device d using (device_id)"
        " where s.device_id = %s and r.ts < to_timestamp(%s / 1000.0) order by s.point, r.ts desc",
        (device, ms),
    ).fetchall()
    last = {point: (value, decimals) for point, value, decimals, _ in rows}
    if not values or not rows:
        return False
    try:
        deadbands = {point.name: point.deadband for point in load(rows[0][3]).points}
    except ConfigError:
        return False
    for name, text in values.items():
        value, decimals = last.get(name, (None, 0))
        if value is None:
            return False
        steps = 10**decimals
        if abs(round(float(text) * steps) - round(value * steps)) > round(deadbands.get(name, 0.0) * steps):
            return False
    return True


def _data_time_ms(text: str) -> int:
    """HJ 212 DataTime, local time of China without a zone."""
    return round(datetime.strptime(text + "+0800", "%Y%m%d%H%M%S%z").timestamp() * 1000)
