"""Gateways, devices, series and their readings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query

from cloud.api.deps import Caller, ConnDep, CursorQ, LimitQ, SeerDep, ServicesDep, TextQ, ViewerDep, may
from cloud.api.models import PageOut, PlaceIn, PlaceOut
from cloud.api.problems import Problem, not_found
from cloud.audit import Entry, arecord
from cloud.auth import policy
from cloud.query import fleet, readings, rows
from cloud.query.summary import summary as read_summary

router = APIRouter(tags=["fleet"])

MAX_SPAN = timedelta(days=400)


@router.get("/summary")
async def summary(caller: SeerDep, conn: ConnDep) -> rows.Summary:
    """Open alarms by level, devices by state, cases, and whether anything is missing."""
    return await read_summary(conn, datetime.now(UTC), sight=caller.sight)


@router.get("/gateways")
async def gateways(
    caller: SeerDep, conn: ConnDep, limit: LimitQ = 100, cursor: CursorQ = None
) -> PageOut[rows.Gateway]:
    page = await fleet.gateways(conn, datetime.now(UTC), sight=caller.sight, limit=limit, cursor=cursor)
    return PageOut(items=page.items, next_cursor=page.next_cursor)


@router.get("/gateways/{gateway_id}")
async def gateway(gateway_id: str, _: ViewerDep, conn: ConnDep) -> rows.GatewayDetail:
    """With the cursor of each lane: what was committed, repeated, thinned, set aside, lost."""
    found = await fleet.gateway(conn, gateway_id, datetime.now(UTC))
    if found is None:
        raise not_found("gateway", gateway_id)
    return found


@router.get("/devices")
async def devices(
    caller: SeerDep,
    conn: ConnDep,
    text: TextQ = "",
    gateway: TextQ = "",
    type: TextQ = "",
    state: Literal["", "online", "offline", "unknown", "stale"] = "",
    level: Literal["", "blue", "yellow", "orange", "red"] = "",
    order: Literal["id", "worst"] = "id",
    limit: LimitQ = 100,
    cursor: CursorQ = None,
) -> PageOut[rows.Device]:
    """`level` filters by the worst open alarm."""
    page = await fleet.devices(
        conn,
        datetime.now(UTC),
        text=text,
        gateway_id=gateway,
        device_type=type,
        state=state,
        level=level,
        order=order,
        sight=caller.sight,
        limit=limit,
        cursor=cursor,
    )
    return PageOut(items=page.items, next_cursor=page.next_cursor)


@router.put("/devices/{device_id:path}/place", status_code=200)
async def place_device(
    device_id: str, body: PlaceIn, caller: Annotated[Caller, Depends(may("gateway.enrol"))], s: ServicesDep
) -> PlaceOut:
    """The district and department a device belongs to; empty: those of its gateway."""
    return await _place("device", device_id, body, caller, s)


@router.put("/gateways/{gateway_id}/place", status_code=200)
async def place_gateway(
    gateway_id: str, body: PlaceIn, caller: Annotated[Caller, Depends(may("gateway.enrol"))], s: ServicesDep
) -> PlaceOut:
    """The district and department a gateway, and what hangs on it, belong to."""
    return await _place("gateway", gateway_id, body, caller, s)


async def _place(
    kind: Literal["gateway", "device"], id_: str, body: PlaceIn, caller: Caller, s: ServicesDep
) -> PlaceOut:
    """Move a thing; whoever is not for the whole city moves it only to where he may as well."""
    target = policy.Scope(frozenset({body.department} - {""}), body.district)
    if body.district or body.department or kind == "gateway":
        caller.require("gateway.enrol", target)
    update = {
        "gateway": "update gateway set district = %s, department = %s where gateway_id = %s",
        "device": "update device set district = %s, department = %s where device_id = %s",
    }[kind]
    async with s.pool.connection() as conn, conn.transaction():
        done = await conn.execute(update.encode(), [body.district, body.department, id_])
        if not done.rowcount:
            raise not_found(kind, id_)
        await arecord(
            conn,
            Entry(
                caller.name,
                f"{kind}.place",
                f"{kind}/{id_}",
                {"district": body.district, "department": body.department},
            ),
        )
    return PlaceOut(id=id_, district=body.district, department=body.department)


@router.get("/devices/{device_id:path}")
async def device(device_id: str, _: ViewerDep, conn: ConnDep) -> rows.DeviceDetail:
    """With the newest reading of each series, its age and its quality."""
    found = await fleet.device(conn, device_id, datetime.now(UTC))
    if found is None:
        raise not_found("device", device_id)
    return found


@router.get("/series/{series_id}/readings")
async def series_readings(
    series_id: Annotated[int, Path(ge=0, lt=1 << 31)],
    _: ViewerDep,
    conn: ConnDep,
    since: Annotated[datetime | None, Query(alias="from", description="Default: an hour before `to`.")] = None,
    until: Annotated[datetime | None, Query(alias="to", description="Default: now. Not included.")] = None,
    max_points: Annotated[int, Query(ge=2, le=readings.MAX_POINTS)] = readings.MAX_POINTS,
) -> rows.Readings:
    """Columns. Above `max_points` each bucket is given by its lowest and its highest reading."""
    end = _aware(until) or datetime.now(UTC)
    start = _aware(since) or end - timedelta(hours=1)
    if not timedelta(0) < end - start <= MAX_SPAN:
        raise Problem(400, "range", f"`from` must lie before `to`, by {MAX_SPAN.days} days at most")
    found = await readings.series(conn, series_id)
    if found is None:
        raise not_found("series", series_id)
    return await readings.readings(conn, found, start, end, max_points=max_points)


def _aware(moment: datetime | None) -> datetime | None:
    """A time without offset is UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
