"""The other end of the wire in these tests: the SLAVE endpoints of our own codecs on a link."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge.connectors.base import Connector, Link, LinkFactory
from firmware_sim.links import MemoryLink, memory_pair
from protocols.core.endpoint import Role
from protocols.core.errors import RemoteProtocolError, TransportError
from protocols.dlt645 import slave as dlt645_slave
from protocols.dlt645.endpoint import Dlt645Endpoint
from protocols.hj212.endpoint import Hj212Endpoint
from protocols.hj212.messages import Packet
from protocols.modbus import slave as modbus_slave
from protocols.modbus.endpoint import ModbusEndpoint
from protocols.modbus.frame import Framing

#: 2026-03-02 08:00:00 +08:00
START_MS = 1_772_409_600_000


def loop_ms() -> int:
    return round(asyncio.get_running_loop().time() * 1000)


@dataclass
class ModbusPeer:
    """Units with holding registers by address. ``spoil`` may change or swallow the bytes of an answer."""

    units: dict[int, dict[int, int]]
    framing: Framing = "rtu"
    silent: set[int] = field(default_factory=set)
    answer_s: float = 0.0
    spoil: Callable[[bytes, int], bytes] = lambda data, number: data
    asked: list[tuple[int, int, int]] = field(default_factory=list)  # unit, address, count

    async def serve(self, link: Link) -> None:
        endpoint = ModbusEndpoint(Role.SLAVE, framing=self.framing)
        while data := await link.read():
            for request in endpoint.feed(data, loop_ms()):
                if isinstance(request, RemoteProtocolError):
                    continue
                unit = request.unit
                self.asked.append((unit, getattr(request, "address", -1), getattr(request, "count", 0)))
                if unit in self.silent or unit not in self.units:
                    continue
                reply = modbus_slave.answer(request, self._reader(unit))
                await asyncio.sleep(self.answer_s)
                if reply is not None:
                    await link.write(self.spoil(endpoint.send(reply, loop_ms()), len(self.asked)))

    def _reader(self, unit: int) -> Callable[[int, int, int], list[int] | None]:
        memory = self.units[unit]

        def read(function: int, address: int, count: int) -> list[int] | None:
            wanted = range(address, address + count)
            return [memory[n] for n in wanted] if all(n in memory for n in wanted) else None

        return read


@dataclass
class MeterPeer:
    """Meters by address, each with the source of its data."""

    meters: Mapping[str, dlt645_slave.Source]
    silent: set[str] = field(default_factory=set)
    answer_s: float = 0.05
    spoil: Callable[[Any, bytes], bytes] = lambda reply, data: data
    asked: list[tuple[str, str]] = field(default_factory=list)  # address, identifier
    busy: bool = False
    overlaps: int = 0  # requests that came while an answer was under way

    async def serve(self, link: Link) -> None:
        endpoint = Dlt645Endpoint(Role.SLAVE)
        while data := await link.read():
            self.overlaps += self.busy
            for request in endpoint.feed(data, loop_ms()):
                if isinstance(request, RemoteProtocolError):
                    continue
                self.asked.append((request.addr, getattr(request, "di", "")))
                if request.addr in self.silent or request.addr not in self.meters:
                    continue
                reply = dlt645_slave.answer(request, meter=request.addr, source=self.meters[request.addr])
                self.busy = True
                await asyncio.sleep(self.answer_s)
                if reply is not None:
                    await link.write(self.spoil(reply, endpoint.send(reply, loop_ms())))
                self.busy = False


class StationPeer:
    """One HJ 212 station's connection."""

    def __init__(self, link: Link, endpoint: Hj212Endpoint | None = None) -> None:
        self.link = link
        self.endpoint = endpoint or Hj212Endpoint(Role.SLAVE)
        self.heard: list[Packet] = []
        self.news = asyncio.Event()
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        with contextlib.suppress(TransportError):
            while data := await self.link.read():
                found = self.endpoint.feed(data, loop_ms())
                self.heard += [one for one in found if isinstance(one, Packet)]
                self.news.set()

    async def push(self, packet: Packet) -> None:
        await self.link.write(self.endpoint.send(packet, loop_ms()))
        await asyncio.sleep(0.01)

    async def write(self, data: bytes) -> None:
        await self.link.write(data)
        await asyncio.sleep(0.01)

    async def tick(self) -> None:
        self.endpoint.tick(loop_ms())
        await self.write(self.endpoint.take_output())

    @property
    def answered(self) -> list[str]:
        """QN of every 9014."""
        return [packet.qn for packet in self.heard if packet.cn == "9014"]


def dialled(serve: Callable[[Link], Any], wrap: Callable[[Link], Link] = lambda link: link) -> LinkFactory:
    """A link factory of a polled bus: each call opens a fresh memory pipe with ``serve`` at its other end."""
    tasks: set[asyncio.Task[None]] = set()

    async def open_link() -> Link:
        near, far = memory_pair("bus")

        async def run() -> None:
            with contextlib.suppress(TransportError):
                await serve(wrap(near))

        task = asyncio.create_task(run())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return far

    return open_link


class Door:
    """Where stations dial in: ``accept`` is the connector's link factory."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[MemoryLink] = asyncio.Queue()

    async def accept(self) -> Link:
        return await self._waiting.get()

    def dial(self) -> MemoryLink:
        near, far = memory_pair("station")
        self._waiting.put_nowait(far)
        return near


@contextlib.asynccontextmanager
async def serving(connector: Connector, sink: Any) -> AsyncIterator[asyncio.Task[None]]:
    """Run a connector once, without a supervisor, so that a test sees how it ends."""
    task = asyncio.create_task(connector.run(sink))
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, TransportError):
            await task
