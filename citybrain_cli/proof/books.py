"""The gateway's book, read from its outbox file without disturbing it (or by its last account, in production)."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from protocols.core.errors import StoreError
from protocols.uplink.digest import add
from protocols.uplink.topics import LANES


@dataclass(frozen=True, slots=True)
class Book:
    """One lane in one epoch as the gateway has it. ``digest`` 0..2^64: of all readings, thinned ones included."""

    seq: int
    acked: int
    readings: int
    events: int
    digest: int
    thinned: int


@dataclass(frozen=True, slots=True)
class OutboxBook:
    """``waiting``: rows in the file; ``parked``: of those, rows of an earlier epoch whose fate is being asked for."""

    epoch: int
    lanes: dict[str, Book]
    waiting: int
    parked: int


def read_outbox(path: Path) -> OutboxBook | None:
    """None if there is no such file. Raises StoreError if it cannot be read."""
    if not path.exists():
        return None
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10) as db:
            tables = {row[0] for row in db.execute("select name from sqlite_master where type = 'table'")}
            if not {"meta", "lane", "batch"} <= tables:
                return None
            db.execute("begin")  # one moment for all of it
            epoch = db.execute("select value from meta where name = 'epoch'").fetchone()
            lanes = {
                LANES[number]: Book(next_seq - 1, acked, readings, events, int(digest), thinned)
                for number, next_seq, acked, readings, events, digest, thinned in db.execute(
                    "select lane, next_seq, acked, readings, events, digest, thinned from lane"
                )
            }
            waiting = db.execute("select count(*) from batch").fetchone()[0]
            parked = db.execute("select count(*) from parked").fetchone()[0] if "parked" in tables else 0
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error
    finally:
        if "db" in locals():
            db.close()
    return OutboxBook(int(epoch[0]) if epoch else 0, lanes, int(waiting) + int(parked), int(parked))


def outbox_totals(path: Path) -> dict[str, int]:
    """Accepted so far: readings, events, digest, thinned, and rows still waiting."""
    book = read_outbox(path)
    if book is None:
        return {"readings": 0, "events": 0, "digest": 0, "thinned": 0, "waiting": 0}
    total = 0
    for lane in book.lanes.values():
        total = add(total, lane.digest)
    return {
        "readings": sum(lane.readings for lane in book.lanes.values()),
        "events": sum(lane.events for lane in book.lanes.values()),
        "digest": total,
        "thinned": sum(lane.thinned for lane in book.lanes.values()),
        "waiting": book.waiting,
    }
