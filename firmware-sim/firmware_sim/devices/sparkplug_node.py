"""Edge nodes that publish Sparkplug B: births, data by exception, deaths; orders obeyed and reported back.

One MQTT connection a node. ``address = "group/node/device"``; devices of one node share it. What is measured while the
broker is away is kept (``options = { keep = 300 }``, records a device) and sent later as historical.

Faults of its own: ``stuck`` (an order is taken and nothing happens), ``deaf`` (a demand for births is not heard),
``no_null`` (a sensor without value repeats the last one instead of saying null). A lost message (``drop``) is a gap in
the sequence; ``restart`` lets the broker publish the will.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from firmware_sim.devices.world import Senses, World
from firmware_sim.faults import Faults
from firmware_sim.links.mqtt import MqttDial, MqttPipe, Published, mqtt_dial
from firmware_sim.links.tcp import Backoff
from firmware_sim.scene import Bus, Device, Scene
from protocols.core.errors import ConfigError, RemoteProtocolError, TransportError
from protocols.devices import Point
from protocols.devices.values import raw_of
from protocols.sparkplug_b.datatypes import DataType
from protocols.sparkplug_b.messages import Metric
from protocols.sparkplug_b.node import EdgeNode, Ordered

_TICK_S = 0.25


@dataclass(slots=True)
class _Unit:
    """One device of a node."""

    device: Device
    name: str
    senses: Senses
    faults: Faults
    points: dict[str, Point]  # by metric
    last: dict[str, float | str | None] = field(default_factory=dict)
    ordered: dict[str, float | str | bool] = field(default_factory=dict)
    kept: deque[Metric] = field(default_factory=deque)
    due_s: float = 0.0


class SparkplugNode:
    """One edge node. :meth:`run` lives as long as the scene."""

    def __init__(self, address: str, units: Sequence[_Unit], world: World) -> None:
        group, _, node = address.partition("/")
        self.id = address
        self._world = world
        self._units = {unit.name: unit for unit in units}
        host = next((str(u.device.options["host"]) for u in units if "host" in u.device.options), "")
        self._node = EdgeNode(group, node, primary_host=host)
        self._pipe: MqttPipe | None = None
        self.births = 0

    def _now(self) -> tuple[int, float]:
        now_ms = self._world.clock.now_ms()
        return now_ms, self._world.t_s(now_ms)

    @property
    def _first(self) -> _Unit:
        """Whose restart and silence are the node's own."""
        return next(iter(self._units.values()))

    def _off(self) -> bool:
        now_ms, t_s = self._now()
        return self._first.faults.off(t_s, now_ms)

    async def run(self, dial: MqttDial) -> None:
        backoff = Backoff(self._world.seed)
        for unit in self._units.values():
            metrics = [Metric(name, None, _datatype(point)) for name, point in unit.points.items()]
            self._node.define(unit.name, metrics, self._now()[0])
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._measure(), name=f"{self.id} measure")
            tasks.create_task(self._connect(dial, backoff), name=f"{self.id} link")

    async def _connect(self, dial: MqttDial, backoff: Backoff) -> None:
        while True:
            if self._off():
                await asyncio.sleep(_TICK_S)
                continue
            will = self._node.connecting(self._now()[0])
            pipe: MqttPipe | None = None
            try:
                topics = self._node.subscriptions()
                pipe = await dial(self.id.replace("/", "-"), topics, Published(will.topic, will.payload, will.qos))
                self._pipe = pipe
                backoff.reset()
                self._node.connected(self._now()[0])
                await self._flush()
                await self._talk(pipe)
            except TransportError:
                pass  # no broker there, or it went away: that is what the back-off is for
            except asyncio.CancelledError:
                await self._part(pipe)
                raise
            finally:
                self._pipe = None
                self._node.lost()
            if pipe is not None:
                await pipe.break_()
            await asyncio.sleep(_TICK_S if self._off() else backoff.next_s())

    async def _part(self, pipe: MqttPipe | None) -> None:
        """Switched off on purpose: say so, then leave."""
        if pipe is None:
            return
        farewell = self._node.goodbye(self._now()[0])
        with contextlib.suppress(TransportError):
            if farewell is not None:
                pipe.publish(Published(farewell.topic, farewell.payload, farewell.qos))
        await pipe.close()

    async def _talk(self, pipe: MqttPipe) -> None:
        listen = asyncio.create_task(self._listen(pipe), name=f"{self.id} read")
        watch = asyncio.create_task(self._watch(), name=f"{self.id} power")
        try:
            await asyncio.wait((listen, watch), return_when=asyncio.FIRST_COMPLETED)
        finally:
            listen.cancel()
            watch.cancel()
        await asyncio.wait((listen, watch))
        for task in (listen, watch):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _watch(self) -> None:
        """Until the power goes."""
        while not self._off():
            self._node.tick(self._now()[0])
            await self._flush()
            await asyncio.sleep(_TICK_S)

    # -- in
    async def _listen(self, pipe: MqttPipe) -> None:
        while True:
            message = await pipe.receive()
            now_ms, t_s = self._now()
            if self._first.faults.silent(t_s, now_ms):
                continue
            if b"Rebirth" in message.payload and self._first.faults.on("deaf", t_s, now_ms):
                continue
            for order in self._node.receive(message.topic, message.payload, now_ms):
                if not isinstance(order, RemoteProtocolError):
                    self._obey(order, t_s, now_ms)
            await self._flush()

    def _obey(self, order: Ordered, t_s: float, now_ms: int) -> None:
        unit = self._units.get(order.device)
        if unit is None:
            return
        for metric in order.metrics:
            name = metric.name or ""
            self._world.ledger.write("order", unit.device.id, now_ms, metric=name, value=str(metric.value))
            if unit.faults.on("stuck", t_s, now_ms) or not isinstance(metric.value, bool | int | float | str):
                self._node.update(unit.name, [Metric(name, unit.last.get(name), timestamp_ms=now_ms)], now_ms)
                continue
            unit.ordered[name] = metric.value
        self._report(unit, t_s, now_ms)

    # -- out
    async def _measure(self) -> None:
        while True:
            now_ms, t_s = self._now()
            for unit in self._units.values():
                if t_s >= unit.due_s and not self._off():
                    unit.due_s = t_s + unit.device.interval_s
                    self._report(unit, t_s, now_ms)
            await self._flush()
            await asyncio.sleep(_TICK_S)

    def _report(self, unit: _Unit, t_s: float, now_ms: int) -> None:
        changed: list[Metric] = []
        for name, point in unit.points.items():
            value = unit.ordered.get(name, self._sense(unit, point, t_s))
            if value is None and unit.faults.on("no_null", t_s, now_ms):
                value = unit.last.get(name)
            if name in unit.last and unit.last[name] == value:
                continue
            unit.last[name] = value
            changed.append(Metric(name, value, timestamp_ms=now_ms, is_null=True if value is None else None))
        if not changed:
            return
        room = int(unit.device.options.get("keep", 0))
        if not self._node.live and room:
            unit.kept.extend(changed)
            while len(unit.kept) > room:
                unit.kept.popleft()
        self._node.update(unit.name, changed, now_ms)
        values = {str(metric.name): metric.value for metric in changed}
        self._world.ledger.write("told", unit.device.id, now_ms, v=values)

    @staticmethod
    def _sense(unit: _Unit, point: Point, t_s: float) -> float | str | None:
        if not unit.senses.has(point.name):
            return None
        value = unit.senses(point.name, t_s)
        raw = None if math.isnan(value) else raw_of(point, round(value, point.decimals))
        return bool(raw) if _datatype(point) is DataType.BOOLEAN and raw is not None else raw

    async def _flush(self) -> None:
        pipe = self._pipe
        if pipe is None:
            return
        if self._node.live:
            self._send_kept()
        now_ms, t_s = self._now()
        for out in self._node.take_output():
            unit = next((u for u in self._units.values() if out.topic.endswith(f"/{u.name}")), self._first)
            if self._first.faults.silent(t_s, now_ms):
                continue
            sent = unit.faults.outgoing(out.payload, t_s, now_ms)
            if sent.delay_s:
                await asyncio.sleep(sent.delay_s)
            if "NBIRTH" in out.topic:
                self.births += 1
            if sent.data or not out.payload:
                with contextlib.suppress(TransportError):
                    pipe.publish(Published(out.topic, sent.data, out.qos, out.retain))

    def _send_kept(self) -> None:
        now_ms = self._now()[0]
        for unit in self._units.values():
            while unit.kept:
                metric = unit.kept.popleft()
                historical = Metric(
                    metric.name, metric.value, timestamp_ms=metric.timestamp_ms, is_historical=True,
                    is_null=metric.is_null,
                )  # fmt: skip
                self._node.update(unit.name, [historical], now_ms)


