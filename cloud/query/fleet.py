"""Gateways and devices, with a state that is never better than what is known.

``offline``: the gateway said so. ``unknown``: nothing was ever heard, or the gateway that would know is itself
offline. ``stale``: last heard longer ago than three reporting intervals. A device without series (a camera) is not
expected to send readings; for it the gateway's word stands as long as the gateway is online.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Literal

from psycopg.rows import class_row

from cloud.query.cursor import Page, cut, decode
from cloud.query.pool import Connection
from cloud.query.rows import Device, DeviceDetail, Gateway, GatewayDetail, Lane, LastValue, Latency
from cloud.query.sight import EVERYTHING, Sight
from protocols.devices import all_types

DEFAULT_INTERVAL_S = 60.0
STALE_INTERVALS = 3
SHORTEST_INTERVAL_S = 20.0  # a mobile link alone may hold a batch back that long
_RANK = "array_position(array['info','blue','yellow','orange','red'], {})"


@cache
def _intervals(device_type: str) -> dict[str, float]:
    """How often each point of a type reports at least (s); empty for a camera or a type this core does not know."""
    known = {t.id: t for t in all_types()}.get(device_type)
    return {point.name: point.snapshot_s for point in known.points} if known else {}


def stale_after(device_type: str, point: str | None = None) -> float:
    """Seconds of silence after which a point is stale; without one, the device (its most frequent point)."""
    intervals = _intervals(device_type)
    if point is None:
        interval_s = min(intervals.values(), default=DEFAULT_INTERVAL_S)
    else:
        interval_s = intervals.get(point, DEFAULT_INTERVAL_S)
    return STALE_INTERVALS * max(interval_s, SHORTEST_INTERVAL_S)


DEVICES = f"""
    select d.device_id, d.gateway_id, g.name_zh as gateway_zh, g.name_en as gateway_en, d.device_type,
           d.name_zh, d.name_en, d.lon, d.lat,
           case when d.online is false then 'offline'
                when d.online is null and d.seen_at is null then 'unknown'
                when g.online is false then 'unknown'
                when d.seen_at >= %(now)s - make_interval(secs => coalesce(t.stale_s, %(stale_s)s)) then 'online'
                when d.seen_at is not null
                     and exists (select 1 from series x where x.device_id = d.device_id) then 'stale'
                when d.online then 'online' else 'unknown' end as state,
           d.state_at, d.detail, d.seen_at,
           extract(epoch from %(now)s - d.seen_at)::float8 as age_s,
           a.level, coalesce(a.open_alarms, 0)::int as open_alarms,
           coalesce({_RANK.format("a.level")}, 0) as rank,
           coalesce(nullif(d.district, ''), g.district) as district,
           coalesce(nullif(d.department, ''), g.department) as department
      from device d
      join gateway g using (gateway_id)
      left join unnest(%(types)s::text[], %(after)s::float8[]) as t(device_type, stale_s)
             on t.device_type = d.device_type
      left join (select device_id, count(*) as open_alarms,
                        (array_agg(level order by {_RANK.format("level")} desc))[1] as level
                   from alarm where state <> 'cleared' group by device_id) a on a.device_id = d.device_id
