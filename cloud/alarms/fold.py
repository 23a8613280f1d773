"""What events make of an alarm: a pure function, so that order, repeats and lateness can be tested without a database.

The rules, for one (scenario, key):

* a raise opens an alarm; a raise while it is open counts as a repeat; an update moves its level; a clear closes it;
* a fact that is not newer than the newest one already in the alarm changes neither level nor state: a replay is
  harmless. A late one may still lift the peak and add evidence, both of which do not depend on the order;
* an update or a clear of an alarm nobody knows is left as an event and counted; when its raise turns up later, the
  caller hands those events in again (``service`` finds them in table ``event``), and the alarm ends as if all had
  come in order;
* the sixth raise within 10 minutes (events.md section 3, chattering) reopens the last alarm instead of opening one
  more, and so do further ones until it has been quiet for 10 minutes;
* an exercise never touches a real alarm, and a real raise takes an open exercise's alarm over.
"""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from cloud.alarms.model import NAMESPACE, Alarm, AlarmChange, ChangeKind, alarm_id_of
from protocols.core.model import LEVEL_RANK, Event, EvidenceRef, Level
from protocols.uplink.batch import device_of

CHATTER_WINDOW_MS = 10 * 60_000
CHATTER_RAISES = 5  # more than this many raises within the window is chattering


def concerns_alarms(event: Event) -> bool:
    """Whether the event speaks of an alarm at all. Hand-set values never raise one alone (events.md section 10) and
    level info has no place in the alarm queue (section 2)."""
    if not event.state or not event.key:
        return False
    return event.state != "raise" or (event.level != "info" and event.quality != "manual")


def fold(
    known: Sequence[Alarm], events: Sequence[Event], gateway_id: str | None, now_ms: int, counts: Counter[str]
) -> list[AlarmChange]:
    """Apply events of one (scenario, key) to its newest alarms (newest last) and say what changed, oldest first.

    ``counts`` receives what was set aside: ``orphan`` (update or clear without alarm), ``late``, ``drill_ignored``.
    """
    alarms = {alarm.alarm_id: alarm for alarm in known}
    before = dict(alarms)
    for event in sorted(events, key=lambda e: e.ts_ms):  # stable: equal times keep the order of arrival
        latest = next(reversed(alarms.values()), None)
        after = _step(latest, event, list(alarms.values()), gateway_id, now_ms, counts)
        if after is not None:
            alarms[after.alarm_id] = after
    changes = []
    for alarm_id, alarm in alarms.items():
        was = before.get(alarm_id)
        kind = _kind(was, alarm)
        if kind is not None:
            begins_to_chatter = alarm.grouped and (was is None or not was.grouped)
            changes.append(AlarmChange(kind, alarm, was, _hint(alarm, now_ms) if begins_to_chatter else None))
    return changes


def _step(
    latest: Alarm | None,
    event: Event,
    alarms: Sequence[Alarm],
    gateway_id: str | None,
    now_ms: int,
    counts: Counter[str],
) -> Alarm | None:
    """The alarm after one event, or None if the event leaves no trace in the alarms."""
    if latest is not None and latest.open and event.drill and not latest.drill:
        counts["drill_ignored"] += 1
        return None
    if event.state == "raise":
        return _raise(latest, event, alarms, gateway_id, now_ms, counts)
    if latest is None or event.ts_ms < latest.onset_ms or (not latest.open and event.ts_ms > latest.updated_ms):
        counts["orphan"] += 1
        return None
    if latest.drill != event.drill:  # a real clear must not end an exercise's alarm either
        counts["drill_ignored"] += 1
        return None
    if not latest.open or event.ts_ms < latest.updated_ms:
        return _late(latest, event, counts)
    if event.state == "clear":
        return replace(_absorb(latest, event), state="cleared", cleared_ms=event.ts_ms, updated_ms=event.ts_ms)
    if event.ts_ms == latest.updated_ms and LEVEL_RANK[event.level] < LEVEL_RANK[latest.level]:
        return _late(latest, event, counts)  # two updates of the same millisecond: the higher stands, in any order
    return _newer(latest, event)