def _datatype(point: Point) -> DataType:
    """Words are strings, on and off booleans (range -1 to 2), the rest doubles."""
    if point.value is not None and point.value.words:
        return DataType.STRING
    return DataType.BOOLEAN if point.decimals == 0 and point.range == (-1.0, 2.0) else DataType.DOUBLE


def nodes_of(bus: Bus, scene: Scene, world: World) -> list[SparkplugNode]:
    """The nodes of one bus. Raises ConfigError for an address that is not group/node/device."""
    by_node: dict[str, list[_Unit]] = {}
    for device in scene.devices_on(bus.id):
        parts = str(device.address).split("/")
        if len(parts) != 3 or not all(parts):
            raise ConfigError(f"device {device.id}: address: {device.address!r} is not group/node/device")
        senses = Senses(device, world)
        points = {point.value.key: point for point in senses.type.points if point.value is not None}
        faults = Faults(device.id, bus.kind, device.fault, world.seed, world.ledger)
        by_node.setdefault("/".join(parts[:2]), []).append(_Unit(device, parts[2], senses, faults, points))
    return [SparkplugNode(address, units, world) for address, units in by_node.items()]


class SparkplugBus:
    """The LiveBus of kind ``sparkplug-node``: its nodes dial a real broker."""

    def __init__(self, bus: Bus, scene: Scene, world: World) -> None:
        self._bus = bus
        self._dial = mqtt_dial(bus.connect or "", f"bus {bus.id}: connect")
        self.nodes = nodes_of(bus, scene, world)

    async def open(self) -> None:
        """Nodes dial when they run."""

    def describe(self) -> list[str]:
        return [f"{self._bus.kind:12} dials {self._bus.connect}  {', '.join(node.id for node in self.nodes)}"]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for node in self.nodes:
                tasks.create_task(node.run(self._dial), name=node.id)

    async def close(self) -> None:
        """The nodes parted from the broker when they were cancelled."""
