"""Devices on the map, folded into clusters on the server so that a hundred thousand stay usable.

Up to :data:`SINGLE` devices in view come one by one. Above, the view is laid over with a grid and each cell is one
point at the mean place of its devices, with the worst level and state among them.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from cloud.query import fleet
from cloud.query.pool import Connection, one
from cloud.query.rows import MapPoint

SINGLE = 600
_CELLS = 28  # along the longer side of the view
_WORSE = ("online", "unknown", "stale", "offline")
_RANK = {"info": 1, "blue": 2, "yellow": 3, "orange": 4, "red": 5}


async def map_points(
    conn: Connection, now: datetime, west: float, south: float, east: float, north: float
) -> list[MapPoint]:
    query = f"""
        select device_id, lon, lat, state, level, name_zh, name_en, device_type, open_alarms from ({fleet.DEVICES}) d
         where lon between %(west)s and %(east)s and lat between %(south)s and %(north)s order by device_id
    """  # noqa: S608 - put together from constants
    params = await fleet.state_params(conn, now)
    params |= {"west": west, "south": south, "east": east, "north": north}
    rows = await (await conn.execute(query.encode(), params)).fetchall()
    points = [MapPoint(r[0], r[1], r[2], 1, r[3], r[4], r[5], r[6], r[7], r[8]) for r in rows]
    if len(points) <= SINGLE:
        return points
    return _folded(points, max(east - west, north - south, 1e-9) / _CELLS)


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


def _folded(points: list[MapPoint], cell: float) -> list[MapPoint]:
    groups: dict[tuple[int, int], list[MapPoint]] = defaultdict(list)
    for point in points:
        groups[int(point.lon // cell), int(point.lat // cell)].append(point)
    return [members[0] if len(members) == 1 else _cluster(members) for members in groups.values()]


def _cluster(members: list[MapPoint]) -> MapPoint:
    worst = max(members, key=lambda p: _RANK.get(p.level or "", 0))
    return MapPoint(
        id="",
        lon=sum(p.lon for p in members) / len(members),
        lat=sum(p.lat for p in members) / len(members),
        count=len(members),
        state=max((p.state for p in members), key=_WORSE.index),
        level=worst.level,
        name_zh="",
        name_en="",
        device_type="",
        open_alarms=sum(p.open_alarms for p in members),
    )
