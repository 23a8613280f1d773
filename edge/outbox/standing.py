"""Where the outbox stands, as its owner needs it at hand: epoch, last row written, acknowledged and sent in each lane.

It changes within a transaction and goes back with one that fails. The disk has the truth; it is read once, at opening.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from edge.outbox.file import SCHEMA_VERSION, File
from protocols.core.errors import ConfigError
from protocols.uplink.topics import LANES, Lane

#: So many rows beyond the last acknowledged may be on their way: after a restart nobody knows which of them are.
MOST_ON_THEIR_WAY = 64
#: 2020-01-01, seconds: a clock before it has not been set since the gateway was switched on.
_CLOCK_SET_S = 1_577_836_800
LANE_NUMBER: dict[Lane, int] = {lane: number for number, lane in enumerate(LANES)}


def new_epoch(now_ms: int, after: int) -> int:
    """One that this gateway has never had; and a clock that starts at 1970 says the same each time."""
    if now_ms // 1000 < _CLOCK_SET_S:
        return 1 + int.from_bytes(os.urandom(4)) % (1 << 30)
    return max(now_ms // 1000, after + 1 if after >= _CLOCK_SET_S else 0)


class Standing:
    """``reason`` and ``previous`` are said of the epoch if one begins here (``born``)."""

    def __init__(self, file: File, path: Path, now_ms: int, reason: str, previous: int) -> None:
        self._file = file
        self._begin(path, now_ms, reason, previous)
        self._load(file.db)
        file.on_commit.append(self._keep)
        file.on_rollback.append(self._undo)

    def _begin(self, path: Path, now_ms: int, reason: str, previous: int) -> None:
        meta = (
            dict(self._file.db.execute("select name, value from meta").fetchall())
            if self._file.schema_version()
            else {}
        )
        if meta and meta.get("schema") != SCHEMA_VERSION:
            raise ConfigError(f"outbox {path}: schema {meta.get('schema')}, this agent knows {SCHEMA_VERSION}")
        self.born = not meta
        if not meta:
            meta = {
                "schema": SCHEMA_VERSION, "epoch": new_epoch(now_ms, previous), "previous_epoch": previous,
                "epoch_reason": reason,
            }  # fmt: skip
            with self._file.transaction("its birth") as db:
                db.executemany("insert into meta values (?, ?)", list(meta.items()))
                db.executemany("insert into lane (lane, next_seq) values (?, 1)", [(n,) for n in LANE_NUMBER.values()])
        self.epoch = int(meta["epoch"])
        self.previous_epoch = int(meta["previous_epoch"])
        self.epoch_reason = str(meta["epoch_reason"])

    def _load(self, db: sqlite3.Connection) -> None:
        self.last: dict[Lane, int] = {}  # row written
        self.acked: dict[Lane, int] = {}
        for number, next_seq, acked in db.execute("select lane, next_seq, acked from lane"):
            self.last[LANES[number]], self.acked[LANES[number]] = next_seq - 1, acked
        self.sent = {lane: min(self.acked[lane] + MOST_ON_THEIR_WAY, self.last[lane]) for lane in LANES}
        row = db.execute("select coalesce(sum(length(payload)), 0) from batch").fetchone()
        self.payload_bytes = int(row[0])
        self._kept = self._memory()

    def begin_again(self, epoch: int, newest: int, reason: str) -> None:
        """All that waited is parked: nothing is in the lanes."""
        self.payload_bytes = 0
        self.last, self.acked = dict.fromkeys(LANES, 0), dict.fromkeys(LANES, 0)
        self.previous_epoch, self.epoch, self.epoch_reason = newest, epoch, reason

    def _memory(self) -> tuple[int, dict[Lane, int], dict[Lane, int], int, int, str]:
        lanes = dict(self.last), dict(self.acked)
        return self.payload_bytes, *lanes, self.epoch, self.previous_epoch, self.epoch_reason

    def _undo(self) -> None:
        self.payload_bytes, last, acked, self.epoch, self.previous_epoch, self.epoch_reason = self._kept
        self.last, self.acked = dict(last), dict(acked)

    def _keep(self) -> None:
        """A transaction is durable."""
        self._kept = self._memory()