"""  # noqa: S608 - put together from constants
_DEVICE_COLUMNS = ", ".join(Device.__slots__)


def state_params(now: datetime) -> dict[str, Any]:
    """What :data:`DEVICES` needs: the time, and after how long each type is stale."""
    types = [t.id for t in all_types()]
    return {
        "now": now,
        "types": types,
        "after": [stale_after(name) for name in types],
        "stale_s": STALE_INTERVALS * DEFAULT_INTERVAL_S,
    }


async def devices(
    conn: Connection,
    now: datetime,
    *,
    text: str = "",
    gateway_id: str = "",
    device_type: str = "",
    state: str = "",
    level: str = "",
    order: Literal["id", "worst"] = "id",
    sight: Sight = EVERYTHING,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[Device]:
    key = decode(cursor, (int, str))
    where = [sight.where("device", "d")]
    params: dict[str, Any] = state_params(now) | sight.params
    if text:
        where.append("(device_id ilike %(text)s or name_zh ilike %(text)s or name_en ilike %(text)s)")
        params["text"] = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    for column, value in (("gateway_id", gateway_id), ("device_type", device_type), ("state", state), ("level", level)):
        if value:
            where.append(f"{column} = %({column})s")
            params[column] = value
    rank = "rank" if order == "worst" else "0"
    if key:
        where.append(f"(-({rank}), device_id) > (%(k0)s, %(k1)s)")
        params |= {"k0": key[0], "k1": key[1]}
    query = (
        f"select {_DEVICE_COLUMNS}, -({rank}) as place from ({DEVICES}) d where {' and '.join(where)} "  # noqa: S608
        f"order by place, device_id limit %(limit)s"
    )
    async with conn.cursor() as cur:
        await cur.execute(query.encode(), params | {"limit": limit + 1})
        found = await cur.fetchall()
    rows = [Device(*row[:-1]) for row in found]
    return cut(rows, limit, [[row[-1], row[0]] for row in found])


async def device_states(conn: Connection, now: datetime, *, sight: Sight = EVERYTHING) -> dict[str, int]:
    where = sight.where("device", "d")
    query = f"select state, count(*) from ({DEVICES}) d where {where} group by state"  # noqa: S608
    rows = await (await conn.execute(query.encode(), state_params(now) | sight.params)).fetchall()
    return {str(state): int(n) for state, n in rows}


async def device_types(conn: Connection) -> list[str]:
    rows = await (await conn.execute("select distinct device_type from device order by 1")).fetchall()
    return [str(row[0]) for row in rows]


async def device(conn: Connection, device_id: str, now: datetime, *, sight: Sight = EVERYTHING) -> DeviceDetail | None:
    params = state_params(now) | {"device_id": device_id} | sight.params
    where = sight.where("device", "d")
    query = f"select {_DEVICE_COLUMNS} from ({DEVICES} where d.device_id = %(device_id)s and {where}) d"  # noqa: S608
    async with conn.cursor(row_factory=class_row(Device)) as cur:
        found = await (await cur.execute(query.encode(), params)).fetchone()
    if found is None:
        return None
    rows = await (
        await conn.execute(
            "select s.series_id, s.point, s.unit, s.decimals, v.ts, v.value, v.quality,"
            " extract(epoch from %s - v.ts)::float8 from series s left join last_value v using (series_id)"
            " where s.device_id = %s order by s.series_id",
            [now, device_id],
        )
    ).fetchall()
    values = [
        LastValue(
            series_id=r[0], point=r[1], unit=r[2], decimals=r[3], ts=r[4], value=r[5], quality=r[6], age_s=r[7],
            stale=r[7] is None or r[7] > stale_after(found.device_type, r[1]),
        )
        for r in rows
    ]  # fmt: skip
    return DeviceDetail(found, values)


_LANES = """
    select c.gateway_id, c.epoch, c.lane, c.seq, c.batches, c.readings, c.events, c.bytes, c.thinned, c.repeats,
           coalesce(d.dead, 0)::bigint as dead,
           greatest(c.seq - c.batches, 0) + greatest(coalesce(f.acked, 0) - c.seq, 0) as lost, c.updated_at
      from (select gateway_id, epoch, lane, seq, batches, readings, events, bytes, thinned, repeats, updated_at
              from lane_cursor
            union all  -- a lane that the database forgot altogether when it came back from a backup
            select gateway_id, epoch, lane, 0, 0, 0, 0, 0, 0, 0, heard_at from lane_forgotten f
             where not exists (select from lane_cursor c
                                where (c.gateway_id, c.epoch, c.lane) = (f.gateway_id, f.epoch, f.lane))) c
      left join lane_forgotten f using (gateway_id, epoch, lane)
      left join (select gateway_id, epoch, lane, count(distinct seq) as dead
                   from dead_letter where seq is not null group by 1, 2, 3) d using (gateway_id, epoch, lane)
