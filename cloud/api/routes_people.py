"""Operators, roles, sessions of others, API tokens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from cloud.api.deps import AdminDep, Caller, ServicesDep, may
from cloud.api.models_access import (
    AccessIn,
    NewPassword,
    NewToken,
    OperatorIn,
    OperatorOut,
    RoleIn,
    RoleOut,
    SessionOut,
    TokenIn,
    TokenOut,
)
from cloud.api.problems import Problem, not_found
from cloud.auth import policy
from cloud.auth.operator import Role
from cloud.auth.tokens import ApiToken

router = APIRouter(tags=["people"])
TokenDep = Annotated[Caller, Depends(may("token.manage"))]


@router.get("/operators")
async def operators(caller: AdminDep, s: ServicesDep) -> list[OperatorOut]:
    return [OperatorOut.of(o) for o in await s.people.operators(caller.operator.rules)]


@router.post("/operators", status_code=201)
async def add_operator(body: OperatorIn, caller: AdminDep, s: ServicesDep) -> NewPassword:
    more = [g.grant() for g in body.more]
    issuer = s.sso.settings.issuer if body.sso and s.sso else None
    if body.sso and issuer is None:
        raise Problem(409, "auth.no_sso", "no OpenID provider is configured")
    password = await s.people.add(body.name, body.grant(), caller.name, more=more, issuer=issuer)
    return NewPassword(name=body.name, password=password)


@router.put("/operators/{name}/access", status_code=204)
async def set_access(name: str, body: AccessIn, caller: AdminDep, s: ServicesDep) -> Response:
    """Another role, place or further grants; shut the account or open it. Holds from the next request on."""
    _not_oneself(name, caller)
    await s.people.set_access(name, body.grant(), [g.grant() for g in body.more], caller.name)
    await s.people.set_disabled(name, body.disabled, caller.name)
    return Response(status_code=204)


@router.post("/operators/{name}/reset")
async def reset_operator(name: str, caller: AdminDep, s: ServicesDep) -> NewPassword:
    """A new first password for somebody else; ends their sessions and lifts a lock."""
    _not_oneself(name, caller)
    password = await s.people.reset(name, caller.name)
    if password is None:
        raise not_found("operator", name)
    return NewPassword(name=name, password=password)


@router.post("/operators/{name}/second-factor/reset", status_code=204)
async def reset_second_factor(name: str, caller: AdminDep, s: ServicesDep) -> Response:
    """For somebody who has lost telephone and recovery codes; ends their sessions."""
    _not_oneself(name, caller)
    await s.mine.take_away(name, caller.name)
    return Response(status_code=204)


def _not_oneself(name: str, caller: Caller) -> None:
    """Nobody raises himself, shuts himself out, or goes round the question for his own old password."""
    _ = caller.token
    if name == caller.name:
        raise Problem(409, "auth.self", "not for your own account; see POST /password and /me")


@router.get("/roles")
async def roles(caller: AdminDep, s: ServicesDep) -> list[RoleOut]:
    return [RoleOut(**role) for role in await s.people.roles()]


@router.put("/roles/{role}", status_code=204)
async def set_role(role: Role, body: RoleIn, caller: AdminDep, s: ServicesDep) -> Response:
    """What a role may do, and whether its holders need a second factor. `["*"]`: everything."""
    _ = caller.token
    await s.people.set_role(role, body.actions, body.second_factor, caller.name)
    return Response(status_code=204)


@router.get("/sessions")
async def sessions(caller: AdminDep, s: ServicesDep) -> list[SessionOut]:
    """Everybody's, the one used last first."""
    current = caller.session.sid if caller.session else ""
    return [
        SessionOut(current=row.session_id == current, **{f: getattr(row, f) for f in row.__slots__})
        for row in await s.mine.sessions(None)
    ]


@router.delete("/sessions/{session_id}", status_code=204)
async def end_session(session_id: str, caller: AdminDep, s: ServicesDep) -> Response:
    if not await s.mine.end(session_id, caller.name, of=None):
        raise not_found("session", session_id)
    return Response(status_code=204)


@router.get("/tokens")
async def tokens(caller: TokenDep, s: ServicesDep, all: bool = False) -> list[TokenOut]:
    """One's own API tokens; `all` is for administrators."""
    if all:
        caller.require("operator.manage", None)
    return [_out(t) for t in await s.tokens.listed(None if all else caller.name)]


@router.post("/tokens", status_code=201)
async def make_token(body: TokenIn, caller: TokenDep, s: ServicesDep) -> NewToken:
    """Shown this once. It may the actions named and never more than its owner may at that moment."""
    _ = caller.token
    owner = body.owner or caller.name
    if owner != caller.name:
        caller.require("operator.manage", None)
    made, text = await s.tokens.make(owner, body.label, body.actions, body.days, caller.name)
    return NewToken(token=text, **_out(made).model_dump())


@router.delete("/tokens/{token_id}", status_code=204)
async def revoke_token(token_id: str, caller: TokenDep, s: ServicesDep) -> Response:
    of = None if policy.allowed(caller.operator, "operator.manage") else caller.name
    if not await s.tokens.revoke(token_id, caller.name, of=of):
        raise not_found("token", token_id)
    return Response(status_code=204)


def _out(token: ApiToken) -> TokenOut:
    return TokenOut(**{name: getattr(token, name) for name in ApiToken.__slots__})
