"""TCP, listening (Modbus TCP devices, serial servers) and dialling (HJ 212 stations), as Links."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass

from firmware_sim.links.base import Dial, Link, Serve
from protocols.core.errors import ConfigError, LinkDown, LinkRefused, TransportError

READ_BYTES = 65536


def host_port(text: str, key: str) -> tuple[str, int]:
    """``127.0.0.1:9001`` or ``[::1]:9001``. Raises ConfigError naming ``key``."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{key}: {text!r} is not host:port")
    return host.strip("[]"), int(port)


class StreamLink:
    """A connected TCP socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        self.name = name
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(READ_BYTES)
        except OSError as error:
            raise LinkDown(f"{self.name}: {error}") from error

    async def write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise LinkDown(f"{self.name}: {error}") from error

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class TcpListener:
    """Accepts and hands each connection to ``serve``; :meth:`pause` is a device without power: it drops what it has
    and refuses new ones until :meth:`resume`."""

    def __init__(self, address: str, serve: Serve, key: str = "listen") -> None:
        self._host, self._port = host_port(address, key)
        self._serve = serve
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where it listens; the real port once open, also when port 0 was asked for."""
        return f"{self._host}:{self._port}"

    async def resume(self) -> None:
        if self._server is not None:
            return
        try:
            self._server = await asyncio.start_server(self._accepted, self._host, self._port)
        except OSError as error:
            raise LinkRefused(f"cannot listen on {self.address}: {error.strerror or error}") from error
        self._port = self._server.sockets[0].getsockname()[1]

    async def pause(self) -> None:
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - start_server runs this as a task
        self._open.add(task)
        link = StreamLink(reader, writer, f"tcp {writer.get_extra_info('peername')}")
        try:
            with contextlib.suppress(TransportError):  # the agent hung up: an ordinary end of a connection
                await self._serve(link)
        except asyncio.CancelledError:
            if self._server is not None:
                raise  # the rig is being stopped, not the device's power cut
        finally:
            self._open.discard(task)
            await link.close()


def tcp_dial(address: str, key: str = "connect") -> Dial:
    """A Dial to ``address``."""
    host, port = host_port(address, key)

    async def dial() -> Link:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError as error:
            raise LinkDown(f"cannot reach {address}: {error.strerror or error}") from error
        return StreamLink(reader, writer, f"tcp {address}")

    return dial


@dataclass
class Backoff:
    """Waiting times between dials: doubling to ``longest_s``, with seeded jitter, so that a hundred stations behind one
    router do not come back in the same millisecond."""

    seed: int
    first_s: float = 0.5
    longest_s: float = 5.0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._next_s = self.first_s

    def next_s(self) -> float:
        wait_s = self._next_s * self._random.uniform(0.8, 1.2)
        self._next_s = min(self._next_s * 2, self.longest_s)
        return wait_s

    def reset(self) -> None:
        self._next_s = self.first_s
