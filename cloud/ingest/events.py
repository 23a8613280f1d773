"""Events into the table, and from there into alarms and cases: one path for the gateways' and the core's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import h3
from psycopg import Connection
from psycopg.types.json import Jsonb

from cloud.alarms.model import AlarmChange
from cloud.alarms.service import apply_events
from cloud.cases.opening import open_for
from cloud.cases.policy import CasePolicy
from protocols.core.model import Event
from protocols.uplink.batch import device_of


def insert(conn: Connection[Any], events: Sequence[Event], gateway_id: str | None) -> list[Event]:
    """Store events; returns those that were new (an event's id is its identity, a repeat changes nothing)."""
    if not events:
        return []
    rows = [_row(event, gateway_id) for event in events]
    new: set[str] = set()
    with conn.cursor() as cursor:
        cursor.executemany(
            "insert into event (event_id, gateway_id, ts, seen_at, type, level, state, key, scenario, device_id, point,"
            ' "values", quality, lon, lat, h3_9, evidence, drill) values (%s, %s, to_timestamp(%s / 1000.0),'
            " to_timestamp(%s / 1000.0), %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " on conflict (event_id) do nothing returning event_id",
            rows,
            returning=True,
        )
        while True:
            row = cursor.fetchone()
            if row is not None:
                new.add(row[0])
            if not cursor.nextset():
                break
    return [event for event in events if event.id in new]


def _row(event: Event, gateway_id: str | None) -> tuple[Any, ...]:
    device, point = device_of(event.source)
    lon, lat = event.location or (None, None)
    cell = h3.latlng_to_cell(lat, lon, 9) if lon is not None and lat is not None else None
    evidence = [{"sha256": e.sha256, "kind": e.kind, "masked": e.masked, "mime": e.mime} for e in event.evidence]
    return (
        event.id, gateway_id, event.ts_ms, event.seen_ms, event.type, event.level, event.state, event.key,
        event.scenario, device, point, Jsonb(dict(event.values)), event.quality, lon, lat, cell, Jsonb(evidence),
        event.drill,
    )  # fmt: skip


class EventDesk:
    """``policies``: which case a scenario opens. ``counts``: what was set aside, by reason."""

    def __init__(self, policies: Mapping[str, CasePolicy]) -> None:
        self._policies = policies
        self.counts: Counter[str] = Counter()

    def take(
        self, conn: Connection[Any], events: Sequence[Event], gateway_id: str | None, now_ms: int
    ) -> tuple[list[Event], list[AlarmChange]]:
        """Store, raise alarms, open cases; returns (new events, alarm changes)."""
        fresh = insert(conn, events, gateway_id)
        if not fresh:
            return [], []
        changes = apply_events(conn, fresh, gateway_id, now_ms, self.counts)
        own: list[Event] = [change.hint for change in changes if change.hint is not None]
        for change in changes:
            policy = self._policies.get(change.alarm.scenario)
            if policy is not None:
                opened = open_for(conn, change, policy, now_ms)
                own.extend(opened.events if opened is not None else ())
        insert(conn, own, gateway_id)
        return fresh, changes
