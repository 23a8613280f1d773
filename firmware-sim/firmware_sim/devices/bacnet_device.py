"""A building controller on BACnet/IP: one object a point, values by its signals, outputs with a priority array.

``address`` is the device instance. Each device has a UDP port of its own, counting up from the bus's. Faults of its
own: ``no_rpm`` (ReadPropertyMultiple is not known), ``no_cov`` (subscriptions are refused), ``fault_flag`` (each object
says fault), ``overridden`` (a switch on the spot holds the outputs). ``silence`` answers nothing; ``restart`` forgets
subscriptions and what was written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from typing import Any

from firmware_sim.devices.world import Senses, World
from firmware_sim.faults import Faults
from firmware_sim.links.tcp import host_port
from firmware_sim.scene import Bus, Device, Scene
from protocols.core.errors import ConfigError, LinkRefused
from protocols.devices import Point
from protocols.devices.values import raw_of

_TICK_S = 0.2
_VENDOR = 999


class BacnetDevice:
    """One controller. Made when its power comes, gone when it goes."""

    def __init__(self, device: Device, faults: Faults, world: World, host: str, port: int) -> None:
        if not isinstance(device.address, int) or not 0 <= device.address <= 4_194_302:
            raise ConfigError(f"device {device.id}: address: {device.address!r} is no device instance")
        self.id, self.instance = device.id, device.address
        self.host, self.port = host, port
        self._device, self._faults, self._world = device, faults, world
        self._senses = Senses(device, world)
        self._commanded = {command.key.partition("=")[0] for command in self._senses.type.commands}
        self._app: Any = None
        self._objects: dict[str, tuple[Point, Any]] = {}
        self._due_s = 0.0
        self._state = ("", False)

    def now(self) -> tuple[int, float]:
        now_ms = self._world.clock.now_ms()
        return now_ms, self._world.t_s(now_ms)

    def has(self, fault: str) -> bool:
        now_ms, t_s = self.now()
        if fault == "silence":
            return self._faults.silent(t_s, now_ms)
        return self._faults.on(fault, t_s, now_ms)

    def off(self) -> bool:
        now_ms, t_s = self.now()
        return self._faults.off(t_s, now_ms)

    def start(self) -> None:
        if self._app is None:
            self._app = _application(self)
            self._due_s = 0.0
            self._state = ("", False)
            self._objects.clear()
            for point in self._senses.type.points:
                if point.value is not None:
                    made = _object_of(point, commanded=point.value.key in self._commanded)
                    self._objects[point.value.key] = (point, made)
                    self._app.add_object(made)
            self.update()

    def stop(self) -> None:
        app, self._app = self._app, None
        if app is not None:
            with contextlib.suppress(Exception):  # sockets that never came up
                app.close()

    def update(self) -> None:
        """What it measures now; what somebody has written stays."""
        now_ms, t_s = self.now()
        # The library works the status flags out of these two.
        reliability = "unreliableOther" if self.has("fault_flag") else "noFaultDetected"
        overridden = self.has("overridden")
        for _, made in self._objects.values():
            if (reliability, overridden) != self._state:
                made.reliability = reliability
                made.outOfService = overridden
        self._state = (reliability, overridden)
        if t_s < self._due_s:
            return
        self._due_s = t_s + self._device.interval_s
        told: dict[str, object] = {}
        for key, (point, made) in self._objects.items():
            if key in self._commanded or not self._senses.has(point.name):
                continue
            value = self._senses(point.name, t_s)
            raw = None if math.isnan(value) else raw_of(point, round(value, point.decimals))
            if isinstance(raw, float):
                made.presentValue = raw if key.startswith("analog") else int(raw)
                told[point.name] = raw
        self._world.ledger.write("told", self.id, now_ms, v=told)

    def written(self, key: str, value: object, priority: object) -> None:
        self._world.ledger.write("order", self.id, self.now()[0], object=key, value=str(value), priority=str(priority))


def _application(device: BacnetDevice) -> Any:
    """bacpypes3's application with the faults between it and the wire."""
    from bacpypes3.errors import ExecutionError, UnrecognizedService
    from bacpypes3.ipv4.app import NormalApplication
    from bacpypes3.local.device import DeviceObject
    from bacpypes3.pdu import IPv4Address

    class Application(NormalApplication):  # type: ignore[misc]  # untyped library
        async def indication(self, apdu: Any) -> None:
            if not device.has("silence"):
                await super().indication(apdu)

        async def do_ReadPropertyMultipleRequest(self, apdu: Any) -> None:
            if device.has("no_rpm"):
                raise UnrecognizedService("ReadPropertyMultiple")
            await super().do_ReadPropertyMultipleRequest(apdu)

        async def do_SubscribeCOVRequest(self, apdu: Any) -> None:
            if device.has("no_cov"):
                raise ExecutionError("services", "optionalFunctionalityNotSupported")
            await super().do_SubscribeCOVRequest(apdu)

        async def do_WritePropertyRequest(self, apdu: Any) -> None:
            found = apdu.objectIdentifier
            device.written(f"{found[0]}:{found[1]}", apdu.propertyValue.tagList[0].tag_data.hex(), apdu.priority)
            if device.has("overridden"):
                # The slot is taken, and the switch on the spot still decides: the value does not follow.
                from bacpypes3.apdu import SimpleAckPDU

                await self.response(SimpleAckPDU(context=apdu))
                return
            await super().do_WritePropertyRequest(apdu)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((device.host, device.port))
        except OSError as error:
            raise LinkRefused(f"{device.id}: {device.host}:{device.port}: {error.strerror}") from error
    itself = DeviceObject(objectIdentifier=("device", device.instance), objectName=device.id, vendorIdentifier=_VENDOR)
    return Application(itself, IPv4Address(f"{device.host}/32:{device.port}"))


