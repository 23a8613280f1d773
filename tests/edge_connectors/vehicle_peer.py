"""The other end of the electric vehicle connector: a vehicle, or a platform of many, on a link."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from edge.clock import LoopClock
from edge.connectors.base import Link
from edge.connectors.build import build
from edge.connectors.gb_config import Gb32960Device, Gb32960ServerConfig
from firmware_sim.rig.virtual_loop import run_virtual
from protocols.core.endpoint import Role
from protocols.core.errors import TransportError
from protocols.gb32960 import bodies
from protocols.gb32960 import items as i
from protocols.gb32960 import messages as m
from protocols.gb32960.endpoint import Gb32960Endpoint
from tests.edge_connectors.peers import START_MS, Door, loop_ms, serving
from tests.support.virtual import RecordingSink

VIN, OTHER = "LFWADRJF011002346", "LZYTAGBW9J1004164"
HEFEI = (117.227219, 31.820567)


def config(**options: Any) -> Gb32960ServerConfig:
    devices = (
        Gb32960Device(id="bus-1", type="vehicle/electric", vin=VIN, allow=("set_report_period", "reset_terminal")),
        Gb32960Device(id="bus-2", type="vehicle/electric", vin=OTHER, datum="gcj02"),
    )
    return Gb32960ServerConfig(**{"id": "ev", "listen": "127.0.0.1:32960", "device": devices, **options})


class Car:
    """A vehicle's, or a platform's, end of one connection."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.endpoint = Gb32960Endpoint(Role.SLAVE)
        self.heard: list[m.Message] = []
        self.obey: Callable[[m.Message], m.Message | None] = lambda message: None
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        with contextlib.suppress(TransportError):
            while data := await self.link.read():
                for one in self.endpoint.feed(data, loop_ms()):
                    if isinstance(one, m.Message):
                        self.heard.append(one)
                        if one.is_command and (answer := self.obey(one)) is not None:
                            await self.link.write(m.encode(answer))

    async def say(self, command: int, data: bytes = b"", *, vin: str = VIN, **more: Any) -> None:
        message = m.Message(command, m.vin_bytes(vin), data, **more)
        await self.link.write(self.endpoint.send(message, loop_ms()))
        await asyncio.sleep(0.01)

    async def report(self, *items: i.Item, at_ms: int = START_MS, command: int = m.REALTIME, **more: Any) -> None:
        await self.say(command, bodies.report_data(m.stamp_at(at_ms), items), **more)

    @property
    def flags(self) -> list[tuple[int, int]]:
        """Command and answer flag of everything heard."""
        return [(message.command, message.answer) for message in self.heard]


Body = Callable[[Car, LoopClock, Any], Awaitable[None]]


def play(
    body: Body, *, settings: Gb32960ServerConfig | None = None, sink: RecordingSink | None = None
) -> RecordingSink:
    kept = sink or RecordingSink()

    async def main() -> None:
        door, clock = Door(), LoopClock(START_MS)
        connector = build(settings or config(), clock, door.accept)
        async with serving(connector, kept):
            await body(Car(door.dial()), clock, connector)

    run_virtual(main(), START_MS)
    return kept


def codes(sink: RecordingSink, kind: str) -> list[tuple[str, str]]:
    return [(report.device, report.code) for report in sink.reports if report.event_type == kind]


def position(lon: float, lat: float, **more: Any) -> i.Item:
    return i.item(5, {"status": 0, "lon": lon, "lat": lat, **more}, "2025" if "datum" in more else "2016")
