"""Log in and out; one's own password, second factor and sessions."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from cloud.api.deps import AnybodyDep, OwnDep, ServicesDep, origin_of
from cloud.api.models_access import (
    CodeIn,
    LoginIn,
    LoginOut,
    Me,
    OperatorOut,
    PasswordIn,
    RecoveryOut,
    SessionOut,
    SetupIn,
    SetupOut,
)
from cloud.api.problems import Problem, not_found
from cloud.auth import policy
from cloud.auth.service import Login
from cloud.auth.sessions import COOKIE

router = APIRouter(tags=["auth"])


def _login_out(login: Login) -> LoginOut:
    operator = login.operator
    return LoginOut(
        token=login.token,
        expires_at=datetime.fromtimestamp(login.expires_s, UTC),
        name=operator.name,
        role=operator.role,
        must_change=operator.must_change,
        must_enrol=operator.must_enrol,
    )


@router.post("/login")
async def login(request: Request, body: LoginIn, s: ServicesDep) -> LoginOut:
    """A session token for name, password and, where one is set up, a code of the second factor (401
    `auth.second_factor` while it is missing). Five failures lock the name for five minutes (429)."""
    return _login_out(await s.accounts.login(body.name, body.password, body.code, origin=origin_of(request)))


@router.post("/logout", status_code=204)
async def logout(caller: OwnDep, s: ServicesDep) -> Response:
    await s.accounts.logout(caller.token)
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/")
    return response


@router.post("/password")
async def change_password(body: PasswordIn, caller: OwnDep, s: ServicesDep) -> LoginOut:
    """Ends every session of this operator and gives a new token."""
    return _login_out(await s.accounts.change_password(caller.name, body.old, body.new, origin=caller.origin))


@router.get("/me")
async def me(caller: AnybodyDep, s: ServicesDep) -> Me:
    operator = caller.operator
    return Me(
        **OperatorOut.of(operator).model_dump(),
        must_enrol=operator.must_enrol,
        actions=[action for action in policy.ACTIONS if policy.anywhere(operator, action)],
        csrf=s.accounts.sessions.csrf(caller.session.sid) if caller.session else None,
    )


@router.post("/me/second-factor")
async def set_up_second_factor(caller: OwnDep, s: ServicesDep) -> SetupOut:
    """A secret for the telephone. Nothing is kept before the first code comes back within ten minutes."""
    _changed_first(caller.operator.must_change)
    setup = s.mine.setup(caller.operator)
    return SetupOut(secret=setup.secret, uri=setup.uri, qr=setup.qr, setup=setup.sealed)


@router.post("/me/second-factor/confirm")
async def confirm_second_factor(body: SetupIn, caller: OwnDep, s: ServicesDep) -> RecoveryOut:
    """From now on a code is asked for at each log-in. Other sessions of this operator end."""
    _changed_first(caller.operator.must_change)
    return RecoveryOut(codes=await s.mine.confirm(caller.operator, body.setup, body.code, caller.token.sid))


@router.post("/me/second-factor/codes")
async def renew_recovery_codes(body: CodeIn, caller: OwnDep, s: ServicesDep) -> RecoveryOut:
    return RecoveryOut(codes=await s.mine.renew_codes(caller.operator, body.code))


@router.post("/me/second-factor/remove", status_code=204)
async def remove_second_factor(body: CodeIn, caller: OwnDep, s: ServicesDep) -> Response:
    await s.mine.remove(caller.operator, body.code)
    return Response(status_code=204)


@router.get("/me/sessions")
async def own_sessions(caller: OwnDep, s: ServicesDep) -> list[SessionOut]:
    return [
        SessionOut(current=row.session_id == caller.token.sid, **{f: getattr(row, f) for f in row.__slots__})
        for row in await s.mine.sessions(caller.name)
    ]


@router.delete("/me/sessions/{session_id}", status_code=204)
async def end_own_session(session_id: str, caller: OwnDep, s: ServicesDep) -> Response:
    if not await s.mine.end(session_id, caller.name, of=caller.name):
        raise not_found("session", session_id)
    return Response(status_code=204)


def _changed_first(must_change: bool) -> None:
    if must_change:
        raise Problem(403, "auth.must_change", "change the password first: POST /api/v1/password")
