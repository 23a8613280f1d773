"""The run in figures, from three independent books: the devices', the gateways' and the database's.

*produced* is what the gateways' outboxes ever accepted (a running total kept in the transaction that stores the batch);
*committed* is counted from the rows of table `reading`, and compared with the gateways' digest of contents, so a
reading that is missing, doubled or changed shows: by the code of `citybrain proof`. The simulator's ledger then says
whether each upload that a station got an answer for is in the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import psycopg

from citybrain_cli.proof.books import outbox_totals
from citybrain_cli.proof.prove import prove
from citybrain_cli.proof.rows import committed_of
from citybrain_cli.proof.sensors import sensor_ledger
from citybrain_cli.up.district import GATEWAYS
from citybrain_cli.up.layout import Layout
from cloud.ingest.latency import quantile_ms

__all__ = ["build", "committed_of", "outbox_totals", "sound"]


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
            outbox = layout.path("edge", gateway.id, "state", "outbox.db")
            proof = prove(conn, dsn, gateway.id, outbox)
            same = proof.content_equal is True and all(lane.content == "equal" for lane in proof.lanes)
            equal = equal and same
            gateways.append(
                {
                    "id": gateway.id,
                    "readings": {
                        "produced": proof.produced,
                        "committed": proof.rows or 0,
                        "lost": max(proof.lost, proof.produced - proof.thinned - (proof.rows or 0) + proof.duplicated),
                        "duplicated": proof.duplicated,
                        "thinned": proof.thinned,
                    },
                    "content_equal": same,
                    "problems": proof.problems,
                    "outbox_waiting": proof.waiting_rows,
                    "events": _count(conn, "select count(*) from event where gateway_id = %s", gateway.id),
                    "events_produced": outbox_totals(outbox)["events"],
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
