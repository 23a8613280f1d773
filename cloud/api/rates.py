"""How often somebody may ask: a bucket of calls for each caller, and a smaller one for what is costly to answer.

```
 call ─▶ whose token? ── known to be good ──▶ bucket of the operator, or of the API token
                      ── none, or not yet known, or no longer good ──▶ bucket of the address (IPv6: its /64)
                      ── a gateway that enrols ──▶ the address's bucket for enrolment
      ─▶ empty: 429 with Retry-After, before a byte of the body is read or the database is asked
 route with Depends(costly) ─▶ the caller's second bucket
```
A token is known once a route has found it good: until then, and after it has ended, it counts for the address it comes
from, so that made-up tokens open no buckets of their own and ten people behind one address do not slow each other.
The three sorts of buckets are held apart: however many addresses a stranger has, he drives no operator out of memory.
All of this holds for one process; n processes of a core let n times as much through.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from cloud.api.problems import Problem
from cloud.auth.rates_config import RateSettings
from cloud.auth.sessions import COOKIE
from cloud.auth.throttle import Buckets, household

log = logging.getLogger(__name__)

_API = "/api/"
_ENROL = "/api/v1/enrol"
_MOST_TOKENS = 10_000
_SAY_AGAIN_S = 60.0


def token_of(headers: Headers) -> tuple[str, bool]:
    """The token a request was sent with, empty if none, and whether it came as the cookie."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return bearer.strip(), False
    return cookie_parser(headers.get("cookie", "")).get(COOKIE, ""), True


class Rates:
    """One a process. ``steady_s``: a clock that is never set."""

    def __init__(self, settings: RateSettings, steady_s: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.steady_s = steady_s
        self._callers = Buckets(settings.caller_burst, 1 / settings.caller_per_s)
        self._strangers = Buckets(settings.stranger_burst, 1 / settings.stranger_per_s)
        self._enrolling = Buckets(settings.enrol_burst, 1 / settings.enrol_per_s)
        self._costly = Buckets(settings.costly_burst, 60 / settings.costly_per_min)
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._said_s: dict[str, float] = {}
        self.refused: Counter[str] = Counter()

    # -- tokens -----------------------------------------------------------------------------------------------------

    def good(self, text: str, who: str) -> None:
        """A route has found this token good; ``who``: the bucket its calls come out of from now on."""
        digest = _digest(text)
        self._known[digest] = who
        self._known.move_to_end(digest)
        while len(self._known) > _MOST_TOKENS:
            self._known.popitem(last=False)

    def bad(self, text: str) -> None:
        if text:
            self._known.pop(_digest(text), None)

    # -- calls ------------------------------------------------------------------------------------------------------

    def call(self, path: str, text: str, address: str) -> None:
        """Count one call. Raises Problem 429."""
        who = self._known.get(_digest(text)) if text else None
        if who is not None:
            self._take("caller", self._callers, who)
        elif path == _ENROL or path.startswith(_ENROL + "/"):
            self._take("enrol", self._enrolling, household(address))
        else:
            self._take("stranger", self._strangers, household(address))

    def costly(self, who: str) -> None:
        """Count one call that is costly to answer. Raises Problem 429."""
        self._take("costly", self._costly, who)

    def _take(self, sort: str, buckets: Buckets, key: str) -> None:
        now_s = self.steady_s()
        wait_s = buckets.take(key, now_s)
        if not wait_s:
            return
        self.refused[sort] += 1
        if now_s - self._said_s.get(sort, -math.inf) >= _SAY_AGAIN_S:
            # Said once a minute at most, and counted in between: a flood must not become one of log lines.
            self._said_s[sort] = now_s
            log.warning("calls refused: too many by %s %s; %d so far", sort, key, self.refused[sort])
        retry_s = max(1, math.ceil(wait_s))
        raise Problem(
            429, f"rate.{sort}", f"too many calls; try again in {retry_s} s", headers={"Retry-After": str(retry_s)}
        )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


class Paced:
    """ASGI middleware before the API; pages, files and websockets are not its business."""

    def __init__(self, app: ASGIApp, rates: Rates) -> None:
        self._app = app
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(_API):
            headers = Headers(scope=scope)
            client = scope.get("client")
            try:
                self._rates.call(scope["path"], token_of(headers)[0], client[0] if client else "")
            except Problem as problem:
                response = problem.response()
                if headers.get("content-length", "0").strip("0") or "transfer-encoding" in headers:
                    response.headers["connection"] = "close"  # what is still on its way is not read
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
