"""UDP as a Link: one datagram a read, one a write. What nobody receives is lost, as on a network."""

from __future__ import annotations

import asyncio
from typing import Any

from firmware_sim.links.base import Dial, Link
from firmware_sim.links.tcp import host_port
from protocols.core.errors import LinkDown

MAX_WAITING = 1_024


class UdpLink(asyncio.DatagramProtocol):
    def __init__(self, name: str) -> None:
        self.name = name
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(MAX_WAITING)
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if data and not self._waiting.full():
            self._waiting.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there: as good as silence."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._waiting.full():
            self._waiting.put_nowait(b"")

    async def read(self) -> bytes:
        return await self._waiting.get()

    async def write(self, data: bytes) -> None:
        if self._transport is None:
            raise LinkDown(f"{self.name}: closed")
        self._transport.sendto(data)

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def udp_dial(address: str, key: str = "connect") -> Dial:
    """A Dial whose links write to ``address``."""
    host, port = host_port(address, key)

    async def dial() -> Link:
        loop = asyncio.get_running_loop()
        try:
            _, link = await loop.create_datagram_endpoint(lambda: UdpLink(f"udp {address}"), remote_addr=(host, port))
        except OSError as error:
            raise LinkDown(f"cannot reach {address}: {error.strerror or error}") from error
        return link

    return dial
