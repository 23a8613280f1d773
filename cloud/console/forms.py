"""Log-in and password change as plain pages: no scripts, no websocket, nothing of the console for strangers."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, quote

from fastapi import FastAPI, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from cloud.api.deps import Services, origin_of
from cloud.api.routes_sso import safe_next
from cloud.auth.errors import AuthError, Locked, SecondFactorNeeded, WeakPassword
from cloud.auth.guard import from_own_page
from cloud.auth.operator import Operator
from cloud.auth.service import Login
from cloud.auth.sessions import COOKIE, PENDING_S
from cloud.console.marks import esc
from cloud.console.words import Words
from protocols.core.errors import StoreError

PENDING_COOKIE = "citybrain_pending"
_MAX_FORM = 4096
_ART = """
<svg class="bg" viewBox="0 0 800 900" preserveAspectRatio="xMidYMid slice" fill="none" aria-hidden="true">
<defs><linearGradient id="w" x1="0" y1="0" x2="0" y2="1"><stop stop-color="#0b181b"/><stop offset="1" stop-color="#10262a"/></linearGradient></defs>
<rect width="800" height="900" fill="url(#w)"/>
<circle cx="612" cy="150" r="58" fill="#143a35"/><circle cx="612" cy="150" r="58" stroke="#27685d"/>
<path d="M0 900V560H0V381H72V554H81V379H136V557H138V439H152V431H166V423H182V431H196V439H210V559H218V399H300V555H310V497H393V559H394V452H440V560H449V433H463V425H477V417H494V425H508V433H522V544H525V425H583V558H593V445H607V437H621V429H638V437H652V445H666V558H674V420H734V551H742V483H787V548H788V442H798V434H808V426H818V434H828V442H838V560H800V900Z" fill="#11252a"/>
<path d="M0 900V610H0V548H14V540H28V532H43V540H57V548H71V595H77V575H90V567H103V559H116V567H129V575H142V593H148V579H162V571H176V563H194V571H208V579H222V599H230V548H303V604H307V488H364V604H368V547H381V539H394V531H408V539H421V547H434V608H439V527H533V603H541V539H608V593H609V570H684V601H693V521H713V513H733V505H757V513H777V521H797V601H800V900Z" fill="#16323a"/>
<g fill="#f0cc35" opacity=".55"><rect x="657" y="512" width="5" height="7"/><rect x="779" y="525" width="5" height="7"/><rect x="727" y="587" width="5" height="7"/><rect x="777" y="563" width="5" height="7"/><rect x="562" y="483" width="5" height="7"/><rect x="496" y="579" width="5" height="7"/><rect x="275" y="563" width="5" height="7"/><rect x="73" y="500" width="5" height="7"/><rect x="135" y="527" width="5" height="7"/><rect x="500" y="511" width="5" height="7"/><rect x="409" y="549" width="5" height="7"/><rect x="124" y="553" width="5" height="7"/><rect x="275" y="481" width="5" height="7"/><rect x="768" y="507" width="5" height="7"/><rect x="437" y="515" width="5" height="7"/><rect x="206" y="578" width="5" height="7"/><rect x="418" y="500" width="5" height="7"/><rect x="93" y="497" width="5" height="7"/><rect x="652" y="559" width="5" height="7"/><rect x="475" y="496" width="5" height="7"/><rect x="155" y="480" width="5" height="7"/><rect x="25" y="506" width="5" height="7"/><rect x="240" y="501" width="5" height="7"/><rect x="190" y="517" width="5" height="7"/><rect x="341" y="505" width="5" height="7"/><rect x="572" y="566" width="5" height="7"/><rect x="660" y="506" width="5" height="7"/><rect x="206" y="568" width="5" height="7"/><rect x="221" y="529" width="5" height="7"/><rect x="325" y="482" width="5" height="7"/><rect x="389" y="533" width="5" height="7"/><rect x="189" y="498" width="5" height="7"/><rect x="290" y="488" width="5" height="7"/><rect x="359" y="518" width="5" height="7"/><rect x="637" y="555" width="5" height="7"/><rect x="23" y="556" width="5" height="7"/><rect x="714" y="570" width="5" height="7"/><rect x="366" y="488" width="5" height="7"/><rect x="337" y="525" width="5" height="7"/><rect x="333" y="541" width="5" height="7"/><rect x="733" y="520" width="5" height="7"/><rect x="209" y="541" width="5" height="7"/><rect x="503" y="570" width="5" height="7"/><rect x="200" y="487" width="5" height="7"/><rect x="282" y="482" width="5" height="7"/><rect x="386" y="588" width="5" height="7"/></g>
<path d="M0 640c90-26 170-26 250 0s170 26 260 0 190-26 290 0v260H0z" fill="#0f3f42"/>
<path d="M0 690c90-24 170-24 250 0s170 24 260 0 190-24 290 0v210H0z" fill="#0c2f35"/>
<path d="M0 640c90-26 170-26 250 0s170 26 260 0 190-26 290 0M0 690c90-24 170-24 250 0s170 24 260 0 190-24 290 0" stroke="#3b9488" stroke-width="1.2" opacity=".7"/>
<path d="M90 330 215 262 352 318 470 236 610 292 718 222" stroke="#52c7b3" stroke-dasharray="2 7" opacity=".9"/>
<g fill="#52c7b3"><circle cx="90" cy="330" r="4"/><circle cx="215" cy="262" r="4"/><circle cx="352" cy="318" r="4"/><circle cx="470" cy="236" r="4"/><circle cx="610" cy="292" r="4"/><circle cx="718" cy="222" r="4"/></g>
<g stroke="#52c7b3" opacity=".35"><path d="M90 330v230"/><path d="M215 262v298"/><path d="M352 318v242"/><path d="M470 236v324"/><path d="M610 292v268"/><path d="M718 222v338"/></g>
</svg>"""  # noqa: E501 - one drawing


def language_of(request: Request) -> str:
    asked = request.query_params.get("lang") or request.cookies.get("citybrain_lang", "")
    return "en" if asked == "en" else "zh-CN"


def page(words: Words, services: Services, body: str, status: int = 200) -> HTMLResponse:
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


def field(name: str, label: str, kind: str, complete: str, value: str = "", *, focus: bool = False) -> str:
    more = " autofocus" if focus else ""
    return (
        f'<label class="cb-field">{esc(label)}<input name="{name}" type="{kind}" autocomplete="{complete}" required '
        f'maxlength="200" value="{esc(value)}"{more}></label>'
    )


def alert(text: str) -> str:
    return f'<div class="cb-alert" role="alert">{esc(text)}</div>' if text else ""


def _login_body(words: Words, services: Services, target: str, name: str = "", error: str = "") -> str:
    other = "en" if words.zh else "zh-CN"
    return (
        f'<form method="post" action="/login?lang={words.language}"><h2>{esc(words("login.title"))}</h2>{alert(error)}'
        f"{field('name', words('login.name'), 'text', 'username', name, focus=not name)}"
        f"{field('password', words('login.password'), 'password', 'current-password', focus=bool(name))}"
        f'<input type="hidden" name="next" value="{esc(target)}">'
        f'<button class="cb-btn primary" type="submit">{esc(words("login.submit"))}</button>'
        f"{_sso(words, services, target)}"
        f'<div class="lang"><span class="cb-hint">{esc(words("login.first"))}</span>'
        f'<a href="/login?lang={other}">{esc("English" if words.zh else "中文")}</a></div></form>'
    )


def _sso(words: Words, services: Services, target: str) -> str:
    if services.sso is None:
        return ""
    label = words.either(services.sso.settings.label_zh, services.sso.settings.label_en)
    return f'<a class="cb-btn" data-sso href="/login/sso?next={quote(target, safe="")}">{esc(label)}</a>'


def _password_body(words: Words, operator: Operator, error: str = "") -> str:
    must = f'<p class="cb-hint">{esc(words("password.must"))}</p>' if operator.must_change else ""
    back = "" if operator.must_change else f'<a class="cb-back" href="/">{esc(words("common.back"))}</a>'
    return (
        f'<form method="post" action="/password"><div><h2>{esc(words("password.title"))}</h2>{must}</div>'
        f"{alert(error)}"
        f'<input type="hidden" name="name" autocomplete="username" '
        f'value="{esc(operator.name)}">'
        f"{field('old', words('password.old'), 'password', 'current-password', focus=True)}"
        f"{field('new', words('password.new'), 'password', 'new-password')}"
        f"{field('again', words('password.again'), 'password', 'new-password')}"
        f'<p class="cb-hint">{esc(words("password.rule"))}</p>'
        f'<button class="cb-btn primary" type="submit">{esc(words("password.submit"))}</button>{back}</form>'
    )


async def read_form(request: Request) -> dict[str, str] | None:
    """The fields of a small form; None if it is too large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM:
            return None
    return {k: v[0] for k, v in parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True).items()}


