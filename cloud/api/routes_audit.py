"""The audit log: entries, proofs, the signed head."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse

from cloud.api.deps import Caller, CursorQ, LimitQ, ServicesDep, TextQ, may
from cloud.api.models import PageOut
from cloud.api.problems import Problem, not_found
from cloud.audit.heads import PUBLIC_FILE
from cloud.audit.reads import Consistency, Logged, Proof, consistency, head_at, prove
from cloud.audit.web import Sealed, entries, sealed
from protocols.core.errors import ContractError

router = APIRouter(tags=["audit"])
MayRead = Annotated[Caller, Depends(may("audit.read"))]


@router.get("/audit")
async def audit(
    _: MayRead,
    s: ServicesDep,
    who: TextQ = "",
    action: Annotated[str, Query(max_length=64, description="`command.send`, or a family: `command.*`")] = "",
    what: TextQ = "",
    since: Annotated[datetime | None, Query(alias="from")] = None,
    until: Annotated[datetime | None, Query(alias="to", description="Not included.")] = None,
    limit: LimitQ = 100,
    cursor: CursorQ = None,
) -> PageOut[Logged]:
    """Newest first. `leaf_index` is null until the entry is sealed."""
    async with s.pool.connection() as conn:
        page = await entries(
            conn, who=who, action=action, what=what, since=since, until=until, limit=limit, cursor=cursor
        )
    return PageOut(items=page.items, next_cursor=page.next_cursor)


@router.get("/audit/state")
async def audit_state(_: MayRead, s: ServicesDep, request: Request) -> Sealed:
    """How far the log is sealed and signed, and what keeps it from being so."""
    async with s.pool.connection() as conn:
        found = await sealed(conn)
    return replace(found, problem=request.app.state.sealing.error)


@router.get("/audit/head", response_class=PlainTextResponse)
async def audit_head(_: MayRead, s: ServicesDep) -> str:
    """The newest signed tree head, a C2SP checkpoint. Keep it where nobody of the core can reach it."""
    head = await s.acts.run(head_at)
    if head is None:
        raise not_found("tree head", "yet")
    return head[1]


@router.get("/audit/key", response_class=PlainTextResponse)
async def audit_key(_: MayRead, s: ServicesDep) -> str:
    """The public key heads are signed with. Whoever checks the log should have had it from elsewhere before."""
    path = FilePath(s.settings.state_dir) / PUBLIC_FILE
    if not path.exists():
        raise not_found("key", "yet")
    return path.read_text(encoding="ascii")


@router.get("/audit/consistency")
async def audit_consistency(
    _: MayRead, s: ServicesDep, old: Annotated[int, Query(ge=1)], new: Annotated[int | None, Query(ge=1)] = None
) -> Consistency:
    """That the log of `old` entries is the beginning of that of `new` (default: all)."""
    try:
        return await s.acts.run(lambda conn: consistency(conn, old, new))
    except ContractError as error:
        raise Problem(422, "audit.size", str(error)) from error


@router.get("/audit/{entry_id}/proof")
async def audit_proof(entry_id: int, _: MayRead, s: ServicesDep) -> Proof:
    """An entry with its inclusion proof under the newest head; `citybrain audit check` checks it."""
    try:
        return await s.acts.run(lambda conn: prove(conn, entry_id))
    except ContractError as error:
        if error.reason == "unknown":
            raise not_found("audit entry", entry_id) from error
        raise Problem(409, "audit.unsealed", str(error), headers={"Retry-After": "2"}) from error
