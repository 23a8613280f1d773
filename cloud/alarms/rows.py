"""Alarms and events as rows: the SQL of this folder, each statement one round trip for a whole batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import h3
import msgspec
from psycopg import Connection

from cloud.alarms.model import Alarm, AlarmChange
from cloud.alarms.times import at, ms_of
from protocols.core.model import Event, EvidenceRef
from protocols.uplink.batch import device_of

H3_RESOLUTION = 9  # cells of about 0.1 km2, the resolution every event and device is indexed at

_COLUMNS = (
    'a.alarm_id, a.key, a.scenario, a.type, a.gateway_id, a.device_id, a.point, a.level, a.peak_level, a.state, '
    'a.onset_at, a.raised_at, a.updated_at, a.acked_at, a.acked_by, a.cleared_at, a.repeats, a."values", a.evidence, '
    "a.lon, a.lat, a.h3_9, a.drill"
)  # fmt: skip

#: Enough to see the open alarm (always the newest) and to recognise chattering (more than 5 raises in 10 minutes).
_NEWEST = 6

#: A raise that comes after its own updates and clear finds them here; more than this many would be a flood.
_HISTORY = 100


def newest(conn: Connection[Any], keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[Alarm]]:
    """The newest alarms of each (scenario, key), oldest first."""
    found: dict[tuple[str, str], list[Alarm]] = {key: [] for key in keys}
    rows = conn.execute(
        f"""select {_COLUMNS} from unnest(%s::text[], %s::text[]) k(scenario, key)
            cross join lateral (select * from alarm a where a.scenario = k.scenario and a.key = k.key
                                order by a.onset_at desc limit {_NEWEST}) a
            order by a.onset_at""",  # noqa: S608 (constants of this module)
        ([scenario for scenario, _ in keys], [key for _, key in keys]),
    ).fetchall()
    for row in rows:
        alarm = _alarm(row)
        found[alarm.scenario, alarm.key].append(alarm)
    return found


def one(conn: Connection[Any], alarm_id: str, *, lock: bool = False) -> Alarm | None:
    row = conn.execute(
        f"select {_COLUMNS} from alarm a where a.alarm_id = %s {'for update' if lock else ''}",  # noqa: S608
        (alarm_id,),
    ).fetchone()
    return None if row is None else _alarm(row)


def later_events(conn: Connection[Any], raises: Sequence[Event]) -> list[Event]:
    """Stored updates and clears that are not older than these raises of the same alarm key: they came before them."""
    rows = conn.execute(
        f"""select e.event_id, e.type, e.ts, e.seen_at, e.level, e.state, e.key, e.scenario, e.device_id, e.point,
                   e."values", e.quality, e.lon, e.lat, e.evidence, e.drill
            from unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[]) k(scenario, key, device_id, since)
            cross join lateral (select * from event e where e.device_id = k.device_id and e.ts >= k.since
                                and e.scenario = k.scenario and e.key = k.key and e.state in ('update', 'clear')
                                order by e.ts limit {_HISTORY}) e
            order by e.ts, e.seen_at, e.event_id""",  # noqa: S608 (constants of this module)
        (
            [raised.scenario for raised in raises],
            [raised.key for raised in raises],
            [device_of(raised.source)[0] for raised in raises],
            [at(raised.ts_ms) for raised in raises],
        ),
    ).fetchall()
    return [
        Event(
            id=row[0], type=row[1], ts_ms=ms_of(row[2]), seen_ms=ms_of(row[3]), level=row[4], state=row[5], key=row[6],
            scenario=row[7], source=f"{row[8]}/{row[9]}" if row[9] else row[8], values=row[10], quality=row[11],
            location=None if row[12] is None else (row[12], row[13]), evidence=_evidence(row[14]), drill=row[15],
        )
        for row in rows
    ]  # fmt: skip


def insert(conn: Connection[Any], changes: Sequence[AlarmChange]) -> dict[str, tuple[float, float, str] | None]:
    """Write new alarms; returns those that went in with their place. One that did not is somebody else's already.

    An alarm without a place of its own takes its device's.
    """
    alarms = [change.alarm for change in changes]
    rows = conn.execute(
        """insert into alarm (alarm_id, key, scenario, type, gateway_id, device_id, point, level, peak_level, state,
               onset_at, raised_at, updated_at, cleared_at, repeats, "values", evidence, lon, lat, h3_9, drill)
           select u.alarm_id, u.key, u.scenario, u.type, u.gateway_id, u.device_id, u.point, u.level, u.peak_level,
               u.state, u.onset_at, u.raised_at, u.updated_at, u.cleared_at, u.repeats, u."values"::jsonb,
               u.evidence::jsonb, coalesce(u.lon, d.lon), coalesce(u.lat, d.lat), coalesce(u.h3_9, d.h3_9), u.drill
           from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                       %s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[],
                       %s::timestamptz[], %s::int[], %s::text[], %s::text[], %s::float8[], %s::float8[], %s::text[],
                       %s::bool[])
               u(alarm_id, key, scenario, type, gateway_id, device_id, point, level, peak_level, state, onset_at,
                 raised_at, updated_at, cleared_at, repeats, "values", evidence, lon, lat, h3_9, drill)
           left join device d using (device_id)
           order by u.scenario, u.key, u.onset_at
           on conflict do nothing
           returning alarm_id, lon, lat, h3_9""",
        _arrays(
            (
                a.alarm_id, a.key, a.scenario, a.type, a.gateway_id, a.device_id, a.point, a.level, a.peak_level,
                a.state, at(a.onset_ms), at(a.raised_ms), at(a.updated_ms), at(a.cleared_ms), a.repeats,
                _json(dict(a.values)), _json(a.evidence), a.lon, a.lat, _cell(a.lon, a.lat), a.drill,
            )
            for a in alarms
        ),
    ).fetchall()  # fmt: skip
    return {row[0]: None if row[1] is None else (row[1], row[2], row[3]) for row in rows}


def update(conn: Connection[Any], changes: Sequence[AlarmChange]) -> set[str]:
    """Write changed alarms that are still as they were read; returns their ids. The others have moved meanwhile."""
    pairs = [(change.alarm, change.before) for change in changes if change.before is not None]
    rows = conn.execute(
        """update alarm a set level = u.level, peak_level = u.peak_level, state = u.state, updated_at = u.updated_at,
               acked_at = u.acked_at, acked_by = u.acked_by, cleared_at = u.cleared_at, repeats = u.repeats,
               "values" = u."values"::jsonb, evidence = u.evidence::jsonb, drill = u.drill
           from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[],
                       %s::text[], %s::timestamptz[], %s::int[], %s::text[], %s::text[], %s::bool[], %s::text[],
                       %s::timestamptz[])
               u(alarm_id, level, peak_level, state, updated_at, acked_at, acked_by, cleared_at, repeats, "values",
                 evidence, drill, was_state, was_updated_at)
           where a.alarm_id = u.alarm_id and a.state = u.was_state
             and date_trunc('milliseconds', a.updated_at) = u.was_updated_at
           returning a.alarm_id""",
        _arrays(
            (
                a.alarm_id, a.level, a.peak_level, a.state, at(a.updated_ms), at(a.acked_ms), a.acked_by,
                at(a.cleared_ms), a.repeats, _json(dict(a.values)), _json(a.evidence), a.drill,
                was.state, at(was.updated_ms),
            )
            for a, was in pairs
        ),
    ).fetchall()  # fmt: skip
    return {row[0] for row in rows}


def mark_acknowledged(conn: Connection[Any], alarm_id: str, who: str, now_ms: int | None) -> Alarm:
    row = conn.execute(
        f"""update alarm a set state = case when a.state = 'raised' then 'acknowledged' else a.state end,
                   acked_by = %s, acked_at = coalesce(%s, date_trunc('milliseconds', now()))
            where a.alarm_id = %s returning {_COLUMNS}""",  # noqa: S608 (constants of this module)
        (who, at(now_ms), alarm_id),
    ).fetchone()
    assert row is not None, "the caller holds this row's lock"  # noqa: S101
    return _alarm(row)


def _arrays(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _cell(lon: float | None, lat: float | None) -> str | None:
    return None if lon is None or lat is None else str(h3.latlng_to_cell(lat, lon, H3_RESOLUTION))


def _evidence(value: Sequence[dict[str, Any]]) -> tuple[EvidenceRef, ...]:
    return tuple(msgspec.convert(list(value), list[EvidenceRef]))


def _alarm(row: Sequence[Any]) -> Alarm:
    return Alarm(
        alarm_id=row[0], key=row[1], scenario=row[2], type=row[3], gateway_id=row[4], device_id=row[5], point=row[6],
        level=row[7], peak_level=row[8], state=row[9], onset_ms=ms_of(row[10]), raised_ms=ms_of(row[11]),
        updated_ms=ms_of(row[12]), acked_ms=ms_of(row[13]), acked_by=row[14], cleared_ms=ms_of(row[15]),
        repeats=row[16], values=row[17], evidence=_evidence(row[18]), lon=row[19], lat=row[20], h3_9=row[21],
        drill=row[22],
    )  # fmt: skip
