"""A TCP connection to a device, as a Link. A gateway asks hundreds of boxes a second, so this sits on the transport
itself: what has come can be had without waiting, and nothing is copied twice."""

from __future__ import annotations

import asyncio
import contextlib

from protocols.core.errors import LinkDown, LinkRefused, TransportError

READ_BYTES = 4096
#: What we keep of a peer that talks faster than we read, before it has to wait.
_HIGH_BYTES = 64 * 1024
_CLOSE_S = 1.0


class TcpLink(asyncio.Protocol):
    """Made by ``loop.create_connection``."""

    def __init__(self) -> None:
        self.peer = "peer"
        self._held = bytearray()
        self._gone: BaseException | None = None
        self._ended = False
        self._paused = False
        self._reader: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # -- the transport's side
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - create_connection gives one
        self._transport = transport
        transport.set_write_buffer_limits(high=_HIGH_BYTES)
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "peer"

    def data_received(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > _HIGH_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> bool:
        self._ended = True
        _wake(self._reader)
        return True  # what we have to say may still go out

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended, self._gone = True, exc
        for waiting in (self._reader, self._writable, self._closed):
            _wake(waiting)

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        _wake(self._writable)
        self._writable = None

    # -- the connector's side
    def take(self) -> bytes:
        """What has come, without waiting; b"" if nothing has. Raises LinkDown when the other end has closed."""
        if not self._held and self._ended:
            raise self._down()
        data = bytes(self._held)
        self._held.clear()
        self._go_on()
        return data

    async def read(self) -> bytes:
        while not self._held:
            if self._gone is not None:
                raise self._down()
            if self._ended:
                return b""
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = bytes(self._held[:READ_BYTES])
        del self._held[:READ_BYTES]
        self._go_on()
        return data

    async def write(self, data: bytes) -> None:
        if self._transport.is_closing():
            raise self._down()
        self._transport.write(data)
        if self._writable is not None:
            await self._writable
        if self._gone is not None:
            raise self._down()

    async def close(self) -> None:
        self._transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._closed
        self._transport.abort()

    def _go_on(self) -> None:
        if self._paused and len(self._held) <= _HIGH_BYTES // 2:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _down(self) -> TransportError:
        if isinstance(self._gone, PermissionError):
            return LinkRefused(f"{self.peer}: {self._gone.strerror}")
        why = getattr(self._gone, "strerror", None) or "closed by the other end"
        return LinkDown(f"{self.peer}: {why}")


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
