"""Dialling a WebSocket, as a Link: each line written is one message, each message read is one line."""

from __future__ import annotations

import asyncio
import base64

from firmware_sim.links.base import Dial, Link
from protocols.core.errors import LinkDown, LinkRefused

DIAL_S = 10.0


class _Socket:
    def __init__(self, socket: object, name: str) -> None:
        self._socket = socket
        self._name = name

    async def read(self) -> bytes:
        from websockets.exceptions import ConnectionClosed

        try:
            data = await self._socket.recv()  # type: ignore[attr-defined]  # a ClientConnection
        except ConnectionClosed:
            return b""
        return (data.encode() if isinstance(data, str) else bytes(data)) + b"\n"

    async def write(self, data: bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            for line in data.split(b"\n"):
                if line:
                    await self._socket.send(line.decode("utf-8", "replace"))  # type: ignore[attr-defined]
        except ConnectionClosed as error:
            raise LinkDown(f"{self._name}: {error}") from error

    async def close(self) -> None:
        await self._socket.close()  # type: ignore[attr-defined]


def websocket_dial(url: str, subprotocol: str, *, user: str = "", password: str = "") -> Dial:
    """A factory that connects; with a password it logs in (HTTP Basic)."""

    async def connect() -> Link:
        from websockets.asyncio.client import connect as open_socket
        from websockets.exceptions import InvalidHandshake, InvalidStatus
        from websockets.typing import Subprotocol

        headers = {}
        if password:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        try:
            async with asyncio.timeout(DIAL_S):
                socket = await open_socket(
                    url, subprotocols=[Subprotocol(subprotocol)], additional_headers=headers, compression=None
                )
        except InvalidStatus as error:
            raise LinkRefused(f"{url}: HTTP {error.response.status_code}") from error
        except (OSError, InvalidHandshake, TimeoutError) as error:
            raise LinkDown(f"{url}: {error}") from error
        return _Socket(socket, url)

    return connect
