"""Orders to devices, and the documents a gateway is wanted to have in force."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field

from cloud.api.deps import Caller, SeerDep, ServicesDep, TextQ, may
from cloud.api.models import Strict
from cloud.api.problems import not_found
from cloud.auth import policy, sight
from cloud.commands import service as commands
from cloud.commands.service import CommandRow
from cloud.twin import service as twin
from cloud.twin.diff import Change, diff
from cloud.twin.service import TwinState, Version

router = APIRouter(tags=["twin"])

NamePath = Annotated[str, Path(max_length=64, pattern=r"^[a-z][a-z0-9_]*$")]
IdPath = Annotated[str, Path(max_length=128)]
MAX_VERSION = (1 << 63) - 1
VersionNumber = Annotated[int, Field(ge=1, le=MAX_VERSION)]


class CommandIn(Strict):
    device: Annotated[
        str, Field(min_length=1, max_length=128, description="A device, or a gateway for its own commands.")
    ]
    name: Annotated[str, Field(min_length=1, max_length=64)]
    arguments: dict[str, float | int | str | bool] = Field(default_factory=dict, max_length=64)
    life_s: Annotated[int, Field(ge=commands.SHORTEST_LIFE_S, le=commands.LONGEST_LIFE_S)] = commands.DEFAULT_LIFE_S
    idempotency_key: Annotated[str, Field(min_length=1, max_length=128)] | None = None


class ReasonIn(Strict):
    reason: Annotated[str, Field(max_length=500)] = ""


class DesireIn(Strict):
    document: dict[str, Any]
    comment: Annotated[str, Field(max_length=500)] = ""
    based_on: Annotated[int, Field(ge=0, le=MAX_VERSION)] | None = Field(
        default=None, description="The version this change was made from; 409 if another has come since."
    )


class RollBackIn(Strict):
    to_version: VersionNumber


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@router.post("/commands", status_code=202)
async def request_command(
    body: CommandIn, caller: Annotated[Caller, Depends(may("command.send", filtered=True))], s: ServicesDep
) -> CommandRow:
    """Ask for an order. 202: accepted, not carried out; a dangerous one waits for a second person."""
    async with s.pool.connection() as conn:
        scope = await sight.place(conn, "device", body.device) or await sight.place(conn, "gateway", body.device)
    if scope is None or not policy.allowed(caller.operator, "view", scope):
        raise not_found("device", body.device)
    caller.require("command.send", scope)
    if body.name in commands.GATEWAY_COMMANDS:
        s.rates.costly(caller.bucket)  # logs and check-ups of a gateway: megabytes over a link that somebody pays for
    return await s.acts.run(
        lambda conn: commands.request(
            conn,
            body.device,
            body.name,
            body.arguments,
            caller.name,
            now_ms=_now_ms(),
            life_s=body.life_s,
            idempotency_key=body.idempotency_key,
        )
    )


@router.get("/commands")
async def list_commands(
    caller: SeerDep,
    s: ServicesDep,
    device: TextQ = "",
    gateway: TextQ = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> list[CommandRow]:
    """Newest first."""
    return await s.acts.run(
        lambda conn: commands.recent(conn, device_id=device, gateway_id=gateway, limit=limit, sight=caller.sight)
    )


@router.get("/commands/{command_id}")
async def command(command_id: IdPath, _: Annotated[Caller, Depends(may("view"))], s: ServicesDep) -> CommandRow:
    return await s.acts.run(lambda conn: commands.get(conn, command_id))


@router.post("/commands/{command_id}/approve")
async def approve(
    command_id: IdPath, caller: Annotated[Caller, Depends(may("command.approve"))], s: ServicesDep
) -> CommandRow:
    """The second person's consent; the one who asked cannot give it."""
    return await s.acts.run(lambda conn: commands.approve(conn, command_id, caller.name, now_ms=_now_ms()))


@router.post("/commands/{command_id}/withdraw")
async def withdraw(
    command_id: IdPath, body: ReasonIn, caller: Annotated[Caller, Depends(may("command.send"))], s: ServicesDep
) -> CommandRow:
    """Take back what has not left the core. 409 once it may have been carried out."""
    return await s.acts.run(lambda conn: commands.withdraw(conn, command_id, caller.name, reason=body.reason))


@router.get("/gateways/{gateway_id}/twin")
async def twin_states(
    gateway_id: IdPath, _: Annotated[Caller, Depends(may("twin.read"))], s: ServicesDep
) -> list[TwinState]:
    """Every document of the gateway's twin: what is wanted, what is in force."""
    return await s.acts.run(lambda conn: twin.states(conn, gateway_id))


@router.get("/gateways/{gateway_id}/twin/{name}/versions")
async def versions(
    gateway_id: IdPath,
    name: NamePath,
    _: Annotated[Caller, Depends(may("twin.read"))],
    s: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[Version]:
    """Newest first."""
    return await s.acts.run(lambda conn: twin.history(conn, gateway_id, name, limit))


@router.get("/gateways/{gateway_id}/twin/{name}/diff")
async def versions_diff(
    gateway_id: IdPath,
    name: NamePath,
    before: Annotated[int, Query(ge=1, le=MAX_VERSION)],
    after: Annotated[int, Query(ge=1, le=MAX_VERSION)],
    _: Annotated[Caller, Depends(may("twin.read"))],
    s: ServicesDep,
) -> list[Change]:
    """What changed between two versions."""
    return await s.acts.run(
        lambda conn: diff(
            twin.version(conn, gateway_id, name, before).document,
            twin.version(conn, gateway_id, name, after).document,
        )
    )


@router.post("/gateways/{gateway_id}/twin/{name}", status_code=202)
async def desire(
    gateway_id: IdPath,
    name: NamePath,
    body: DesireIn,
    caller: Annotated[Caller, Depends(may("twin.write"))],
    s: ServicesDep,
) -> Version:
    """Want a document in force. Checked against its schema here, and by the gateway; sent when the gateway is there."""
    return await s.acts.run(
        lambda conn: twin.version(
            conn,
            gateway_id,
            name,
            twin.desire(
                conn,
                gateway_id,
                name,
                body.document,
                caller.name,
                body.comment,
                based_on=body.based_on,
            ),
        )
    )


@router.post("/gateways/{gateway_id}/twin/{name}/roll-back", status_code=202)
async def roll_back(
    gateway_id: IdPath,
    name: NamePath,
    body: RollBackIn,
    caller: Annotated[Caller, Depends(may("twin.write"))],
    s: ServicesDep,
) -> Version:
    """Want an earlier version's text again, as a new version."""
    return await s.acts.run(
        lambda conn: twin.version(
            conn,
            gateway_id,
            name,
            twin.roll_back(conn, gateway_id, name, body.to_version, caller.name),
        )
    )
