"""Log-in and password change as plain pages: no scripts, no websocket, nothing of the console before somebody is known."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

from fastapi import FastAPI, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from cloud.api.deps import Services
from cloud.auth.guard import from_own_page
from cloud.auth.service import AuthError, Locked, Login, Operator, WeakPassword
from cloud.auth.sessions import COOKIE
from cloud.console.marks import esc
from cloud.console.words import Words
from protocols.core.errors import StoreError

_MAX_FORM = 4096
_ART = """
<svg class="bg" viewBox="0 0 800 900" preserveAspectRatio="xMidYMid slice" fill="none" aria-hidden="true">
<defs><linearGradient id="w" x1="0" y1="0" x2="0" y2="1"><stop stop-color="#0d1b1f"/><stop offset="1" stop-color="#0a1416"/></linearGradient></defs>
<rect width="800" height="900" fill="url(#w)"/>
<circle cx="590" cy="210" r="74" fill="#12332f"/><circle cx="590" cy="210" r="74" stroke="#1f5a50" stroke-width="1.5"/>
<path d="M0 470 90 430v-90l70-30v96l60-22V270l90-46v150l70-20V300l60 34v60l90-40v-74l70 30v80l90-30v-90l80 40v110l100-20v340H0z" fill="#0f2226"/>
<path d="M0 520 80 490v-64l60-22v70l80-28v-90l70-30v104l110-30v-70l70 30v66l110-34v-60l80 26v70l140-40v300H0z" fill="#132c31"/>
<path d="M0 610c90-34 170-34 250 0s170 34 260 0 190-34 290 0v290H0z" fill="#0f3a3c"/>
<path d="M0 660c90-30 170-30 250 0s170 30 260 0 190-30 290 0v240H0z" fill="#0d2f33"/>
<path d="M0 610c90-34 170-34 250 0s170 34 260 0 190-34 290 0M0 660c90-30 170-30 250 0s170 30 260 0 190-30 290 0" stroke="#2f7f76" stroke-width="1.5" opacity=".7"/>
<g fill="#f0cc35" opacity=".75"><rect x="110" y="352" width="7" height="9"/><rect x="128" y="372" width="7" height="9"/><rect x="246" y="300" width="7" height="9"/><rect x="270" y="322" width="7" height="9"/><rect x="560" y="360" width="7" height="9"/><rect x="690" y="380" width="7" height="9"/></g>
<g fill="#52c7b3"><circle cx="160" cy="310" r="4"/><circle cx="310" cy="224" r="4"/><circle cx="440" cy="334" r="4"/><circle cx="600" cy="320" r="4"/><circle cx="700" cy="330" r="4"/></g>
<path d="M160 310 310 224 440 334 600 320 700 330" stroke="#52c7b3" stroke-width="1" stroke-dasharray="3 6" opacity=".8"/>
</svg>"""  # noqa: E501 - one drawing


def _safe_next(target: str) -> str:
    """Only a path of our own: a log-in page must not send people elsewhere."""
    parts = urlsplit(target)
    ours = target.startswith("/") and not target.startswith(("//", "/\\")) and not parts.netloc and "\\" not in target
    return target if ours and not target.startswith(("/login", "/password", "/api")) else "/"


def _language(request: Request) -> str:
    asked = request.query_params.get("lang") or request.cookies.get("citybrain_lang", "")
    return "en" if asked == "en" else "zh-CN"


def _page(words: Words, services: Services, body: str, status: int = 200) -> HTMLResponse:
    settings = services.settings
    brand = f"{words('top.brand')} · {words.either(settings.city_zh, settings.city_en)}"
    lang = "zh-CN" if words.zh else "en"
    markup = (
        f'<!doctype html><html lang="{lang}" data-theme="dark" data-lang="{lang[:2]}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{esc(brand)}</title>'
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="/assets/console.css"></head><body>'
        f'<div class="cb-login"><aside>{_ART}<h1>{esc(brand)}</h1><p>{esc(words("login.lead"))}</p>'
        f"<p>{esc(words('login.lead_hint'))}</p></aside><main>{body}</main></div></body></html>"
    )
    return HTMLResponse(markup, status, {"Cache-Control": "no-store"})


def _field(name: str, label: str, kind: str, complete: str, value: str = "", *, focus: bool = False) -> str:
    more = " autofocus" if focus else ""
    return (
        f'<label class="cb-field">{esc(label)}<input name="{name}" type="{kind}" autocomplete="{complete}" required '
        f'maxlength="200" value="{esc(value)}"{more}></label>'
    )


def _alert(text: str) -> str:
    return f'<div class="cb-alert" role="alert">{esc(text)}</div>' if text else ""


def _login_body(words: Words, target: str, name: str = "", error: str = "") -> str:
    other = "en" if words.zh else "zh-CN"
    return (
        f'<form method="post" action="/login?lang={words.language}"><h2>{esc(words("login.title"))}</h2>{_alert(error)}'
        f"{_field('name', words('login.name'), 'text', 'username', name, focus=not name)}"
        f"{_field('password', words('login.password'), 'password', 'current-password', focus=bool(name))}"
        f'<input type="hidden" name="next" value="{esc(target)}">'
        f'<button class="cb-btn primary" type="submit">{esc(words("login.submit"))}</button>'
        f'<div class="lang"><span class="cb-hint">{esc(words("login.first"))}</span>'
        f'<a href="/login?lang={other}">{esc("English" if words.zh else "中文")}</a></div></form>'
    )


def _password_body(words: Words, operator: Operator, csrf: str, error: str = "") -> str:
    must = f'<p class="cb-hint">{esc(words("password.must"))}</p>' if operator.must_change else ""
    back = "" if operator.must_change else f'<a class="cb-back" href="/">{esc(words("common.back"))}</a>'
    return (
        f'<form method="post" action="/password"><div><h2>{esc(words("password.title"))}</h2>{must}</div>{_alert(error)}'
        f'<input type="hidden" name="csrf" value="{csrf}"><input type="hidden" name="name" autocomplete="username" '
        f'value="{esc(operator.name)}">{_field("old", words("password.old"), "password", "current-password", focus=True)}'
        f"{_field('new', words('password.new'), 'password', 'new-password')}"
        f"{_field('again', words('password.again'), 'password', 'new-password')}"
        f'<p class="cb-hint">{esc(words("password.rule"))}</p>'
        f'<button class="cb-btn primary" type="submit">{esc(words("password.submit"))}</button>{back}</form>'
    )


async def _form(request: Request) -> dict[str, str] | None:
    """The fields of a small form; None if it is too large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM:
            return None
    return {k: v[0] for k, v in parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True).items()}


