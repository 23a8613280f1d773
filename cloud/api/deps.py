"""What the routes need from the process, and who is allowed to call them.

Every route names its action: ``Depends(may("twin.write"))``. What the path names (a gateway, a case ...) is looked up
and must lie where the caller may; a thing he may not even see is as if it were not there. A route that names nothing
needs the action for the whole city. A route that says ``filtered=True`` promises to look for itself: to give out only
what :func:`cloud.auth.sight.of` allows, or to ask :meth:`Caller.require` about what its body names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from fastapi.security import HTTPBearer

from cloud.api.acts import Acts
from cloud.api.problems import Problem, not_found
from cloud.api.rates import Rates, token_of
from cloud.auth import policy, sight
from cloud.auth.guard import SAFE_METHODS, csrf_ok
from cloud.auth.mine import Mine
from cloud.auth.people import People
from cloud.auth.service import Accounts, Operator, Origin
from cloud.auth.sessions import Token
from cloud.auth.sso import Sso
from cloud.auth.tokens import PREFIX, Tokens
from cloud.config import Settings
from cloud.identity.desk import IdentityDesk
from cloud.query.live import Hub
from cloud.query.pool import Connection, Pool
from cloud.query.sight import Sight


@dataclass(frozen=True, slots=True)
class Services:
    """One of each per process."""

    settings: Settings
    pool: Pool
    hub: Hub
    accounts: Accounts
    acts: Acts
    rates: Rates
    sso: Sso | None = None
    identity: IdentityDesk | None = None

    @property
    def people(self) -> People:
        return People(self.pool)

    @property
    def mine(self) -> Mine:
        return Mine(self.pool, self.accounts)

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.pool, self.accounts)

    async def operator_of(self, text: str, *, active: bool = True) -> Operator | None:
        """Whoever a token belongs to now, of a session or for the API."""
        if text.startswith(PREFIX):
            return await self.tokens.check(text)
        found = await self.accounts.check(text, active=active)
        return found[0] if found else None


@dataclass(frozen=True, slots=True)
class Caller:
    operator: Operator
    session: Token | None  # None: an API token
    text: str  # the token as it was sent, to be checked again by whatever lives longer than a request
    origin: Origin = field(default_factory=Origin)
    action: policy.Action = "view"  # what the route asked for

    @property
    def name(self) -> str:
        return self.operator.name

    @property
    def bucket(self) -> str:
        """What his calls are counted by: an operator over all his sessions, each API token for itself."""
        return bucket_of(self.operator, self.text)

    @property
    def token(self) -> Token:
        """The session. Raises Problem 403 for an API token: with that nobody changes an account."""
        if self.session is None:
            raise Problem(403, "auth.session_only", "this needs a log-in; an API token does not do")
        return self.session

    @property
    def sight(self) -> Sight:
        """The places where he may do what the route is about; lists are filtered with it."""
        return sight.of(self.operator, self.action)

    def require(self, action: policy.Action, scope: policy.Scope | None) -> None:
        """Raises Problem 403 if he may not, with a thing that belongs there (None: to the whole city)."""
        if not policy.allowed(self.operator, action, scope):
            raise Problem(403, "auth.forbidden", f"you may not: {action}")


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


ServicesDep = Annotated[Services, Depends(services)]
#: For the description of the API alone; the token is read below, because a cookie does as well.
_bearer = HTTPBearer(auto_error=False, description="A session token of POST /login, or an API token (`cbt_...`).")


async def connection(s: ServicesDep) -> AsyncIterator[Connection]:
    async with s.pool.connection() as conn:
        yield conn


def bucket_of(operator: Operator, text: str) -> str:
    id_ = text.removeprefix(PREFIX).partition("_")[0]  # of the token; the secret behind it is nobody's business here
    return f"token {id_}" if text.startswith(PREFIX) else f"operator {operator.name}"


def origin_of(request: Request) -> Origin:
    """Where a request comes from; through proxies of ours, see cloud/auth/proxies.py."""
    return Origin(request.client.host if request.client else "", request.headers.get("user-agent", ""))


async def anybody(request: Request, s: ServicesDep, _: Annotated[Any, Depends(_bearer)] = None) -> Caller:
    """Whoever is logged in, by bearer token or by cookie, password changed or not."""
    text, by_cookie = token_of(request.headers)
    found = await _look_up(s, text, by_cookie)
    if found is None:
        s.rates.bad(text)
        raise Problem(401, "auth.required", "log in first", headers={"WWW-Authenticate": "Bearer"})
    operator, token = found
    s.rates.good(text, bucket_of(operator, text))
    unsafe = by_cookie and request.method not in SAFE_METHODS
    if unsafe and token is not None and not csrf_ok(request.headers, s.accounts, token):
        raise Problem(403, "auth.csrf", "an unsafe request by cookie must come from our own page or carry X-CSRF-Token")
    return Caller(operator, token, text, origin_of(request))


async def _look_up(s: Services, text: str, by_cookie: bool) -> tuple[Operator, Token | None] | None:
    if by_cookie or not text.startswith(PREFIX):
        return await s.accounts.check(text)
    owner = await s.tokens.check(text)
    return None if owner is None else (owner, None)


AnybodyDep = Annotated[Caller, Depends(anybody)]


async def logged_in(caller: AnybodyDep) -> Caller:
    """For one's own account: any log-in, even before the password is changed, but no API token."""
    _ = caller.token
    return caller


