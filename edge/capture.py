"""Runs one connector of a gateway's configuration with every byte written down, and nothing acknowledged.

A station that pushes gets no "I have it" from here: what is recorded is not stored, so it must come again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from edge.clock import Clock
from edge.config import EdgeConfig
from edge.connectors.base import Link, LinkFactory
from edge.connectors.build import build, real_link
from edge.connectors.config import ConnectorConfig, split_address
from edge.connectors.links import listen_tcp
from protocols.core.errors import ConfigError, TransportError
from protocols.core.model import Sweep
from protocols.core.recording import Recorder
from protocols.registry import FAMILIES

#: Links that dialled in and wait to be taken.
_WAITING = 256


class RecordedLink:
    """Passes everything through and writes it down."""

    def __init__(self, link: Link, recorder: Recorder, number: int, clock: Clock) -> None:
        self._link = link
        self._recorder = recorder
        self._number = number
        self._clock = clock
        recorder.happening(clock.now_ms(), number, "open")

    async def read(self) -> bytes:
        data = await self._link.read()
        if data:
            self._recorder.piece(self._clock.now_ms(), self._number, "in", data)
        return data

    async def write(self, data: bytes) -> None:
        self._recorder.piece(self._clock.now_ms(), self._number, "out", data)
        await self._link.write(data)

    async def close(self) -> None:
        self._recorder.happening(self._clock.now_ms(), self._number, "close")
        await self._link.close()


class Watcher:
    """The sink of a capture: counts, tells, stores nothing."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.sweeps = 0
        self.readings = 0
        self._tell = tell
        self._told: set[tuple[str, str, str]] = set()

    def sweep(self, sweep: Sweep, on_durable: Callable[[], None] | None = None) -> None:
        self.sweeps += 1
        self.readings += len(sweep.points)

    def report(self, event_type: str, device: str, code: str, detail: str = "", *, point: str = "") -> None:
        if (event_type, device, code) not in self._told and len(self._told) < 1_000:
            self._told.add((event_type, device, code))
            self._tell(f"{device}: {event_type} {code} {detail}".rstrip())

    def device_state(self, device: str, *, online: bool, detail: str = "") -> None:
        self._tell(f"{device}: {'answers 有应答' if online else 'silent 无应答'} {detail}".rstrip())

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Counters are the agent's affair."""


def find(config: EdgeConfig, connector_id: str) -> ConnectorConfig:
    """Raises ConfigError naming the connectors there are."""
    for one in config.connector:
        if one.id == connector_id:
            return one
    raise ConfigError(f"no connector {connector_id!r}; there are {', '.join(c.id for c in config.connector) or 'none'}")


def kind_of(config: ConnectorConfig) -> str:
    return str(type(config).__struct_config__.tag)


def family_of(config: ConnectorConfig) -> str:
    """The protocol that this kind of connector speaks."""
    kind = kind_of(config)
    return next((one.name for one in FAMILIES.values() if kind in one.connectors), kind)


async def capture(
    config: ConnectorConfig,
    file: Path,
    clock: Clock,
    *,
    for_s: float,
    tell: Callable[[str], None],
    base: Path = Path(),
) -> tuple[Recorder, Watcher]:
    """Record for ``for_s`` seconds; relative paths of the configuration count from ``base``.

    Raises ConfigError for a kind without a byte stream of its own, TransportError."""
    watcher = Watcher(tell)
    with file.open("w", encoding="utf-8") as opened:
        recorder = Recorder(opened, protocol=family_of(config), kind=kind_of(config), start_ms=clock.now_ms())
        numbers = iter(range(1_000_000_000))

        def recorded(link: Link) -> Link:
            return RecordedLink(link, recorder, next(numbers), clock)

        async with contextlib.AsyncExitStack() as stack:
            factory = await _factory(config, recorded, stack, tell)
            connector = build(config, clock, factory, base=base)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(for_s):
                    while True:
                        try:
                            await connector.run(watcher)
                            break
                        except TransportError as error:
                            tell(str(error))
                            await asyncio.sleep(1.0)  # as the agent would: the device may be switched on meanwhile
    return recorder, watcher


async def _factory(
    config: ConnectorConfig,
    recorded: Callable[[Link], Link],
    stack: contextlib.AsyncExitStack,
    tell: Callable[[str], None],
) -> LinkFactory:
    listen = getattr(config, "listen", None)
    if listen is None:
        real = real_link(config)
        if real is None:
            raise ConfigError(
                f"{config.id}: a connector of kind {kind_of(config)} has no byte stream of its own to record"
            )

        async def connect() -> Link:
            return recorded(await real())

        return connect
    waiting: asyncio.Queue[Link] = asyncio.Queue(_WAITING)
    host, port = split_address(listen, "listen")

    def accept(link: Link) -> None:
        if waiting.full():
            asyncio.get_running_loop().create_task(link.close())
            return
        waiting.put_nowait(recorded(link))

    server = await listen_tcp(host, port, accept)
    stack.callback(server.close)
    tell("listening on {}:{}".format(*server.sockets[0].getsockname()[:2]))
    return waiting.get