"""

_GATEWAYS = f"""
    select g.gateway_id, g.shard, g.name_zh, g.name_en, g.lon, g.lat, g.online,
           case when g.online is null and g.health_at is null and l.committed_at is null then 'unknown'
                when g.online is false then 'offline'
                when greatest(g.health_at, g.state_at, l.committed_at) < %(now)s - make_interval(secs => %(stale_s)s)
                then 'stale' else 'online' end as state,
           g.state_at, g.health, g.health_at, g.version, g.epoch, coalesce(n.devices, 0)::int as devices,
           coalesce(l.readings, 0)::bigint as readings, coalesce(l.events, 0)::bigint as events,
           coalesce(l.bytes, 0)::bigint as bytes, coalesce(l.thinned, 0)::bigint as thinned,
           coalesce(l.repeats, 0)::bigint as repeats, coalesce(x.dead, 0)::bigint as dead,
           coalesce(l.lost, 0)::bigint as lost, l.committed_at, g.district, g.department
      from gateway g
      left join (select gateway_id, count(*) as devices from device group by 1) n using (gateway_id)
      left join (select gateway_id, count(*) as dead from dead_letter group by 1) x using (gateway_id)
      left join (select gateway_id, sum(readings) as readings, sum(events) as events, sum(bytes) as bytes,
                        sum(thinned) as thinned, sum(repeats) as repeats, sum(lost) as lost,
                        max(updated_at) as committed_at from ({_LANES}) l group by 1) l using (gateway_id)
"""  # noqa: S608 - put together from constants


async def gateways(
    conn: Connection,
    now: datetime,
    *,
    gateway_id: str = "",
    sight: Sight = EVERYTHING,
    limit: int = 200,
    cursor: str | None = None,
) -> Page[Gateway]:
    key = decode(cursor, (str,))
    query = (
        f"select * from ({_GATEWAYS}) g where {sight.where('gateway', 'g')} "  # noqa: S608
        "and (%(id)s = '' or gateway_id = %(id)s) "
        "and (%(after)s::text is null or gateway_id > %(after)s) order by gateway_id limit %(limit)s"
    )
    params = {
        "now": now,
        "stale_s": STALE_INTERVALS * DEFAULT_INTERVAL_S,
        "id": gateway_id,
        "after": key[0] if key else None,
        "limit": limit + 1,
    } | sight.params
    async with conn.cursor(row_factory=class_row(Gateway)) as cur:
        rows = await (await cur.execute(query.encode(), params)).fetchall()
    return cut(rows, limit, [[row.gateway_id] for row in rows])


async def gateway(
    conn: Connection, gateway_id: str, now: datetime, *, sight: Sight = EVERYTHING
) -> GatewayDetail | None:
    page = await gateways(conn, now, gateway_id=gateway_id, sight=sight, limit=1)
    if not page.items:
        return None
    return GatewayDetail(page.items[0], await lanes(conn, gateway_id), await latencies(conn, gateway_id))


async def lanes(conn: Connection, gateway_id: str = "", *, sight: Sight = EVERYTHING) -> list[Lane]:
    """Cursors of the lanes, the current life of each outbox first."""
    query = (
        f"select * from ({_LANES}) l where (%(id)s = '' or gateway_id = %(id)s) "  # noqa: S608
        f"and {sight.where('lane', 'l')} "
        "order by gateway_id, epoch desc, array_position(array['event','data','backfill','evidence'], lane)"
    )
    async with conn.cursor(row_factory=class_row(Lane)) as cur:
        return await (await cur.execute(query.encode(), {"id": gateway_id} | sight.params)).fetchall()


async def latencies(conn: Connection, gateway_id: str) -> list[Latency]:
    rows = await (
        await conn.execute("select kind, buckets from latency where gateway_id = %s order by kind", [gateway_id])
    ).fetchall()
    return [Latency(kind, sum(b), quantile_ms(b, 0.5), quantile_ms(b, 0.99)) for kind, b in rows if sum(b)]


def quantile_ms(buckets: Sequence[int], share: float) -> float:
    """Quantile out of a histogram whose bucket i holds durations of about 1.05**i ms (error under 5 %)."""
    wanted = share * sum(buckets)
    seen = 0
    for index, count in enumerate(buckets):
        seen += count
        if count and seen >= wanted:
            return float(1.05 ** (index + 1))
    return 0.0


def outbox_depth(health: Mapping[str, Any]) -> int | None:
    """Batches waiting on a gateway, from its last heartbeat; None if it did not say."""
    parts = [v for k, v in health.items() if k.startswith("outbox_") and k.endswith("_batches")]
    numbers = [float(v) for v in parts if isinstance(v, int | float) and not isinstance(v, bool)]
    return int(sum(numbers)) if numbers else None
