"""The alarm queue.

Order: not yet taken, then taken, then cleared; inside these by level, red on top. Waiting alarms of one level stand
oldest first, because their time to be taken runs; the others newest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.rows import class_row

from cloud.query.cursor import Page, cut, decode
from cloud.query.pool import Connection
from cloud.query.rows import Alarm
from cloud.query.sight import EVERYTHING, Sight

#: Seconds in which an alarm of this level must be taken (event vocabulary, section 2). Blue runs by its case.
TAKE_S = {"red": 60, "orange": 180, "yellow": 900}

_ALARMS = """
    select a.alarm_id, a.key, a.scenario, a.type, a.gateway_id, a.device_id, coalesce(d.name_zh, '') as device_zh,
           coalesce(d.name_en, '') as device_en, a.point, a.level, a.peak_level, a.state, a.onset_at, a.raised_at,
           a.updated_at, a.acked_at, a.acked_by, a.cleared_at, a.repeats, a."values", a.evidence,
           coalesce(a.lon, d.lon) as lon, coalesce(a.lat, d.lat) as lat, a.drill, c.case_id, c.number as case_number,
           case when a.state = 'raised' then a.raised_at + make_interval(secs =>
               case a.level when 'red' then 60 when 'orange' then 180 when 'yellow' then 900 end) end as take_due
      from alarm a
      left join device d using (device_id)
      left join lateral (select f.case_id, f.number from case_alarm x join case_file f using (case_id)
                          where x.alarm_id = a.alarm_id order by f.case_id desc limit 1) c on true
"""
_KEY = """
    array_position(array['raised','acknowledged','cleared'], state),
    -array_position(array['info','blue','yellow','orange','red'], level),
    extract(epoch from raised_at)::float8 * case when state = 'raised' then 1 else -1 end,
    alarm_id
"""


async def alarms(
    conn: Connection,
    *,
    states: Sequence[str] = (),
    levels: Sequence[str] = (),
    device_id: str = "",
    scenario: str = "",
    sight: Sight = EVERYTHING,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[Alarm]:
    key = decode(cursor, (int, int, float, str))
    where = [sight.where("alarm", "alarm")]
    params: dict[str, Any] = {"limit": limit + 1} | sight.params
    if states:
        # The partial index serves "everything open"; the planner needs to see the condition as it stands there.
        where.append("state <> 'cleared'" if "cleared" not in states else "true")
        where.append("state = any(%(states)s)")
        params["states"] = list(states)
    if levels:
        where.append("level = any(%(levels)s)")
        params["levels"] = list(levels)
    for column, value in (("device_id", device_id), ("scenario", scenario)):
        if value:
            where.append(f"{column} = %({column})s")
            params[column] = value
    if key:
        where.append(f"({_KEY}) > (%(k0)s::int, %(k1)s::int, %(k2)s::float8, %(k3)s::text)")
        params |= {f"k{i}": v for i, v in enumerate(key)}
    query = (
        f"with page as (select *, row({_KEY}) as sort_key from alarm where {' and '.join(where)} "  # noqa: S608
        f"order by {_KEY} limit %(limit)s) {_ALARMS.replace('from alarm a', 'from page a')} order by a.sort_key"
    )
    async with conn.cursor(row_factory=class_row(Alarm)) as cur:
        rows = await (await cur.execute(query.encode(), params)).fetchall()
    return cut(rows, limit, [sort_key(row) for row in rows])


def sort_key(row: Alarm) -> list[float | int | str]:
    """The same key as in SQL, of a row that was read."""
    seconds = row.raised_at.timestamp()
    return [
        ("raised", "acknowledged", "cleared").index(row.state) + 1,
        -(("info", "blue", "yellow", "orange", "red").index(row.level) + 1),
        seconds if row.state == "raised" else -seconds,
        row.alarm_id,
    ]


async def alarm(conn: Connection, alarm_id: str, *, sight: Sight = EVERYTHING) -> Alarm | None:
    query = f"{_ALARMS} where a.alarm_id = %(id)s and {sight.where('alarm', 'a')}"
    async with conn.cursor(row_factory=class_row(Alarm)) as cur:
        return await (await cur.execute(query.encode(), {"id": alarm_id} | sight.params)).fetchone()


async def of_case(conn: Connection, case_id: int) -> list[Alarm]:
    """Whoever sees a case sees its alarms."""
    query = f"""{_ALARMS}
        where a.alarm_id in (select alarm_id from case_alarm where case_id = %s) order by a.raised_at, a.alarm_id
    """  # noqa: S608 - put together from constants
    async with conn.cursor(row_factory=class_row(Alarm)) as cur:
        return await (await cur.execute(query.encode(), [case_id])).fetchall()