def _object_of(point: Point, *, commanded: bool) -> Any:
    """The object of a point: its type is in the key, ``analog-input:1``. Raises ConfigError for others."""
    from bacpypes3.local.analog import AnalogInputObject, AnalogValueObject, AnalogValueObjectCmd
    from bacpypes3.local.binary import BinaryInputObject, BinaryOutputObject, BinaryValueObject
    from bacpypes3.local.multistate import MultiStateInputObject, MultiStateValueObject

    assert point.value is not None  # noqa: S101 - only points with a key come here
    kind, _, number = point.value.key.partition(":")
    plain: dict[str, Any] = {
        "analog-input": AnalogInputObject,
        "analog-value": AnalogValueObjectCmd if commanded else AnalogValueObject,
        "binary-input": BinaryInputObject,
        "binary-output": BinaryOutputObject,
        "binary-value": BinaryValueObject,
        "multi-state-input": MultiStateInputObject,
        "multi-state-value": MultiStateValueObject,
    }
    if kind not in plain:
        raise ConfigError(f"{point.name}: no object of type {kind!r} is simulated; there are {', '.join(plain)}")
    more: dict[str, Any] = {}
    if kind.startswith("analog"):
        more = {"presentValue": 0.0, "units": "noUnits", "covIncrement": max(point.deadband, 0.01)}
        more |= {"relinquishDefault": 21.0, "presentValue": 21.0} if commanded else {}
    elif kind.startswith("binary"):
        more = {"presentValue": "inactive"} | ({} if kind == "binary-value" else {"polarity": "normal"})
        more |= {"relinquishDefault": "inactive"} if kind == "binary-output" else {}
    else:
        more = {"presentValue": 1, "numberOfStates": max(2, int(point.range[1]))}
    return plain[kind](
        objectIdentifier=(kind, int(number)),
        objectName=point.name,
        statusFlags=[0, 0, 0, 0],
        eventState="normal",
        reliability="noFaultDetected",
        outOfService=False,
        **more,
    )


class BacnetBus:
    """The LiveBus of kind ``bacnet-device``."""

    def __init__(self, bus: Bus, scene: Scene, world: World) -> None:
        self._bus = bus
        host, port = host_port(bus.listen or "127.0.0.1:47821", f"bus {bus.id}: listen")
        self.devices = [
            BacnetDevice(
                device, Faults(device.id, bus.kind, device.fault, world.seed, world.ledger), world, host, port + n
            )
            for n, device in enumerate(scene.devices_on(bus.id))
        ]

    async def open(self) -> None:
        logging.getLogger("bacpypes3").setLevel(logging.ERROR)
        for device in self.devices:
            if not device.off():
                device.start()
        await asyncio.sleep(0.1)  # the library opens its sockets in the background

    def describe(self) -> list[str]:
        named = ", ".join(f"{one.id} (device {one.instance}, {one.host}:{one.port})" for one in self.devices)
        return [f"{self._bus.kind:12} {named}"]

    async def run(self) -> None:
        while True:
            for device in self.devices:
                if device.off():
                    device.stop()
                else:
                    device.start()
                    device.update()
            await asyncio.sleep(_TICK_S)

    async def close(self) -> None:
        for device in self.devices:
            device.stop()
