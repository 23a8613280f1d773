"""What the outbox says of itself: how much waits, and everything it has ever taken in this epoch. Reads only."""

from __future__ import annotations

import sqlite3

from edge.outbox.model import OutboxDepth
from edge.outbox.standing import LANE_NUMBER
from protocols.uplink.topics import LANES, Lane


def depth(db: sqlite3.Connection, payload_bytes: int, now_ms: int) -> OutboxDepth:
    waiting = "select lane from batch union all select lane from parked"
    counts = dict(db.execute(f"select lane, count(*) from ({waiting}) group by lane").fetchall())  # noqa: S608
    oldest = db.execute("select min(made_ms) from batch").fetchone()[0]
    thinned = db.execute("select sum(thinned) from lane").fetchone()[0]
    return OutboxDepth(
        {lane: int(counts.get(number, 0)) for lane, number in LANE_NUMBER.items()},
        payload_bytes,
        int(thinned),
        max(0, now_ms - int(oldest)) if oldest is not None else 0,
    )


def totals(db: sqlite3.Connection) -> dict[Lane, dict[str, int]]:
    waiting = {
        number: (oldest_ms, size)
        for number, oldest_ms, size in db.execute(
            "select lane, min(made_ms), sum(length(payload)) from batch group by lane"
        )
    }
    rows = db.execute("select lane, next_seq - 1, acked, readings, events, digest, thinned from lane")
    return {
        LANES[number]: {
            "seq": seq,
            "acked": acked,
            "readings": readings,
            "events": events,
            "digest": int(total),
            "thinned": thinned,
            "oldest_ms": waiting.get(number, (0, 0))[0],
            "waiting_bytes": waiting.get(number, (0, 0))[1],
        }
        for number, seq, acked, readings, events, total, thinned in rows.fetchall()
    }
