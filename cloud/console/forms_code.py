"""The second factor as plain pages: the code at log-in, and setting it up with a QR code and recovery codes."""

from __future__ import annotations

import math

from fastapi import FastAPI, Request
from starlette.responses import RedirectResponse, Response

from cloud.api.deps import Services, origin_of
from cloud.api.routes_sso import safe_next
from cloud.auth.errors import AuthError, Locked, NotPossible, WrongCode
from cloud.auth.guard import from_own_page
from cloud.auth.operator import Operator
from cloud.auth.sessions import Token
from cloud.console.forms import PENDING_COOKIE, alert, language_of, page, plain, read_form, signed_in
from cloud.console.marks import esc
from cloud.console.words import Words


def _code_field(words: Words) -> str:
    return (
        f'<label class="cb-field">{esc(words("code.field"))}<input name="code" type="text" inputmode="text" '
        'autocomplete="one-time-code" required maxlength="20" autofocus></label>'
    )


def _code_body(words: Words, target: str, error: str = "") -> str:
    return (
        f'<form method="post" action="/login/code"><div><h2>{esc(words("code.title"))}</h2>'
        f'<p class="cb-hint">{esc(words("code.hint"))}</p></div>{alert(error)}{_code_field(words)}'
        f'<input type="hidden" name="next" value="{esc(target)}">'
        f'<button class="cb-btn primary" type="submit">{esc(words("code.submit"))}</button>'
        f'<a class="cb-back" href="/login">{esc(words("common.back"))}</a></form>'
    )


def _setup_body(words: Words, services: Services, operator: Operator, sealed: str = "", error: str = "") -> str:
    setup = services.mine.setup(operator, sealed)
    must = f'<p class="cb-hint">{esc(words("code.must"))}</p>' if operator.must_enrol else ""
    back = "" if operator.must_enrol else f'<a class="cb-back" href="/security">{esc(words("common.back"))}</a>'
    spaced = " ".join(setup.secret[i : i + 4] for i in range(0, len(setup.secret), 4))
    return (
        f'<form method="post" action="/second-factor"><div><h2>{esc(words("code.setup"))}</h2>{must}'
        f'<p class="cb-hint">{esc(words("code.scan"))}</p></div>{alert(error)}'
        f'<img class="cb-qr" src="{esc(setup.qr)}" alt="QR" width="220" height="220">'
        f'<p class="cb-hint cb-mono" data-secret="{esc(setup.secret)}">'
        f"{esc(words('code.by_hand', secret=spaced))}</p>{_code_field(words)}"
        f'<input type="hidden" name="setup" value="{esc(setup.sealed)}">'
        f'<button class="cb-btn primary" type="submit">{esc(words("code.submit"))}</button>{back}</form>'
    )


def _recovery_body(words: Words, codes: list[str]) -> str:
    lines = "".join(f"<li>{esc(code)}</li>" for code in codes)
    return (
        f'<form method="get" action="/"><div><h2>{esc(words("code.recovery"))}</h2>'
        f'<p class="cb-hint">{esc(words("code.keep"))}</p></div><ul class="cb-mono cb-codes">{lines}</ul>'
        f'<button class="cb-btn primary" type="submit">{esc(words("code.kept"))}</button></form>'
    )


def install(app: FastAPI, services: Services) -> None:
    async def show_code(request: Request) -> Response:
        words = Words(language_of(request))
        if PENDING_COOKIE not in request.cookies:
            return RedirectResponse("/login", 303)
        return page(words, services, _code_body(words, safe_next(request.query_params.get("next", "/"))))

    async def code(request: Request) -> Response:
        words = Words(language_of(request))
        form = await read_form(request)
        if form is None or from_own_page(request.headers) is False:
            return Response("refused", 403)
        target = safe_next(form.get("next", "/"))
        pending = request.cookies.get(PENDING_COOKIE, "")
        try:
            found = await services.accounts.second(pending, form.get("code", ""), origin=origin_of(request))
        except WrongCode:
            return page(words, services, _code_body(words, target, words("code.wrong")), 401)
        except Locked as error:
            said = words("login.locked", minutes=math.ceil(error.retry_s / 60))
            return page(words, services, _code_body(words, target, said), 429)
        except AuthError:
            return page(words, services, _code_body(words, target, words("code.late")), 401)
        response = signed_in(found, target, services)
        response.delete_cookie(PENDING_COOKIE, path="/login")
        return response

    async def show_setup(request: Request) -> Response:
        operator: Operator = request.state.operator
        words = Words(operator.language)
        try:
            return page(words, services, _setup_body(words, services, operator))
        except NotPossible:
            return RedirectResponse("/security", 303)

    async def setup(request: Request) -> Response:
        # The guard has made sure that the form came from our own page.
        operator: Operator = request.state.operator
        token: Token = request.state.token
        words = Words(operator.language)
        form = await read_form(request) or {}
        try:
            codes = await services.mine.confirm(operator, form.get("setup", ""), form.get("code", ""), token.sid)
        except WrongCode:
            return page(
                words, services, _setup_body(words, services, operator, form.get("setup", ""), words("code.wrong")), 401
            )
        except NotPossible:
            return RedirectResponse("/security", 303)
        return page(words, services, _recovery_body(words, codes))

    for path, method, handler in (
        ("/login/code", "GET", show_code),
        ("/login/code", "POST", code),
        ("/second-factor", "GET", show_setup),
        ("/second-factor", "POST", setup),
    ):
        app.add_api_route(path, plain(handler), methods=[method], include_in_schema=False)
