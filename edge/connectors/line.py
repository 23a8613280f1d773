"""One polled line: one request at a time, whoever is asked; and the timetable of who is asked when.

Never two requests on the wire, a silent device costs its time-out and no more, and a device that is lost is asked so
rarely that it does not hold up the rest.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from edge.connectors.base import Link
from edge.connectors.gap import Gap
from protocols.core.endpoint import Endpoint
from protocols.core.errors import LinkDown, LinkTimeout, RemoteProtocolError

#: A link that takes no bytes for this long is broken (a TCP peer that does not read).
WRITE_TIMEOUT_S = 5.0

T = TypeVar("T")
OnError = Callable[[RemoteProtocolError], None]


class Line:
    """A link and the master endpoint on it."""

    def __init__(self, link: Link, endpoint: Endpoint[Any], *, gap: Gap) -> None:
        self._link = link
        self._endpoint = endpoint
        self.gap = gap
        # Real links give what has come without waiting; others cost a turn of the loop and an exception a request.
        self._take: Callable[[], bytes] | None = getattr(link, "take", None)
        self._loop = asyncio.get_running_loop()
        self._free_at_s = 0.0
        self.late_bytes = 0
        self.sent = 0  # requests that may have reached the wire

    def _now_ms(self) -> int:
        return round(self._loop.time() * 1000)

    async def ask(self, message: object, timeout_s: float, on_error: OnError) -> Any | None:
        """Send one request; its answer, or None after ``timeout_s``. What is not its answer goes to ``on_error`` and
        the waiting goes on. Raises LinkDown when the link is lost."""
        if (pause_s := self._free_at_s - self._loop.time()) > 0:
            await asyncio.sleep(pause_s)
        await self.flush()
        data = self._endpoint.send(message, self._now_ms())
        self.sent += 1
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._link.write(data)
        except TimeoutError as exc:
            raise LinkTimeout(f"link takes no bytes for {WRITE_TIMEOUT_S:g} s") from exc
        until_s = self._loop.time() + timeout_s
        try:
            return await self._wait(until_s, on_error)
        finally:
            self._free_at_s = self._loop.time() + self.gap.s

    async def _wait(self, until_s: float, on_error: OnError) -> Any | None:
        while (now_s := self._loop.time()) < until_s:
            deadline_ms = self._endpoint.deadline()
            wake_s = until_s if deadline_ms is None else min(until_s, max(now_s, deadline_ms / 1000))
            try:
                async with asyncio.timeout_at(wake_s):
                    data = await self._link.read()
            except TimeoutError:
                found = self._endpoint.tick(self._now_ms())
            else:
                if not data:
                    raise LinkDown("closed by the other end")
                found = self._endpoint.feed(data, self._now_ms())
            for one in found:
                if not isinstance(one, RemoteProtocolError):
                    return one
                on_error(one)
        return None

    async def flush(self) -> None:
        """Throw away what came late: it belongs to a request that was given up."""
        if self._take is not None:
            while data := self._take():
                self.late_bytes += len(data)
            return
        while True:
            try:
                async with asyncio.timeout(0):
                    data = await self._link.read()
            except TimeoutError:
                return
            if not data:
                raise LinkDown("closed by the other end")
            self.late_bytes += len(data)


class Timetable(Generic[T]):
    """Who is due next. Time is the loop's: a clock that is set does not disturb it."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._count = 0
        self._loop = asyncio.get_running_loop()

    def add(self, item: T, in_s: float = 0.0) -> None:
        self._count += 1  # first come, first served among equals
        heapq.heappush(self._heap, (self._loop.time() + in_s, self._count, item))

    async def run(self, serve: Callable[[T], Awaitable[float]]) -> None:
        """Serve for ever; ``serve`` returns the period of its item. What was missed is not made up for."""
        while self._heap:
            due_s, _, item = heapq.heappop(self._heap)
            if (wait_s := due_s - self._loop.time()) > 0:
                await asyncio.sleep(wait_s)
            period_s = await serve(item)
            late_s = self._loop.time() - due_s
            self.add(item, period_s - late_s if late_s < period_s else 0.0)
