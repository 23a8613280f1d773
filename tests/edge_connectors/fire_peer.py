"""The other end of the fire alarm connector: a transmitter as the sheet describes it, on a link."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from edge.clock import LoopClock
from edge.connectors.base import Link
from edge.connectors.build import build
from edge.connectors.gb_config import Gb26875Device, Gb26875ServerConfig
from firmware_sim.rig.virtual_loop import run_virtual
from protocols.core.endpoint import Role
from protocols.core.errors import TransportError
from protocols.gb26875 import messages as m
from protocols.gb26875 import objects as o
from protocols.gb26875.endpoint import Gb26875Endpoint
from protocols.gb26875.units import unit
from tests.edge_connectors.peers import START_MS, Door, loop_ms, serving
from tests.support.virtual import RecordingSink

ADDRESS = "112233445566"


def config(**options: Any) -> Gb26875ServerConfig:
    orders = ("set_clock", "read_state", "duty_check", "initialise")
    devices = (
        Gb26875Device(id="tx-1", type="fire/transmission_device", transmitter=ADDRESS, allow=orders),
        Gb26875Device(id="panel-1", type="fire/alarm_panel", transmitter=ADDRESS, part="1/1"),
        Gb26875Device(id="smoke-1", type="fire/smoke_detector", transmitter=ADDRESS.lower(), part="1/1/131082"),
        Gb26875Device(id="heat-1", type="fire/heat_detector", transmitter=ADDRESS, part="1/1/31:7"),
    )
    return Gb26875ServerConfig(**{"id": "fire", "listen": "127.0.0.1:5200", "device": devices, **options})


class Transmitter:
    """The device's end of one connection."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.endpoint = Gb26875Endpoint(Role.SLAVE)
        self.heard: list[m.Packet] = []
        self.news = asyncio.Event()
        self.obey: Callable[[m.Packet], m.Packet | None] = lambda packet: None
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        with contextlib.suppress(TransportError):
            while data := await self.link.read():
                for one in self.endpoint.feed(data, loop_ms()):
                    if isinstance(one, m.Packet):
                        self.heard.append(one)
                        self.news.set()
                        if one.wants_answer and (answer := self.obey(one)) is not None:
                            await self.link.write(m.encode(answer))

    async def push(self, kind: int, *objects: o.Object, stamp: bytes | None = None, serial: int | None = None) -> int:
        number = self.endpoint.next_serial() if serial is None else serial
        when = m.stamp_at(START_MS) if stamp is None else stamp
        packet = m.Packet(m.SEND, number, ADDRESS, "000000000001", unit(kind, objects).data, when)
        await self.link.write(self.endpoint.send(packet, loop_ms()))
        await asyncio.sleep(0.01)
        return number

    @property
    def confirmed(self) -> list[int]:
        return [packet.serial for packet in self.heard if packet.command == m.CONFIRM]


def smoke(state: int, *, text: str = "一层走廊", stamp: bytes | None = None, number: int = 131082) -> o.ComponentState:
    when = m.stamp_at(START_MS) if stamp is None else stamp
    return o.ComponentState(1, 1, 42, number, state, o.text_field(text), when)


Body = Callable[[Transmitter, LoopClock, Any], Awaitable[None]]


def play(
    body: Body, *, settings: Gb26875ServerConfig | None = None, sink: RecordingSink | None = None
) -> RecordingSink:
    kept = sink or RecordingSink()

    async def main() -> None:
        door, clock = Door(), LoopClock(START_MS)
        connector = build(settings or config(), clock, door.accept)
        async with serving(connector, kept):
            await body(Transmitter(door.dial()), clock, connector)

    run_virtual(main(), START_MS)
    return kept


def told(sink: RecordingSink, kind: str) -> list[tuple[str, str, str]]:
    return [(r.device, r.code, r.detail) for r in sink.reports if r.event_type == kind]
