"""How much and how slowly somebody may send: bounds that hold before any route looks at a request.

A body is taken whole, bounded in size (413) and time (408), and only then handed on; a route never waits for a sender.
Connections that do not bring a complete head in time, or bring an endless one, are closed: uvicorn leaves that open.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from cloud.api.problems import Problem

HEAD_S = 10.0
HEAD_MAX_BYTES = 64 * 1024
BODY_S = 30.0
#: Connections at a time; above, 503. An open console holds one.
CONNECTIONS = 4096


class Limits:
    """ASGI middleware. ``larger``: the start of a path whose bodies may be larger, in bytes."""

    def __init__(self, app: ASGIApp, *, max_body: int, larger: Mapping[str, int], body_s: float = BODY_S) -> None:
        self._app = app
        self._max_body = max_body
        self._larger = dict(larger)
        self._body_s = body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        if not length.strip("0") and "transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        most = next((n for path, n in self._larger.items() if scope["path"].startswith(path)), self._max_body)
        try:
            if length and (not length.isdecimal() or len(length) > 15 or int(length) > most):
                raise Problem(413, "too_large", f"a body here is at most {most} bytes")
            async with asyncio.timeout(self._body_s):
                body = await _whole(receive, most)
        except TimeoutError:
            await _refuse(Problem(408, "too_slow", f"the body took longer than {self._body_s:g} s"), scope, send)
            return
        except Problem as problem:
            await _refuse(problem, scope, send)
            return
        if body is None:
            return  # gone before it had sent everything
        first = True

        async def replay() -> Message:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        await self._app(scope, replay, send)


async def _whole(receive: Receive, most: int) -> bytes | None:
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > most:
            raise Problem(413, "too_large", f"a body here is at most {most} bytes")
        if not message.get("more_body"):
            return b"".join(chunks)


async def _refuse(problem: Problem, scope: Scope, send: Send) -> None:
    response = problem.response()
    response.headers["connection"] = "close"  # what is still on its way is not read

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    await response(scope, nothing, send)


class Hurried(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol, with an end to patience while the head of a request is on its way."""

    head_s = HEAD_S
    _timer: TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.head_s, self._too_slow)

    def data_received(self, data: bytes) -> None:
        if not self._busy():
            self._head_bytes += len(data)
        super().data_received(data)
        if self._busy():
            self._stop()
        elif self._head_bytes > HEAD_MAX_BYTES:
            self.transport.close()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.head_s, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _stop(self) -> None:
        self._head_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if not self._busy() and self.transport.get_protocol() is self:  # else: a websocket took over
            self.transport.close()


def server_options() -> dict[str, Any]:
    """What uvicorn is to be run with."""
    return {
        "http": Hurried,
        "limit_concurrency": CONNECTIONS,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": 15,
        "h11_max_incomplete_event_size": HEAD_MAX_BYTES,
        "ws_max_size": 1 << 20,
    }
