"""Rows of an earlier epoch that must neither be lost nor be stored twice.

When a new epoch begins (the file was damaged, an old copy came back, the core lost what it had), nobody here knows
which of the waiting rows the core has committed. So they are parked under their old numbers. The uplink asks the core
with a batch of that epoch that must be a repeat; the answer says up to where the core has the lane; rows beyond it are
written anew in the new epoch, the others are dropped.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from edge.outbox.model import Pending
from protocols.core.errors import ContractError
from protocols.uplink import batch as wire
from protocols.uplink.columns import SeriesCode
from protocols.uplink.topics import LANES, Lane

#: Parked under this epoch: rows that the core cannot have.
NOBODY_KNOWS = 0
_LANE = {lane: number for number, lane in enumerate(LANES)}


def park_all(db: sqlite3.Connection, epoch: int) -> int:
    """Every row that waits; returns how many."""
    db.execute("insert or ignore into parked select ?, lane, seq, payload from batch", (epoch,))
    return db.execute("delete from batch").rowcount


def park(db: sqlite3.Connection, rows: Iterable[tuple[int, int, int, bytes]]) -> None:
    """Rows (epoch, lane number, seq, payload) saved from elsewhere."""
    db.executemany("insert or ignore into parked values (?, ?, ?, ?)", rows)


def lanes_of(db: sqlite3.Connection) -> list[tuple[int, Lane]]:
    """(epoch, lane) of which rows are parked."""
    found = db.execute("select distinct epoch, lane from parked order by lane, epoch")
    return [(epoch, LANES[number]) for epoch, number in found]


def question(db: sqlite3.Connection, epoch: int, lane: Lane) -> bytes:
    """A batch that a core can only answer: sequence 1 of the lane, with its own content as long as we have it.

    If the core has the lane, it is a repeat; if it has nothing of it, it is the first row, stored as such."""
    row = db.execute(
        "select payload from parked where epoch = ? and lane = ? and seq = 1", (epoch, _LANE[lane])
    ).fetchone()
    return bytes(row[0]) if row else wire.encode(wire.Batch(epoch, 1), {})


def drop(db: sqlite3.Connection, epoch: int, lane: Lane, committed: int) -> int:
    """The core has these; returns how many they were."""
    return db.execute(
        "delete from parked where epoch = ? and lane = ? and seq <= ?", (epoch, _LANE[lane], committed)
    ).rowcount


def next_of(
    db: sqlite3.Connection, epoch: int, lane: Lane, codes: Mapping[int, SeriesCode], most: int, now_ms: int
) -> list[tuple[int, Pending]]:
    """The next rows (seq, what it held), oldest first; a stone where it cannot be read. Readings go to the backlog's
    lane: they are late."""
    found = db.execute(
        "select seq, payload from parked where epoch = ? and lane = ? order by seq limit ?", (epoch, _LANE[lane], most)
    ).fetchall()
    return [(seq, _unpacked(payload, "backfill" if lane == "data" else lane, codes, now_ms)) for seq, payload in found]


def _unpacked(payload: bytes, lane: Lane, codes: Mapping[int, SeriesCode], now_ms: int) -> Pending:
    try:
        batch = wire.decode(wire.open_envelope(payload), codes)
    except ContractError:
        return Pending(lane, thinned=[wire.Thinned(0, "row_damaged", now_ms, now_ms)])
    return Pending(
        lane,
        batch.readings,
        batch.events,
        batch.devices,
        batch.evidence,
        batch.outcomes,
        batch.reported,
        batch.corrections,
        batch.clock,
        batch.historical,
        batch.clock_run,
        batch.thinned,
    )
