"""UDP: a Link to one device, and a socket that many devices write to. One datagram is one read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from edge.connectors.base import Link, LinkFactory
from protocols.core.errors import LinkDown, LinkRefused

#: Datagrams waiting to be read; older ones are dropped, as the kernel would.
MAX_WAITING = 1_024

Received = Callable[[bytes, tuple[str, int]], None]


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, received: Received, lost: Callable[[Exception | None], None]) -> None:
        self._received = received
        self._lost = lost

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._received(data, (str(addr[0]), int(addr[1])))

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there right now (ICMP): as good as silence, the asker's time-out says so."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(exc)


class DatagramLink:
    """The device at one address. What others send to this socket is not ours: the socket is connected."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.dropped = 0
        self._waiting: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._closed = False
        self._transport: asyncio.DatagramTransport | None = None

    def opened(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def received(self, data: bytes, _: tuple[str, int]) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        if data:  # an empty datagram is no end of a connection
            self._waiting.append(data)
            self._changed.set()

    def lost(self, _: Exception | None) -> None:
        self._closed = True
        self._changed.set()

    async def read(self) -> bytes:
        while not self._waiting:
            if self._closed:
                raise LinkDown(f"{self.peer}: closed")
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()

    async def write(self, data: bytes) -> None:
        if self._closed or self._transport is None:
            raise LinkDown(f"{self.peer}: closed")
        self._transport.sendto(data)

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        self.lost(None)


def udp_client(host: str, port: int) -> LinkFactory:
    """A factory of links to one device."""

    async def connect() -> Link:
        link = DatagramLink(f"{host}:{port}")
        try:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Protocol(link.received, link.lost), remote_addr=(host, port)
            )
        except OSError as exc:
            raise LinkDown(f"{host}:{port}: {exc.strerror or exc}") from exc
        link.opened(transport)
        return link

    return connect


async def listen_udp(host: str, port: int, received: Received) -> asyncio.DatagramTransport:
    """A socket; every datagram is handed to ``received`` with where it came from."""
    try:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Protocol(received, lambda _: None), local_addr=(host, port)
        )
    except PermissionError as exc:
        raise LinkRefused(f"listen on {host}:{port}/udp: {exc.strerror or exc}") from exc
    except OSError as exc:
        raise LinkDown(f"listen on {host}:{port}/udp: {exc.strerror or exc}") from exc
    return transport


#: Senders a door keeps apart at a time; the one heard of longest ago makes room.
MAX_SENDERS = 4_096


class _SenderLink(DatagramLink):
    """What one sender writes to a socket that many share."""

    def __init__(self, peer: str, answer: Callable[[bytes], None], gone: Callable[[], None]) -> None:
        super().__init__(peer)
        self._answer = answer
        self._gone = gone

    async def write(self, data: bytes) -> None:
        if self._closed:
            raise LinkDown(f"{self.peer}: closed")
        self._answer(data)

    async def close(self) -> None:
        self._gone()
        self.lost(None)


class DatagramDoor:
    """A UDP port as if stations dialled in: each sender is a Link of its own, given once by :meth:`accept`."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._links: dict[tuple[str, int], _SenderLink] = {}  # least recently heard first
        self._new: deque[_SenderLink] = deque(maxlen=MAX_SENDERS)
        self._changed = asyncio.Event()
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self) -> None:
        """Raises LinkDown or LinkRefused."""
        self._transport = await listen_udp(self._host, self._port, self._received)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        for link in list(self._links.values()):
            link.lost(None)

    async def accept(self) -> Link:
        """The next sender not heard of before."""
        while not self._new:
            self._changed.clear()
            await self._changed.wait()
        return self._new.popleft()

    def _received(self, data: bytes, sender: tuple[str, int]) -> None:
        link = self._links.pop(sender, None)
        if link is None:
            if len(self._links) >= MAX_SENDERS:
                self._links.pop(next(iter(self._links))).lost(None)
            link = _SenderLink(
                f"{sender[0]}:{sender[1]}", lambda out: self._send(out, sender), lambda: self._forget(sender)
            )
            self._new.append(link)
            self._changed.set()
        self._links[sender] = link
        link.received(data, sender)

    def _send(self, data: bytes, sender: tuple[str, int]) -> None:
        if self._transport is not None:
            self._transport.sendto(data, sender)

    def _forget(self, sender: tuple[str, int]) -> None:
        self._links.pop(sender, None)
