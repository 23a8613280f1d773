"""One group of messages, one transaction: readings, events, alarms, cases, ledger and cursors become durable together.

What the gateway hears afterwards is what the database then holds. `taking.py` looks at each message, this writes what
it made of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from psycopg import Connection

from cloud.cases.policy import CasePolicy
from cloud.cases.service import overdue
from cloud.ingest import cursors, late
from cloud.ingest.clocks import touched_series
from cloud.ingest.copy import Rows, copy_in, join, pick
from cloud.ingest.events import EventDesk, insert
from cloud.ingest.group import Group, Inbound, Reply
from cloud.ingest.last import LastValues
from cloud.ingest.latency import LatencyBook
from cloud.ingest.presence import Presence
from cloud.ingest.registry import Registry
from cloud.ingest.rules import Rules
from cloud.ingest.taking import Taker
from cloud.ledger import gaps
from cloud.notify import notify_many
from cloud.store.disk import DiskWatch
from cloud.store.partitions import DAY_MS, DayPartitions
from protocols.core.errors import ContractError
from protocols.core.model import Event
from protocols.uplink import batch as wire
from protocols.uplink.topics import parse_up
from scenarios.engine.intake import AHEAD_MS

_CLOCKS_EVERY_MS = 5_000
_MOST_STEP_MS = 4_102_444_800_000  # 1970 to 2100


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
        self.disk: DiskWatch | None = None  # the worker's
        self.counts: Counter[str] = Counter()
        self._taker = Taker(self._registry, rules, self._presence, self.counts)
        self.came_online: set[str] = set()  # gateways, since somebody looked

    def forget(self) -> None:
        """A transaction failed: caches go, the group will be tried again from the tables."""
        self._registry.forget()
        self._last.forget()
        self._partitions.forget()
        self._presence.forget()
        self._taker.accounts.forget()
        self._taker.unreadable.forget()
        self._taker.clocks.forget()

    def own(self, conn: Connection[Any], shard: int) -> None:
        """A shard is ours from now on: what its last owner had no time to write is made good bit by bit."""
        self._last.repair_later(conn, shard)

    def disown(self, conn: Connection[Any], shard: int) -> None:
        """A shard is another worker's: nothing remembered of its gateways is true any longer."""
        gateways = {row[0] for row in conn.execute("select gateway_id from gateway where shard = %s", (shard,))}
        self._taker.held.forget(lambda key: key[0] in gateways)
        self._taker.accounts.forget_gateways(gateways)
        self._taker.unreadable.forget()
        self._presence.forget()
        self._registry.forget()

    def commit(self, conn: Connection[Any], messages: Sequence[Inbound], *, follow: bool = True) -> list[Reply]:
        """``follow``: rows held behind one of these are committed with it.

        Raises psycopg.Error with nothing changed; the caller then calls :meth:`forget` and tries again."""
        now_ms = self._now_ms()
        group = Group()
        alarm_times: list[tuple[str, int]] = []
        with conn.transaction():
            for message in messages:
                self._taker.take(conn, message, group, now_ms, follow=follow)
            self._clear_unreadable(conn, group, now_ms)
            if self._registry.grown:
                self._registry.grown = False
                self._rules.refresh(conn)
            stepped = self._follow_clocks(group)
            self._write_readings(conn, group, now_ms)
            self._correct_last(conn, now_ms)
            for gateway, events in group.events.items():
                alarm_times += self._write_events(conn, events, gateway, now_ms)
            self._desk.take(conn, group.own_events, None, now_ms)
            self._write_lanes(conn, group)
            self._last.flush(conn, now_ms)
            self._latency.flush(conn)
            self._rules.save(conn, group.shards, now_ms, always=stepped or bool(alarm_times))
            notify_many(conn, "gateway", sorted(group.gateways_changed))
            notify_many(conn, "device", sorted(group.devices_changed))
        self._after(group, alarm_times)
        return cursors.replies(group, self._taker.held)

    def behind(self, conn: Connection[Any], message: Inbound) -> Inbound | None:
        """The row held in memory whose turn it is after this one."""
        try:
            topic = parse_up(message.topic)
            envelope = wire.open_envelope(message.payload)
        except ContractError:
            return None
        if topic.lane is None:
            return None
        key = (topic.gateway, envelope.epoch, topic.lane)
        return self._taker.held.get(key, self._registry.totals(conn, *key).seq + 1)

    def tick(self, conn: Connection[Any], shards: Sequence[int]) -> None:
        """Time has passed with or without messages: absence rules, values still to be flushed."""
        now_ms = self._now_ms()
        with conn.transaction():
            for gateway, said in self._rules.tick().items():
                self._desk.take(conn, said, gateway, now_ms)
                self._rules.save(conn, [gateway], now_ms, always=True)
            if self.disk is not None:
                self._desk.take(conn, self.disk.events(conn, now_ms), None, now_ms)
            for gateway, said in self._presence.tick(conn, shards, now_ms):
                self._desk.take(conn, said, gateway, now_ms)
                notify_many(conn, "gateway", [gateway])
            if now_ms - self._clocks_ms >= _CLOCKS_EVERY_MS:
                self._clocks_ms = now_ms
                insert(conn, [late.event for late in overdue(conn, now_ms) if late.event is not None], None)
            self._last.flush(conn, now_ms)
            self._latency.flush(conn)
        self._latency.clear()
        self._last.repair_some(conn)
        self.counts["held_rows"] = len(self._taker.held)
        self.counts["held_bytes"] = self._taker.held.size
        self.counts["held_peak_bytes"] = self._taker.held.peak

    def set_aside(self, conn: Connection[Any], message: Inbound, error: Exception) -> list[Reply]:
        """The database refused this very message (an impossible time, a NUL in a name): dead letter, lane goes on."""
        group = Group()
        refusal = ContractError(str(error).strip().splitlines()[0], reason="database_refused")
        with conn.transaction():
            topic = parse_up(message.topic)
            gateway = self._registry.gateway(conn, topic.gateway)
            if gateway is None or topic.lane is None:
                self._taker.letters.keep(conn, group, message, topic, None, refusal)
                return []
            group.shards[gateway.gateway_id] = gateway.shard
            envelope = wire.open_envelope(message.payload)
            key = (gateway.gateway_id, envelope.epoch, topic.lane)
            change = self._taker.change(conn, group, key)
            self._taker.letters.keep(conn, group, message, topic, envelope, refusal)
            if envelope.seq == change.seq + 1:
                change.seq, change.batches, change.unproven = envelope.seq, 1, 1
                change.rejected.append((envelope.seq, refusal.reason))
            self._write_lanes(conn, group)
        self._after(group, [])
        return cursors.replies(group, self._taker.held)

    # -- the transaction's writes ---------------------------------------------------------------------------------

    def _clear_unreadable(self, conn: Connection[Any], group: Group, now_ms: int) -> None:
        for key, change in group.lanes.items():
            if change.batches:
                cleared = self._taker.unreadable.moved(conn, key, now_ms)
                if cleared is not None:
                    group.own_events.append(cleared)

    def _write_readings(self, conn: Connection[Any], group: Group, now_ms: int) -> None:
        if not group.rows:
            return
        joined = join([rows for own in group.rows.values() for rows in own])
        group.days = set(np.unique(joined.ts_ms // DAY_MS).tolist())
        self._partitions.ensure(conn, group.days, now_ms)
        copy_in(conn, joined)
        late.note(conn, join(group.placed))
        self._last.see(_not_ahead(join(group.timed), now_ms) if group.timed else None, self._registry.series_infos)
        self.counts["readings"] += len(joined)
        for gateway, own in group.live.items():
            if self._rules.has(gateway):
                said = self._rules.step(gateway, _sorted(join(own)), self._registry.series_infos, now_ms)
                self._desk.take(conn, said, gateway, now_ms)

    def _follow_clocks(self, group: Group) -> bool:
        """Gateways whose clocks were set: their rules must take an hour that came twice, or never, for what it is."""
        found = False
        for gateway, events in group.events.items():
            for event in events:
                delta_ms = event.values.get("offset_ms")
                if event.type == "gw.clock.step" and event.source == gateway and isinstance(delta_ms, int | float):
                    self._rules.clock_stepped(gateway, round(max(-_MOST_STEP_MS, min(delta_ms, _MOST_STEP_MS))))
                    found = True
        return found

    def _correct_last(self, conn: Connection[Any], now_ms: int) -> None:
        """What a wrong clock called the newest reading may not be it."""
        for gateway, told in self._taker.clocks.corrected.items():
            series = touched_series(conn, gateway, told)
            self._last.restate(conn, series, now_ms + AHEAD_MS)
            late.note_corrected(conn, series, told)
        self._taker.clocks.corrected.clear()

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

    def _write_lanes(self, conn: Connection[Any], group: Group) -> None:
        cursors.write(conn, group)
        if group.gaps:
            gaps.write(conn, group.gaps)
        self._taker.accounts.write(conn)

    def _after(self, group: Group, alarm_times: list[tuple[str, int]]) -> None:
        """The transaction is through: caches may now say so."""
        committed_ms = self._now_ms()
        for key, change in group.lanes.items():
            self._registry.advance(key, change.totals())
            self._taker.held.committed(key, change.seq)
        self._taker.accounts.committed()
        self.came_online |= group.online
        self._partitions.committed()
        self._latency.clear()
        for gateway, kind, times in group.latency:
            self._latency.add(gateway, kind, committed_ms - times)
        for gateway, ts_ms in alarm_times:
            self._latency.add(gateway, "sensor_to_alarm", np.array([committed_ms - ts_ms]))
        self._last.committed()


def _sorted(rows: Rows) -> Rows:
    return pick(rows, np.lexsort((rows.ts_ms, rows.series_id)))


def _not_ahead(rows: Rows, now_ms: int) -> Rows:
    """A reading from the future would stay the newest until the future is there."""
    fine = rows.ts_ms <= now_ms + AHEAD_MS
    return rows if fine.all() else pick(rows, fine)
