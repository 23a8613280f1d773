"""A camera or recorder that registers with a GB/T 28181 platform, over TCP or UDP.

``address`` is its 20-digit id, ``password`` what it logs in with. Options: ``server`` (the platform's id; needed),
``channels`` (1), ``part`` (4: channels in one catalogue message), ``encoding`` (gb18030 or utf-8), ``expires_s``
(3600), ``keepalive_s`` (60). The signal ``healthy`` is its own word in the keep-alive. Faults of its own:
``wrong_password``, ``no_keepalive``, ``opened`` (tells a tamper alarm when it begins).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Literal

from firmware_sim.devices.dialing import DialingStation
from firmware_sim.devices.world import World
from firmware_sim.faults import Faults
from firmware_sim.links.udp import udp_dial
from firmware_sim.scene import Bus, Device, Scene
from protocols.core.endpoint import Role
from protocols.core.errors import ConfigError, RemoteProtocolError
from protocols.gb28181 import ids
from protocols.gb28181.device import Camera, LoggedIn, Ordered, Streaming
from protocols.gb28181.endpoint import SipEndpoint
from protocols.gb28181.frame import build
from protocols.gb28181.manscdp import Channel
from protocols.gb28181.party import Peer

_OWN_HOST, _OWN_PORT = "192.0.2.10", 5060  # what it writes into Via and Contact; nobody may rely on that


class Gb28181Camera(DialingStation):
    transport: Literal["tcp", "udp"] = "tcp"

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        super().__init__(device, faults, world)
        server, own = str(device.options.get("server", "")), str(device.address)
        if not ids.valid(own) or not ids.valid(server):
            raise ConfigError(f"device {device.id}: address and options.server: 20 digits each, as text")
        self.orders: list[Ordered] = []
        self.streams: list[Streaming] = []
        self.logins = 0
        self._count = int(device.options.get("channels", 1))
        numbers = itertools.count(1)
        self._peer = Peer("platform", 0, self.transport)
        self.camera = Camera(
            own, device.password, server, self._peer, _OWN_HOST, _OWN_PORT,
            token=lambda: f"{device.id}-{next(numbers)}", channels=[self._channel(n) for n in range(self._count)],
            expires_s=int(device.options.get("expires_s", 3_600)),
            keepalive_s=int(device.options.get("keepalive_s", 60)), part=int(device.options.get("part", 4)),
            encoding=str(device.options.get("encoding", "gb18030")),
        )  # fmt: skip
        self._wire = SipEndpoint(Role.SLAVE)
        self._opened = False

    def _channel(self, number: int) -> Channel:
        own = str(self.device.address)
        return Channel(f"{own[:10]}131{own[13]}{number + 1:06d}", f"{self.device.id} 通道{number + 1}", ptz=1)

    # -- what a station is asked ----------------------------------------------------------------------------------
    def record(self, t_s: float, now_ms: int) -> None:
        """A camera keeps no records: what it has to say it says when asked, or when it happens."""
        opened = self.faults.on("opened", t_s, now_ms)
        if opened and not self._opened and self.camera.registered:
            self.camera.alarm(self.camera.channels[0].id, now_ms, method=2, kind=2)
        self._opened = opened
        self._flush()

    def dialled(self, now_ms: int) -> None:
        self._wire = SipEndpoint(Role.SLAVE)
        self.camera.restart(now_ms)
        self.tick(now_ms)

    def power_lost(self) -> None:
        self.camera.registered = False

    def tick(self, now_ms: int) -> None:
        t_s = self.world.t_s(now_ms)
        camera = self.camera
        camera.password = "wrong" if self.faults.on("wrong_password", t_s, now_ms) else self.device.password
        camera.keeps_alive = not self.faults.on("no_keepalive", t_s, now_ms)
        camera.clock_ms = self.clock_ms(now_ms) - now_ms
        healthy = self.senses("healthy", t_s) if self.senses.has("healthy") else 1.0
        camera.status = "OK" if healthy >= 0.5 else "ERROR"
        self._happened(camera.tick(now_ms))

    def heard(self, data: bytes, now_ms: int) -> None:
        found = self._wire.feed(data, now_ms) if self.transport == "tcp" else self._wire.feed_datagram(data)
        for message in found:
            if not isinstance(message, RemoteProtocolError):
                self._happened(self.camera.feed(message, self._peer, now_ms))

    def _happened(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Ordered):
                self.orders.append(event)
            elif isinstance(event, Streaming):
                self.streams.append(event)
            elif isinstance(event, LoggedIn):
                self.logins += 1
        self._flush()

    def _flush(self) -> None:
        for _, message in self.camera.take_output():
            self.put(build(message))


class Gb28181UdpCamera(Gb28181Camera):
    transport = "udp"


class UdpCameras:
    """All cameras of one bus, each with a socket of its own."""

    def __init__(self, bus: Bus, scene: Scene, world: World) -> None:
        self._bus = bus
        self._dial = udp_dial(bus.connect or "", f"bus {bus.id}: connect")
        make: Callable[..., Gb28181UdpCamera] = Gb28181UdpCamera
        self.stations = [
            make(device, Faults(device.id, bus.kind, device.fault, world.seed, world.ledger), world)
            for device in scene.devices_on(bus.id)
        ]

    async def open(self) -> None:
        """Cameras register when they run; nobody has to listen yet."""

    def describe(self) -> list[str]:
        named = ", ".join(f"{one.id} ({one.device.address})" for one in self.stations[:6])
        return [f"{self._bus.kind:12} registers at {self._bus.connect}/udp  {named}"]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for station in self.stations:
                tasks.create_task(station.run(self._dial), name=station.id)

    async def close(self) -> None:
        """The cameras closed their sockets when they were cancelled."""
