"""Live changes as server-sent events, so that another system needs no polling.

``alarm``, ``case``, ``device`` and ``gateway`` carry the object as the REST call gives it; ``resync`` says that
something may have been missed and lists are to be read again. A comment every 15 s keeps proxies from closing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import StreamingResponse
from starlette.responses import JSONResponse

from cloud.api.deps import Caller, SeerDep, Services, ServicesDep
from cloud.auth import sight
from cloud.query import alarms, cases, fleet
from cloud.query.live import Change
from cloud.query.pool import Connection
from cloud.query.sight import Sight

router = APIRouter(tags=["live"])

KEEP_ALIVE_S = 15.0
_RECHECK_S = 60.0


async def _object(conn: Connection, change: Change, seen: Sight) -> Any:
    """The object of a change; None if it is gone, or none of the reader's business."""
    now = datetime.now(UTC)
    match change.kind:
        case "alarm":
            return await alarms.alarm(conn, change.id, sight=seen)
        case "case":
            found = await cases.case(conn, int(change.id), sight=seen) if change.id.isdecimal() else None
            return found.case if found else None
        case "device":
            detail = await fleet.device(conn, change.id, now, sight=seen)
            return detail.device if detail else None
        case "gateway":
            gateway = await fleet.gateway(conn, change.id, now, sight=seen)
            return gateway.gateway if gateway else None


def _frame(event: str, data: Any) -> bytes:
    return b"event: " + event.encode() + b"\ndata: " + JSONResponse(jsonable_encoder(data)).body + b"\n\n"


async def _follow(request: Request, s: Services, caller: Caller) -> AsyncIterator[bytes]:
    subscription = s.hub.subscribe()
    seen = caller.sight
    checked = datetime.now(UTC)
    try:
        yield b"retry: 2000\n\n" + _frame("hello", {"live": s.hub.connected})
        while not await request.is_disconnected():
            if not await subscription.wait(KEEP_ALIVE_S):
                yield b": still here\n\n"
            now = datetime.now(UTC)
            if (now - checked).total_seconds() > _RECHECK_S:
                operator = await s.operator_of(caller.text, active=False)
                if operator is None:
                    return  # logged out, or the password changed
                seen = sight.of(operator)
                checked = now
            changes = subscription.take()
            if changes is None:
                yield _frame("resync", {})
                continue
            for change in changes:
                # One connection an object: a slow reader must not hold one while it reads.
                async with s.pool.connection() as conn:
                    found = await _object(conn, change, seen)
                if found is not None:
                    yield _frame(change.kind, {"id": change.id, change.kind: found})
    finally:
        subscription.close()


@router.get("/stream", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
async def stream(request: Request, caller: SeerDep, s: ServicesDep) -> StreamingResponse:
    """Server-sent events: `hello`, then `alarm`, `case`, `device`, `gateway`, `resync`."""
    return StreamingResponse(
        _follow(request, s, caller),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
