"""Releases and rollouts; and the signed repository itself, which gateways read under /updates/."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query
from fastapi import Path as InPath
from pydantic import BaseModel, Field
from starlette.responses import FileResponse, Response

from cloud.api.deps import Caller, ServicesDep, may
from cloud.api.models import Strict
from cloud.api.problems import Problem, not_found
from cloud.updates import service
from cloud.updates.repository import Release, Repository
from cloud.updates.service import MemberRow, RolloutRow
from cloud.updates.waves import Plan
from protocols.core.errors import ConfigError
from protocols.updates.names import Kind

router = APIRouter(tags=["updates"])
files = APIRouter(include_in_schema=False)

#: All that is ever given out: signed metadata and artefacts by their names; nothing hidden, nothing above.
_FILE = re.compile(
    r"metadata/(\d{1,9}\.(root|targets|snapshot|agent|models|packs|templates)|timestamp)\.json"
    r"|targets/(agent|models|packs|templates)/[a-z0-9][a-z0-9_.-]*/[0-9A-Za-z][0-9A-Za-z.+_-]*/[0-9a-f]{64}\.[a-z0-9_.-]+"
)
ManagerDep = Annotated[Caller, Depends(may("update.manage"))]
Number = Annotated[int, InPath(ge=1, le=(1 << 63) - 1)]
MAX_LISTED = 10_000


class ReleaseOut(BaseModel):
    kind: Kind
    name: str
    version: str
    platform: str
    packed_bytes: int
    bytes: int
    added_at: datetime
    notes: str
    differences: int = Field(description="Earlier versions that have a short way to this one.")


class PlanIn(Strict):
    waves: Annotated[list[Annotated[str, Field(pattern=r"^[1-9]\d{0,5}%?$")]], Field(min_length=1, max_length=20)] = [
        *Plan().waves
    ]
    success_pct: Annotated[float, Field(ge=0, le=100)] = Plan().success_pct
    error_pct: Annotated[float, Field(ge=0, le=100)] = Plan().error_pct
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = Plan().concurrency
    timeout_s: Annotated[int, Field(ge=10, le=30 * 86_400)] = Plan().timeout_s
    patience_s: Annotated[int, Field(ge=0, le=30 * 86_400)] = Plan().patience_s


class RolloutIn(Strict):
    title: Annotated[str, Field(min_length=1, max_length=200)]
    change: dict[str, Any] = Field(description="Laid over each gateway's document `update`.")
    gateways: Annotated[list[Annotated[str, Field(max_length=63)]], Field(min_length=1, max_length=MAX_LISTED)]
    plan: PlanIn = PlanIn()


class ReasonIn(Strict):
    reason: Annotated[str, Field(max_length=500)] = ""


class RolloutOut(BaseModel):
    rollout: RolloutRow
    gateways: list[MemberRow]


def repository_of(s: ServicesDep) -> Repository | None:
    return Repository(Path(s.settings.updates.folder)) if s.settings.updates is not None else None


RepositoryDep = Annotated[Repository | None, Depends(repository_of)]


def releases_of(repository: Repository | None) -> list[Release]:
    try:
        return repository.releases() if repository is not None else []
    except (OSError, ConfigError) as error:
        raise Problem(503, "updates.repository", f"the repository cannot be read: {type(error).__name__}") from error


@router.get("/releases")
def releases(_: ManagerDep, repository: RepositoryDep) -> list[ReleaseOut]:
    """What is signed, newest first. Releases are made on the command line, where the signing keys are."""
    return [
        ReleaseOut(
            kind=r.kind,
            name=r.name,
            version=r.version,
            platform=r.platform,
            packed_bytes=r.packed_bytes,
            bytes=r.bytes,
            added_at=r.added_at,
            notes=r.notes,
            differences=len(r.deltas),
        )
        for r in releases_of(repository)
    ]


@router.get("/rollouts")
async def rollouts(_: ManagerDep, s: ServicesDep, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> list[RolloutRow]:
    """Newest first, with the number of gateways in each state."""
    return await s.acts.run(lambda conn: service.rollouts(conn, limit))


@router.post("/rollouts", status_code=201)
async def create(body: RolloutIn, caller: ManagerDep, s: ServicesDep, repository: RepositoryDep) -> RolloutRow:
    """Begin one. It is offered to the first wave within seconds; gateways change over in their windows."""
    signed = {(r.kind, r.name, r.version) for r in releases_of(repository)} if repository is not None else None
    plan = msgspec.convert(body.plan.model_dump(), Plan)

    def step(conn: Any) -> RolloutRow:
        number = service.create(
            conn,
            body.title,
            body.change,
            body.gateways,
            plan,
            caller.name,
            datetime.now(UTC),
            released=None if signed is None else lambda kind, name, version: (kind, name, version) in signed,
        )
        return service.rollout(conn, number)

    return await s.acts.run(step)


@router.get("/rollouts/{number}")
async def rollout(
    number: Number,
    _: ManagerDep,
    s: ServicesDep,
    state: Annotated[str, Query(max_length=20)] = "",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 500,
) -> RolloutOut:
    """With its gateways, those in error first."""
    row, members = await s.acts.run(
        lambda conn: (service.rollout(conn, number), service.members(conn, number, state, limit))
    )
    return RolloutOut(rollout=row, gateways=members)


@router.post("/rollouts/{number}/pause")
async def pause(number: Number, body: ReasonIn, caller: ManagerDep, s: ServicesDep) -> RolloutRow:
    """Nobody else is offered it; who is at it goes on."""
    return await _act(s, number, lambda conn: service.pause(conn, number, caller.name, body.reason))


@router.post("/rollouts/{number}/resume")
async def resume(number: Number, body: ReasonIn, caller: ManagerDep, s: ServicesDep) -> RolloutRow:
    """Go on; errors there are by now no longer count."""
    return await _act(s, number, lambda conn: service.resume(conn, number, caller.name, body.reason))


@router.post("/rollouts/{number}/abort")
async def abort(number: Number, body: ReasonIn, caller: ManagerDep, s: ServicesDep) -> RolloutRow:
    """Never mind: who has not changed over yet is wanted back as he was."""
    return await _act(s, number, lambda conn: service.abort(conn, number, caller.name, datetime.now(UTC), body.reason))


async def _act(s: ServicesDep, number: int, step: Any) -> RolloutRow:
    def work(conn: Any) -> RolloutRow:
        step(conn)
        return service.rollout(conn, number)

    return await s.acts.run(work)


@files.api_route("/updates/{path:path}", methods=["GET", "HEAD"])
async def file(path: str, repository: RepositoryDep) -> Response:
    """Open to everybody: nothing here is secret, and a gateway believes signatures, not us. Byte ranges are served."""
    if repository is None or len(path) > 300 or _FILE.fullmatch(path) is None or ".." in path:
        raise not_found("file", path[:80])
    found = repository.folder / path
    if not found.is_file() or found.is_symlink():
        raise not_found("file", path[:80])
    # An artefact never changes under its name; of the metadata only the timestamp does.
    keep = "no-cache" if path == "metadata/timestamp.json" else "public, max-age=31536000, immutable"
    return FileResponse(found, media_type="application/octet-stream", headers={"Cache-Control": keep})
