"""A roadside unit: road users, lights and notices as V2X datagrams.

``address``: its 8-byte id as 16 hex digits. Options: ``wrapping`` "none" or "vendor", ``rate_hz`` (messages a second of
each kind, 1 to 10), ``crossing`` (number), ``cycle_s`` (of a fixed-time program with as many phases as its type has),
``lon`` and ``lat``. Signals of its counts and speeds say how many road users it sees.

Faults of its own: ``duplicate`` (a datagram twice), ``wrong_version`` (a message kind of a newer edition). A cut
datagram is the common ``truncate``.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from datetime import UTC, datetime

from firmware_sim.devices.world import Senses, World
from firmware_sim.faults import Faults
from firmware_sim.links.tcp import host_port
from firmware_sim.scene import Bus, Device, Scene
from protocols.core.endpoint import Role
from protocols.core.errors import ConfigError
from protocols.v2x.endpoint import V2xEndpoint, Wrapping
from protocols.v2x.messages import Crossing, Message, Notice, Notices, Participant, Phase, Place, RoadUsers, Signals

_YELLOW_S = 3.0
#: Road users in one message (RSM); more go into the next.
_PER_MESSAGE = 16
_SOURCES = {"motor": "integrated", "non-motor": "video", "pedestrian": "video"}
_POINTS = {"motor": "motor_count", "non-motor": "bicycle_count", "pedestrian": "pedestrian_count"}


class RoadsideUnit:
    """One unit. :meth:`datagrams` says what it sends at a moment; time and wire are somebody else's."""

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        options = device.options
        self.id = device.id
        self.device = device
        self.faults = faults
        self.world = world
        self.senses = Senses(device, world)
        self._address = str(device.address)
        if len(self._address) != 16 or any(c not in "0123456789abcdef" for c in self._address):
            raise ConfigError(f"device {device.id}: address: 16 hex digits in small letters, the unit's id")
        wrapping: Wrapping = "vendor" if options.get("wrapping") == "vendor" else "none"
        self._endpoint = V2xEndpoint(Role.SLAVE, wrapping=wrapping, device_id=bytes.fromhex(self._address))
        self.rate_hz = min(10.0, max(1.0, float(options.get("rate_hz", 2.0))))
        self._place = Place(float(options.get("lon", 117.2272)), float(options.get("lat", 31.8206)))
        self._crossing = int(options.get("crossing", 1))
        self._cycle_s = float(options.get("cycle_s", 80.0))
        self._count = 0
        keys = [point.value.key for point in self.senses.type.points if point.value is not None]
        self._phases = sorted(int(key.split("/")[1]) for key in keys if key.startswith("phase/") and "light" in key)

    def datagrams(self, t_s: float, now_ms: int) -> list[tuple[float, bytes]]:
        """(delay in s, bytes) of each datagram of this moment."""
        if self.faults.off(t_s, now_ms) or self.faults.silent(t_s, now_ms):
            return []
        self._count = (self._count + 1) % 128
        out: list[tuple[float, bytes]] = []
        own_ms = now_ms + self.faults.clock_offset_ms(t_s, now_ms, self.world.start_ms)
        for message in self._messages(t_s, own_ms):
            data = self._endpoint.send(message, own_ms)
            if self.faults.on("wrong_version", t_s, now_ms):
                data = bytes((data[0] | 0x80,)) + data[1:]
            outgoing = self.faults.outgoing(data, t_s, now_ms)
            if not outgoing.data:
                continue
            times = 2 if self.faults.on("duplicate", t_s, now_ms) else 1
            out += [(outgoing.delay_s, outgoing.data)] * times
        return out

    def _messages(self, t_s: float, own_ms: int) -> list[Message]:
        users = [one for kind in _POINTS for one in self._users(kind, t_s)]
        out: list[Message] = [
            RoadUsers(self._count, self._address, self._place, tuple(users[at : at + _PER_MESSAGE]))
            for at in range(0, len(users), _PER_MESSAGE)
        ]
        phases = tuple(self._phase(number, t_s) for number in self._phases)
        begin = datetime(datetime.fromtimestamp(own_ms / 1000, UTC).year, 1, 1, tzinfo=UTC)
        minute, second_ms = divmod(own_ms - round(begin.timestamp() * 1000), 60_000)
        out.append(Signals(self._count, (Crossing(None, self._crossing, phases, (5,)),), minute, second_ms))
        if self.senses.has("events"):
            wanted = self.senses("events", t_s)
            number = 0 if math.isnan(wanted) else min(8, max(0, round(wanted)))
            events = tuple(Notice("event", n, 101, "detection", self._place, 4, "施工") for n in range(number))
            out.append(Notices(self._count, self._address, self._place, events))
        return out

    def _users(self, kind: str, t_s: float) -> list[Participant]:
        wanted = self.senses(_POINTS[kind], t_s)
        number = 0 if math.isnan(wanted) else max(0, round(wanted))
        speed = self.senses("speed_mean", t_s) if kind == "motor" else 1.4
        speed = 0.0 if math.isnan(speed) else max(0.0, speed)
        base = {"motor": 1, "non-motor": 10_001, "pedestrian": 20_001}[kind]
        return [
            Participant(
                kind,
                base + n,
                _SOURCES[kind],
                Place(round(self._place.lon + 1e-5 * n, 7), self._place.lat),
                speed,
                90.0 * (n % 4),
            )
            for n in range(number)
        ]

    def _phase(self, number: int, t_s: float) -> Phase:
        """Odd phases are green in the first half of the cycle, even ones in the second."""
        half_s = self._cycle_s / 2
        at_s = t_s % self._cycle_s
        mine = at_s < half_s if number % 2 else at_s >= half_s
        left_s = half_s - at_s % half_s
        if not mine:
            return Phase(number, "red", round(left_s, 1))
        if left_s <= _YELLOW_S:
            return Phase(number, "yellow", round(left_s, 1))
        return Phase(number, "permissive-green", round(left_s - _YELLOW_S, 1))


class RsuBus:
    """The units of one bus on real UDP, each with a socket of its own."""

    def __init__(self, bus: Bus, scene: Scene, world: World) -> None:
        self._bus, self._world = bus, world
        self._where = host_port(bus.connect or "", f"bus {bus.id}: connect")
        self._units = [
            RoadsideUnit(device, Faults(device.id, bus.kind, device.fault, world.seed, world.ledger), world)
            for device in scene.devices_on(bus.id)
        ]
        self._sockets: list[asyncio.DatagramTransport] = []

    async def open(self) -> None:
        """Datagrams are sent whether anybody listens or not."""

    def describe(self) -> list[str]:
        named = ", ".join(f"{unit.id} ({unit.device.address})" for unit in self._units)
        return [f"{self._bus.kind:12} sends to {self._bus.connect}  {named}"]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for unit in self._units:
                tasks.create_task(self._send(unit), name=unit.id)

    async def _send(self, unit: RoadsideUnit) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=self._where)
        self._sockets.append(transport)
        world = self._world
        step = 1 / unit.rate_hz
        number = math.ceil(world.t_s(world.clock.now_ms()) / step)
        while True:
            await asyncio.sleep(max(0.0, number * step - world.t_s(world.clock.now_ms())))
            for delay_s, data in unit.datagrams(number * step, world.start_ms + round(number * step * 1000)):
                loop.call_later(delay_s, transport.sendto, data)
            number = max(number + 1, math.floor(world.t_s(world.clock.now_ms()) / step))

    async def close(self) -> None:
        for transport in self._sockets:
            with contextlib.suppress(OSError):
                transport.close()
