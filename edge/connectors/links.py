"""Real links: TCP to a device, TCP from stations that dial in, serial lines (and the ptys that stand in for them).

Every operating system error becomes a TransportError here: refused where time does not heal it (no permission), down
where it may (the adapter is plugged in later, the box boots).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.connectors.base import Link, LinkFactory
from edge.connectors.config import TCP_PREFIX, split_address
from edge.connectors.tcp_link import TcpLink
from protocols.core.errors import LinkDown, LinkRefused, LinkTimeout, TransportError

log = logging.getLogger(__name__)

READ_BYTES = 4096
CONNECT_TIMEOUT_S = 5.0
#: A power failure that ends makes a whole district dial at once.
LISTEN_BACKLOG = 4096
#: What we queue towards a peer that does not read, before a write waits.
WRITE_HIGH_BYTES = 64 * 1024


def _down(what: str, exc: OSError) -> TransportError:
    text = f"{what}: {exc.strerror or exc}"
    return LinkRefused(text) if isinstance(exc, PermissionError) else LinkDown(text)


class StreamLink:
    """A TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        peer = writer.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "peer"

    async def read(self) -> bytes:
        try:
            return await self._reader.read(READ_BYTES)
        except OSError as exc:
            raise _down(self.peer, exc) from exc

    async def write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as exc:
            raise _down(self.peer, exc) from exc

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()


def tcp_client(host: str, port: int) -> LinkFactory:
    """A factory that connects."""

    async def connect() -> Link:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, link = await asyncio.get_running_loop().create_connection(TcpLink, host, port)
        except TimeoutError as exc:
            raise LinkTimeout(f"{host}:{port}: no connection within {CONNECT_TIMEOUT_S:g} s") from exc
        except OSError as exc:
            raise _down(f"{host}:{port}", exc) from exc
        return link

    return connect


async def listen_tcp(host: str, port: int, accept: Callable[[Link], None]) -> asyncio.Server:
    """Listen; every connection is handed to ``accept``, which owns it from then on."""

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accept(StreamLink(reader, writer))

    try:
        return await asyncio.start_server(connected, host, port, backlog=LISTEN_BACKLOG)
    except OSError as exc:
        raise _down(f"listen on {host}:{port}", exc) from exc


class SerialLink:
    """A serial line by its file descriptor, served by the event loop."""

    def __init__(self, port: Any, path: str) -> None:
        self._port = port
        self._fd: int = port.fileno()
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._waiting: set[asyncio.Future[None]] = set()
        os.set_blocking(self._fd, False)

    async def read(self) -> bytes:
        while True:
            self._check_open()
            try:
                return os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except OSError as exc:
                raise _down(self._path, exc) from exc

    def take(self) -> bytes:
        """What has come, without waiting; b"" if nothing has."""
        self._check_open()
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as exc:
            raise _down(self._path, exc) from exc
        if not data:
            raise LinkDown(f"{self._path}: closed by the other end")
        return data

    async def write(self, data: bytes) -> None:
        while data:
            self._check_open()
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
            except OSError as exc:
                raise _down(self._path, exc) from exc

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        with contextlib.suppress(OSError, termios.error):
            self._port.close()

    def _check_open(self) -> None:
        if self._closed:
            raise LinkDown(f"{self._path}: closed")

    async def _ready(self, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(future)
        add(self._fd, _wake, future)
        try:
            await future
        finally:
            self._waiting.discard(future)
            if not self._closed:
                remove(self._fd)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def serial_line(path: str, *, baud: int, parity: str, stop_bits: int) -> LinkFactory:
    """A factory that opens the port raw, with that speed and parity."""

    async def connect() -> Link:
        port = _open_serial(path, baud, parity, stop_bits)
        try:
            _raw(port.fileno())
        except termios.error as exc:
            port.close()
            raise LinkDown(f"{path}: {exc}") from exc
        return SerialLink(port, path)

    return connect


def polled_line(port: str, *, baud: int, parity: str, stop_bits: int) -> LinkFactory:
    """A serial port of this machine, or ``tcp://host:port``: a serial server that passes the bytes on as they are."""
    if port.startswith(TCP_PREFIX):
        return tcp_client(*split_address(port.removeprefix(TCP_PREFIX), "port"))
    return serial_line(port, baud=baud, parity=parity, stop_bits=stop_bits)


def _open_serial(path: str, baud: int, parity: str, stop_bits: int) -> Any:
    import serial  # only a gateway with a serial line needs it

    if not Path(path).exists():
        # Adapters are plugged in later and get their name then: worth trying again.
        raise LinkDown(f"{path}: no such port")
    pty = str(Path(path).resolve()).startswith("/dev/pts/")
    # A pty has neither parity nor speed; some kernels refuse them there.
    attempts = [(parity, stop_bits), ("N", 1)] if pty else [(parity, stop_bits)]
    for number, (wanted, stops) in enumerate(attempts):
        try:
            return serial.Serial(path, baudrate=baud, parity=wanted, stopbits=stops, timeout=0)
        except (OSError, termios.error, ValueError) as exc:
            # serial.SerialException is an OSError
            if number + 1 < len(attempts):
                continue
            if isinstance(exc, PermissionError) or getattr(exc, "errno", None) == 13:
                raise LinkRefused(f"{path}: no permission; is the user in group dialout?") from exc
            if isinstance(exc, ValueError):
                raise LinkRefused(f"{path}: {exc}") from exc
            raise LinkDown(f"{path}: {exc}") from exc
    raise LinkDown(f"{path}: not opened")


def _raw(fd: int) -> None:
    # VMIN 1: an empty read means that the other end is gone, not that nothing came yet.
    attributes = termios.tcgetattr(fd)
    attributes[6][termios.VMIN] = 1
    attributes[6][termios.VTIME] = 0
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    termios.tcflush(fd, termios.TCIOFLUSH)
