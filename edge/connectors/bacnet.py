"""BACnet/IP devices of a building: read together, told of changes, written at a priority and given back.

Every device is polled at its own pace; subscriptions (COV) only make changes come sooner, so a device that refuses
them, or loses them in a restart, is read all the same. A write takes a slot of the priority array: ``key = null`` gives
it back, and what a higher priority holds shows in the read-back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge.clock import Clock
from edge.connectors.bacnet_link import BacnetLink, NoAnswer, Refused
from edge.connectors.base import Command, Outcome, Sink
from edge.connectors.health import Health
from edge.connectors.industry_config import BacnetConfig, BacnetDevice
from edge.connectors.orders import agrees, shown, target_of
from protocols.core.errors import LinkDown
from protocols.core.model import Quality, Sweep
from protocols.devices import DeviceType, Point, load
from protocols.devices.values import by_key, reading

#: Objects asked for in one ReadPropertyMultiple: fits the 480 bytes that the smallest devices take.
_AT_ONCE = 16
_READ_BACK_STEP_S = 0.3
_READ_BACK_S = 5.0
#: Bits of status-flags (ASHRAE 135, clause 12).
_FAULT, _OVERRIDDEN, _OUT_OF_SERVICE = 1, 2, 3


@dataclass(slots=True, eq=False)
class _Device:
    config: BacnetDevice
    kind: DeviceType
    points: dict[str, tuple[Point, ...]]  # by object, "analog-input:1"
    health: Health
    address: Any = None
    together: bool = True  # takes ReadPropertyMultiple
    faulty: set[str] = field(default_factory=set)
    polled_only: set[str] = field(default_factory=set)  # objects that refuse subscriptions


@dataclass(frozen=True, slots=True)
class _Value:
    key: str
    raw: Any
    flags: tuple[int, ...] = ()
    error: str = ""


class BacnetClient:
    """The connector of kind ``bacnet``."""

    def __init__(self, config: BacnetConfig, clock: Clock) -> None:
        self.id = config.id
        self._config = config
        self._clock = clock
        self._devices = []
        for one in config.device:
            kind = load(one.type)
            self._devices.append(_Device(one, kind, by_key(kind), Health(one.id)))
        self._link: BacnetLink | None = None

    async def run(self, sink: Sink) -> None:
        link = BacnetLink(self._config)
        await link.open()
        self._link = link
        try:
            async with asyncio.TaskGroup() as group:
                for device in self._devices:
                    group.create_task(self._serve(link, device, sink), name=device.config.id)
        except BaseExceptionGroup as errors:
            lost, others = errors.split(LinkDown)
            if lost is None or others is not None:
                raise
            raise LinkDown(str(lost.exceptions[0])) from None
        finally:
            self._link = None
            link.close()

    async def _serve(self, link: BacnetLink, device: _Device, sink: Sink) -> None:
        """Find it, subscribe, poll; for ever."""
        watching: asyncio.Task[None] | None = None
        try:
            while True:
                lost = device.health.lost
                try:
                    await self._find(link, device, sink)
                    self._emit(device, await self._read(link, device, device.points), sink)
                    device.health.answered(sink)
                    wanted = device.config.cov and device.points.keys() - device.polled_only
                    if wanted and (watching is None or watching.done()):
                        watching = asyncio.create_task(self._watch(link, device, sink))
                except NoAnswer as error:
                    sink.count("polls_missed", connector=self.id)
                    device.health.missed(sink, str(error))
                    if not device.config.address:
                        device.address = None  # it may have moved
                except Refused as error:
                    sink.report("data.rejected", device.config.id, "refused", str(error))
                pause_s = device.config.poll_s
                await asyncio.sleep(max(pause_s, self._config.slow_poll_s) if lost and device.health.lost else pause_s)
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def _find(self, link: BacnetLink, device: _Device, sink: Sink) -> None:
        """Where it is; and is it the one? An address that answers as another device is not read."""
        if device.address is not None:
            return
        found = await link.find(device.config.instance, device.config.address)
        if found is None:
            where = device.config.address or "Who-Is"
            raise NoAnswer(f"{where}: device {device.config.instance} does not answer")
        instance, address = found
        if instance != device.config.instance:
            sink.report(
                "data.rejected",
                device.config.id,
                "wrong_address",
                f"{device.config.address} is device {instance}, not {device.config.instance}",
            )
            raise NoAnswer(f"another device ({instance}) at {device.config.address}")
        device.address = address

    # -- in

    async def _read(self, link: BacnetLink, device: _Device, keys: Iterable[str]) -> list[_Value]:
        """Present value and status flags of each object; together where the device can, else one by one."""
        left = list(keys)
        out: list[_Value] = []
        if device.together:
            try:
                for at in range(0, len(left), _AT_ONCE):
                    found = await link.read_many(device.address, left[at : at + _AT_ONCE])
                    out += [_Value(key, raw, flags, error) for key, raw, flags, error in found]
                return out
            except Refused:
                device.together = False
        for key in left:
            try:
                out.append(_Value(key, await link.read(device.address, key)))
            except Refused as error:
                out.append(_Value(key, None, error=str(error)))
        return out

    def _emit(self, device: _Device, values: Iterable[_Value], sink: Sink) -> None:
        now_ms = self._clock.now_ms()
        found: dict[str, tuple[float, Quality]] = {}
        for value in values:
            for point in device.points.get(value.key, ()):
                if value.error:
                    sink.report("data.rejected", device.config.id, "refused", value.error, point=point.name)
                    found[point.name] = (float("nan"), Quality.MISSING)
                    continue
                found[point.name] = _reading(point, value)
                self._tell_fault(device, point, value, sink)
        if found:
            sink.sweep(
                Sweep(
                    device=device.config.id,
                    source_ms=now_ms,
                    seen_ms=now_ms,
                    points=tuple(found),
                    values=np.array([number for number, _ in found.values()], dtype=np.float64),
                    quality=np.array([quality for _, quality in found.values()], dtype=np.uint8),
                )
            )

    @staticmethod
    def _tell_fault(device: _Device, point: Point, value: _Value, sink: Sink) -> None:
        if _FAULT in value.flags:
            if value.key not in device.faulty:
                sink.report("dev.fault", device.config.id, "status_fault", f"{value.key} says fault", point=point.name)
            device.faulty.add(value.key)
        elif value.flags or value.raw is not None:
            device.faulty.discard(value.key)

    async def _watch(self, link: BacnetLink, device: _Device, sink: Sink) -> None:
        """Subscriptions of all its objects; ends when none is left, and the next poll tries again."""
        async with asyncio.TaskGroup() as group:
            for number, key in enumerate(device.points, 1):
                if key in device.polled_only:
                    continue
                group.create_task(self._watch_one(link, device, key, number, sink))

    async def _watch_one(self, link: BacnetLink, device: _Device, key: str, number: int, sink: Sink) -> None:
        lifetime_s = self._config.cov_lifetime_s
        try:
            async for raw, flags in link.changes(device.address, key, number, lifetime_s):
                self._emit(device, [_Value(key, raw, flags)], sink)
        except Refused:
            sink.count("cov_refused", connector=self.id)
            device.polled_only.add(key)
        except NoAnswer:
            return

    # -- out

    async def command(self, command: Command) -> Outcome:
        """Write at the configured priority (Null gives the slot back), then read what the type names."""
        device = next((one for one in self._devices if one.config.id == command.device), None)
        kind = device.kind.command(command.name) if device is not None else None
        link = self._link
        if link is None:
            raise LinkDown(f"{self.id}: not running")
        if device is None or kind is None:
            return Outcome("refused", "unknown_command", command.name)
        if device.address is None:
            return Outcome("refused", "not_found", f"device {device.config.instance} has not been found yet")
        key, value = target_of(kind, command)
        try:
            await link.write(device.address, key, value, device.config.priority)
        except Refused as error:
            return Outcome("refused", "refused", str(error))
        except NoAnswer as error:
            return Outcome("unknown", "no_answer", f"it was sent: {error}")
        if not kind.read_back:
            return Outcome("done")
        return await self._read_back(link, device, kind.read_back, shown(kind, value))

    async def _read_back(self, link: BacnetLink, device: _Device, name: str, expected: float | None) -> Outcome:
        point = device.kind.point(name)
        assert point.value is not None  # noqa: S101 - points of this family have it, the type was checked
        last: float | None = None
        with contextlib.suppress(TimeoutError, NoAnswer, Refused):
            async with asyncio.timeout(_READ_BACK_S):
                while True:
                    raw = await link.read(device.address, point.value.key)
                    number, quality = _reading(point, _Value(point.value.key, raw))
                    if quality is not Quality.MISSING:
                        last = number
                        if agrees(expected, number, point.decimals):
                            return Outcome("done", read_back={name: number})
                    await asyncio.sleep(_READ_BACK_STEP_S)
        if last is None:
            return Outcome("unknown", "no_read_back", f"{name} could not be read back")
        text = f"{name} is {last:g}, not {expected:g}: a higher priority may hold it" if expected is not None else ""
        return Outcome("failed", "read_back", text, {name: last})


def _reading(point: Point, value: _Value) -> tuple[float, Quality]:
    number, quality = reading(point, value.raw)
    if quality is Quality.MISSING:
        return number, quality
    if _FAULT in value.flags:
        return number, Quality.BAD
    if _OVERRIDDEN in value.flags or _OUT_OF_SERVICE in value.flags:
        return number, Quality.MANUAL  # somebody on the spot has set it
    return number, quality
