"""What was produced, what was committed, and why the rest is not there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from cloud.api.deps import Caller, ConnDep, CursorQ, LimitQ, costly, may
from cloud.api.models import PageOut
from cloud.api.problems import not_found
from cloud.ledger import read
from cloud.ledger.model import GatewayLedger, LedgerDetail

router = APIRouter(tags=["ledger"])

ReaderDep = Annotated[Caller, Depends(may("ledger.read", filtered=True))]
DaysQ = Annotated[
    int, Query(ge=0, le=3650, description="What became known longer ago does not count in the verdict; 0: all does.")
]


@router.get("/ledger", dependencies=[Depends(costly)])
async def ledger(
    caller: ReaderDep, conn: ConnDep, days: DaysQ = read.DAYS, limit: LimitQ = 100, cursor: CursorQ = None
) -> PageOut[GatewayLedger]:
    """One line a gateway, with a verdict: complete, waiting, explained, missing, or unknown."""
    page = await read.gateways(conn, datetime.now(UTC), sight=caller.sight, days=days, limit=limit, cursor=cursor)
    return PageOut(items=page.items, next_cursor=page.next_cursor)


@router.get("/gateways/{gateway_id}/ledger")
async def gateway_ledger(
    gateway_id: Annotated[str, Path(max_length=63)], caller: ReaderDep, conn: ConnDep, days: DaysQ = read.DAYS
) -> LedgerDetail:
    """Both books of every lane and epoch, and the ranges that are missing or in doubt, by series where it is known."""
    found = await read.detail(conn, gateway_id, datetime.now(UTC), sight=caller.sight, days=days)
    if found is None:
        raise not_found("gateway", gateway_id)
    return found
