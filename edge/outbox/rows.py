"""A part of a commit becomes rows: cut to what the wire takes, encoded once and for all, entered in the books."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from edge.outbox.cut import half_of, size_of, split
from edge.outbox.model import Pending
from edge.outbox.names import Names
from edge.outbox.standing import LANE_NUMBER, Standing
from edge.outbox.stones import crc_of
from protocols.core.errors import LocalProtocolError
from protocols.uplink import batch as wire
from protocols.uplink.digest import add, to_signed


def _like(part: Pending) -> Pending:
    """Nothing yet, but under the same clock."""
    return Pending(part.lane, clock=part.clock, historical=part.historical, clock_run=part.clock_run)


class Scribe:
    """Works within the caller's transaction; what it enters in ``standing`` goes back with it."""

    def __init__(self, names: Names, standing: Standing) -> None:
        self._names = names
        self._standing = standing

    def insert(self, db: sqlite3.Connection, part: Pending, now_ms: int) -> None:
        for number, readings in enumerate(split(part.readings)):
            rest = part if number == 0 else _like(part)
            self._insert_row(db, replace(rest, readings=readings), now_ms)

    def _insert_row(self, db: sqlite3.Connection, part: Pending, now_ms: int) -> None:
        lane, readings, stones = part.lane, part.readings, part.thinned
        number = LANE_NUMBER[lane]
        fresh = self._names.undeclared(readings, 1 << number)
        seq = self._standing.last[lane] + 1
        try:
            payload = wire.encode(
                wire.Batch(
                    epoch=self._standing.epoch,
                    seq=seq,
                    readings=readings,
                    declarations=tuple(self._names.info(alias) for alias in fresh),
                    events=tuple(part.events),
                    devices=tuple(part.devices),
                    thinned=tuple(stones),
                    evidence=tuple(part.evidence),
                    clock=part.clock,
                    corrections=tuple(part.corrections),
                    historical=part.historical,
                    clock_run=part.clock_run,
                    outcomes=tuple(part.outcomes),
                    reported=tuple(part.reported),
                ),
                self._names.codes,
            )
        except LocalProtocolError as error:
            if error.reason != "too_big" or size_of(part) < 2:
                raise
            for which in (0, 1):
                self._insert_row(db, half_of(part, which), now_ms)
            return
        digest, count, events = self._names.digest_of(readings), len(readings), len(part.events)
        first_ms, last_ms = (int(readings.ts_ms.min()), int(readings.ts_ms.max())) if count else (0, 0)
        db.execute(
            "insert into batch values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (number, seq, now_ms, count, events, first_ms, last_ms, to_signed(digest), crc_of(payload), payload),
        )
        gone = sum(stone.readings for stone in stones)
        for stone in stones:
            digest = add(digest, stone.digest)
        (total,) = db.execute("select digest from lane where lane = ?", (number,)).fetchone()
        db.execute(
            "update lane set next_seq = next_seq + 1, readings = readings + ?, events = events + ?, digest = ?,"
            " thinned = thinned + ? where lane = ?",
            (count + gone, events, str(add(int(total), digest)), gone, number),
        )
        if fresh:
            self._names.declare(db, fresh, 1 << number)
        self._standing.last[lane] = seq
        self._standing.payload_bytes += len(payload)
