"""The run in figures, from three independent books: the devices', the gateways' and the database's.

*produced* is what the gateways' outboxes ever accepted (a running total kept in the transaction that stores the batch);
*committed* is counted from the rows of table `reading`, and compared with the gateways' digest of contents, so a
reading that is missing, doubled or changed shows. The simulator's ledger then says whether each upload that a station
got an answer for is in the database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from citybrain_cli.up.district import GATEWAYS
from citybrain_cli.up.layout import Layout
from cloud.ingest.latency import quantile_ms
from firmware_sim import ledger as ledgers
from protocols.core.model import Quality
from protocols.uplink.batch import quantise
from protocols.uplink.digest import add, digest, series_hash

_CHUNK = 200_000
CN_REALTIME = "2011"


def outbox_totals(path: Path) -> dict[str, int]:
    """Accepted so far: readings, events, digest, thinned, and rows still waiting."""
    if not path.exists():
        return {"readings": 0, "events": 0, "digest": 0, "thinned": 0, "waiting": 0}
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10) as db:
        rows = db.execute("select readings, events, digest, thinned from lane").fetchall()
        waiting = db.execute("select count(*) from batch").fetchone()[0]
    total = 0
    for row in rows:
        total = add(total, int(row[2]))
    return {
        "readings": sum(r[0] for r in rows),
        "events": sum(r[1] for r in rows),
        "digest": total,
        "thinned": sum(r[3] for r in rows),
        "waiting": int(waiting),
    }


def committed_of(conn: psycopg.Connection[Any], gateway: str) -> dict[str, int]:
    """From the rows themselves: how many, how many twice, and their digest."""
    row = conn.execute(
        "select count(*), count(*) - count(distinct (r.series_id, r.ts, r.value, r.quality)) from reading r"
        " join series s using (series_id) join device d using (device_id) where d.gateway_id = %s",
        (gateway,),
    ).fetchone()
    count, doubled = (int(row[0]), int(row[1])) if row else (0, 0)
    total = 0
    with conn.transaction(), conn.cursor(name="proof") as cursor:
        cursor.itersize = _CHUNK
        cursor.execute(
            "select r.series_id, (extract(epoch from r.ts) * 1000)::bigint, r.value, r.quality, s.decimals,"
            " s.device_id, s.point from reading r join series s using (series_id) join device d using (device_id)"
            " where d.gateway_id = %s",
            (gateway,),
        )
        while rows := cursor.fetchmany(_CHUNK):
            total = add(total, _digest_rows(rows))
    return {"readings": count, "duplicated": doubled, "digest": total}


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


def sensor_ledger(conn: psycopg.Connection[Any], ledger: Path) -> dict[str, int]:
    """Uploads the stations got an answer for, and how many of them the database holds."""
    acknowledged = lost = 0
    if not ledger.exists():
        return {"uploads_acknowledged": 0, "uploads_lost": 0}
    for device, did in ledgers.devices_of(ledgers.read(ledger)):
        wanted = {_data_time_ms(time) for cn, time in did.acknowledged if cn == CN_REALTIME}
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
        acknowledged += len(wanted)
        lost += len(wanted - found)
    return {"uploads_acknowledged": acknowledged, "uploads_lost": lost}


def _data_time_ms(text: str) -> int:
    """HJ 212 DataTime, local time of China without a zone."""
    return round(datetime.strptime(text + "+0800", "%Y%m%d%H%M%S%z").timestamp() * 1000)


def latency(conn: psycopg.Connection[Any], gateway: str | None) -> dict[str, dict[str, float | None]]:
    out: dict[str, dict[str, float | None]] = {}
    for kind in ("sensor_to_commit", "sensor_to_alarm"):
        rows = conn.execute(
            "select buckets from latency where kind = %s and (%s::text is null or gateway_id = %s)",
            (kind, gateway, gateway),
        ).fetchall()
        buckets = np.array([row[0] for row in rows] or [[0]], dtype=np.int64).sum(axis=0, keepdims=True)[0]
        values = {name: quantile_ms(buckets, q) for name, q in (("p50", 0.5), ("p99", 0.99))}
        out[kind] = {name: None if value is None else round(value, 1) for name, value in values.items()}
    return out


def _count(conn: psycopg.Connection[Any], query: str, *arguments: object) -> int:
    row = conn.execute(query, arguments).fetchone()
    return int(row[0]) if row else 0


def build(
    dsn: str,
    layout: Layout,
    *,
    seconds: Mapping[str, float],
    memory_mb: Mapping[str, float],
    restarts: Mapping[str, int],
) -> dict[str, Any]:
    """The report; its keys are the ones in docs/report.md."""
    gateways: list[dict[str, Any]] = []
    equal = True
    with psycopg.connect(dsn, autocommit=True) as conn:
        for gateway in GATEWAYS:
            accepted = outbox_totals(layout.path("edge", gateway.id, "state", "outbox.db"))
            committed = committed_of(conn, gateway.id)
            kept = accepted["readings"] - accepted["thinned"]
            distinct = committed["readings"] - committed["duplicated"]
            same = kept == committed["readings"] and (
                accepted["thinned"] > 0 or accepted["digest"] == committed["digest"]
            )
            equal = equal and same
            gateways.append(
                {
                    "id": gateway.id,
                    "readings": {
                        "produced": accepted["readings"],
                        "committed": committed["readings"],
                        "lost": max(0, kept - distinct),
                        "duplicated": committed["duplicated"],
                        "thinned": accepted["thinned"],
                    },
                    "content_equal": same,
                    "outbox_waiting": accepted["waiting"],
                    "events": _count(conn, "select count(*) from event where gateway_id = %s", gateway.id),
                    "events_produced": accepted["events"],
                    "alarms": _count(conn, "select count(*) from alarm where gateway_id = %s", gateway.id),
                    "cases": _count(
                        conn,
                        "select count(*) from case_file c join device d using (device_id) where d.gateway_id = %s",
                        gateway.id,
                    ),
                    "latency_ms": latency(conn, gateway.id),
                    "memory_mb": {f"agent {gateway.id}": memory_mb.get(f"agent {gateway.id}")},
                }
            )
        totals = {
            "readings": {
                name: sum(g["readings"][name] for g in gateways)
                for name in ("produced", "committed", "lost", "duplicated")
            },
            "content_equal": equal,
            "events": _count(conn, "select count(*) from event"),
            "alarms": _count(conn, "select count(*) from alarm"),
            "cases": _count(conn, "select count(*) from case_file"),
            "dead_letters": _count(conn, "select count(*) from dead_letter"),
            "sensor_ledger": sensor_ledger(conn, layout.path("sim", "ledger.jsonl")),
        }
        overall = latency(conn, None)
    return {
        "totals": totals,
        "latency_ms": overall,
        "memory_mb": dict(memory_mb),
        "gateways": gateways,
        "restarts": dict(restarts),
        "seconds": dict(seconds),
    }


def sound(report: Mapping[str, Any]) -> bool:
    """Whether nothing was lost and nothing doubled."""
    readings = report["totals"]["readings"]
    ledger = report["totals"]["sensor_ledger"]
    return (
        not (readings["lost"] or readings["duplicated"] or ledger["uploads_lost"]) and report["totals"]["content_equal"]
    )
