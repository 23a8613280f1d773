"""Stones: what stands in the place of readings that had to go, and says how many, of what, of which time, and why.

The row keeps its sequence number and everything else it said (declarations, events, outcomes, reports, corrections).
Only rows that have never been sent are emptied on purpose; one that the disk has garbled is the exception, for it can
not be sent as it was anyway.
"""

from __future__ import annotations

import sqlite3
import zlib
from dataclasses import replace

import numpy as np

from edge.outbox.model import Lost
from edge.outbox.names import Names
from protocols.core.errors import ContractError
from protocols.uplink import batch as wire
from protocols.uplink.columns import Readings, empty
from protocols.uplink.topics import LANES, Lane

_LANE = {lane: number for number, lane in enumerate(LANES)}
#: Lanes in the order in which they give way; pictures only when they are most of what is there, or all that is left.
_GIVE_WAY: tuple[Lane, ...] = ("backfill", "data", "evidence")
_PICTURES_FIRST: tuple[Lane, ...] = ("evidence", "backfill", "data")
_CLOCK_SET_MS = 1_577_836_800_000  # 2020-01-01: a row made before it says nothing about its age


def crc_of(payload: bytes) -> int:
    return zlib.crc32(payload)


def stone_of(readings: Readings, reason: str, digest: int) -> wire.Thinned:
    """Raises ValueError for no readings: nothing went, so nothing is to be declared."""
    series = []
    for alias in np.unique(readings.alias).tolist():
        times = readings.ts_ms[readings.alias == alias]
        series.append(wire.ThinnedSeries(alias, len(times), int(times.min()), int(times.max())))
    times = readings.ts_ms
    return wire.Thinned(len(readings), reason, int(times.min()), int(times.max()), digest, tuple(series))


class Stonemason:
    """Works within the caller's transaction. ``garbled`` counts rows that the disk had broken."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self.readings = 0  # that gave way since the outbox was opened, whether or not the transaction held
        self.reason = ""  # of the last of them
        self.garbled = 0
        self.garbled_events = 0

    def thin(self, db: sqlite3.Connection, epoch: int, sent: dict[int, int], goal: int, size: int, reason: str) -> Lost:
        """Empty the oldest unsent rows until ``size`` payload bytes have become ``goal``."""
        total = Lost()
        pictures = db.execute(
            "select coalesce(sum(length(payload)), 0) from batch where lane = ?", (_LANE["evidence"],)
        ).fetchone()[0]
        order = _PICTURES_FIRST if pictures > size // 2 else _GIVE_WAY
        for lane in order:
            number = _LANE[lane]
            for seq in self._unsent(db, number, sent[number]):
                if size + total.size <= goal:
                    return total
                total += self.empty(db, epoch, number, seq, reason)
        return total

    def expire(self, db: sqlite3.Connection, epoch: int, sent: dict[int, int], older_than: dict[int, int]) -> Lost:
        """Empty unsent rows made before ``older_than[lane]`` (UTC ms), but for those made before any clock was set."""
        total = Lost()
        for number, limit_ms in older_than.items():
            for seq in self._unsent(db, number, sent[number], limit_ms):
                total += self.empty(db, epoch, number, seq, "expired")
        return total

    @staticmethod
    def _unsent(db: sqlite3.Connection, number: int, sent: int, made_before_ms: int | None = None) -> list[int]:
        """Rows that still hold readings or a picture: others are stones already, or say what is never thrown away."""
        if number == _LANE["evidence"]:
            heavy = "select seq from batch where lane = ? and seq > ? and length(payload) > 256"
        else:
            heavy = "select seq from batch where lane = ? and seq > ? and readings > 0"
        if made_before_ms is None:
            found = db.execute(heavy + " order by seq", (number, sent))
        else:
            limits = (number, sent, _CLOCK_SET_MS, made_before_ms)
            found = db.execute(heavy + " and made_ms >= ? and made_ms < ? order by seq", limits)
        return [row[0] for row in found]

    def empty(self, db: sqlite3.Connection, epoch: int, number: int, seq: int, reason: str) -> Lost:
        payload, made_ms, digest = db.execute(
            "select payload, made_ms, digest from batch where lane = ? and seq = ?", (number, seq)
        ).fetchone()
        try:
            kept = wire.decode(wire.open_envelope(payload), self._names.codes)
        except ContractError:
            return self.replace_garbled(db, epoch, number, seq)
        if len(kept.readings):
            stone = stone_of(kept.readings, reason, digest % (1 << 64))
        else:  # a piece of a picture: no reading went, but something did
            stone = wire.Thinned(0, reason, made_ms, made_ms)
        self.reason = reason
        batch = replace(kept, readings=empty(), evidence=(), thinned=(*kept.thinned, stone))
        return self._store(db, number, seq, batch, len(payload), stone.readings)

    def replace_garbled(self, db: sqlite3.Connection, epoch: int, number: int, seq: int) -> Lost:
        """Its payload cannot be believed. Columns beside it say what it held; what it declared is said again."""
        size, readings, events, first_ms, last_ms, digest, made_ms = db.execute(
            "select length(payload), readings, events, first_ms, last_ms, digest, made_ms from batch"
            " where lane = ? and seq = ?",
            (number, seq),
        ).fetchone()
        stone = wire.Thinned(
            readings, "row_damaged", first_ms if readings else made_ms, last_ms if readings else made_ms,
            digest % (1 << 64),
        )  # fmt: skip
        batch = wire.Batch(epoch, seq, declarations=self._names.said_in(1 << number), thinned=(stone,))
        self.reason = "row_damaged"
        self.garbled += 1
        self.garbled_events += events
        return self._store(db, number, seq, batch, size, readings)

    def _store(
        self, db: sqlite3.Connection, number: int, seq: int, batch: wire.Batch, size: int, readings: int
    ) -> Lost:
        payload = wire.encode(batch, self._names.codes)
        db.execute(
            "update batch set payload = ?, crc = ?, readings = 0, digest = 0 where lane = ? and seq = ?",
            (payload, crc_of(payload), number, seq),
        )
        if readings:
            self.readings += readings
            db.execute("update lane set thinned = thinned + ? where lane = ?", (readings, number))
        return Lost(1, readings, len(payload) - size)