def signed_in(login: Login, target: str, services: Services) -> Response:
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


def _said_by_sso(words: Words, request: Request) -> str:
    said = request.query_params.get("sso", "")
    return words(f"login.sso_{said}") if said in ("refused", "down") else ""


Handler = Callable[[Request], Awaitable[Response]]


def install(app: FastAPI, services: Services) -> None:
    async def show_login(request: Request) -> Response:
        words = Words(language_of(request))
        response = page(
            words,
            services,
            _login_body(
                words, services, safe_next(request.query_params.get("next", "/")), error=_said_by_sso(words, request)
            ),
        )
        if "lang" in request.query_params:
            response.set_cookie("citybrain_lang", words.language, max_age=31_536_000, samesite="lax", httponly=True)
        return response

    async def login(request: Request) -> Response:
        words = Words(language_of(request))
        form = await read_form(request)
        if form is None or from_own_page(request.headers) is False:
            return Response("refused", 403)
        name, target = form.get("name", ""), safe_next(form.get("next", "/"))
        try:
            found = await services.accounts.login(name, form.get("password", ""), origin=origin_of(request))
        except SecondFactorNeeded as error:
            response = RedirectResponse(f"/login/code?next={quote(target, safe='')}", 303)
            response.set_cookie(
                PENDING_COOKIE, error.pending, max_age=PENDING_S, httponly=True, samesite="strict",
                secure=services.settings.cookie_secure, path="/login",
            )  # fmt: skip
            return response
        except Locked as error:
            said = words("login.locked", minutes=math.ceil(error.retry_s / 60))
            return page(words, services, _login_body(words, services, target, name, said), 429)
        except AuthError:
            return page(words, services, _login_body(words, services, target, name, words("login.wrong")), 401)
        except StoreError:
            return page(words, services, _login_body(words, services, target, name, words("login.down")), 503)
        if "citybrain_lang" in request.cookies:  # chosen on this page, not merely the page's own default
            await services.accounts.set_language(found.operator.name, words.language)
        return signed_in(found, target, services)

    async def show_password(request: Request) -> Response:
        operator: Operator = request.state.operator
        words = Words(operator.language)
        return page(words, services, _password_body(words, operator))

    async def password(request: Request) -> Response:
        # The guard has made sure that the form came from our own page.
        operator: Operator = request.state.operator
        words = Words(operator.language)
        form = await read_form(request) or {}

        def again(key: str, status: int, **values: int) -> Response:
            return page(words, services, _password_body(words, operator, words(key, **values)), status)

        if form.get("new", "") != form.get("again", ""):
            return again("password.mismatch", 422)
        try:
            found = await services.accounts.change_password(
                operator.name, form.get("old", ""), form.get("new", ""), origin=origin_of(request)
            )
        except Locked as error:
            return again("login.locked", 429, minutes=math.ceil(error.retry_s / 60))
        except WeakPassword as error:
            return again("password.contains_name" if error.reason == "name" else f"password.{error.reason}", 422)
        except AuthError:
            return again("password.wrong", 401)
        return signed_in(found, "/", services)

    for path, method, handler in (
        ("/login", "GET", show_login),
        ("/login", "POST", login),
        ("/password", "GET", show_password),
        ("/password", "POST", password),
    ):
        app.add_api_route(path, plain(handler), methods=[method], include_in_schema=False)


def plain(handler: Handler) -> Handler:
    async def endpoint(request: Request) -> Response:
        return await handler(request)

    return endpoint
