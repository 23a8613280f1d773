"""What stands in front of every request: where it comes from, who sent it, and what its answer may do in a browser.

* A websocket, or an unsafe method with the session cookie, must come from our own pages (Sec-Fetch-Site, else Origin,
  else a token only our pages know).
* The console's pages and its websocket exist for those who are logged in; everybody else is sent to the log-in page.
* Every answer carries a Content-Security-Policy. Console pages get a fresh nonce for the scripts the server put into
  them; ``unsafe-eval`` stays because NiceGUI compiles its components in the browser, ``unsafe-inline`` is left to
  styles alone.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.auth.operator import Operator
from cloud.auth.service import Accounts
from cloud.auth.sessions import COOKIE, Token
from protocols.core.errors import StoreError

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER = "x-csrf-token"
#: Open to everybody: the API checks for itself, the others are the log-in page and files without secrets.
_OPEN = ("/api/", "/login/", "/assets/", "/_nicegui/", "/updates/")
_OPEN_EXACTLY = frozenset({"/login", "/favicon.ico", "/healthz"})
#: Plain pages without scripts.
_FORMS = ("/login", "/password", "/second-factor")
_LOCKED_DOWN = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_FORM = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
_CONSOLE = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; manifest-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
)
_FIXED = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


def from_own_page(headers: Headers) -> bool | None:
    """Whether the browser says that one of our own pages sent this; None if it says nothing."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc == headers.get("host")
    return None


def csrf_ok(headers: Headers, accounts: Accounts, token: Token) -> bool:
    """Whether an unsafe request made with the session cookie was meant by its owner."""
    own = from_own_page(headers)
    if own is not None:
        return own
    return hmac.compare_digest(headers.get(CSRF_HEADER, "").encode(), accounts.sessions.csrf(token.sid).encode())


class Guard:
    def __init__(self, app: ASGIApp, accounts: Accounts, *, secure: bool) -> None:
        self._app = app
        self._accounts = accounts
        self._secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        path: str = scope["path"]
        if scope["type"] == "websocket":
            if from_own_page(headers) is not True or not await self._may_enter(headers):
                await receive()
                await send({"type": "websocket.close", "code": 4401, "reason": "log in first"})
                return
            await self._app(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)
        sender = self._dressed(send, path, nonce)
        if not path.startswith(_OPEN) and path not in _OPEN_EXACTLY:
            refusal = await self._console(scope, headers, path)
            if refusal is not None:
                await refusal(scope, receive, sender)
                return
        await self._app(scope, receive, sender)

    async def _may_enter(self, headers: Headers) -> bool:
        try:
            found = await self._session(headers)
        except StoreError:
            return False
        return found is not None and not found[0].held_up

    async def _session(self, headers: Headers) -> tuple[Operator, Token] | None:
        return await self._accounts.check(cookie_parser(headers.get("cookie", "")).get(COOKIE))

    async def _console(self, scope: Scope, headers: Headers, path: str) -> Response | None:
        """Let a logged-in operator through (noted in ``scope["state"]``), or the answer everybody else gets."""
        try:
            found = await self._session(headers)
        except StoreError:
            return PlainTextResponse("数据库暂不可用，请稍候重试。 Database not available, try again.", 503)
        if found is None:
            if scope["method"] != "GET" or path.startswith("/_nicegui_ws"):
                return PlainTextResponse("log in first", 401)
            query = scope.get("query_string", b"").decode("latin-1")
            return RedirectResponse(f"/login?next={quote(path + ('?' + query if query else ''), safe='')}", 303)
        operator, token = found
        if scope["method"] not in SAFE_METHODS and not csrf_ok(headers, self._accounts, token):
            return PlainTextResponse("this request did not come from a page of this console", 403)
        if operator.must_change and path != "/password":
            return RedirectResponse("/password", 303)
        if operator.must_enrol and path not in ("/password", "/second-factor"):
            return RedirectResponse("/second-factor", 303)
        scope.setdefault("state", {})
        scope["state"]["operator"] = operator
        scope["state"]["token"] = token
        return None

    def _dressed(self, send: Send, path: str, nonce: str) -> Callable[[Message], Awaitable[None]]:
        """Add the security headers; put the nonce into the scripts of console pages."""
        start: Message | None = None
        chunks: list[bytes] = []

        async def sender(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in _FIXED.items():
                    headers.setdefault(name, value)
                if self._secure:
                    headers.setdefault("strict-transport-security", "max-age=31536000")
                html = headers.get("content-type", "").startswith("text/html")
                form = path in _FORMS or path.startswith("/login/")
                policy = _FORM if form else _CONSOLE.format(nonce=nonce) if html else _LOCKED_DOWN
                headers["content-security-policy"] = policy
                if html and not form:
                    start = message
                    return
            elif start is not None and message["type"] == "http.response.body":
                chunks.append(message.get("body", b""))
                if message.get("more_body"):
                    return
                body = b"".join(chunks).replace(b"<script", b'<script nonce="' + nonce.encode() + b'"')
                MutableHeaders(raw=start["headers"])["content-length"] = str(len(body))
                await send(start)
                message = {"type": "http.response.body", "body": body}
            await send(message)

        return sender
