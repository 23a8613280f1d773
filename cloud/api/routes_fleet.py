"""Gateways, devices, series and their readings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from cloud.api.deps import ConnDep, CursorQ, LimitQ, TextQ, ViewerDep
from cloud.api.models import PageOut
from cloud.api.problems import Problem, not_found
from cloud.query import fleet, readings, rows
from cloud.query.summary import summary as read_summary

router = APIRouter(tags=["fleet"])

MAX_SPAN = timedelta(days=400)


@router.get("/summary")
async def summary(_: ViewerDep, conn: ConnDep) -> rows.Summary:
    """Open alarms by level, devices by state, cases, and whether anything is missing."""
    return await read_summary(conn, datetime.now(UTC))


@router.get("/gateways")
async def gateways(_: ViewerDep, conn: ConnDep, limit: LimitQ = 100, cursor: CursorQ = None) -> PageOut[rows.Gateway]:
    page = await fleet.gateways(conn, datetime.now(UTC), limit=limit, cursor=cursor)
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
    _: ViewerDep,
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
        limit=limit,
        cursor=cursor,
    )
    return PageOut(items=page.items, next_cursor=page.next_cursor)


@router.get("/devices/{device_id:path}")
async def device(device_id: str, _: ViewerDep, conn: ConnDep) -> rows.DeviceDetail:
    """With the newest reading of each series, its age and its quality."""
    found = await fleet.device(conn, device_id, datetime.now(UTC))
    if found is None:
        raise not_found("device", device_id)
    return found


@router.get("/series/{series_id}/readings")
async def series_readings(
    series_id: int,
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
