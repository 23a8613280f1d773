"""One open link to a signal controller: one question at a time, and reports that come in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from edge.connectors.base import Link
from edge.connectors.line import WRITE_TIMEOUT_S
from protocols.core.endpoint import Role
from protocols.core.errors import LinkDown, LinkTimeout, RemoteProtocolError
from protocols.traffic_signal.endpoint import SignalEndpoint
from protocols.traffic_signal.frame import Framing
from protocols.traffic_signal.messages import Kind, Message


class Session:
    """``listen`` must be running for ``exchange`` to get answers."""

    def __init__(self, link: Link, framing: Framing, timeout_s: float) -> None:
        self._link = link
        self._datagrams = framing == "datagram"
        self._endpoint = SignalEndpoint(Role.MASTER, framing=framing)
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Future[Message] | None = None
        self._sequence = 0

    def _now_ms(self) -> int:
        return round(self._loop.time() * 1000)

    async def send(self, message: Message) -> None:
        self._sequence = (self._sequence + 1) % 256
        data = self._endpoint.send(replace(message, sequence=self._sequence), self._now_ms())
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._link.write(data)
        except TimeoutError as exc:
            raise LinkTimeout(f"link takes no bytes for {WRITE_TIMEOUT_S:g} s") from exc

    async def exchange(self, message: Message) -> Message | None:
        """One question; its answer, None after the time-out. Raises LinkDown when the link is lost."""
        async with self._turn:
            self._waiting = self._loop.create_future()
            try:
                await self.send(message)
                async with asyncio.timeout(self._timeout_s):
                    return await self._waiting
            except TimeoutError:
                self._endpoint.give_up()
                return None
            finally:
                self._waiting = None

    async def listen(self) -> AsyncIterator[Message | RemoteProtocolError]:
        """Reports, heartbeats and what was wrong, as they come; answers go to who waits for them."""
        while True:
            deadline_ms = self._endpoint.deadline()
            try:
                async with asyncio.timeout_at(None if deadline_ms is None else deadline_ms / 1000):
                    data = await self._link.read()
            except TimeoutError:
                found = self._endpoint.tick(self._now_ms())
            else:
                if not data:
                    raise LinkDown("closed by the other end")
                feed = self._endpoint.feed_datagram if self._datagrams else self._endpoint.feed
                found = feed(data, self._now_ms())
            for one in found:
                waiting = self._waiting
                if isinstance(one, RemoteProtocolError) or one.kind in (Kind.REPORT, Kind.HEARTBEAT):
                    yield one
                elif waiting is not None and not waiting.done():
                    waiting.set_result(one)
