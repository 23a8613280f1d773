"""One group of messages, one transaction: readings, events, alarms, cases and cursors become durable together.

What the gateway hears afterwards is what the database then holds. A message that has been committed before is
recognised by its lane's cursor and dropped; one that comes out of turn is not stored but asked for again; one that must
not be stored is set aside with its reason, counts as committed, and its sender is told.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from psycopg import Connection
from psycopg.errors import SerializationFailure

from cloud.cases.policy import CasePolicy
from cloud.cases.service import overdue
from cloud.ingest import evidence, parts
from cloud.ingest.copy import Rows, copy_in
from cloud.ingest.events import EventDesk, insert
from cloud.ingest.last import LastValues
from cloud.ingest.latency import LatencyBook
from cloud.ingest.presence import Presence
from cloud.ingest.registry import AliasTable, Gateway, Registry
from cloud.ingest.rules import Rules
from cloud.notify import notify_many
from cloud.store.partitions import DAY_MS, DayPartitions
from protocols.core.errors import ContractError
from protocols.core.model import Event, Quality
from protocols.uplink import batch as wire
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.columns import FLOAT_BITS
from protocols.uplink.digest import add, digest, to_signed
from protocols.uplink.topics import Lane, UpTopic, parse_up

log = logging.getLogger("citybrain.cloud.ingest")

_DEAD_LETTER_BYTES = 64 << 10
_CLOCKS_EVERY_MS = 5_000


@dataclass(frozen=True, slots=True)
class Inbound:
    """One message as the broker delivered it. ``done`` tells the broker that it may forget it."""

    topic: str
    payload: bytes
    done: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Reply:
    """An acknowledgement to publish after the commit."""

    shard: int
    gateway: str
    ack: pb.Ack


@dataclass(slots=True)
class _LaneChange:
    """What this group did to one lane."""

    seq: int
    batches: int = 0
    readings: int = 0
    events: int = 0
    size: int = 0
    digest: int = 0
    thinned: int = 0
    repeats: int = 0
    resend: bool = False
    rejected: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Group:
    """Everything one transaction collects before it writes."""

    lanes: dict[tuple[str, int, str], _LaneChange] = field(default_factory=dict)
    shards: dict[str, int] = field(default_factory=dict)
    rows: dict[str, list[Rows]] = field(default_factory=dict)  # by gateway
    own_events: list[Event] = field(default_factory=list)  # the core's: links down and back
    latency: list[tuple[str, str, Any]] = field(default_factory=list)  # gateway, kind, source times
    events: dict[str, list[Event]] = field(default_factory=dict)  # by gateway
    gateways_changed: set[str] = field(default_factory=set)
    devices_changed: set[str] = field(default_factory=set)
    days: set[int] = field(default_factory=set)


class Committer:
    """Owns no connection and no thread; the worker calls it with both."""

    def __init__(
        self,
        conn: Connection[Any],
        rules: Rules,
        policies: Mapping[str, CasePolicy],
        now_ms: Callable[[], int],
    ) -> None:
        self._rules = rules
        self._now_ms = now_ms
        self._registry = Registry()
        self._desk = EventDesk(policies)
        self._latency = LatencyBook()
        self._last = LastValues()
        self._partitions = DayPartitions(conn)
        self._presence = Presence(now_ms())
        self._clocks_ms = 0
        self.counts: Counter[str] = Counter()

    def forget(self) -> None:
        """A transaction failed: caches go, the group will be tried again from the tables."""
        self._registry.forget()
        self._last.forget()
        self._partitions.forget()

    def commit(self, conn: Connection[Any], messages: Sequence[Inbound]) -> list[Reply]:
        """Raises psycopg.Error with nothing changed; the caller then calls :meth:`forget` and tries again."""
        now_ms = self._now_ms()
        group = _Group()
        alarm_times: list[tuple[str, int]] = []
        with conn.transaction():
            for message in messages:
                self._take(conn, message, group, now_ms)
            if self._registry.grown:
                self._registry.grown = False
                self._rules.refresh(conn)
            self._write_readings(conn, group, now_ms)
            for gateway, events in group.events.items():
                alarm_times += self._write_events(conn, events, gateway, now_ms)
            self._desk.take(conn, group.own_events, None, now_ms)
            self._write_cursors(conn, group)
            self._last.flush(conn, now_ms)
            self._latency.flush(conn)
            self._rules.save(conn, group.shards, now_ms, always=bool(alarm_times))
            notify_many(conn, "gateway", sorted(group.gateways_changed))
            notify_many(conn, "device", sorted(group.devices_changed))
        self._after(group, alarm_times)
        return self._replies(group)

    def tick(self, conn: Connection[Any], shards: Sequence[int]) -> None:
        """Time has passed with or without messages: absence rules, values still to be flushed."""
        now_ms = self._now_ms()
        with conn.transaction():
            for gateway, said in self._rules.tick().items():
                self._desk.take(conn, said, gateway, now_ms)
                self._rules.save(conn, [gateway], now_ms, always=True)
            for gateway, said in self._presence.tick(conn, shards, now_ms):
                self._desk.take(conn, said, gateway, now_ms)
                notify_many(conn, "gateway", [gateway])
            if now_ms - self._clocks_ms >= _CLOCKS_EVERY_MS:
                self._clocks_ms = now_ms
                insert(conn, [late.event for late in overdue(conn, now_ms) if late.event is not None], None)
            self._last.flush(conn, now_ms)
            self._latency.flush(conn)
        self._latency.clear()

    def set_aside(self, conn: Connection[Any], message: Inbound, error: Exception) -> list[Reply]:
        """The database refused this very message (an impossible time, a NUL in a name): dead letter, lane goes on."""
        group = _Group()
        refusal = ContractError(str(error).strip().splitlines()[0], reason="database_refused")
        with conn.transaction():
            topic = parse_up(message.topic)
            gateway = self._registry.gateway(conn, topic.gateway)
            if gateway is None or topic.lane is None:
                self._dead_letter(conn, message, topic, None, refusal)
                return []
            group.shards[gateway.gateway_id] = gateway.shard
            envelope = wire.open_envelope(message.payload)
            key = (gateway.gateway_id, envelope.epoch, topic.lane)
            change = group.lanes[key] = _LaneChange(self._registry.cursor(conn, *key))
            self._dead_letter(conn, message, topic, envelope, refusal)
            if envelope.seq == change.seq + 1:
                change.seq, change.batches = envelope.seq, 1
                change.rejected.append((envelope.seq, refusal.reason))
            self._write_cursors(conn, group)
        self._after(group, [])
        return self._replies(group)

    # -- one message ----------------------------------------------------------------------------------------------

    def _take(self, conn: Connection[Any], message: Inbound, group: _Group, now_ms: int) -> None:
        self.counts["messages"] += 1
        try:
            topic = parse_up(message.topic)
            gateway = self._registry.gateway(conn, topic.gateway)
            if gateway is None or gateway.shard != topic.shard:
                raise ContractError(
                    f"gateway {topic.gateway} is not enrolled in shard {topic.shard}", reason="stranger"
                )
        except ContractError as error:
            self._dead_letter(conn, message, None, None, error)
            return
        group.shards[gateway.gateway_id] = gateway.shard
        if topic.lane is None:
            self._take_presence(conn, topic, message, group, now_ms)
            return
        try:
            envelope = wire.open_envelope(message.payload)
        except ContractError as error:
            self._dead_letter(conn, message, topic, None, error)
            return
        self._take_batch(conn, gateway, topic.lane, topic, envelope, message, group)

    def _take_batch(
        self,
        conn: Connection[Any],
        gateway: Gateway,
        lane: Lane,
        topic: UpTopic,
        envelope: wire.Envelope,
        message: Inbound,
        group: _Group,
    ) -> None:
        key = (gateway.gateway_id, envelope.epoch, lane)
        change = group.lanes.get(key)
        if change is None:
            change = group.lanes[key] = _LaneChange(self._registry.cursor(conn, *key))
        if envelope.seq <= change.seq:
            change.repeats += 1
            self.counts["repeats"] += 1
            return
        if envelope.seq != change.seq + 1:
            change.resend = True
            self.counts["out_of_turn"] += 1
            return
        try:
            wire.refuse_newer(envelope)
            if envelope.message.declare:
                with conn.transaction():
                    self._registry.declare(conn, gateway, envelope.epoch, wire.declarations_of(envelope))
            table = self._registry.aliases(conn, gateway.gateway_id, envelope.epoch)
            left_out: set[int] = set()
            batch = wire.decode(envelope, table.codes, left_out=left_out)
            _check_limits(batch)
            if batch.evidence:
                with conn.transaction():
                    evidence.take(conn, batch.evidence)
            parts.take(conn, gateway.gateway_id, batch)
            strangers = [state.device for state in batch.devices if not self._device_state(conn, gateway, state, group)]
            foreign = self._registry.foreign(conn, gateway, {name for e in batch.events for name in _concerned(e)})
            if foreign:  # nobody raises or clears alarms in another gateway's name
                strangers += sorted(foreign)
                honest = tuple(e for e in batch.events if foreign.isdisjoint(_concerned(e)))
                batch = replace(batch, events=honest)
        except ContractError as error:
            self._registry.forget()
            self._dead_letter(conn, message, topic, envelope, error)
            change.rejected.append((envelope.seq, error.reason))
        else:
            refusal = _in_part(left_out, strangers, table)
            if refusal is not None:
                self._dead_letter(conn, message, topic, envelope, refusal)
                change.rejected.append((envelope.seq, refusal.reason))
            self._collect(batch, gateway, table, group, change)
        change.seq = envelope.seq
        change.batches += 1
        change.size += len(message.payload)

    def _collect(
        self,
        batch: wire.Batch,
        gateway: Gateway,
        table: AliasTable,
        group: _Group,
        change: _LaneChange,
    ) -> None:
        readings = batch.readings
        if len(readings):
            place = table.places(readings.alias)
            decimals = table.decimals[place]
            value = readings.integer / np.power(10.0, np.where(decimals == FLOAT_BITS, 0, decimals))
            as_bits = decimals == FLOAT_BITS
            if as_bits.any():
                value[as_bits] = readings.integer[as_bits].view(np.float64)
            value[readings.quality == Quality.MISSING] = np.nan
            rows = Rows(table.series_id[place], readings.ts_ms, value, readings.lag_ms, readings.quality)
            group.rows.setdefault(gateway.gateway_id, []).append(rows)
            change.digest = add(
                change.digest, digest(table.hashes[place], readings.ts_ms, readings.integer, readings.quality)
            )
            change.readings += len(readings)
            group.latency.append((gateway.gateway_id, "sensor_to_commit", readings.ts_ms))
        if batch.events:
            group.events.setdefault(gateway.gateway_id, []).extend(batch.events)
            change.events += len(batch.events)
        change.thinned += sum(t.readings for t in batch.thinned)

    def _take_presence(
        self, conn: Connection[Any], topic: UpTopic, message: Inbound, group: _Group, now_ms: int
    ) -> None:
        try:
            if topic.channel == "state":
                group.own_events += self._presence.state(conn, topic.gateway, message.payload, now_ms)
            else:
                complete_ms, events = self._presence.health(conn, topic.gateway, message.payload, now_ms)
                self._rules.progress(topic.gateway, complete_ms)
                group.own_events += events
        except DecodeError:
            self._dead_letter(
                conn, message, topic, None, ContractError("the payload is no protobuf", reason="not_protobuf")
            )
            return
        group.gateways_changed.add(topic.gateway)

    def _device_state(self, conn: Connection[Any], gateway: Gateway, state: wire.DeviceState, group: _Group) -> bool:
        """False if the device belongs to another gateway, which alone may say how it is."""
        if not self._registry.device(conn, gateway, state.device):
            return False
        conn.execute(
            "update device set online = %s, state_at = to_timestamp(%s / 1000.0), detail = %s"
            " where device_id = %s and (state_at is null or state_at <= to_timestamp(%s / 1000.0))",
            (state.online, state.at_ms, state.detail[:500], state.device, state.at_ms),
        )
        group.devices_changed.add(state.device)
        return True

    def _dead_letter(
        self,
        conn: Connection[Any],
        message: Inbound,
        topic: UpTopic | None,
        envelope: wire.Envelope | None,
        error: ContractError,
    ) -> None:
        """A batch from a newer agent is kept whole: a later core can read it. Of all else the first 64 KiB."""
        self.counts["dead_letters"] += 1
        self.counts[f"dead_letter_{error.reason}"] += 1
        log.warning("set aside: %s: %s (%s, %d bytes)", message.topic[:120], error, error.reason, len(message.payload))
        keep = wire.MAX_BATCH_BYTES if error.reason == "newer_version" else _DEAD_LETTER_BYTES
        conn.execute(
            "insert into dead_letter (topic, gateway_id, epoch, lane, seq, reason, detail, size_bytes, payload)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                message.topic[:500].replace("\x00", ""),
                topic.gateway if topic else None,
                envelope.epoch if envelope else None,
                topic.channel if topic else None,
                envelope.seq if envelope else None,
                error.reason,
                str(error)[:500].replace("\x00", ""),
                len(message.payload),
                message.payload[:keep],
            ),
        )

    # -- the transaction's writes ---------------------------------------------------------------------------------

    def _write_readings(self, conn: Connection[Any], group: _Group, now_ms: int) -> None:
        if not group.rows:
            return
        joined = _join([rows for own in group.rows.values() for rows in own])
        group.days = set(np.unique(joined.ts_ms // DAY_MS).tolist())
        self._partitions.ensure(conn, group.days, now_ms)
        copy_in(conn, joined)
        self._last.see(joined, self._registry.series_infos)
        self.counts["readings"] += len(joined)
        for gateway, own in group.rows.items():
            if self._rules.has(gateway):
                said = self._rules.step(gateway, _sorted(_join(own)), self._registry.series_infos, now_ms)
                self._desk.take(conn, said, gateway, now_ms)

    def _write_events(
        self, conn: Connection[Any], events: list[Event], gateway: str, now_ms: int
    ) -> list[tuple[str, int]]:
        fresh, changes = self._desk.take(conn, events, gateway, now_ms)
        self.counts["events"] += len(fresh)
        _, more = self._desk.take(conn, self._rules.events(fresh, now_ms), None, now_ms)
        changes += more
        by_key = {event.key: event.ts_ms for event in fresh if event.state == "raise"}
        raised = [c for c in changes if c.kind == "raised" and c.alarm.key in by_key]
        self.counts["alarms"] += len(raised)
        return [(gateway, by_key[c.alarm.key]) for c in raised]

    def _write_cursors(self, conn: Connection[Any], group: _Group) -> None:
        if not group.lanes:
            return
        with conn.cursor() as cursor:
            # A cursor moves only from where this group found it: another worker may have taken the shard over.
            cursor.executemany(
                "insert into lane_cursor as c (gateway_id, epoch, lane, seq, batches, readings, events, bytes, digest,"
                " thinned, repeats) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
                " on conflict (gateway_id, epoch, lane) do update set seq = excluded.seq,"
                " batches = c.batches + excluded.batches, readings = c.readings + excluded.readings,"
                " events = c.events + excluded.events, bytes = c.bytes + excluded.bytes,"
                " digest = wrapping_add(c.digest, excluded.digest), thinned = c.thinned + excluded.thinned,"
                " repeats = c.repeats + excluded.repeats, updated_at = now()"
                " where c.seq = excluded.seq - excluded.batches",
                [
                    (
                        gateway, epoch, lane, c.seq, c.batches, c.readings, c.events, c.size, to_signed(c.digest),
                        c.thinned, c.repeats,
                    )
                    for (gateway, epoch, lane), c in group.lanes.items()
                ],
            )  # fmt: skip
            if cursor.rowcount != len(group.lanes):
                raise SerializationFailure("a lane has been moved on by another worker")

    def _after(self, group: _Group, alarm_times: list[tuple[str, int]]) -> None:
        """The transaction is through: caches may now say so."""
        committed_ms = self._now_ms()
        for (gateway, epoch, lane), change in group.lanes.items():
            self._registry.advance(gateway, epoch, lane, change.seq)
        self._partitions.committed()
        self._latency.clear()
        for gateway, kind, times in group.latency:
            self._latency.add(gateway, kind, committed_ms - times)
        for gateway, ts_ms in alarm_times:
            self._latency.add(gateway, "sensor_to_alarm", np.array([committed_ms - ts_ms]))
        self._last.committed()

    def _replies(self, group: _Group) -> list[Reply]:
        out: list[Reply] = []
        for (gateway, epoch, lane), change in group.lanes.items():
            shard = group.shards[gateway]
            for seq, reason in change.rejected:
                out.append(
                    Reply(
                        shard,
                        gateway,
                        pb.Ack(epoch=epoch, lane=lane, committed=change.seq, rejected_seq=seq, reason=reason),
                    )
                )
            out.append(
                Reply(shard, gateway, pb.Ack(epoch=epoch, lane=lane, committed=change.seq, resend=change.resend))
            )
        return out


_LATEST_MS = 4_102_444_800_000  # 2100-01-01: beyond it is no clock error any more but garbage


_MOST_THINNED = 1 << 53


def _check_limits(batch: wire.Batch) -> None:
    """Raises ContractError ``time`` for what no calendar holds; 1970 and a year ahead are stored as they came."""
    times = batch.readings.ts_ms
    if len(times) and (int(times.min()) < 0 or int(times.max()) > _LATEST_MS):
        raise ContractError("a reading before 1970 or after 2100", reason="time")
    for event in batch.events:
        if not (0 <= event.ts_ms <= _LATEST_MS and 0 <= event.seen_ms <= _LATEST_MS):
            raise ContractError(f"event {event.id}: before 1970 or after 2100", reason="time")
    others = [(state.device, state.at_ms) for state in batch.devices] + [(e.device, e.ts_ms) for e in batch.evidence]
    for device, at_ms in others:
        if not 0 <= at_ms <= _LATEST_MS:
            raise ContractError(f"{device[:80]}: state or picture before 1970 or after 2100", reason="time")
    if sum(stone.readings for stone in batch.thinned) > _MOST_THINNED:
        raise ContractError("more readings thinned than there can be", reason="malformed")


def _concerned(event: Event) -> set[str]:
    """Devices an event speaks for: its source, and the one its alarm's key begins with."""
    return {wire.device_of(event.source)[0], wire.device_of(event.key.partition(":")[0])[0]} - {""}


def _in_part(left_out: set[int], strangers: Sequence[str], table: AliasTable) -> ContractError | None:
    """What of a batch could not be stored while the rest was; None if all of it was."""
    if strangers or left_out & table.foreign:
        what = f"device {strangers[0]}" if strangers else f"series {min(left_out & table.foreign)}: its device"
        return ContractError(f"{what} belongs to another gateway; the rest is stored", reason="foreign_device")
    if left_out:
        return ContractError(f"series {min(left_out)} was never declared; the rest is kept", reason="undeclared_series")
    return None


def _join(parts: Sequence[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return Rows(
        np.concatenate([p.series_id for p in parts]),
        np.concatenate([p.ts_ms for p in parts]),
        np.concatenate([p.value for p in parts]),
        np.concatenate([p.lag_ms for p in parts]),
        np.concatenate([p.quality for p in parts]),
    )


def _sorted(rows: Rows) -> Rows:
    order = np.lexsort((rows.ts_ms, rows.series_id))
    return Rows(rows.series_id[order], rows.ts_ms[order], rows.value[order], rows.lag_ms[order], rows.quality[order])
