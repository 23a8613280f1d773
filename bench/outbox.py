"""Durable events per second into the outbox: 150-byte events, grouped commits, WAL with synchronous = FULL.

Each commit is one fsync, done before the call returns; the group is what 20 ms gather at the measured rate. The limit
measured in the same run is bare SQLite: the same bytes, the same pragmas, one blob a group, no encoding.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
from pathlib import Path

from edge.outbox import Outbox, Pending
from protocols.core.ids import uuid7
from protocols.core.model import Event

GROUPS, GROUP = 60, 1000
NOW_MS = 1_770_000_000_000


def _events() -> list[Event]:
    return [
        Event(
            id=uuid7(NOW_MS + i),
            type="gas.leak.high",
            ts_ms=NOW_MS + i,
            seen_ms=NOW_MS + i,
            source="gas-01/ch4_lel",
            scenario="urban_mgmt/underground_pipeline",
            level="red",
            state="raise",
            key=f"gas-01/ch4_lel:lel-{i}",
            values={"x": 52.5, "unit": "%LEL"},
        )
        for i in range(GROUP)
    ]


def _ours(folder: Path) -> tuple[float, float]:
    events = _events()
    outbox = Outbox(folder / "outbox.db", now_ms=NOW_MS, max_bytes=4 << 30)
    begun = time.perf_counter()
    for _ in range(GROUPS):
        outbox.commit([Pending("event", events=events)], now_ms=NOW_MS)
    spent = time.perf_counter() - begun
    size = outbox.depth(NOW_MS).payload_bytes / (GROUPS * GROUP)
    outbox.close()
    return GROUPS * GROUP / spent, size


def _bare(folder: Path, payload: bytes) -> float:
    db = sqlite3.connect(folder / "bare.db", isolation_level=None)
    db.execute("pragma journal_mode = wal")
    db.execute("pragma synchronous = full")
    db.execute("create table batch (lane integer, seq integer, payload blob)")
    begun = time.perf_counter()
    for seq in range(GROUPS):
        db.execute("begin immediate")
        db.execute("insert into batch values (0, ?, ?)", (seq, payload))
        db.execute("commit")
    spent = time.perf_counter() - begun
    db.close()
    return GROUPS * GROUP / spent


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours, size = _ours(folder)
        bare = _bare(folder, bytes(round(size * GROUP)))
    print(
        json.dumps(
            {
                "what": "durable events per second",
                "fsync": "one per commit (WAL, synchronous=FULL), before the call returns",
                "events_per_commit": GROUP,
                "bytes_per_event": round(size, 1),
                "events_per_s": round(ours),
                "bare_sqlite_events_per_s": round(bare),
                "ratio": round(ours / bare, 3),
                "aim_events_per_s": 50_000,
            }
        )
    )


if __name__ == "__main__":
    main()