OwnDep = Annotated[Caller, Depends(logged_in)]

#: What a path may name, by the name of its parameter.
THINGS: Mapping[str, sight.Thing] = {
    "gateway_id": "gateway",
    "device_id": "device",
    "series_id": "series",
    "alarm_id": "alarm",
    "case_id": "case",
    "sha256": "evidence",
    "command_id": "command",
}


async def costly(caller: AnybodyDep, s: ServicesDep) -> None:
    """For routes that cost much to answer: each call counts a second time, in a smaller bucket."""
    s.rates.costly(caller.bucket)


class May:
    """The check behind :func:`may`; a class, so that a test can read from a route what it asks for."""

    def __init__(self, action: policy.Action, filtered: bool) -> None:
        self.action = action
        self.filtered = filtered

    async def __call__(self, request: Request, caller: AnybodyDep, s: ServicesDep) -> Caller:
        operator = caller.operator
        if operator.must_change:
            raise Problem(403, "auth.must_change", "change the password first: POST /api/v1/password")
        if operator.must_enrol:
            raise Problem(403, "auth.must_enrol", "set up the second factor first: POST /api/v1/me/second-factor")
        if not policy.anywhere(operator, self.action):
            raise Problem(403, "auth.forbidden", f"you may not: {self.action}")
        if self.filtered or policy.allowed(operator, self.action):
            return replace(caller, action=self.action)  # the route looks for itself; or he may for the whole city
        named = [(THINGS[name], str(value)) for name, value in request.path_params.items() if name in THINGS]
        if not named:
            raise Problem(403, "auth.forbidden", f"you may not for the whole city: {self.action}")
        async with s.pool.connection() as conn:
            for thing, id_ in named:
                scopes = await sight.places(conn, thing, id_)
                if not scopes and (thing, id_) != named[0]:
                    continue  # not there yet, as a device that waits to be accepted: what stands before it decides
                if any(policy.allowed(operator, self.action, scope) for scope in scopes):
                    continue
                if any(policy.allowed(operator, "view", scope) for scope in scopes):
                    raise Problem(403, "auth.forbidden", f"you may not: {self.action}")
                # What he may not see is answered like what is not there; nobody learns ids by asking.
                raise not_found(thing, id_)
        return replace(caller, action=self.action)


def may(action: policy.Action, *, filtered: bool = False) -> Callable[..., Awaitable[Caller]]:
    """A dependency: ``caller: Annotated[Caller, Depends(may("twin.write"))]``."""
    return May(action, filtered)


ViewerDep = Annotated[Caller, Depends(may("view"))]
#: For lists that show each caller what he may see.
SeerDep = Annotated[Caller, Depends(may("view", filtered=True))]
AdminDep = Annotated[Caller, Depends(may("operator.manage"))]
ConnDep = Annotated[Connection, Depends(connection)]
LimitQ = Annotated[int, Query(ge=1, le=500, description="Rows on one page.")]
CursorQ = Annotated[str | None, Query(max_length=400, description="`next_cursor` of the page before.")]
TextQ = Annotated[str, Query(max_length=120)]
