"""Where the outbox stands, as its owner needs it at hand: epoch, last row written, acknowledged and sent in each lane.

It changes within a transaction and goes back with one that fails. The disk has the truth; it is read once, at opening.

A copy that was put back together with its witness looks like the original. So until the core has answered for a lane,
nothing is sent in it but what was there when the outbox was opened, and a restart before that answer knows it
(``unheard``): an acknowledgement of more is the core's word for what another life of this outbox has sent.
"""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

from edge.outbox.file import SCHEMA_VERSION, File
from protocols.core.errors import ConfigError, StoreError
from protocols.uplink.topics import LANES, Lane

#: So many rows beyond the last acknowledged may be on their way: after a restart nobody knows which of them are.
MOST_ON_THEIR_WAY = 64
#: 2020-01-01, seconds: a clock before it has not been set since the gateway was switched on.
_CLOCK_SET_S = 1_577_836_800
_UNHEARD = "outbox.unheard"  # name of a state
_NO_BOUND = 1 << 62
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
        self._write_unheard()
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
        self._written = self._read_unheard(db)
        self.sent = {lane: min(self._perhaps_sent(lane), self.last[lane]) for lane in LANES}
        self.unheard: dict[Lane, int] = {} if self.born else dict(self.sent)
        row = db.execute("select coalesce(sum(length(payload)), 0) from batch").fetchone()
        self.payload_bytes = int(row[0])
        self._kept = self._memory()

    def _perhaps_sent(self, lane: Lane) -> int:
        """By an earlier run of the agent, or by another life of this file."""
        if lane not in self._written:
            return self.acked[lane] + MOST_ON_THEIR_WAY
        return self._written[lane] or 1  # of a lane that was empty the first row goes unasked

    def may_send(self, lane: Lane) -> int:
        """The last row that may go now; if it is the last acknowledged one, the core has to be asked first."""
        known = self.unheard.get(lane, _NO_BOUND)
        return known or 1

    def heard(self, db: sqlite3.Connection, lane: Lane) -> None:
        """The core has answered for the lane, or it is no secret any more what may have been sent."""
        if self.unheard.pop(lane, None) is not None:
            self._store_unheard(db)

    def _read_unheard(self, db: sqlite3.Connection) -> dict[Lane, int]:
        row = db.execute("select value from state where name = ?", (_UNHEARD,)).fetchone()
        try:
            said = json.loads(bytes(row[0])) if row else {}
            return {lane: int(said[lane]) for lane in LANES if lane in said}
        except (ValueError, TypeError):
            return {}  # a disk that garbles: it is then as if the core had been heard

    def _write_unheard(self) -> None:
        if self.unheard == self._written:
            return
        try:
            with self._file.transaction("where its lanes begin") as db:
                self._store_unheard(db)
        except StoreError as error:  # a full disk: what an earlier start wrote down goes on holding
            if not error.retry:
                raise

    def _store_unheard(self, db: sqlite3.Connection) -> None:
        db.execute("insert or replace into state values (?, ?)", (_UNHEARD, json.dumps(self.unheard).encode()))

    def begin_again(self, db: sqlite3.Connection, epoch: int, newest: int, reason: str) -> None:
        """All that waited is parked: nothing is in the lanes, and no other life of this file has the epoch."""
        self.unheard = {}
        self._store_unheard(db)
        self.payload_bytes = 0
        self.last, self.acked = dict.fromkeys(LANES, 0), dict.fromkeys(LANES, 0)
        self.previous_epoch, self.epoch, self.epoch_reason = newest, epoch, reason

    def _memory(self) -> tuple[int, dict[Lane, int], dict[Lane, int], dict[Lane, int], int, int, str]:
        lanes = dict(self.last), dict(self.acked), dict(self.unheard)
        return self.payload_bytes, *lanes, self.epoch, self.previous_epoch, self.epoch_reason

    def _undo(self) -> None:
        self.payload_bytes, last, acked, unheard, self.epoch, self.previous_epoch, self.epoch_reason = self._kept
        self.last, self.acked, self.unheard = dict(last), dict(acked), dict(unheard)

    def _keep(self) -> None:
        """A transaction is durable."""
        self._kept = self._memory()
