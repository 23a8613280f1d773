"""Alarms, cases, events, dead letters, evidence."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response

from cloud.api.deps import Caller, ConnDep, CursorQ, LimitQ, SeerDep, Services, ServicesDep, TextQ, ViewerDep, may
from cloud.api.models import ActionIn, ActionOut, CaseOut, OpeningIn, PageOut
from cloud.api.problems import Problem, not_found
from cloud.audit import Entry, arecord
from cloud.auth import policy, sight
from cloud.query import alarms as alarm_query
from cloud.query import cases as case_query
from cloud.query import events as event_query
from cloud.query import rows

router = APIRouter(tags=["work"])
CaseId = Annotated[int, Path(ge=1, lt=1 << 63)]
Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]

AlarmState = Literal["raised", "acknowledged", "cleared"]
LevelName = Literal["info", "blue", "yellow", "orange", "red"]
#: What a browser may be shown; anything else in the table stays there.
STILLS = frozenset({"image/jpeg", "image/png", "image/webp"})
_STILL: dict[str, Any] = {mime: {} for mime in sorted(STILLS)}


@router.get("/alarms")
async def alarms(
    caller: SeerDep,
    conn: ConnDep,
    state: Annotated[list[AlarmState] | None, Query(description="Default: everything that is open.")] = None,
    level: Annotated[list[LevelName] | None, Query()] = None,
    device: TextQ = "",
    scenario: TextQ = "",
    limit: LimitQ = 100,
    cursor: CursorQ = None,
) -> PageOut[rows.Alarm]:
    """In queue order: waiting first, red on top."""
    page = await alarm_query.alarms(
        conn,
        states=state or ("raised", "acknowledged"),
        levels=level or (),
        device_id=device,
        scenario=scenario,
        sight=caller.sight,
        limit=limit,
        cursor=cursor,
    )
    return PageOut(items=page.items, next_cursor=page.next_cursor)


@router.get("/alarms/{alarm_id}")
async def alarm(alarm_id: str, _: ViewerDep, conn: ConnDep) -> rows.Alarm:
    found = await alarm_query.alarm(conn, alarm_id)
    if found is None:
        raise not_found("alarm", alarm_id)
    return found


@router.post("/alarms/{alarm_id}/acknowledge")
async def acknowledge(
    alarm_id: str, caller: Annotated[Caller, Depends(may("alarm.acknowledge"))], s: ServicesDep
) -> rows.Alarm:
    """Take an alarm. Taking it again changes nothing."""
    async with s.pool.connection() as conn:
        if await alarm_query.alarm(conn, alarm_id) is None:
            raise not_found("alarm", alarm_id)
    await s.acts.acknowledge(alarm_id, caller.operator.name)
    async with s.pool.connection() as conn:
        found = await alarm_query.alarm(conn, alarm_id)
    if found is None:
        raise not_found("alarm", alarm_id)
    return found


@router.get("/cases")
async def cases(
    caller: SeerDep,
    conn: ConnDep,
    state: Annotated[list[str] | None, Query()] = None,
    open: Annotated[bool, Query(description="Only cases on which somebody still has to act.")] = False,
    department: TextQ = "",
    type: TextQ = "",
    text: TextQ = "",
    limit: LimitQ = 100,
    cursor: CursorQ = None,
) -> PageOut[rows.Case]:
    """Open cases by deadline, then closed ones, newest first."""
    page = await case_query.cases(
        conn,
        states=state or (),
        open_only=open,
        department=department,
        type_=type,
        text=text,
        sight=caller.sight,
        limit=limit,
        cursor=cursor,
    )
    return PageOut(items=page.items, next_cursor=page.next_cursor)


async def _case(s: Services, case_id: int, caller: Caller) -> CaseOut:
    async with s.pool.connection() as conn:
        found = await case_query.case(conn, case_id)
        scope = await sight.place(conn, "case", str(case_id))
    if found is None:
        raise not_found("case", case_id)
    may_act = policy.allowed(caller.operator, "case.act", scope)
    return CaseOut(
        case=found.case,
        alarms=found.alarms,
        transitions=found.transitions,
        actions=[
            ActionOut(name=a.id, zh=a.zh, en=a.en, to_state=a.to_state, needs_reason=a.reason)
            for a in (await s.acts.offers(case_id, caller.name) if may_act else ())
        ],
    )


@router.get("/cases/{case_id}")
async def case(case_id: CaseId, caller: ViewerDep, s: ServicesDep) -> CaseOut:
    """With its alarms, its transitions, and what the caller may do next."""
    return await _case(s, case_id, caller)


@router.post("/cases/{case_id}/actions")
async def case_action(
    case_id: CaseId, body: ActionIn, caller: Annotated[Caller, Depends(may("case.act"))], s: ServicesDep
) -> CaseOut:
    """Move a case. 409 if it has changed since the caller looked, or if the action is not allowed in its state."""
    await s.acts.act(case_id, body.action, caller.operator.name, body.reason, body.version)
    return await _case(s, case_id, caller)


@router.get("/events")
async def events(
    caller: SeerDep,
    conn: ConnDep,
    device: TextQ = "",
    type: Annotated[str, Query(max_length=120, description="`crane.overload`, or a family: `crane.*`")] = "",
    since: Annotated[datetime | None, Query(alias="from")] = None,
    until: Annotated[datetime | None, Query(alias="to")] = None,
    limit: LimitQ = 100,
    cursor: CursorQ = None,
) -> PageOut[rows.Event]:
    """Newest first, by the time of the fact."""
    page = await event_query.events(
        conn, device_id=device, type_=type, since=since, until=until, sight=caller.sight, limit=limit, cursor=cursor
    )
    return PageOut(items=page.items, next_cursor=page.next_cursor)


@router.get("/dead-letters")
async def dead_letters(
    caller: SeerDep, conn: ConnDep, gateway: TextQ = "", limit: LimitQ = 100, cursor: CursorQ = None
) -> PageOut[rows.DeadLetter]:
    """What arrived and could not be stored, and why."""
    page = await event_query.dead_letters(conn, gateway_id=gateway, sight=caller.sight, limit=limit, cursor=cursor)
    return PageOut(items=page.items, next_cursor=page.next_cursor)


@router.get("/evidence/{sha256}", response_class=Response, responses={200: {"content": _STILL}})
async def evidence(sha256: Sha256, _: ViewerDep, conn: ConnDep) -> Response:
    """A still with faces and plates masked. Unmasked evidence is not given out here."""
    found = await event_query.evidence(conn, sha256)
    if found is None:
        raise not_found("evidence", sha256)
    if not found.masked:
        raise Problem(403, "evidence.unmasked", "this still is not masked; opening it needs a case and a reason")
    if found.kind != "still" or found.mime not in STILLS:
        raise Problem(415, "evidence.kind", f"{found.kind} {found.mime} cannot be shown here")
    # Content-addressed: it can never change, and only the browser that was allowed to see it may keep it.
    headers = {"Cache-Control": "private, max-age=31536000, immutable", "Content-Disposition": "inline"}
    return Response(found.content, media_type=found.mime, headers=headers)


@router.post(
    "/evidence/{sha256}/open",
    response_class=Response,
    responses={200: {"content": {**_STILL, "application/octet-stream": {}}}},
)
async def open_evidence(
    sha256: Sha256,
    body: OpeningIn,
    caller: Annotated[Caller, Depends(may("evidence.open", filtered=True))],
    s: ServicesDep,
) -> Response:
    """Evidence as it was taken, faces and plates included. Needs an open case that names it and a reason; who opened
    what for which case and why is in the audit log before a byte is given out."""
    async with s.pool.connection() as conn:
        scope = await sight.place(conn, "case", str(body.case_id))
        if scope is None or not policy.allowed(caller.operator, "view", scope):
            raise not_found("case", body.case_id)
        caller.require("evidence.open", scope)
        state = await event_query.names_evidence(conn, body.case_id, sha256)
        if state is None:
            raise Problem(409, "evidence.not_of_case", "this case does not name that evidence")
        if state == "closed":
            raise Problem(409, "evidence.case_closed", "the case is closed; it asks for nothing any more")
        found = await event_query.evidence(conn, sha256)
        if found is None:
            raise not_found("evidence", sha256)
        async with conn.transaction():
            detail = {"case": body.case_id, "reason": body.reason, "masked": found.masked, "kind": found.kind}
            await arecord(conn, Entry(caller.name, "evidence.open", f"evidence/{sha256}", detail))
    # Not to be kept, and never run as a page of ours whatever the bytes are.
    mime = found.mime if found.mime in STILLS else "application/octet-stream"
    headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{sha256[:16]}"'}
    return Response(found.content, media_type=mime, headers=headers)
