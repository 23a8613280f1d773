"""What the routes need from the process, and who is allowed to call them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request

from cloud.api.acts import Acts
from cloud.api.problems import Problem
from cloud.auth import policy
from cloud.auth.guard import SAFE_METHODS, csrf_ok
from cloud.auth.service import Accounts, Operator, Role
from cloud.auth.sessions import COOKIE, Token
from cloud.config import Settings
from cloud.query.live import Hub
from cloud.query.pool import Connection, Pool


@dataclass(frozen=True, slots=True)
class Services:
    """One of each per process."""

    settings: Settings
    pool: Pool
    hub: Hub
    accounts: Accounts
    acts: Acts


@dataclass(frozen=True, slots=True)
class Caller:
    operator: Operator
    token: Token
    text: str  # the token as it was sent, to be checked again by whatever lives longer than a request


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


ServicesDep = Annotated[Services, Depends(services)]


async def connection(s: ServicesDep) -> AsyncIterator[Connection]:
    async with s.pool.connection() as conn:
        yield conn


async def anybody(request: Request, s: ServicesDep) -> Caller:
    """Whoever is logged in, by bearer token or by cookie, password changed or not."""
    authorization = request.headers.get("authorization", "")
    scheme, _, bearer = authorization.partition(" ")
    by_cookie = scheme.lower() != "bearer"
    text = request.cookies.get(COOKIE, "") if by_cookie else bearer.strip()
    found = await s.accounts.check(text)
    if found is None:
        raise Problem(401, "auth.required", "log in first", headers={"WWW-Authenticate": "Bearer"})
    operator, token = found
    if by_cookie and request.method not in SAFE_METHODS and not csrf_ok(request.headers, s.accounts, token):
        raise Problem(403, "auth.csrf", "an unsafe request by cookie must come from our own page or carry X-CSRF-Token")
    return Caller(operator, token, text)


AnybodyDep = Annotated[Caller, Depends(anybody)]


def at_least(role: Role) -> Callable[[Caller], Awaitable[Caller]]:
    async def check(caller: AnybodyDep) -> Caller:
        if caller.operator.must_change:
            raise Problem(403, "auth.must_change", "change the password first: POST /api/v1/password")
        if not caller.operator.may(role):
            raise Problem(403, "auth.role", f"this needs the role {role}")
        return caller

    return check


def may(action: policy.Action) -> Callable[[Caller], Awaitable[Caller]]:
    """A dependency: ``caller: Annotated[Caller, Depends(may("twin.write"))]``."""

    async def check(caller: AnybodyDep) -> Caller:
        if caller.operator.must_change:
            raise Problem(403, "auth.must_change", "change the password first: POST /api/v1/password")
        if not policy.allowed(caller.operator, action):
            raise Problem(403, "auth.forbidden", f"you may not: {action}")
        return caller

    return check


ViewerDep = Annotated[Caller, Depends(at_least("viewer"))]
OperatorDep = Annotated[Caller, Depends(at_least("operator"))]
AdminDep = Annotated[Caller, Depends(at_least("admin"))]
ConnDep = Annotated[Connection, Depends(connection)]
LimitQ = Annotated[int, Query(ge=1, le=500, description="Rows on one page.")]
CursorQ = Annotated[str | None, Query(max_length=400, description="`next_cursor` of the page before.")]
TextQ = Annotated[str, Query(max_length=120)]