def _raise(
    latest: Alarm | None,
    event: Event,
    alarms: Sequence[Alarm],
    gateway_id: str | None,
    now_ms: int,
    counts: Counter[str],
) -> Alarm | None:
    if latest is None:
        return _open(event, gateway_id, now_ms)
    if latest.open and latest.drill and not event.drill and event.ts_ms >= latest.onset_ms:
        real = replace(_newer(latest, event), updated_ms=max(event.ts_ms, latest.updated_ms))
        return replace(real, drill=False, peak_level=real.level, state="raised", acked_ms=None, acked_by=None)
    if event.ts_ms <= latest.updated_ms:
        if event.ts_ms < latest.onset_ms:
            counts["late"] += 1
            return None
        return _late(latest, event, counts)
    if latest.open:
        return replace(_newer(latest, event), repeats=latest.repeats + 1)
    if _chatters(latest, event, alarms):
        again = _newer(latest, event)
        return replace(
            again,
            state="raised",
            cleared_ms=None,
            acked_ms=None,
            acked_by=None,
            repeats=latest.repeats + 1,
            values={**again.values, "grouped": True},
        )
    return _open(event, gateway_id, now_ms)


def _chatters(latest: Alarm, event: Event, alarms: Sequence[Alarm]) -> bool:
    if latest.drill != event.drill:
        return False
    since_ms = event.ts_ms - CHATTER_WINDOW_MS
    if latest.grouped:
        return latest.updated_ms > since_ms
    return sum(alarm.onset_ms > since_ms for alarm in alarms) >= CHATTER_RAISES


def _open(event: Event, gateway_id: str | None, now_ms: int) -> Alarm:
    device, point = device_of(event.source)
    lon, lat = event.location if event.location is not None else (None, None)
    return Alarm(
        alarm_id=alarm_id_of(event.scenario, event.key, event.ts_ms),
        key=event.key,
        scenario=event.scenario,
        type=event.type,
        gateway_id=gateway_id,
        device_id=device,
        point=point,
        level=event.level,
        peak_level=event.level,
        state="raised",
        onset_ms=event.ts_ms,
        raised_ms=now_ms,
        updated_ms=event.ts_ms,
        values=_finite(event),
        evidence=event.evidence,
        lon=lon,
        lat=lat,
        drill=event.drill,
    )


def _newer(alarm: Alarm, event: Event) -> Alarm:
    """The event is the newest word on an alarm: its level and values stand."""
    level: Level = event.level if event.level != "info" else "blue"  # an open alarm stays in the queue
    grouped = {"grouped": True} if alarm.grouped else {}
    after = replace(_absorb(alarm, event), level=level, updated_ms=event.ts_ms, values={**_finite(event), **grouped})
    if alarm.state == "acknowledged" and LEVEL_RANK[after.peak_level] > LEVEL_RANK[alarm.peak_level]:
        return replace(after, state="raised", acked_ms=None, acked_by=None)
    return after


def _late(alarm: Alarm, event: Event, counts: Counter[str]) -> Alarm:
    counts["late"] += 1
    return _absorb(alarm, event)


def _absorb(alarm: Alarm, event: Event) -> Alarm:
    """What an event adds whatever the order it comes in: the peak and the evidence. A clear has no level of its own."""
    rises = event.state != "clear" and LEVEL_RANK[event.level] > LEVEL_RANK[alarm.peak_level]
    return replace(
        alarm, peak_level=event.level if rises else alarm.peak_level, evidence=_union(alarm.evidence, event.evidence)
    )


def _finite(event: Event) -> dict[str, float | int | str | bool | None]:
    """JSON knows neither NaN nor infinity: no value is null there, and must be null here for a replay to be equal."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in event.values.items()
    }


def _union(have: tuple[EvidenceRef, ...], more: tuple[EvidenceRef, ...]) -> tuple[EvidenceRef, ...]:
    hashes = {ref.sha256 for ref in have}
    return have + tuple(ref for ref in more if ref.sha256 not in hashes)


def _kind(before: Alarm | None, after: Alarm) -> ChangeKind | None:
    if before is None:
        return "raised"
    if before == after:
        return None
    if before.drill and not after.drill:
        return "raised"
    if before.open and not after.open:
        return "cleared"
    if after.grouped and not before.grouped:
        return "grouped"
    if LEVEL_RANK[after.level] != LEVEL_RANK[before.level]:
        return "escalated" if LEVEL_RANK[after.level] > LEVEL_RANK[before.level] else "lowered"
    return "repeated" if after.repeats != before.repeats else "updated"


def _hint(alarm: Alarm, now_ms: int) -> Event:
    return Event(
        id=str(uuid.uuid5(NAMESPACE, f"chatter\x1f{alarm.alarm_id}")),
        type="dev.fault",
        ts_ms=alarm.updated_ms,
        seen_ms=now_ms,
        source=alarm.device_id,
        scenario=alarm.scenario,
        level="yellow",
        drill=alarm.drill,
        values={"code": "chatter", "detail": alarm.key, "n": alarm.repeats},
    )
