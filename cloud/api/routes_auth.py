"""Log in and out, change the password, look after operators."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from cloud.api.deps import AdminDep, AnybodyDep, ServicesDep
from cloud.api.models import LoginIn, LoginOut, Me, NewPassword, OperatorIn, OperatorOut, PasswordIn
from cloud.api.problems import Problem, not_found
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
    )


@router.post("/login")
async def login(body: LoginIn, s: ServicesDep) -> LoginOut:
    """A session token for name and password. Five failures lock the name for five minutes (429)."""
    return _login_out(await s.accounts.login(body.name, body.password))


@router.post("/logout", status_code=204)
async def logout(caller: AnybodyDep, s: ServicesDep) -> Response:
    await s.accounts.logout(caller.token)
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/")
    return response


@router.post("/password")
async def change_password(body: PasswordIn, caller: AnybodyDep, s: ServicesDep) -> LoginOut:
    """Ends every session of this operator and gives a new token."""
    return _login_out(await s.accounts.change_password(caller.operator.name, body.old, body.new))


@router.get("/me")
async def me(request: Request, caller: AnybodyDep, s: ServicesDep) -> Me:
    operator = caller.operator
    return Me(
        name=operator.name,
        role=operator.role,
        language=operator.language,
        must_change=operator.must_change,
        csrf=s.accounts.sessions.csrf(caller.token.sid),
    )


@router.get("/operators")
async def operators(_: AdminDep, s: ServicesDep) -> list[OperatorOut]:
    return [
        OperatorOut(name=o.name, role=o.role, language=o.language, must_change=o.must_change)
        for o in await s.accounts.operators()
    ]


@router.post("/operators", status_code=201)
async def add_operator(body: OperatorIn, _: AdminDep, s: ServicesDep) -> NewPassword:
    return NewPassword(name=body.name, password=await s.accounts.add(body.name, body.role))


@router.post("/operators/{name}/reset")
async def reset_operator(name: str, caller: AdminDep, s: ServicesDep) -> NewPassword:
    """A new first password for somebody else; ends their sessions and lifts a lock."""
    if name == caller.operator.name:
        raise Problem(409, "auth.self", "change your own password by POST /password")
    password = await s.accounts.reset(name)
    if password is None:
        raise not_found("operator", name)
    return NewPassword(name=name, password=password)
