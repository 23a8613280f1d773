"""A bounded, durable outbox: SQLite, write-ahead log, ``synchronous = FULL``.

A call to :meth:`Outbox.commit` is one transaction and one fsync for everything that waited (grouped commit). When it
has returned, a kill or a power cut loses nothing of it. A row is deleted only by :meth:`Outbox.acknowledge`, which the
uplink calls after the cloud has committed.

When the outbox is full, the oldest ``data`` and ``backfill`` rows not yet sent are emptied: the row keeps its sequence
number and says how many readings went, of which time, with their digest. ``event`` rows are never touched.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from edge.outbox.cut import half_of, size_of, split
from edge.outbox.model import OutboxDamaged, OutboxDepth, Pending, Row
from edge.outbox.renew import renumber
from protocols.core.errors import ConfigError, ContractError, LocalProtocolError, StoreError
from protocols.core.model import SeriesInfo
from protocols.uplink import batch as wire
from protocols.uplink.columns import Readings, SeriesCode
from protocols.uplink.digest import add, digest, series_hash
from protocols.uplink.topics import LANES, Lane

_SCHEMA_VERSION = 1
#: So many pushes are remembered whatever their age, more of them for an hour: a fleet of 6 000 sends 20 000 in half a
#: minute, and a device repeats what it missed the answer to for much longer than that.
_EXCHANGES_KEPT = 20_000
_EXCHANGES_MOST = 200_000
_EXCHANGE_AGE_MS = 3_600_000
#: So many rows beyond the last acknowledged may be on their way: after a restart nobody knows which of them are.
MOST_ON_THEIR_WAY = 64
#: 2020-01-01, seconds: a clock before it has not been set since the gateway was switched on.
_CLOCK_SET_S = 1_577_836_800
_LANE_NUMBER: dict[Lane, int] = {lane: number for number, lane in enumerate(LANES)}


def _new_epoch(now_ms: int) -> int:
    """One that this gateway has never had; and a clock that starts at 1970 says the same each time."""
    return now_ms // 1000 if now_ms // 1000 >= _CLOCK_SET_S else 1 + int.from_bytes(os.urandom(4)) % (1 << 30)


def _like(part: Pending) -> Pending:
    """Nothing yet, but under the same clock."""
    return Pending(part.lane, clock=part.clock, historical=part.historical, clock_run=part.clock_run)


def _refusal(what: str, error: Exception) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    kind = OutboxDamaged if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) else StoreError
    return kind(f"{what}: {error}")


class Outbox:
    """Not for concurrent writers; a lock lets the uplink acknowledge while the agent commits."""

    def __init__(self, path: Path, *, now_ms: int, max_bytes: int = 256 << 20) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = full")
            self._db.execute("pragma busy_timeout = 5000")
            found = self._db.execute("pragma quick_check(1)").fetchone()[0]
            if found != "ok":
                raise OutboxDamaged(f"outbox {path}: {found}")
            self._db.executescript(files(__package__).joinpath("schema.sql").read_text())
            self.epoch = self._epoch(path, now_ms)
            self._load(now_ms)
        except sqlite3.Error as error:
            raise _refusal(f"outbox {path}", error) from error

    def _load(self, now_ms: int) -> None:
        self._series: dict[tuple[str, str], int] = {}
        self._info: dict[int, wire.Declaration] = {}
        self._declared: dict[int, int] = {}
        self._hash: dict[int, int] = {}
        self._new: dict[int, wire.Declaration] = {}
        self._fresh: list[tuple[int, int]] = []
        for alias, device, point, unit, decimals, reference, device_type, lanes in self._db.execute(
            "select alias, device, point, unit, decimals, reference, device_type, lanes from series"
        ):
            self._remember(wire.Declaration(alias, device, point, unit, decimals, reference, device_type), lanes)
        self._codes: dict[int, SeriesCode] = {alias: d.code for alias, d in self._info.items()}
        self._sent: dict[Lane, int] = {
            LANES[lane]: min(acked + MOST_ON_THEIR_WAY, next_seq - 1)
            for lane, acked, next_seq in self._db.execute("select lane, acked, next_seq from lane")
        }
        row = self._db.execute("select coalesce(sum(length(payload)), 0) from batch").fetchone()
        self._payload_bytes = int(row[0])
        self.refused = 0  # commits that the disk did not take
        # A copy in memory: asking the file would wait for the commit that is under way, thousands of times a second.
        self._exchanges: dict[str, int] = dict(self._db.execute("select id, made_ms from exchange order by made_ms"))
        self._forgotten: list[str] = []  # in memory; the next commit takes them from the file
        self._forget(now_ms)

    def _epoch(self, path: Path, now_ms: int) -> int:
        meta = dict(self._db.execute("select name, value from meta").fetchall())
        if meta and meta.get("schema") != _SCHEMA_VERSION:
            raise ConfigError(f"outbox {path}: schema {meta.get('schema')}, this agent knows {_SCHEMA_VERSION}")
        if not meta:
            epoch = _new_epoch(now_ms)
            self._db.execute("begin immediate")
            self._db.executemany("insert into meta values (?, ?)", [("schema", _SCHEMA_VERSION), ("epoch", epoch)])
            self._db.executemany(
                "insert into lane (lane, next_seq) values (?, 1)", [(n,) for n in _LANE_NUMBER.values()]
            )
            self._db.execute("commit")
            return epoch
        return int(meta["epoch"])

    def _remember(self, declaration: wire.Declaration, lanes: int) -> None:
        alias = declaration.alias
        self._series[declaration.device, declaration.point] = alias
        self._info[alias] = declaration
        self._declared[alias] = lanes
        self._hash[alias] = series_hash(declaration.device, declaration.point)

    # -- series -------------------------------------------------------------------------------------------------

    def alias(self, info: SeriesInfo, first_integer: int) -> int:
        """The alias of a series, given on first use. ``first_integer`` becomes the reference of its columns."""
        found = self._series.get((info.device, info.point))
        if found is not None:
            return found
        alias = len(self._series)
        declaration = wire.Declaration(
            alias, info.device, info.point, info.unit, info.decimals, first_integer, info.device_type
        )
        self._remember(declaration, 0)
        self._codes[alias] = declaration.code
        self._new[alias] = declaration
        return alias

    def series(self) -> list[wire.Declaration]:
        return [self._info[alias] for alias in sorted(self._info)]

    def decimals(self, alias: int) -> int:
        """The resolution a series was declared with: it holds for the whole epoch, whatever its type says by now."""
        return self._info[alias].decimals

    def declare_again(self, lane: Lane) -> None:
        """The core set a row aside and may not know what it declared: say it once more with the rows to come."""
        bit = 1 << _LANE_NUMBER[lane]
        with self._transaction("declarations"):
            self._db.execute("update series set lanes = lanes & ~?", (bit,))
            for alias in self._declared:
                self._declared[alias] &= ~bit

    def begin_again(self, now_ms: int) -> None:
        """The core has lost what it had acknowledged: a new epoch for all that waits. Raises StoreError."""
        bits = 1 << _LANE_NUMBER["data"] | 1 << _LANE_NUMBER["backfill"]
        epoch, declared, sent = self.epoch, dict(self._declared), self._sent
        try:
            with self._transaction("a new epoch"):
                named = [row[0] for row in self._db.execute("select alias from series order by alias")]
                self.epoch = max(_new_epoch(now_ms), epoch + 1)
                self._sent = dict.fromkeys(LANES, 0)
                self._declared.update(dict.fromkeys(named, bits))
                self._db.execute("update meta set value = ? where name = 'epoch'", (self.epoch,))
                self._db.execute("update series set lanes = ?", (bits,))
                for lane, number in _LANE_NUMBER.items():
                    said = [self._info[alias] for alias in named] if lane in ("data", "backfill") else []
                    renumber(self._db, number, self.epoch, said, self._codes, now_ms)
                row = self._db.execute("select coalesce(sum(length(payload)), 0) from batch").fetchone()
                self._payload_bytes = int(row[0])
        except BaseException:
            self.epoch, self._sent = epoch, sent
            self._declared.update(declared)
            raise

    # -- writing ------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, what: str) -> Iterator[None]:
        """All of it or nothing. Raises StoreError if the disk did not take it."""
        with self._lock:
            payload_bytes, self._fresh = self._payload_bytes, []
            try:
                self._db.execute("begin immediate")
                yield
                self._db.execute("commit")
            except BaseException as error:
                self._payload_bytes = payload_bytes
                for alias, bit in self._fresh:
                    self._declared[alias] &= ~bit
                if self._db.in_transaction:
                    self._db.execute("rollback")
                if isinstance(error, sqlite3.Error | OSError):
                    raise _refusal(f"the outbox did not take {what}", error) from error
                raise

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise _refusal("the outbox cannot be read", error) from error

    def commit(
        self,
        pending: Sequence[Pending],
        *,
        now_ms: int,
        exchanges: Sequence[str] = (),
        state: Mapping[str, bytes] | None = None,
    ) -> None:
        """Make everything durable in one transaction. Raises StoreError if the disk did not take it (nothing kept)."""
        new = list(self._new.values())  # the loop may name further series while we write
        try:
            with self._transaction("a commit"):
                self._write(pending, new, exchanges, state or {}, now_ms)
        except StoreError:
            self.refused += 1
            raise
        for declaration in new:
            del self._new[declaration.alias]
        self._forgotten.clear()
        for exchange in exchanges:
            self._exchanges[exchange] = now_ms
        self._forget(now_ms)

    def _forget(self, now_ms: int) -> None:
        """Let the oldest pushes go."""
        while len(self._exchanges) > _EXCHANGES_KEPT:
            oldest, made_ms = next(iter(self._exchanges.items()))
            if len(self._exchanges) <= _EXCHANGES_MOST and now_ms - made_ms <= _EXCHANGE_AGE_MS:
                return
            del self._exchanges[oldest]
            self._forgotten.append(oldest)

    def _write(
        self,
        pending: Sequence[Pending],
        new: Sequence[wire.Declaration],
        exchanges: Sequence[str],
        state: Mapping[str, bytes],
        now_ms: int,
    ) -> None:
        self._db.executemany(
            "insert or ignore into series (alias, device, point, unit, decimals, reference, device_type)"
            " values (?, ?, ?, ?, ?, ?, ?)",
            [(d.alias, d.device, d.point, d.unit, d.decimals, d.reference, d.device_type) for d in new],
        )
        for part in pending:
            self._insert(part, now_ms)
        self._db.executemany("delete from exchange where id = ?", [(name,) for name in self._forgotten])
        self._db.executemany("insert or ignore into exchange values (?, ?)", [(e, now_ms) for e in exchanges])
        self._db.executemany("insert or replace into state values (?, ?)", list(state.items()))
        if self._payload_bytes > self._max_bytes:
            self._thin(now_ms)

    def _insert(self, part: Pending, now_ms: int) -> None:
        for number, readings in enumerate(split(part.readings)):
            rest = part if number == 0 else _like(part)
            self._insert_row(replace(rest, readings=readings), now_ms)

    def _insert_row(self, part: Pending, now_ms: int) -> None:
        lane, readings = part.lane, part.readings
        number = _LANE_NUMBER[lane]
        bit = 1 << number
        aliases = np.unique(readings.alias).tolist()
        fresh = [alias for alias in aliases if not self._declared[alias] & bit]
        seq, total = self._db.execute("select next_seq, digest from lane where lane = ?", (number,)).fetchone()
        try:
            payload = wire.encode(
                wire.Batch(
                    epoch=self.epoch,
                    seq=seq,
                    readings=readings,
                    declarations=tuple(self._info[alias] for alias in fresh),
                    events=tuple(part.events),
                    devices=tuple(part.devices),
                    evidence=tuple(part.evidence),
                    clock=part.clock,
                    corrections=tuple(part.corrections),
                    historical=part.historical,
                    clock_run=part.clock_run,
                    outcomes=tuple(part.outcomes),
                    reported=tuple(part.reported),
                ),
                self._codes,
            )
        except LocalProtocolError as error:
            if error.reason != "too_big" or size_of(part) < 2:
                raise
            for which in (0, 1):
                self._insert_row(half_of(part, which), now_ms)
            return
        events = part.events
        self._db.execute(
            "insert into batch values (?, ?, ?, ?, ?, ?)", (number, seq, now_ms, len(readings), len(events), payload)
        )
        self._db.execute(
            "update lane set next_seq = next_seq + 1, readings = readings + ?, events = events + ?, digest = ?"
            " where lane = ?",
            (len(readings), len(events), str(add(int(total), self.digest_of(readings))), number),
        )
        if fresh:
            for alias in fresh:
                self._declared[alias] |= bit
                self._fresh.append((alias, bit))
            self._db.executemany(
                "update series set lanes = lanes | ? where alias = ?", [(bit, alias) for alias in fresh]
            )
        self._payload_bytes += len(payload)

    def digest_of(self, readings: Readings) -> int:
        """Order-free digest of readings, the same the cloud computes from its rows."""
        if not len(readings):
            return 0
        table = np.array([self._hash[a] for a in range(int(readings.alias.max()) + 1)], dtype=np.uint64)
        return digest(table[readings.alias], readings.ts_ms, readings.integer, readings.quality)

    def _thin(self, now_ms: int) -> None:
        """Empty the oldest unsent data and backfill rows until a tenth of the room is free."""
        goal = self._max_bytes * 9 // 10
        for lane in ("backfill", "data"):
            number = _LANE_NUMBER[lane]
            rows = self._db.execute(
                "select seq, readings from batch where lane = ? and seq > ? and readings > 0 order by seq",
                (number, self._sent[lane]),
            )
            thinned = 0
            for seq, count in rows.fetchall():
                if self._payload_bytes <= goal:
                    break
                found = self._db.execute("select payload from batch where lane = ? and seq = ?", (number, seq))
                payload = found.fetchone()[0]
                envelope = wire.open_envelope(payload)
                kept = wire.decode(envelope, self._codes)
                stone = wire.encode(
                    wire.Batch(
                        epoch=self.epoch,
                        seq=seq,
                        declarations=kept.declarations,
                        events=kept.events,
                        devices=kept.devices,
                        thinned=(
                            wire.Thinned(
                                count,
                                "outbox_full",
                                int(kept.readings.ts_ms.min()),
                                int(kept.readings.ts_ms.max()),
                                self.digest_of(kept.readings),
                            ),
                        ),
                    ),
                    self._codes,
                )
                self._db.execute(
                    "update batch set payload = ?, readings = 0 where lane = ? and seq = ?", (stone, number, seq)
                )
                self._payload_bytes += len(stone) - len(payload)
                thinned += count
            if thinned:
                self._db.execute("update lane set thinned = thinned + ? where lane = ?", (thinned, number))

    # -- reading and acknowledging ------------------------------------------------------------------------------

    def rows(self, lane: Lane, after: int, *, limit: int = 32) -> list[Row]:
        """Rows of a lane with a sequence number beyond ``after``, oldest first; they count as sent from now on."""
        with self._reading():
            found = self._db.execute(
                "select seq, payload from batch where lane = ? and seq > ? order by seq limit ?",
                (_LANE_NUMBER[lane], after, limit),
            ).fetchall()
            if found:
                self._sent[lane] = max(self._sent[lane], found[-1][0])
        return [Row(lane, seq, payload) for seq, payload in found]

    def acknowledge(self, epoch: int, lane: Lane, committed: int) -> int:
        """The cloud has committed a lane up to here: delete. Returns the number of rows freed.

        Raises ContractError for an acknowledgement of another epoch or of what was never written, StoreError if the
        disk did not take it (it will come again).
        """
        number = _LANE_NUMBER[lane]
        with self._transaction("an acknowledgement"):
            next_seq, acked = self._db.execute("select next_seq, acked from lane where lane = ?", (number,)).fetchone()
            if epoch != self.epoch or committed >= next_seq:
                raise ContractError(f"acknowledged {lane} {epoch}/{committed}: never written", reason="ack")
            if committed <= acked:
                return 0
            size, count = self._db.execute(
                "select coalesce(sum(length(payload)), 0), count(*) from batch where lane = ? and seq <= ?",
                (number, committed),
            ).fetchone()
            self._db.execute("delete from batch where lane = ? and seq <= ?", (number, committed))
            self._db.execute("update lane set acked = ? where lane = ?", (committed, number))
            self._payload_bytes -= size
        return int(count)

    def acked(self, lane: Lane) -> int:
        with self._reading():
            row = self._db.execute("select acked from lane where lane = ?", (_LANE_NUMBER[lane],)).fetchone()
        return int(row[0])

    def seen_exchange(self, exchange: str) -> bool:
        """Whether a push of this identity is durable already; asks no disk and waits for nobody."""
        return exchange in self._exchanges

    def depth(self, now_ms: int) -> OutboxDepth:
        with self._reading():
            counts = dict(self._db.execute("select lane, count(*) from batch group by lane").fetchall())
            oldest = self._db.execute("select min(made_ms) from batch").fetchone()[0]
            thinned = self._db.execute("select sum(thinned) from lane").fetchone()[0]
        return OutboxDepth(
            {lane: int(counts.get(number, 0)) for lane, number in _LANE_NUMBER.items()},
            self._payload_bytes,
            int(thinned),
            max(0, now_ms - int(oldest)) if oldest is not None else 0,
        )

    def totals(self) -> dict[Lane, dict[str, int]]:
        """Everything ever accepted, per lane: readings, events, digest, thinned, last sequence, acknowledged."""
        with self._reading():
            rows = self._db.execute("select lane, next_seq - 1, acked, readings, events, digest, thinned from lane")
            return {
                LANES[lane]: {
                    "seq": seq,
                    "acked": acked,
                    "readings": readings,
                    "events": events,
                    "digest": int(total),
                    "thinned": thinned,
                }
                for lane, seq, acked, readings, events, total, thinned in rows.fetchall()
            }

    # -- state --------------------------------------------------------------------------------------------------

    def put_state(self, name: str, value: bytes) -> None:
        with self._transaction("its state"):
            self._db.execute("insert or replace into state values (?, ?)", (name, value))

    def get_state(self, name: str) -> bytes | None:
        with self._reading():
            row = self._db.execute("select value from state where name = ?", (name,)).fetchone()
        return bytes(row[0]) if row else None

    def close(self) -> None:
        with self._lock:
            self._db.close()
