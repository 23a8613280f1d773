"""Events become alarms, in the ingest worker's own transaction: either the batch and its alarms are there, or neither.

One batch costs at most four statements, however many events it holds: read the alarms of its keys, look for facts that
overtook their raise, write the changed ones, write the new ones. Nobody is locked out while it works: a row that moved
meanwhile (an operator acknowledged it, another worker raised it first) is read again and the events applied again,
which changes nothing that was applied before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from psycopg import Connection

from cloud import audit
from cloud.alarms import rows
from cloud.alarms.errors import AlarmNotFound
from cloud.alarms.fold import concerns_alarms, fold
from cloud.alarms.model import Alarm, AlarmChange
from cloud.notify import notify, notify_many
from protocols.core.errors import StoreError
from protocols.core.model import Event

_ATTEMPTS = 5  # each further one needs another transaction to have committed in between

_Key = tuple[str, str]


def apply_events(
    conn: Connection[Any],
    events: Sequence[Event],
    gateway_id: str | None,
    now_ms: int,
    counts: Counter[str] | None = None,
) -> list[AlarmChange]:
    """Raise, update and clear alarms by what the events say; returns what changed, in the order it began.

    Idempotent: events that were applied before change nothing and return nothing, alone or in any mixture. The caller
    stores the events themselves (before or after, in the same transaction), and each change's ``hint``. Listeners are
    notified at commit. ``counts`` takes what was set aside: ``orphan``, ``late``, ``drill_ignored``.
    """
    counts = Counter() if counts is None else counts
    waiting: dict[_Key, list[Event]] = {}
    for event in events:
        if concerns_alarms(event):
            waiting.setdefault((event.scenario, event.key), []).append(event)
    done: list[AlarmChange] = []
    for _ in range(_ATTEMPTS):
        if not waiting:
            break
        changes, set_aside = _plan(conn, waiting, gateway_id, now_ms)
        written = _write(conn, changes)
        done += written
        ids = {change.alarm.alarm_id for change in written}
        moved = {_key(change.alarm) for change in changes if change.alarm.alarm_id not in ids}
        for key in waiting.keys() - moved:
            counts.update(set_aside[key])
        waiting = {key: waiting[key] for key in moved}
    if waiting:
        raise StoreError(f"{len(waiting)} alarms kept changing under us: {sorted(waiting)[:3]}")
    notify_many(conn, "alarm", [change.alarm.alarm_id for change in done])
    return sorted(done, key=lambda change: change.alarm.onset_ms)


def acknowledge(conn: Connection[Any], alarm_id: str, who: str, now_ms: int | None = None) -> Alarm:
    """An operator has taken the alarm. The first one stays on record; acknowledging again is no error, and one that
    cleared in the same moment stays cleared. ``now_ms`` None takes the database's clock."""
    alarm = rows.one(conn, alarm_id, lock=True)
    if alarm is None:
        raise AlarmNotFound(alarm_id)
    if alarm.acked_ms is not None:
        return alarm
    alarm = rows.mark_acknowledged(conn, alarm_id, who, now_ms)
    audit.record(conn, audit.Entry(who, "alarm.acknowledge", f"alarm/{alarm_id}", {"level": alarm.level}))
    notify(conn, "alarm", alarm_id)
    return alarm


def load_alarm(conn: Connection[Any], alarm_id: str) -> Alarm:
    alarm = rows.one(conn, alarm_id)
    if alarm is None:
        raise AlarmNotFound(alarm_id)
    return alarm


def _plan(
    conn: Connection[Any], waiting: dict[_Key, list[Event]], gateway_id: str | None, now_ms: int
) -> tuple[list[AlarmChange], dict[_Key, Counter[str]]]:
    known = rows.newest(conn, list(waiting))
    first_raises = [event for key, batch in waiting.items() if (event := _opening(known[key], batch)) is not None]
    overtook: dict[_Key, list[Event]] = {}
    if first_raises:
        for event in rows.later_events(conn, first_raises):
            overtook.setdefault((event.scenario, event.key), []).append(event)
    changes = []
    counts: dict[_Key, Counter[str]] = {}
    for key, batch in waiting.items():
        ids = {event.id for event in batch}
        stored = [event for event in overtook.get(key, ()) if event.id not in ids]
        counts[key] = Counter()
        changes += fold(known[key], [*stored, *batch], gateway_id, now_ms, counts[key])
    return changes, counts


def _opening(known: Sequence[Alarm], batch: Sequence[Event]) -> Event | None:
    """The earliest raise of the batch that opens an alarm, if one does."""
    latest = known[-1] if known else None
    if latest is not None and latest.open:
        return None
    newer = [e for e in batch if e.state == "raise" and (latest is None or e.ts_ms > latest.updated_ms)]
    return min(newer, key=lambda e: e.ts_ms, default=None)


def _write(conn: Connection[Any], changes: Sequence[AlarmChange]) -> list[AlarmChange]:
    """Old alarms first: a new one of the same key may only open once the last has cleared."""
    old = [change for change in changes if change.before is not None]
    updated = rows.update(conn, old) if old else set()
    written = [change for change in old if change.alarm.alarm_id in updated]
    stuck = {_key(change.alarm) for change in old if change.alarm.alarm_id not in updated}
    new = [change for change in changes if change.before is None and _key(change.alarm) not in stuck]
    places = rows.insert(conn, new) if new else {}
    for change in new:
        if change.alarm.alarm_id in places:
            place = places[change.alarm.alarm_id]
            lon, lat, h3_9 = place if place is not None else (None, None, None)
            written.append(replace(change, alarm=replace(change.alarm, lon=lon, lat=lat, h3_9=h3_9)))
    return written


def _key(alarm: Alarm) -> _Key:
    return alarm.scenario, alarm.key
