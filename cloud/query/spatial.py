"""Devices on the map, folded into clusters on the server so that a hundred thousand stay usable.

Up to :data:`SINGLE` devices in view come one by one. Above, the view is laid over with a grid and each cell is one
point at the mean place of its devices, with the worst level and state among them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cloud.query import fleet
from cloud.query.pool import Connection, one
from cloud.query.rows import MapPoint
from cloud.query.sight import EVERYTHING, Sight

SINGLE = 600
_CELLS = 28  # along the longer side of the view
_VIEW = f"""
    select * from ({fleet.DEVICES}) d
     where lon between %(west)s and %(east)s and lat between %(south)s and %(north)s and {{sight}}
"""  # noqa: S608 - put together from constants


async def map_points(
    conn: Connection,
    now: datetime,
    west: float,
    south: float,
    east: float,
    north: float,
    *,
    sight: Sight = EVERYTHING,
) -> list[MapPoint]:
    params = fleet.state_params(now) | {"west": west, "south": south, "east": east, "north": north} | sight.params
    seen = sight.where("device", "d")
    count = (
        "select count(*) from (select 1 from device d where lon between %(west)s and %(east)s"  # noqa: S608
        f" and lat between %(south)s and %(north)s and {seen} limit %(most)s) d"
    )
    found = await (await conn.execute(count.encode(), params | {"most": SINGLE + 1})).fetchone()
    view = _VIEW.format(sight=seen)
    if found is not None and found[0] <= SINGLE:
        query = f"select device_id, lon, lat, state, level, name_zh, name_en, device_type, open_alarms from ({view}) d"  # noqa: S608
        rows = await (await conn.execute(f"{query} order by device_id".encode(), params)).fetchall()
        return [MapPoint(r[0], r[1], r[2], 1, r[3], r[4], r[5], r[6], r[7], r[8]) for r in rows]
    return await _clusters(conn, view, params, max(east - west, north - south, 1e-9) / _CELLS)


async def _clusters(conn: Connection, view: str, params: dict[str, Any], cell: float) -> list[MapPoint]:
    query = f"""
        select min(device_id), avg(lon), avg(lat), count(*)::int,
               (array['online','unknown','stale','offline'])[
                   max(array_position(array['online','unknown','stale','offline'], state))],
               (array['info','blue','yellow','orange','red'])[nullif(max(rank), 0)], sum(open_alarms)::int
          from ({view}) d group by floor(lon / %(cell)s), floor(lat / %(cell)s)
    """  # noqa: S608 - put together from constants
    rows = await (await conn.execute(query.encode(), params | {"cell": cell})).fetchall()
    return [MapPoint(r[0] if r[3] == 1 else "", r[1], r[2], r[3], r[4], r[5], "", "", "", r[6]) for r in rows]


async def extent(conn: Connection) -> tuple[float, float, float, float] | None:
    """West, south, east, north of where the devices stand (the outermost hundredth left out), with a margin."""
    row = await one(
        conn,
        "select count(*), percentile_disc(array[0.01, 0.99]) within group (order by lon),"
        " percentile_disc(array[0.01, 0.99]) within group (order by lat) from device where lon is not null",
    )
    if not row[0]:
        return None
    (west, east), (south, north) = row[1], row[2]
    dx, dy = max((east - west) * 0.18, 0.02), max((north - south) * 0.14, 0.015)
    return west - dx, south - dy, east + dx, north + dy
