"""A bounded, durable outbox: what the gateway has learnt and the core has not committed yet.

A call to :meth:`Outbox.commit` is one transaction and one fsync for everything that waited (grouped commit). When it
has returned, a kill or a power cut loses nothing of it. A row is deleted only by :meth:`Outbox.acknowledge`, which the
uplink calls after the cloud has committed.

When the outbox or the disk is full, or a row has outlived its time, the oldest rows not yet sent become stones: the row
keeps its sequence number and says how many readings went, of which series and time, with their digest. ``event`` rows
are never touched.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edge.outbox import ended, parking
from edge.outbox.cut import half_of, size_of, split
from edge.outbox.exchanges import Exchanges
from edge.outbox.file import SCHEMA_VERSION, File
from edge.outbox.model import Lost, NeverWritten, Opening, OutboxDamaged, OutboxDepth, Pending, Row
from edge.outbox.names import Names
from edge.outbox.reserve import Reserve
from edge.outbox.stones import Stonemason, crc_of
from edge.outbox.witness import Witness
from protocols.core.errors import ConfigError, ContractError, LocalProtocolError, StoreError
from protocols.core.model import SeriesInfo
from protocols.uplink import batch as wire
from protocols.uplink.columns import Readings
from protocols.uplink.digest import add, to_signed
from protocols.uplink.topics import LANES, Lane

#: So many rows beyond the last acknowledged may be on their way: after a restart nobody knows which of them are.
MOST_ON_THEIR_WAY = 64
#: 2020-01-01, seconds: a clock before it has not been set since the gateway was switched on.
_CLOCK_SET_S = 1_577_836_800
_LANE_NUMBER: dict[Lane, int] = {lane: number for number, lane in enumerate(LANES)}
_CARRIED_AT_ONCE = 200  # rows of an earlier epoch written anew in one transaction
_ROOM_BYTES = 32 << 10  # what is at least freed when the disk is full


def _new_epoch(now_ms: int, after: int) -> int:
    """One that this gateway has never had; and a clock that starts at 1970 says the same each time."""
    if now_ms // 1000 < _CLOCK_SET_S:
        return 1 + int.from_bytes(os.urandom(4)) % (1 << 30)
    return max(now_ms // 1000, after + 1 if after >= _CLOCK_SET_S else 0)


def _like(part: Pending) -> Pending:
    """Nothing yet, but under the same clock."""
    return Pending(part.lane, clock=part.clock, historical=part.historical, clock_run=part.clock_run)


class Outbox:
    """Not for concurrent writers; a lock lets the uplink acknowledge while the agent commits.

    ``guarded``: keep a witness and a reserve beside the file (:func:`~edge.outbox.opening.open_outbox` does).
    ``reason`` and ``previous`` are said of the epoch if one begins here."""

    def __init__(
        self,
        path: Path,
        *,
        now_ms: int,
        max_bytes: int = 256 << 20,
        guarded: bool = False,
        reason: str = "new",
        previous: int = 0,
    ) -> None:
        self._max_bytes = max_bytes
        self._limit_bytes = max_bytes  # less while the disk is full: the file must not grow then
        self._file = File(path)
        self._db = self._file.db
        try:
            self._begin(path, now_ms, reason, previous)
            self._names = Names(self._file)
            self._mason = Stonemason(self._names)
            self._exchanges = Exchanges(self._db, now_ms)
            self._load()
        except sqlite3.Error as error:
            self._db.close()
            raise self._file.refusal(f"outbox {path}", error) from error
        except BaseException:
            self._db.close()
            raise
        self._file.on_commit.append(self._keep)
        self._file.on_rollback.append(self._undo)
        self.witness = Witness(path) if guarded else None
        self._reserve = Reserve(path) if guarded else None
        self.opening = Opening(reason if self._born else "")
        self.full_reason = "outbox_full"  # what stones say; the uplink knows when it is the budget that holds rows back
        self.refused = 0  # commits that the disk did not take
        self.carried = 0  # rows of earlier epochs that the core did not have
        self._testify()

    def _begin(self, path: Path, now_ms: int, reason: str, previous: int) -> None:
        meta = dict(self._db.execute("select name, value from meta").fetchall()) if self._file.schema_version() else {}
        if meta and meta.get("schema") != SCHEMA_VERSION:
            raise ConfigError(f"outbox {path}: schema {meta.get('schema')}, this agent knows {SCHEMA_VERSION}")
        self._born = not meta
        if not meta:
            meta = {
                "schema": SCHEMA_VERSION, "epoch": _new_epoch(now_ms, previous), "previous_epoch": previous,
                "epoch_reason": reason,
            }  # fmt: skip
            with self._file.transaction("its birth") as db:
                db.executemany("insert into meta values (?, ?)", list(meta.items()))
                db.executemany("insert into lane (lane, next_seq) values (?, 1)", [(n,) for n in _LANE_NUMBER.values()])
        self.epoch = int(meta["epoch"])
        self.previous_epoch = int(meta["previous_epoch"])
        self.epoch_reason = str(meta["epoch_reason"])

    def _load(self) -> None:
        self._last: dict[Lane, int] = {}  # last row written
        self._acked: dict[Lane, int] = {}
        for number, next_seq, acked in self._db.execute("select lane, next_seq, acked from lane"):
            self._last[LANES[number]], self._acked[LANES[number]] = next_seq - 1, acked
        self._sent = {lane: min(self._acked[lane] + MOST_ON_THEIR_WAY, self._last[lane]) for lane in LANES}
        row = self._db.execute("select coalesce(sum(length(payload)), 0) from batch").fetchone()
        self._payload_bytes = int(row[0])
        self._kept = self._memory()

    def _memory(self) -> tuple[int, dict[Lane, int], dict[Lane, int], int, int, str]:
        lanes = dict(self._last), dict(self._acked)
        return self._payload_bytes, *lanes, self.epoch, self.previous_epoch, self.epoch_reason

    def _undo(self) -> None:
        self._payload_bytes, last, acked, self.epoch, self.previous_epoch, self.epoch_reason = self._kept
        self._last, self._acked = dict(last), dict(acked)

    def _keep(self) -> None:
        """A transaction is durable."""
        self._kept = self._memory()
        self._testify()

    def _testify(self) -> None:
        if self.witness is not None:
            self.witness.write(self.epoch, {lane: (self._last[lane], self._acked[lane]) for lane in LANES})

    # -- series -------------------------------------------------------------------------------------------------

    def alias(self, info: SeriesInfo, first_integer: int) -> int:
        """The alias of a series, given on first use. ``first_integer`` becomes the reference of its columns."""
        return self._names.alias(info, first_integer)

    def series(self) -> list[wire.Declaration]:
        return self._names.all()

    def decimals(self, alias: int) -> int:
        """The resolution a series was declared with: it holds for the whole epoch, whatever its type says by now."""
        return self._names.info(alias).decimals

    def digest_of(self, readings: Readings) -> int:
        """Order-free digest of readings, the same the cloud computes from its rows."""
        return self._names.digest_of(readings)

    def declare_again(self, lane: Lane) -> None:
        """The core set a row aside and may not know what it declared: say it once more with the rows to come."""
        with self._file.transaction("declarations") as db:
            self._names.forget_declared(db, 1 << _LANE_NUMBER[lane])

    # -- epochs -------------------------------------------------------------------------------------------------

    def begin_again(self, now_ms: int, reason: str, *, newest: int = 0, unknown: bool = False) -> None:
        """A new epoch; what waits is parked until :meth:`carry_over` has heard what the core has of it.

        ``reason``: ``core_forgot`` or ``restored``. ``newest``: the last epoch of this gateway, if it is not the one of
        this file. ``unknown``: the core has none of the rows, or has other ones under their numbers: nobody is to be
        asked. Raises StoreError with nothing changed."""
        newest = newest or self.epoch
        epoch = _new_epoch(now_ms, max(newest, self.epoch))
        with self._file.transaction("a new epoch") as db:
            ended.note(db, self.epoch, self._acked)
            parking.park_all(db, parking.NOBODY_KNOWS if unknown else self.epoch)
            db.executemany(
                "insert or replace into meta values (?, ?)",
                [("epoch", epoch), ("previous_epoch", newest), ("epoch_reason", reason)],
            )
            db.execute("update lane set next_seq = 1, acked = 0, readings = 0, events = 0, digest = '0', thinned = 0")
            self._names.forget_declared(db, (1 << len(LANES)) - 1)
            self._payload_bytes = 0
            self._last, self._acked = dict.fromkeys(LANES, 0), dict.fromkeys(LANES, 0)
            self.previous_epoch, self.epoch, self.epoch_reason = newest, epoch, reason
        self._sent = dict.fromkeys(LANES, 0)

    def note_ended(self, epoch: int, acked: Mapping[Lane, int]) -> None:
        """An epoch that ended before this file began had been acknowledged up to here."""
        with self._file.transaction("what was acknowledged") as db:
            ended.note(db, epoch, acked)

    def ended(self) -> dict[int, dict[Lane, int]]:
        """Of the last epochs that are over: the last row of each lane that a core had acknowledged."""
        with self._file.reading() as db:
            return ended.read(db)

    def parked(self) -> list[tuple[int, Lane]]:
        """(epoch, lane) of which rows wait for :meth:`carry_over`; epoch 0: the core need not be asked."""
        with self._file.reading() as db:
            return parking.lanes_of(db)

    def question(self, epoch: int, lane: Lane) -> bytes:
        """What to send, under that epoch, so that the core says up to where it has the lane."""
        with self._file.reading() as db:
            return parking.question(db, epoch, lane)

    def carry_over(self, epoch: int, lane: Lane, committed: int, now_ms: int) -> int:
        """The core has ``lane`` of an earlier epoch up to ``committed``: the parked rows beyond it go on in this epoch,
        the others are dropped. Returns the rows carried over. Raises StoreError; what is done by then stays done."""
        carried = 0
        self.drop_parked(epoch, lane, committed)
        while True:
            with self._file.transaction("rows of an earlier epoch") as db:
                found = parking.next_of(db, epoch, lane, self._names.codes, _CARRIED_AT_ONCE, now_ms)
                for _, part in found:
                    self._insert(db, part, now_ms)
                if found:
                    parking.drop(db, epoch, lane, found[-1][0])
            carried += len(found)
            if not found:
                self.carried += carried
                return carried

    def drop_parked(self, epoch: int, lane: Lane, committed: int) -> None:
        """The core has these."""
        with self._file.transaction("what the core has") as db:
            parking.drop(db, epoch, lane, committed)

    def adopt(self, declarations: Sequence[wire.Declaration], rows: Sequence[tuple[int, int, int, bytes]]) -> None:
        """Park what was saved from a broken file: (epoch, lane number, seq, payload)."""
        self._names.adopt(declarations)
        new = self._names.pending()
        with self._file.transaction("what was saved") as db:
            self._names.write(db, new)
            parking.park(db, rows)
        self._names.written(new)

    # -- writing ------------------------------------------------------------------------------------------------

    def commit(
        self,
        pending: Sequence[Pending],
        *,
        now_ms: int,
        exchanges: Sequence[str] = (),
        state: Mapping[str, bytes] | None = None,
    ) -> None:
        """Make everything durable in one transaction. Raises StoreError if the disk did not take it (nothing kept)."""
        new = self._names.pending()
        try:
            with self._file.transaction("a commit") as db:
                self._names.write(db, new)
                for part in pending:
                    self._insert(db, part, now_ms)
                self._exchanges.write(db, exchanges, now_ms)
                if state:
                    db.executemany("insert or replace into state values (?, ?)", list(state.items()))
                if self._payload_bytes > self._limit_bytes:
                    self._thin(db, self._limit_bytes * 9 // 10)
        except StoreError as error:
            self.refused += 1
            if error.retry:
                self._make_room()
            raise
        self._names.written(new)
        self._exchanges.written(exchanges, now_ms)
        if self._limit_bytes < self._max_bytes and self._reserve is not None and self._reserve.take():
            self._limit_bytes = self._max_bytes

    def _insert(self, db: sqlite3.Connection, part: Pending, now_ms: int) -> None:
        for number, readings in enumerate(split(part.readings)):
            rest = part if number == 0 else _like(part)
            self._insert_row(db, replace(rest, readings=readings), now_ms)

    def _insert_row(self, db: sqlite3.Connection, part: Pending, now_ms: int) -> None:
        lane, readings, stones = part.lane, part.readings, part.thinned
        number = _LANE_NUMBER[lane]
        fresh = self._names.undeclared(readings, 1 << number)
        seq = self._last[lane] + 1
        try:
            payload = wire.encode(
                wire.Batch(
                    epoch=self.epoch,
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
        self._last[lane] = seq
        self._payload_bytes += len(payload)

    # -- what gives way -----------------------------------------------------------------------------------------

    def _unsent(self) -> dict[int, int]:
        return {number: self._sent[lane] for lane, number in _LANE_NUMBER.items()}

    def _thin(self, db: sqlite3.Connection, goal: int) -> Lost:
        lost = self._mason.thin(db, self.epoch, self._unsent(), goal, self._payload_bytes, self.full_reason)
        self._payload_bytes += lost.size
        return lost

    def _make_room(self) -> None:
        """The disk is full: what gives way is the oldest, a tenth of what waits or as much as there is room to change.

        Without room even for that it is tried again with the next commit."""
        if self._reserve is not None:
            self._reserve.give_up()
        self._file.checkpoint()
        least = max(self._payload_bytes // 10, _ROOM_BYTES)
        for wanted in (least, least // 4, 1):
            try:
                with self._file.transaction("making room") as db:
                    self._thin(db, self._payload_bytes - wanted)
            except StoreError as error:
                if not error.retry:
                    raise
                continue
            self._file.checkpoint()
            if self._reserve is not None:
                self._limit_bytes = max(min(self._max_bytes, self._payload_bytes), _ROOM_BYTES)
            return

    def clock_stepped(self, delta_ms: int) -> None:
        """The clock was set: no row has waited longer, or less long, because of that. Raises StoreError."""
        with self._file.transaction("the time") as db:
            db.execute("update batch set made_ms = made_ms + ?", (delta_ms,))

    def expire(self, now_ms: int, ttl_ms: Mapping[Lane, int]) -> Lost:
        """Rows not yet sent that have waited longer than their lane's time become stones (``expired``)."""
        older_than = {_LANE_NUMBER[lane]: now_ms - ttl for lane, ttl in ttl_ms.items() if lane != "event"}
        if not older_than:
            return Lost()
        with self._file.transaction("the end of their time") as db:
            lost = self._mason.expire(db, self.epoch, self._unsent(), older_than)
            self._payload_bytes += lost.size
        return lost

    # -- reading and acknowledging ------------------------------------------------------------------------------

    def rows(self, lane: Lane, after: int, *, limit: int = 32) -> list[Row]:
        """Rows of a lane with a sequence number beyond ``after``, oldest first; they count as sent from now on.

        A payload that the disk has garbled is replaced by a stone (``row_damaged``) on the way."""
        number = _LANE_NUMBER[lane]
        with self._file.reading() as db:
            found = db.execute(
                "select seq, crc, payload from batch where lane = ? and seq > ? order by seq limit ?",
                (number, after, limit),
            ).fetchall()
            if found:
                self._sent[lane] = max(self._sent[lane], found[-1][0])
        garbled = [seq for seq, crc, payload in found if crc_of(payload) != crc]
        if garbled:
            with self._file.transaction("a garbled row's stone") as db:
                for seq in garbled:
                    self._payload_bytes += self._mason.replace_garbled(db, self.epoch, number, seq).size
            return self.rows(lane, after, limit=limit)
        return [Row(lane, seq, payload) for seq, _, payload in found]

    @property
    def thinned(self) -> int:
        """Readings that gave way since the outbox was opened."""
        return self._mason.readings

    @property
    def thinned_reason(self) -> str:
        """Why the last of them did."""
        return self._mason.reason

    @property
    def garbled(self) -> tuple[int, int]:
        """Rows whose payload the disk had broken, and the events that were in them, since the outbox was opened."""
        return self._mason.garbled, self._mason.garbled_events

    def acknowledge(self, epoch: int, lane: Lane, committed: int) -> int:
        """The cloud has committed a lane up to here: delete. Returns the number of rows freed.

        Raises ContractError for an acknowledgement of another epoch, NeverWritten for one of rows that do not
        exist (its bearer knows another life of this outbox), StoreError if the disk did not take it.
        """
        number = _LANE_NUMBER[lane]
        if epoch != self.epoch:
            raise ContractError(f"acknowledged {lane} {epoch}/{committed}: another epoch", reason="ack")
        if committed > self._last[lane]:
            raise NeverWritten(f"acknowledged {lane} {epoch}/{committed}: never written", reason="ack")
        if committed <= self._acked[lane]:
            return 0
        with self._file.transaction("an acknowledgement") as db:
            size, count = db.execute(
                "select coalesce(sum(length(payload)), 0), count(*) from batch where lane = ? and seq <= ?",
                (number, committed),
            ).fetchone()
            db.execute("delete from batch where lane = ? and seq <= ?", (number, committed))
            db.execute("update lane set acked = ? where lane = ?", (committed, number))
            self._payload_bytes -= size
            self._acked[lane] = committed
        return int(count)

    def acked(self, lane: Lane) -> int:
        return self._acked[lane]

    def last(self, lane: Lane) -> int:
        """Sequence number of the last row written."""
        return self._last[lane]

    def sent(self, lane: Lane) -> int:
        """No row beyond this one can have been sent, by this run of the agent or an earlier one."""
        return self._sent[lane]

    def seen_exchange(self, exchange: str) -> bool:
        """Whether a push of this identity is durable already; asks no disk and waits for nobody."""
        return exchange in self._exchanges

    def depth(self, now_ms: int) -> OutboxDepth:
        with self._file.reading() as db:
            waiting = "select lane from batch union all select lane from parked"
            counts = dict(db.execute(f"select lane, count(*) from ({waiting}) group by lane").fetchall())  # noqa: S608
            oldest = db.execute("select min(made_ms) from batch").fetchone()[0]
            thinned = db.execute("select sum(thinned) from lane").fetchone()[0]
        return OutboxDepth(
            {lane: int(counts.get(number, 0)) for lane, number in _LANE_NUMBER.items()},
            self._payload_bytes,
            int(thinned),
            max(0, now_ms - int(oldest)) if oldest is not None else 0,
        )

    def totals(self) -> dict[Lane, dict[str, int]]:
        """Everything accepted in this epoch, per lane: readings, events, digest, thinned, last sequence, acknowledged;
        and what waits: bytes, and when the oldest row was made (UTC ms, 0: none waits)."""
        with self._file.reading() as db:
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

    # -- state --------------------------------------------------------------------------------------------------

    def put_state(self, name: str, value: bytes) -> None:
        with self._file.transaction("its state") as db:
            db.execute("insert or replace into state values (?, ?)", (name, value))

    def get_state(self, name: str) -> bytes | None:
        with self._file.reading() as db:
            row = db.execute("select value from state where name = ?", (name,)).fetchone()
        return bytes(row[0]) if row else None

    def close(self) -> None:
        self._file.close()
        if self.witness is not None:
            self.witness.close()


__all__ = ["MOST_ON_THEIR_WAY", "Outbox", "OutboxDamaged"]
