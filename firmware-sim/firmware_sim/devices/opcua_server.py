"""A station's OPC UA server: one node a point, values by its signals, writable where a command names the node.

``address`` is what ``{root}`` in the type's node ids stands for. Faults of its own: ``bad_status`` (every node says
BadSensorFailure), ``uncertain``, ``stuck`` (a write is accepted and nothing changes), ``read_only`` (a write is
refused), ``no_time`` (the server gives no source time). ``restart`` stops the server and numbers its namespaces anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from firmware_sim.devices.world import Senses, World
from firmware_sim.faults import Faults
from firmware_sim.links.tcp import host_port
from firmware_sim.scene import Bus, Device, Scene
from protocols.core.errors import LinkRefused
from protocols.devices import Point
from protocols.devices.values import raw_of

_TICK_S = 0.2


class Station:
    """One device of the server."""

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        self.id, self.device, self.faults = device.id, device, faults
        self.senses = Senses(device, world)
        self._world = world
        self._nodes: dict[str, Any] = {}  # by point
        self._written: dict[str, float | bool | str] = {}  # by point
        self._last: dict[str, Any] = {}
        self._due_s = 0.0
        self._writable: list[Any] = []
        self._locked: bool | None = None  # whether writes are refused now

    def namespaces(self) -> set[str]:
        keys = [point.value.key for point in self.senses.type.points if point.value is not None]
        return {key.removeprefix("nsu=").partition(";")[0] for key in keys if key.startswith("nsu=")}

    async def build(self, server: Any, index: dict[str, int]) -> None:
        from asyncua import ua

        writable = {command.key.rpartition("=")[0] if not command.argument else command.key
                    for command in self.senses.type.commands}  # fmt: skip
        self._nodes.clear()
        self._writable.clear()
        self._last.clear()
        folder = await server.nodes.objects.add_folder(next(iter(index.values())), self.id)
        for point in self.senses.type.points:
            if point.value is None:
                continue
            uri, _, rest = point.value.key.removeprefix("nsu=").partition(";")
            node_id = ua.NodeId.from_string(f"ns={index[uri]};{rest.replace('{root}', str(self.device.address))}")
            first: float | bool = False if _is_flag(point) else 0.0
            node = await folder.add_variable(node_id, point.name, first)
            self._nodes[point.name] = node
            if point.value.key in writable:
                self._writable.append(node)
        self._locked = None

    async def update(self) -> None:
        """Take what was written, then tell what is measured."""
        from asyncua import ua

        now_ms = self._world.clock.now_ms()
        t_s = self._world.t_s(now_ms)
        if self.faults.silent(t_s, now_ms):
            return
        if (locked := self.faults.on("read_only", t_s, now_ms)) is not self._locked:
            self._locked = locked
            for node in self._writable:
                await node.set_writable(not locked)
        news = False
        for name, node in self._nodes.items():
            value = (await node.read_value()) if name in self._last else None
            if value is not None and value != self._last[name]:
                self._world.ledger.write("order", self.id, now_ms, node=name, value=str(value))
                self._last[name] = value
                news = True
                if not self.faults.on("stuck", t_s, now_ms):
                    self._written[name] = value
        if t_s < self._due_s and not news:
            return
        self._due_s = t_s + self.device.interval_s
        told: dict[str, object] = {}
        for point in self.senses.type.points:
            if point.name not in self._nodes:
                continue
            value = self._written.get(point.name, self._sense(point, t_s))
            status = ua.StatusCodes.Good if value is not None else ua.StatusCodes.BadNoData
            if self.faults.on("bad_status", t_s, now_ms):
                status = ua.StatusCodes.BadSensorFailure
            elif self.faults.on("uncertain", t_s, now_ms):
                status = ua.StatusCodes.UncertainLastUsableValue
            stamp = datetime.fromtimestamp(now_ms / 1000, UTC)
            stamp += timedelta(milliseconds=self.faults.clock_offset_ms(t_s, now_ms, self._world.start_ms))
            variant = ua.VariantType.Boolean if _is_flag(point) else ua.VariantType.Double
            shown = value if value is not None else (False if _is_flag(point) else 0.0)
            data = ua.DataValue(
                ua.Variant(shown, variant),
                ua.StatusCode(status),
                None if self.faults.on("no_time", t_s, now_ms) else stamp,
            )
            await self._nodes[point.name].write_value(data)
            self._last[point.name] = shown
            told[point.name] = value
        self._world.ledger.write("told", self.id, now_ms, v=told)

    def _sense(self, point: Point, t_s: float) -> Any:
        if not self.senses.has(point.name):
            return None
        value = self.senses(point.name, t_s)
        raw = None if math.isnan(value) else raw_of(point, round(value, point.decimals))
        return bool(raw) if _is_flag(point) and raw is not None else raw

    def off(self) -> bool:
        now_ms = self._world.clock.now_ms()
        return self.faults.off(self._world.t_s(now_ms), now_ms)


#: Prepares a server before it starts: certificates, users. Used by tests of security.
Prepare = Callable[[Any], Coroutine[Any, Any, None]]


class OpcuaBus:
    """The LiveBus of kind ``opcua-server``."""

    def __init__(self, bus: Bus, scene: Scene, world: World, prepare: Prepare | None = None) -> None:
        self._bus = bus
        self.host, self.port = host_port(bus.listen or "127.0.0.1:4840", f"bus {bus.id}: listen")
        self._prepare = prepare
        self._stations = [
            Station(device, Faults(device.id, bus.kind, device.fault, world.seed, world.ledger), world)
            for device in scene.devices_on(bus.id)
        ]
        self._server: Any = None
        self._starts = 0

    @property
    def url(self) -> str:
        return f"opc.tcp://{self.host}:{self.port}/citybrain/"

    async def open(self) -> None:
        await self._start()

    def describe(self) -> list[str]:
        return [f"{self._bus.kind:12} {self.url}  {', '.join(station.id for station in self._stations)}"]

    async def _start(self) -> None:
        from asyncua import Server, ua

        logging.getLogger("asyncua").setLevel(logging.ERROR)  # it talks about every session
        server = Server()
        await server.init()
        server.set_endpoint(self.url)
        server.set_server_name("citybrain firmware-sim")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        if self._prepare is not None:
            await self._prepare(server)
        for n in range(self._starts):
            await server.register_namespace(f"urn:citybrain:shift:{n}")  # numbers change with every start
        self._starts += 1
        uris = sorted({uri for station in self._stations for uri in station.namespaces()})
        index = {uri: await server.register_namespace(uri) for uri in uris}
        for station in self._stations:
            await station.build(server, index)
            await station.update()
        try:
            await server.start()
        except OSError as error:
            raise LinkRefused(f"bus {self._bus.id}: listen: {error.strerror}") from error
        self._server = server

    async def run(self) -> None:
        while True:
            off = any(station.off() for station in self._stations)
            if off and self._server is not None:
                await self._stop()
            elif not off and self._server is None:
                await self._start()
            if self._server is not None:
                for station in self._stations:
                    await station.update()
            await asyncio.sleep(_TICK_S)

    async def _stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(Exception):  # the library complains about clients that are gone
                await server.stop()

    async def close(self) -> None:
        await self._stop()


def _is_flag(point: Point) -> bool:
    return point.decimals == 0 and point.range == (-1.0, 2.0)
