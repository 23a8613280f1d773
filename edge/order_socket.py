"""Orders from the installer: a socket in the agent's own folder, one JSON line in, one out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edge.clock import Clock
from edge.commands import DEFAULT_LIFE_MS, Desk
from edge.connectors.base import Command, Outcome

log = logging.getLogger("citybrain.edge.commands")

_MAX_LINE_BYTES = 16_384
#: The local socket's name in the agent's state folder.
SOCKET = "orders.sock"


class _Order(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    device: str
    name: str
    arguments: dict[str, float | int | str | bool] = {}
    life_ms: int = DEFAULT_LIFE_MS


class LocalSocket:
    """Orders from whoever may write to the agent's own folder (mode 0600): one JSON line in, one out."""

    def __init__(self, path: Path, desk: Desk, clock: Clock) -> None:
        self._path = path
        self._desk = desk
        self._clock = clock

    async def run(self) -> None:
        self._path.unlink(missing_ok=True)
        mask = os.umask(0o177)  # nobody else may order, not even for the moment before a chmod
        try:
            server = await asyncio.start_unix_server(self._serve, str(self._path), limit=_MAX_LINE_BYTES)
        except OSError as error:
            # A path longer than the kernel's 107 bytes, a folder on a file system without sockets: the agent does its
            # work all the same.
            log.warning("no local command socket at %s: %s", self._path, error)
            return
        finally:
            os.umask(mask)
        try:
            async with server:
                await server.serve_forever()
        finally:
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            line = await reader.readline()
            outcome = await self._take(line)
            writer.write(msgspec.json.encode(outcome) + b"\n")
            await writer.drain()
        writer.close()

    async def _take(self, line: bytes) -> Outcome:
        try:
            order = msgspec.json.decode(line, type=_Order)
        except msgspec.DecodeError as error:
            return Outcome("refused", "malformed", str(error))
        expires_ms = self._clock.now_ms() + max(1, order.life_ms)
        return await self._desk.order(Command(order.id, order.device, order.name, order.arguments, expires_ms))


async def give(path: Path, order: Mapping[str, object], timeout_s: float) -> Outcome:
    """Send one order to a running agent's socket. Raises OSError, TimeoutError or ValueError."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            writer.write(msgspec.json.encode(order) + b"\n")
            await writer.drain()
            return msgspec.json.decode(await reader.readline(), type=Outcome)
        finally:
            writer.close()