def _signed_in(login: Login, target: str, services: Services) -> Response:
    response = RedirectResponse("/password" if login.operator.must_change else target, 303)
    response.set_cookie(
        COOKIE,
        login.token,
        max_age=int(services.settings.session_hours * 3600),
        httponly=True,
        samesite="lax",
        secure=services.settings.cookie_secure,
        path="/",
    )
    return response


Handler = Callable[[Request], Awaitable[Response]]


def install(app: FastAPI, services: Services) -> None:
    async def show_login(request: Request) -> Response:
        words = Words(_language(request))
        response = _page(words, services, _login_body(words, _safe_next(request.query_params.get("next", "/"))))
        if "lang" in request.query_params:
            response.set_cookie("citybrain_lang", words.language, max_age=31_536_000, samesite="lax", httponly=True)
        return response

    async def login(request: Request) -> Response:
        words = Words(_language(request))
        form = await _form(request)
        if form is None or from_own_page(request.headers) is False:
            return Response("refused", 403)
        name, target = form.get("name", ""), _safe_next(form.get("next", "/"))
        try:
            found = await services.accounts.login(name, form.get("password", ""))
        except Locked as error:
            said = words("login.locked", minutes=math.ceil(error.retry_s / 60))
            return _page(words, services, _login_body(words, target, name, said), 429)
        except AuthError:
            return _page(words, services, _login_body(words, target, name, words("login.wrong")), 401)
        except StoreError:
            return _page(words, services, _login_body(words, target, name, words("login.down")), 503)
        if "lang" in request.query_params or "citybrain_lang" in request.cookies:
            await services.accounts.set_language(found.operator.name, words.language)
        return _signed_in(found, target, services)

    async def show_password(request: Request) -> Response:
        operator: Operator = request.state.operator
        words = Words(operator.language)
        csrf = services.accounts.sessions.csrf(request.state.token.sid)
        return _page(words, services, _password_body(words, operator, csrf))

    async def password(request: Request) -> Response:
        # The guard has made sure that the form came from our own page.
        operator: Operator = request.state.operator
        words = Words(operator.language)
        form = await _form(request) or {}
        csrf = services.accounts.sessions.csrf(request.state.token.sid)

        def again(key: str, status: int, **values: int) -> Response:
            return _page(words, services, _password_body(words, operator, csrf, words(key, **values)), status)

        if form.get("new", "") != form.get("again", ""):
            return again("password.mismatch", 422)
        try:
            found = await services.accounts.change_password(operator.name, form.get("old", ""), form.get("new", ""))
        except Locked as error:
            return again("login.locked", 429, minutes=math.ceil(error.retry_s / 60))
        except WeakPassword as error:
            return again("password.contains_name" if error.reason == "name" else f"password.{error.reason}", 422)
        except AuthError:
            return again("password.wrong", 401)
        return _signed_in(found, "/", services)

    for path, method, handler in (
        ("/login", "GET", show_login),
        ("/login", "POST", login),
        ("/password", "GET", show_password),
        ("/password", "POST", password),
    ):
        app.add_api_route(path, _plain(handler), methods=[method], include_in_schema=False)


def _plain(handler: Handler) -> Handler:
    async def endpoint(request: Request) -> Response:
        return await handler(request)

    return endpoint
