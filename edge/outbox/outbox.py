"""A bounded, durable outbox: what the gateway has learnt and the core has not committed yet.

A call to :meth:`Outbox.commit` is one transaction and one fsync for everything that waited (grouped commit). When it
has returned, a kill or a power cut loses nothing of it. A row is deleted only by :meth:`Outbox.acknowledge`, which the
uplink calls after the cloud has committed.

When the outbox or the disk is full, or a row has outlived its time, the oldest rows not yet sent become stones: the row
keeps its sequence number and says how many readings went, of which series and time, with their digest. ``event`` rows
are never touched.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge.outbox import books, ended, parking
from edge.outbox.exchanges import Exchanges
from edge.outbox.file import File
from edge.outbox.model import Lost, NeverWritten, Opening, OutboxDamaged, OutboxDepth, Pending, Row
from edge.outbox.names import Names
from edge.outbox.reserve import Reserve
from edge.outbox.rows import Scribe
from edge.outbox.standing import LANE_NUMBER, MOST_ON_THEIR_WAY, Standing, new_epoch
from edge.outbox.stones import Stonemason, crc_of
from edge.outbox.witness import Witness
from protocols.core.errors import ContractError, StoreError
from protocols.core.model import SeriesInfo
from protocols.uplink import batch as wire
from protocols.uplink.columns import Readings
from protocols.uplink.topics import LANES, Lane

_CARRIED_AT_ONCE = 200  # rows of an earlier epoch written anew in one transaction
_ROOM_BYTES = 32 << 10  # what is at least freed when the disk is full


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
            self._standing = Standing(self._file, path, now_ms, reason, previous)
            self._names = Names(self._file)
            self._scribe = Scribe(self._names, self._standing)
            self._mason = Stonemason(self._names)
            self._exchanges = Exchanges(self._db, now_ms)
        except sqlite3.Error as error:
            self._db.close()
            raise self._file.refusal(f"outbox {path}", error) from error
        except BaseException:
            self._db.close()
            raise
        self._file.on_commit.append(self._testify)
        self.witness = Witness(path) if guarded else None
        self._reserve = Reserve(path) if guarded else None
        self.opening = Opening(reason if self._standing.born else "")
        self.full_reason = "outbox_full"  # what stones say; the uplink knows when it is the budget that holds rows back
        self.refused = 0  # commits that the disk did not take
        self.carried = 0  # rows of earlier epochs that the core did not have
        self._testify()

    def _testify(self) -> None:
        if self.witness is not None:
            lanes = {lane: (self._standing.last[lane], self._standing.acked[lane]) for lane in LANES}
            self.witness.write(self.epoch, lanes)

    @property
    def epoch(self) -> int:
        return self._standing.epoch

    @property
    def previous_epoch(self) -> int:
        return self._standing.previous_epoch

    @property
    def epoch_reason(self) -> str:
        return self._standing.epoch_reason

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
            self._names.forget_declared(db, 1 << LANE_NUMBER[lane])

    # -- epochs -------------------------------------------------------------------------------------------------

    def begin_again(self, now_ms: int, reason: str, *, newest: int = 0, unknown: bool = False) -> None:
        """A new epoch; what waits is parked until :meth:`carry_over` has heard what the core has of it.

        ``reason``: ``core_forgot`` or ``restored``. ``newest``: the last epoch of this gateway, if it is not the one of
        this file. ``unknown``: the core has none of the rows, or has other ones under their numbers: nobody is to be
        asked. Raises StoreError with nothing changed."""
        newest = newest or self.epoch
        epoch = new_epoch(now_ms, max(newest, self.epoch))
        with self._file.transaction("a new epoch") as db:
            ended.note(db, self.epoch, self._standing.acked)
            parking.park_all(db, parking.NOBODY_KNOWS if unknown else self.epoch)
            db.executemany(
                "insert or replace into meta values (?, ?)",
                [("epoch", epoch), ("previous_epoch", newest), ("epoch_reason", reason)],
            )
            db.execute("update lane set next_seq = 1, acked = 0, readings = 0, events = 0, digest = '0', thinned = 0")
            self._names.forget_declared(db, (1 << len(LANES)) - 1)
            self._standing.begin_again(db, epoch, newest, reason)
        self._standing.sent = dict.fromkeys(LANES, 0)

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
                    self._scribe.insert(db, part, now_ms)
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
                    self._scribe.insert(db, part, now_ms)
                self._exchanges.write(db, exchanges, now_ms)
                if state:
                    db.executemany("insert or replace into state values (?, ?)", list(state.items()))
                if self._standing.payload_bytes > self._limit_bytes:
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

    # -- what gives way -----------------------------------------------------------------------------------------

    def _unsent(self) -> dict[int, int]:
        return {number: self._standing.sent[lane] for lane, number in LANE_NUMBER.items()}

    def _thin(self, db: sqlite3.Connection, goal: int) -> Lost:
        lost = self._mason.thin(db, self.epoch, self._unsent(), goal, self._standing.payload_bytes, self.full_reason)
        self._standing.payload_bytes += lost.size
        return lost

    def _make_room(self) -> None:
        """The disk is full: what gives way is the oldest, a tenth of what waits or as much as there is room to change.

        Without room even for that it is tried again with the next commit."""
        if self._reserve is not None:
            self._reserve.give_up()
        self._file.checkpoint()
        least = max(self._standing.payload_bytes // 10, _ROOM_BYTES)
        for wanted in (least, least // 4, 1):
            try:
                with self._file.transaction("making room") as db:
                    self._thin(db, self._standing.payload_bytes - wanted)
            except StoreError as error:
                if not error.retry:
                    raise
                continue
            self._file.checkpoint()
            if self._reserve is not None:
                self._limit_bytes = max(min(self._max_bytes, self._standing.payload_bytes), _ROOM_BYTES)
            return

    def clock_stepped(self, delta_ms: int) -> None:
        """The clock was set: no row has waited longer, or less long, because of that. Raises StoreError."""
        with self._file.transaction("the time") as db:
            db.execute("update batch set made_ms = made_ms + ?", (delta_ms,))

    def expire(self, now_ms: int, ttl_ms: Mapping[Lane, int]) -> Lost:
        """Rows not yet sent that have waited longer than their lane's time become stones (``expired``)."""
        older_than = {LANE_NUMBER[lane]: now_ms - ttl for lane, ttl in ttl_ms.items() if lane != "event"}
        if not older_than:
            return Lost()
        with self._file.transaction("the end of their time") as db:
            lost = self._mason.expire(db, self.epoch, self._unsent(), older_than)
            self._standing.payload_bytes += lost.size
        return lost

    # -- reading and acknowledging ------------------------------------------------------------------------------

    def rows(self, lane: Lane, after: int, *, limit: int = 32, careful: bool = False) -> list[Row]:
        """Rows of a lane with a sequence number beyond ``after``, oldest first; they count as sent from now on.

        ``careful``: not beyond what was there at opening until the core has answered for the lane; if all of that is
        acknowledged, a row of the last acknowledged number which only asks (:meth:`question`). A payload that the disk
        has garbled is replaced by a stone (``row_damaged``) on the way."""
        number, last = LANE_NUMBER[lane], self._standing.last[lane]
        upto = self._standing.may_send(lane) if careful else last
        if upto <= self._standing.acked[lane] <= after < last:
            return [Row(lane, upto, self.question(self.epoch, lane))]
        with self._file.reading() as db:
            found = db.execute(
                "select seq, crc, payload from batch where lane = ? and seq > ? and seq <= ? order by seq limit ?",
                (number, after, upto, limit),
            ).fetchall()
            if found:
                self._standing.sent[lane] = max(self._standing.sent[lane], found[-1][0])
        garbled = [seq for seq, crc, payload in found if crc_of(payload) != crc]
        if garbled:
            with self._file.transaction("a garbled row's stone") as db:
                for seq in garbled:
                    self._standing.payload_bytes += self._mason.replace_garbled(db, self.epoch, number, seq).size
            return self.rows(lane, after, limit=limit, careful=careful)
        if found and found[-1][0] > self._standing.may_send(lane):
            with self._file.transaction("what may have been sent") as db:
                self._standing.heard(db, lane)
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
        number = LANE_NUMBER[lane]
        if epoch != self.epoch:
            raise ContractError(f"acknowledged {lane} {epoch}/{committed}: another epoch", reason="ack")
        if committed > self._standing.last[lane]:
            raise NeverWritten(f"acknowledged {lane} {epoch}/{committed}: never written", reason="ack")
        if committed <= self._standing.acked[lane]:
            if lane in self._standing.unheard:
                with self._file.transaction("an answer") as db:
                    self._standing.heard(db, lane)
            return 0
        with self._file.transaction("an acknowledgement") as db:
            self._standing.heard(db, lane)
            size, count = db.execute(
                "select coalesce(sum(length(payload)), 0), count(*) from batch where lane = ? and seq <= ?",
                (number, committed),
            ).fetchone()
            db.execute("delete from batch where lane = ? and seq <= ?", (number, committed))
            db.execute("update lane set acked = ? where lane = ?", (committed, number))
            self._standing.payload_bytes -= size
            self._standing.acked[lane] = committed
        return int(count)

    def acked(self, lane: Lane) -> int:
        return self._standing.acked[lane]

    def last(self, lane: Lane) -> int:
        """Sequence number of the last row written."""
        return self._standing.last[lane]

    def sent(self, lane: Lane) -> int:
        """No row beyond this one can have been sent, by this run of the agent or an earlier one."""
        return self._standing.sent[lane]

    def seen_exchange(self, exchange: str) -> bool:
        """Whether a push of this identity is durable already; asks no disk and waits for nobody."""
        return exchange in self._exchanges

    def depth(self, now_ms: int) -> OutboxDepth:
        with self._file.reading() as db:
            return books.depth(db, self._standing.payload_bytes, now_ms)

    def totals(self) -> dict[Lane, dict[str, int]]:
        """Everything accepted in this epoch, per lane: readings, events, digest, thinned, last sequence, acknowledged;
        and what waits: bytes, and when the oldest row was made (UTC ms, 0: none waits)."""
        with self._file.reading() as db:
            return books.totals(db)

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
