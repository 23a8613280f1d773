"""A new epoch for an outbox whose core has lost what it had acknowledged (its database came back from a backup).

What was acknowledged is gone here too, so the lanes' sequences can never meet again. The rows that wait are numbered
anew from 1 and say their epoch, behind a row that declares every series.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace

from protocols.uplink import batch as wire
from protocols.uplink.columns import SeriesCode

_DECLARED_A_ROW = 5_000


def renumber(
    db: sqlite3.Connection,
    lane: int,
    epoch: int,
    declarations: Sequence[wire.Declaration],
    codes: Mapping[int, SeriesCode],
    now_ms: int,
) -> int:
    """Rewrite one lane in the caller's transaction; returns its last sequence number."""
    rows = db.execute("select seq from batch where lane = ? order by seq", (lane,)).fetchall()
    db.execute("update batch set seq = -seq where lane = ?", (lane,))  # out of the way of the new numbers
    seq = 0
    for at in range(0, len(declarations), _DECLARED_A_ROW):
        seq += 1
        batch = wire.Batch(epoch, seq, declarations=tuple(declarations[at : at + _DECLARED_A_ROW]))
        db.execute("insert into batch values (?, ?, ?, 0, 0, ?)", (lane, seq, now_ms, wire.encode(batch, codes)))
    for (old,) in rows:
        seq += 1
        payload = db.execute("select payload from batch where lane = ? and seq = ?", (lane, -old)).fetchone()[0]
        batch = replace(wire.decode(wire.open_envelope(payload), codes), epoch=epoch, seq=seq, declarations=())
        db.execute(
            "update batch set seq = ?, payload = ? where lane = ? and seq = ?",
            (seq, wire.encode(batch, codes), lane, -old),
        )
    db.execute("update lane set next_seq = ?, acked = 0 where lane = ?", (seq + 1, lane))
    return seq
