"""A ChirpStack server with its sensors: joins, uplinks, status, and a queue of downlinks that waits for the sensor.

``address`` is the DevEUI. ``interval_s``: between uplinks. ``options``: ``class = "C"`` hears at once (else after its
next uplink), ``generation = 3`` speaks as the server's third generation did, ``battery`` in percent. Values go out as
the server's ``object``, or as bytes where the type has a payload codec that is known here (Bosch TPS110).

Faults of its own: ``twice`` (an event is delivered twice), ``counter_reset`` (a battery change: it joins again and
counts from 0), ``no_ack`` (a downlink is sent and not heard).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import re
import uuid
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

from firmware_sim.devices.world import Senses, World
from firmware_sim.faults import Faults
from firmware_sim.links.mqtt import MqttDial, MqttPipe, Published, mqtt_dial
from firmware_sim.links.tcp import Backoff
from firmware_sim.scene import Bus, Device, Scene
from protocols.core.errors import ConfigError, TransportError
from protocols.devices.values import raw_of

APPLICATION = "17c82e96-be03-4f38-aef3-f83d48582d97"
_GATEWAYS = ("0016c001f153a14c", "0016c001f153a14d")
_TICK_S = 0.25
_QUEUED = 32


class Sensor:
    """One sensor as the server sees it."""

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        eui = str(device.address)
        if not re.fullmatch("[0-9a-f]{16}", eui):
            raise ConfigError(f"device {device.id}: address: {eui!r} is no DevEUI (16 hex digits, lower case)")
        self.id, self.eui = device.id, eui
        self.device, self.faults = device, faults
        self._world = world
        self.senses = Senses(device, world)
        self._random = Random(f"{world.seed}/{eui}")
        self._f_cnt = 0
        self._f_cnt_down = 0
        self._joined = False
        self._reset_done = False
        self.due_s = 0.0
        self.status_due_s = 0.0
        self.queue: deque[dict[str, Any]] = deque()
        self.ordered: dict[str, float] = {}

    @property
    def class_c(self) -> bool:
        return self.device.options.get("class") == "C"

    @property
    def _old(self) -> bool:
        return self.device.options.get("generation") == 3

    def due(self, t_s: float, now_ms: int) -> list[tuple[str, dict[str, Any]]]:
        """What the server publishes now: (kind, event)."""
        out: list[tuple[str, dict[str, Any]]] = []
        reset = self.faults.on("counter_reset", t_s, now_ms)
        if reset and not self._reset_done:
            self._joined, self._f_cnt = False, 0
        self._reset_done = reset
        if not self._joined:
            self._joined = True
            out.append(("join", self._event(now_ms, {"devAddr": "00189440"})))
        if t_s >= self.due_s:
            self.due_s = t_s + self.device.interval_s
            out.append(("up", self._uplink(t_s, now_ms)))
            out += self._send_down(t_s, now_ms)
        if "battery" in self.device.options and t_s >= self.status_due_s:
            self.status_due_s = t_s + 3600
            level = float(self.device.options["battery"])
            out.append(("status", self._event(now_ms, {"margin": 10, "batteryLevel": level})))
        return out

    def _event(self, now_ms: int, more: dict[str, Any]) -> dict[str, Any]:
        stamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000+00:00"
        if self._old:
            eui = base64.b64encode(bytes.fromhex(self.eui)).decode()
            return {"applicationID": "7", "deviceName": self.id, "devEUI": eui, "publishedAt": stamp, **more}
        info = {"applicationId": APPLICATION, "applicationName": "city", "deviceName": self.id, "devEui": self.eui}
        name = str(uuid.UUID(int=self._random.getrandbits(128)))
        return {"deduplicationId": name, "time": stamp, "deviceInfo": info, **more}

    def _uplink(self, t_s: float, now_ms: int) -> dict[str, Any]:
        values: dict[str, float | str | None] = {}
        for point in self.senses.type.points:
            if point.value is None or not self.senses.has(point.name):
                continue
            value = self.ordered.get(point.name, self.senses(point.name, t_s))
            values[point.value.key] = None if math.isnan(value) else raw_of(point, round(value, point.decimals))
        rssi = -95 + self._random.randrange(30)
        rssi_key, gateway_key = ("loRaSNR", "gatewayID") if self._old else ("snr", "gatewayId")
        heard = [
            {gateway_key: gateway, "rssi": rssi - 8 * n, rssi_key: 7.5 - 4 * n} for n, gateway in enumerate(_GATEWAYS)
        ]
        more: dict[str, Any] = {"devAddr": "00189440", "dr": 5, "rxInfo": heard}
        more["txInfo"] = {
            "frequency": 486_300_000,
            "modulation": {"lora": {"bandwidth": 125_000, "spreadingFactor": 7}},
        }
        if self._f_cnt:
            more["fCnt"] = self._f_cnt  # servers before 4.1 leave a zero out
        self._f_cnt += 1
        if self.senses.type.options.get("payload") == "bosch_tps110":
            occupied, temperature = values.get("payload.occupied"), values.get("payload.temperature_c")
            data = bytes((int(occupied or 0), int(temperature or 0) & 0xFF))
            more |= {"fPort": 2, "data": base64.b64encode(data).decode()}
        else:
            found = {key.removeprefix("object."): v for key, v in values.items() if key.startswith("object.")}
            more |= {"fPort": 10, "data": "AA=="}
            more |= {"objectJSON": json.dumps(found)} if self._old else {"object": found}
        self._world.ledger.write("told", self.id, now_ms, v=values)
        return self._event(now_ms, more)

    def take(self, order: dict[str, Any], t_s: float, now_ms: int) -> list[tuple[str, dict[str, Any]]]:
        """A command for the queue; a class C device hears it at once."""
        if len(self.queue) < _QUEUED:
            self.queue.append(order)
        return self._send_down(t_s, now_ms) if self.class_c else []

    def _send_down(self, t_s: float, now_ms: int) -> list[tuple[str, dict[str, Any]]]:
        out: list[tuple[str, dict[str, Any]]] = []
        while self.queue:
            order = self.queue.popleft()
            self._f_cnt_down += 1
            about = {"queueItemId": order.get("id", ""), "fCntDown": self._f_cnt_down}
            out.append(("txack", self._event(now_ms, {**about, "gatewayId": _GATEWAYS[0]})))
            heard = not self.faults.on("no_ack", t_s, now_ms)
            if heard:
                self._obey(order, now_ms)
            if order.get("confirmed"):
                out.append(("ack", self._event(now_ms, {**about, "acknowledged": heard})))
            if heard and self.class_c:
                out.append(("up", self._uplink(t_s, now_ms)))
        return out

    def _obey(self, order: dict[str, Any], now_ms: int) -> None:
        """The last byte is the argument of the command whose key names this port."""
        data = base64.b64decode(order.get("data", ""))
        self._world.ledger.write("order", self.id, now_ms, port=order.get("fPort"), data=data.hex())
        for command in self.senses.type.commands:
            if command.key.startswith(f"{order.get('fPort')}:") and command.read_back and data:
                self.ordered[command.read_back] = float(data[-1])


class Server:
    """The server: one MQTT connection for all sensors."""

    def __init__(self, name: str, sensors: Sequence[Sensor], world: World) -> None:
        self.id = name
        self._sensors = {sensor.eui: sensor for sensor in sensors}
        self._world = world
        self._pipe: MqttPipe | None = None

    def _now(self) -> tuple[int, float]:
        now_ms = self._world.clock.now_ms()
        return now_ms, self._world.t_s(now_ms)

    async def run(self, dial: MqttDial) -> None:
        backoff = Backoff(self._world.seed)
        while True:
            pipe: MqttPipe | None = None
            try:
                pipe = self._pipe = await dial(f"chirpstack-{self.id}", ["application/+/device/+/command/down"], None)
                backoff.reset()
                await self._serve(pipe)
            except TransportError:
                pass  # no broker: the server dials again
            finally:
                self._pipe = None
                if pipe is not None:
                    await pipe.close()
            await asyncio.sleep(backoff.next_s())

    async def _serve(self, pipe: MqttPipe) -> None:
        listen = asyncio.create_task(self._listen(pipe), name=f"{self.id} read")
        try:
            while not listen.done():
                now_ms, t_s = self._now()
                for sensor in self._sensors.values():
                    if not sensor.faults.off(t_s, now_ms):
                        await self._publish(sensor, sensor.due(t_s, now_ms))
                await asyncio.sleep(_TICK_S)
        finally:
            listen.cancel()
            with contextlib.suppress(asyncio.CancelledError, TransportError):
                await listen

    async def _publish(self, sensor: Sensor, found: list[tuple[str, dict[str, Any]]]) -> None:
        now_ms, t_s = self._now()
        application = "7" if sensor.device.options.get("generation") == 3 else APPLICATION
        for kind, event in found:
            if sensor.faults.silent(t_s, now_ms) or self._pipe is None:
                continue
            sent = sensor.faults.outgoing(json.dumps(event).encode(), t_s, now_ms)
            if sent.delay_s:
                await asyncio.sleep(sent.delay_s)
            topic = f"application/{application}/device/{sensor.eui}/event/{kind}"
            for _ in range(2 if sensor.faults.on("twice", t_s, now_ms) else 1):
                if sent.data:
                    self._pipe.publish(Published(topic, sent.data, 1))

    async def _listen(self, pipe: MqttPipe) -> None:
        while True:
            message = await pipe.receive()
            now_ms, t_s = self._now()
            sensor = self._sensors.get(message.topic.split("/")[3])
            with contextlib.suppress(ValueError):
                order = json.loads(message.payload)
                if sensor is not None and order.get("devEui") == sensor.eui and order.get("fPort"):
                    await self._publish(sensor, sensor.take(order, t_s, now_ms))


def server_of(bus: Bus, scene: Scene, world: World) -> Server:
    """Raises ConfigError for an address that is no DevEUI."""
    sensors = []
    for device in scene.devices_on(bus.id):
        faults = Faults(device.id, bus.kind, device.fault, world.seed, world.ledger)
        sensors.append(Sensor(device, faults, world))
    return Server(bus.id, sensors, world)


class ChirpstackBus:
    """The LiveBus of kind ``chirpstack``: a server that dials a real broker."""

    def __init__(self, bus: Bus, scene: Scene, world: World) -> None:
        self._bus = bus
        self._dial = mqtt_dial(bus.connect or "", f"bus {bus.id}: connect")
        self._number = len(scene.devices_on(bus.id))
        self._server = server_of(bus, scene, world)

    async def open(self) -> None:
        """The server dials when it runs."""

    def describe(self) -> list[str]:
        return [f"{self._bus.kind:12} dials {self._bus.connect}  {self._number} sensors"]

    async def run(self) -> None:
        await self._server.run(self._dial)

    async def close(self) -> None:
        """The connection was closed when the server was cancelled."""
