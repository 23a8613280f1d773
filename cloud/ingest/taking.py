"""One message into the group: is it known, whose turn is it, what does it hold.

A row ends in one of five ways: taken; recognised as a repeat; held until the rows before it have come; asked for
again; set aside with its reason, counted as committed, and its sender told. Nothing here writes readings or events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from psycopg import Connection

from cloud.ingest import evidence, parts
from cloud.ingest.clocks import Clocks, as_said
from cloud.ingest.copy import Rows
from cloud.ingest.deadletters import DeadLetters
from cloud.ingest.group import Group, Inbound, LaneChange, LaneKey
from cloud.ingest.held import Held
from cloud.ingest.presence import Presence
from cloud.ingest.registry import AliasTable, Gateway, Registry
from cloud.ingest.rules import Rules
from cloud.ingest.unreadable import Unreadable
from cloud.ledger.accounts import Accounts
from cloud.ledger.stones import clock_pieces, stone_pieces
from protocols.core.errors import ContractError
from protocols.core.model import Event, Quality
from protocols.uplink import batch as wire
from protocols.uplink.columns import FLOAT_BITS
from protocols.uplink.digest import add, digest
from protocols.uplink.topics import Lane, UpTopic, parse_up

_LATEST_MS = 4_102_444_800_000  # 2100-01-01: beyond it is no clock error any more but garbage
_MOST_THINNED = 1 << 53


class Taker:
    """Changes the group and, within the caller's transaction, series, devices and the small parts of a batch."""

    def __init__(self, registry: Registry, rules: Rules, presence: Presence, counts: Counter[str]) -> None:
        self._registry = registry
        self._rules = rules
        self._presence = presence
        self._counts = counts
        self.held = Held()
        self.accounts = Accounts()
        self.unreadable = Unreadable()
        self.letters = DeadLetters(counts)
        self.clocks = Clocks()

    def take(self, conn: Connection[Any], message: Inbound, group: Group, now_ms: int, *, follow: bool = True) -> None:
        """``follow``: with a row, those held behind it as well."""
        self._counts["messages"] += 1
        try:
            topic = parse_up(message.topic)
            gateway = self._registry.gateway(conn, topic.gateway)
            if gateway is None or gateway.shard != topic.shard:
                raise ContractError(
                    f"gateway {topic.gateway} is not enrolled in shard {topic.shard}", reason="stranger"
                )
        except ContractError as error:
            self.letters.keep(conn, group, message, None, None, error)
            return
        group.shards[gateway.gateway_id] = gateway.shard
        if topic.lane is None:
            self._take_presence(conn, topic, message, group, now_ms)
            return
        try:
            envelope = wire.open_envelope(message.payload)
        except ContractError as error:
            self.letters.keep(conn, group, message, topic, None, error)
            self._cannot_place(conn, gateway, topic.lane, group, error.reason, now_ms)
            return
        key = (gateway.gateway_id, envelope.epoch, topic.lane)
        change = self.change(conn, group, key)
        if envelope.seq <= change.seq:
            change.repeats += 1
            self._counts["repeats"] += 1
        elif envelope.seq > change.seq + 1:
            change.furthest = max(change.furthest, envelope.seq)
            self._counts["out_of_turn"] += 1
            self.held.offer(key, envelope.seq, change.start.seq, message, now_ms)
        else:
            self._take_batch(conn, gateway, topic, envelope, message, group, change)
            while follow and (behind := self.held.get(key, change.seq + 1)) is not None:
                self._counts["from_memory"] += 1
                self._take_batch(conn, gateway, topic, wire.open_envelope(behind.payload), behind, group, change)

    def change(self, conn: Connection[Any], group: Group, key: LaneKey) -> LaneChange:
        """What the group has done to a lane, begun if it has done nothing yet."""
        change = group.lanes.get(key)
        if change is None:
            start = self._registry.totals(conn, *key)
            change = group.lanes[key] = LaneChange(start, start.seq)
        return change

    # -- a batch --------------------------------------------------------------------------------------------------

    def _take_batch(
        self,
        conn: Connection[Any],
        gateway: Gateway,
        topic: UpTopic,
        envelope: wire.Envelope,
        message: Inbound,
        group: Group,
        change: LaneChange,
    ) -> None:
        """The next row of its lane. A group that fails is given back whole, and with it what this has changed."""
        key = (gateway.gateway_id, envelope.epoch, topic.channel)
        try:
            wire.refuse_newer(envelope)
            if envelope.message.declare:
                with conn.transaction():
                    self._registry.declare(conn, gateway, envelope.epoch, wire.declarations_of(envelope))
            table = self._registry.aliases(conn, gateway.gateway_id, envelope.epoch)
            left_out: set[int] = set()
            batch = wire.decode(envelope, table.codes, left_out=left_out)
            check_limits(batch)
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
            self._set_aside(conn, message, topic, envelope, error, group, change)
        else:
            refusal = _in_part(left_out, strangers, table)
            if refusal is not None:
                self._set_aside(conn, message, topic, envelope, refusal, group, change)
            self._collect(conn, batch, gateway, topic, table, group, change)
        change.seq = envelope.seq
        change.batches += 1
        change.size += len(message.payload)
        if self.accounts.waits(key) == change.seq:
            self.accounts.passed(key, change.totals())

    def _set_aside(
        self,
        conn: Connection[Any],
        message: Inbound,
        topic: UpTopic,
        envelope: wire.Envelope,
        error: ContractError,
        group: Group,
        change: LaneChange,
    ) -> None:
        self.letters.keep(conn, group, message, topic, envelope, error)
        change.rejected.append((envelope.seq, error.reason))
        change.unproven += 1

    def _collect(
        self,
        conn: Connection[Any],
        batch: wire.Batch,
        gateway: Gateway,
        topic: UpTopic,
        table: AliasTable,
        group: Group,
        change: LaneChange,
    ) -> None:
        readings = batch.readings
        place = (gateway.gateway_id, batch.epoch, topic.channel)
        self.clocks.take(conn, gateway.gateway_id, batch.corrections)
        if len(readings):
            where = table.places(readings.alias)
            decimals = table.decimals[where]
            value = readings.integer / np.power(10.0, np.where(decimals == FLOAT_BITS, 0, decimals))
            as_bits = decimals == FLOAT_BITS
            if as_bits.any():
                value[as_bits] = readings.integer[as_bits].view(np.float64)
            value[readings.quality == Quality.MISSING] = np.nan
            runs = as_said(len(readings), batch.clock_run)
            rows = Rows(table.series_id[where], readings.ts_ms, value, readings.lag_ms, readings.quality, runs)
            group.rows.setdefault(gateway.gateway_id, []).append(rows)
            self._at_true_time(conn, batch, gateway.gateway_id, rows, group)
            change.digest = add(
                change.digest, digest(table.hashes[where], readings.ts_ms, readings.integer, readings.quality)
            )
            change.readings += len(readings)
            if batch.clock == wire.CLOCK_UNKNOWN:
                group.gaps += clock_pieces(place, batch)
        if batch.events:
            group.events.setdefault(gateway.gateway_id, []).extend(batch.events)
            change.events += len(batch.events)
        if batch.thinned:
            group.gaps += stone_pieces(place, batch, table.known_series)
            for stone in batch.thinned:
                change.thinned += stone.readings
                change.thinned_digest = add(change.thinned_digest, stone.digest)
                change.unproven += bool(stone.readings and not stone.digest)

    def _at_true_time(self, conn: Connection[Any], batch: wire.Batch, gateway: str, rows: Rows, group: Group) -> None:
        """What may become a last value, and what rules may see: not the times of a clock that knew none."""
        known = self.clocks.true_ms(conn, gateway, batch.clock_run, rows.ts_ms, rows.lag_ms)
        timed = rows if known is None else replace(rows, ts_ms=known)
        group.placed.append(timed)
        if batch.clock == wire.CLOCK_UNKNOWN and known is None:
            return
        group.timed.append(timed)
        if not batch.historical:
            group.live.setdefault(gateway, []).append(timed)
            group.latency.append((gateway, "sensor_to_commit", timed.ts_ms))

    def _device_state(self, conn: Connection[Any], gateway: Gateway, state: wire.DeviceState, group: Group) -> bool:
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

    # -- other things than batches --------------------------------------------------------------------------------

    def _cannot_place(
        self, conn: Connection[Any], gateway: Gateway, lane: Lane, group: Group, reason: str, now_ms: int
    ) -> None:
        tell, alarm = self.unreadable.came(conn, gateway.gateway_id, lane, reason, now_ms)
        if alarm is not None:
            group.own_events.append(alarm)
        epoch = self._registry.epoch(conn, gateway.gateway_id) if tell else 0
        if epoch:
            self.change(conn, group, (gateway.gateway_id, epoch, lane)).unreadable = reason

    def _take_presence(
        self, conn: Connection[Any], topic: UpTopic, message: Inbound, group: Group, now_ms: int
    ) -> None:
        try:
            if topic.channel == "state":
                online, events = self._presence.state(conn, topic.gateway, message.payload, now_ms)
                group.own_events += events
                if online:
                    group.online.add(topic.gateway)
            elif topic.channel == "account":
                for key, book in self.accounts.take(conn, topic.gateway, message.payload):
                    change = group.lanes.get(key)
                    self.accounts.expect(key, book, change.totals() if change else self._registry.totals(conn, *key))
            else:
                complete_ms, events = self._presence.health(conn, topic.gateway, message.payload, now_ms)
                self._rules.progress(topic.gateway, complete_ms)
                group.own_events += events
        except (ContractError, DecodeError) as error:
            refusal = error if isinstance(error, ContractError) else ContractError("no protobuf", reason="not_protobuf")
            self.letters.keep(conn, group, message, topic, None, refusal)
            return
        group.gateways_changed.add(topic.gateway)


def check_limits(batch: wire.Batch) -> None:
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
    for stone in batch.thinned:
        spans = [(stone.first_ms, stone.last_ms), *((part.first_ms, part.last_ms) for part in stone.series)]
        if not all(0 <= ms <= _LATEST_MS for span in spans for ms in span):
            raise ContractError("readings thinned from before 1970 or after 2100", reason="time")
        if sum(part.readings for part in stone.series) > _MOST_THINNED or "\x00" in stone.reason:
            raise ContractError("an impossible account of what was thinned", reason="malformed")


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
