"""Many gateways and devices at once: tables in and out, questions, tags, groups."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, TypeVar

import psycopg
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from psycopg.rows import TupleRow
from pydantic import BaseModel, Field

from cloud.api.deps import Caller, ServicesDep, costly, may
from cloud.api.models import Strict
from cloud.api.problems import Problem, not_found
from cloud.fleet import listing
from cloud.fleet.importing import bring
from cloud.fleet.query import MAX_QUERY, Kind
from cloud.fleet.sheet import SheetError, write_csv, write_json_lines

router = APIRouter(tags=["bulk"])
MayBulk = Annotated[Caller, Depends(may("fleet.bulk"))]
QueryQ = Annotated[str, Query(max_length=MAX_QUERY, description="As `district:baohe version<0.2 -tag:test`.")]
NameP = Annotated[str, Path(pattern=r"^[\w.-]{1,64}$")]
TagText = Annotated[str, Field(pattern=r"^[\w.:-]{1,40}$")]
#: A larger table goes by `citybrain cloud import`, on the core itself.
MAX_BODY = 8 << 20
_MOST_OUT = 200_000
ResultT = TypeVar("ResultT")


class RowErrorOut(BaseModel):
    row: int
    column: str
    en: str
    zh: str


class ImportOut(BaseModel):
    """``written`` false: nothing was changed, because of a dry run or of the errors."""

    rows: int
    new: int
    changed: int
    same: int
    left_out: int
    errors: list[RowErrorOut]
    more_errors: int
    written: bool
    dry_run: bool


class TagIn(Strict):
    query: Annotated[str, Field(min_length=1, max_length=MAX_QUERY)]
    add: Annotated[list[TagText], Field(max_length=20)] = []
    remove: Annotated[list[TagText], Field(max_length=20)] = []


class GroupIn(Strict):
    kind: Kind = "gateways"
    query: Annotated[str, Field(max_length=MAX_QUERY)]


class GroupOut(BaseModel):
    name: str
    kind: Kind
    query: str
    author: str
    at: datetime
    members: int


class Picked(BaseModel):
    picked: int


async def body_of(request: Request, most: int) -> bytes:
    """The request's body, refused as soon as it is too long, whatever its header says."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise Problem(413, "too_big", f"at most {most >> 20} MiB; more goes by `citybrain cloud import`")
        parts.append(part)
    return b"".join(parts)


@router.post(
    "/fleet/import/{kind}",
    dependencies=[Depends(costly)],
    openapi_extra={
        "requestBody": {
            "content": {"text/csv": {"schema": {"type": "string"}}, "application/json": {"schema": {}}},
            "required": True,
        }
    },
)
async def bring_in(
    kind: Kind,
    request: Request,
    caller: MayBulk,
    s: ServicesDep,
    dry_run: bool = False,
    skip_wrong: Annotated[bool, Query(description="Take the good rows; default: all or none.")] = False,
) -> ImportOut:
    """A table as CSV or JSON. Errors come by row, in both languages; bringing a table again changes nothing."""
    data = await body_of(request, MAX_BODY)
    try:
        found = await s.acts.run(
            lambda conn: bring(conn, kind, data, caller.name, dry_run=dry_run, skip_wrong=skip_wrong)
        )
    except SheetError as error:
        raise Problem(422, "fleet.table", error.en, zh=error.zh) from error
    return ImportOut(
        rows=found.rows, new=len(found.new), changed=len(found.changed), same=found.same, left_out=found.left_out,
        errors=[RowErrorOut(**asdict(error)) for error in found.errors], more_errors=found.more_errors,
        written=found.written, dry_run=found.dry_run,
    )  # fmt: skip


@router.get("/fleet/export/{kind}", response_class=Response, dependencies=[Depends(costly)])
async def give_out(
    kind: Kind,
    _: MayBulk,
    s: ServicesDep,
    query: QueryQ = "",
    form: Annotated[str, Query(pattern="^(csv|json)$")] = "csv",
    lang: Annotated[str, Query(pattern="^(zh|en)$")] = "zh",
) -> Response:
    """The rows a question picks, as a spreadsheet takes them (CSV with BOM, formulas defused) or as JSON lines."""

    def step(conn: psycopg.Connection[TupleRow]) -> str:
        rows = listing.given_out(conn, kind, query, limit=_MOST_OUT)
        return "".join(write_csv(kind, rows, zh=lang == "zh") if form == "csv" else write_json_lines(kind, rows))

    text = await s.acts.run(step)
    headers = {"Content-Disposition": f'attachment; filename="{kind}.{"csv" if form == "csv" else "jsonl"}"'}
    media = "text/csv; charset=utf-8" if form == "csv" else "application/x-ndjson"
    return Response(text.encode(), media_type=media, headers=headers)


@router.get("/fleet/count/{kind}")
async def count(kind: Kind, _: MayBulk, s: ServicesDep, query: QueryQ = "") -> Picked:
    """How many a question picks."""
    return Picked(picked=await s.acts.run(lambda conn: listing.count(conn, kind, query)))


@router.post("/fleet/tags/{kind}")
async def tag(kind: Kind, body: TagIn, caller: MayBulk, s: ServicesDep) -> Picked:
    """Put tags on, take tags off whatever the question picks."""
    return Picked(
        picked=await s.acts.run(lambda conn: listing.tag(conn, kind, body.query, body.add, body.remove, caller.name))
    )


@router.get("/fleet/groups")
async def groups(_: MayBulk, s: ServicesDep) -> list[GroupOut]:
    return [GroupOut(**asdict(group)) for group in await s.acts.run(listing.groups)]


@router.put("/fleet/groups/{name}", status_code=204)
async def save_group(name: NameP, body: GroupIn, caller: MayBulk, s: ServicesDep) -> None:
    """A kept question: what fits it tomorrow belongs to the group tomorrow."""
    await s.acts.run(lambda conn: listing.save_group(conn, name, body.kind, body.query, caller.name))


@router.get("/fleet/groups/{name}/members")
async def members(name: NameP, _: MayBulk, s: ServicesDep) -> list[str]:
    """The ids that are in it now."""
    found: dict[str, Any] = {group.name: group for group in await s.acts.run(listing.groups)}
    if name not in found:
        raise not_found("group", name)
    return await s.acts.run(lambda conn: listing.group_ids(conn, name))


@router.delete("/fleet/groups/{name}", status_code=204)
async def drop_group(name: NameP, caller: MayBulk, s: ServicesDep) -> None:
    if not await s.acts.run(lambda conn: listing.drop_group(conn, name, caller.name)):
        raise not_found("group", name)
