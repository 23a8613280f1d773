"""The three steps of single sign-on in a browser: away to the provider, back with a code, and out again.

Pages, not calls of the API: they answer with redirects and cookies, and what goes wrong is said on the log-in page.
"""

from __future__ import annotations

import logging
from urllib.parse import urlsplit, urlunsplit

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from cloud.api.deps import ServicesDep, origin_of
from cloud.auth.errors import SsoRefused
from cloud.auth.sessions import COOKIE as SESSION_COOKIE
from cloud.auth.sso import COOKIE, WAIT_S

log = logging.getLogger(__name__)
_NOT_AFTER_LOGIN = ("/login", "/password", "/second-factor", "/api")
router = APIRouter(prefix="/login/sso", include_in_schema=False)


def safe_next(target: str) -> str:
    """Only a path of our own: a log-in page must not send people elsewhere."""
    parts = urlsplit(target)
    ours = target.startswith("/") and not target.startswith(("//", "/\\")) and not parts.netloc and "\\" not in target
    plain = target.isprintable() and len(target) <= 500
    return (
        target if ours and plain and not target.startswith(("/login", "/password", "/second-factor", "/api")) else "/"
    )


@router.get("")
async def away(request: Request, s: ServicesDep) -> Response:
    if s.sso is None:
        return RedirectResponse("/login", 303)
    try:
        url, cookie = await s.sso.start(safe_next(request.query_params.get("next", "/")))
    except SsoRefused as error:
        log.warning("%s", error)
        return RedirectResponse("/login?sso=down", 303)
    response = RedirectResponse(url, 303, {"Cache-Control": "no-store"})
    # Lax: the provider's redirect back is a navigation from elsewhere.
    response.set_cookie(
        COOKIE, cookie, max_age=WAIT_S, httponly=True, samesite="lax", secure=s.settings.cookie_secure,
        path="/login/sso",
    )  # fmt: skip
    return response


@router.get("/back")
async def back(request: Request, s: ServicesDep) -> Response:
    if s.sso is None:
        return RedirectResponse("/login", 303)
    params = {key: value for key, value in request.query_params.items() if len(value) <= 4096}
    try:
        login, target = await s.sso.finish(request.cookies.get(COOKIE, ""), params, origin_of(request))
    except SsoRefused as error:
        log.warning("%s", error)
        response: Response = RedirectResponse("/login?sso=refused", 303)
    else:
        response = RedirectResponse(safe_next(target), 303)
        response.set_cookie(
            SESSION_COOKIE, login.token, max_age=int(s.settings.session_hours * 3600), httponly=True, samesite="lax",
            secure=s.settings.cookie_secure, path="/",
        )  # fmt: skip
    response.headers["Cache-Control"] = "no-store"
    response.delete_cookie(COOKIE, path="/login/sso")
    return response


@router.get("/out")
async def out(s: ServicesDep) -> Response:
    """To the provider's own log-out, after ours. Nothing happens here without the provider asking its user."""
    if s.sso is None:
        return RedirectResponse("/login", 303)
    back_to = urlunsplit((*urlsplit(s.sso.settings.redirect_url)[:2], "/login", "", ""))
    return RedirectResponse(await s.sso.logout_url(back_to) or "/login", 303)
