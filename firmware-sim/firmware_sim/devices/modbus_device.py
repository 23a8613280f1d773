"""A Modbus device: its register image is worked out from the type's points at the moment it is read.

So both registers of a pair always belong to the same instant, and one model serves holding and input registers, coils
and inputs alike. Between the points lie registers that read 0, or that the device refuses (``refuse_holes``), as some
do; outside of all points it answers "illegal address". Writing is refused: these are sensors.
"""

from __future__ import annotations

from collections.abc import Sequence

from firmware_sim.devices.world import Senses, World
from firmware_sim.faults import Faults
from firmware_sim.scene import Device
from protocols.core.errors import LocalProtocolError
from protocols.devices import Point
from protocols.modbus.messages import Message, OtherRequest, ReadRequest, WriteRequest
from protocols.modbus.points import encode
from protocols.modbus.slave import answer


class ModbusDevice:
    """One unit on a bus or behind a TCP port."""

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        self.id = device.id
        self.faults = faults
        self._unit = device.address
        self._refuse_holes = device.refuse_holes
        self._senses = Senses(device, world)
        self._points: dict[int, list[tuple[range, Point]]] = {}  # by function
        for point in self._senses.type.points:
            if (binding := point.modbus) is not None:
                where = range(binding.address, binding.address + binding.width)
                self._points.setdefault(binding.function, []).append((where, point))

    def reply(self, request: Message, t_s: float) -> Message | None:
        if not isinstance(request, ReadRequest | WriteRequest | OtherRequest) or request.unit != self._unit:
            return None
        return answer(
            request, lambda function, address, count: self._image(function, range(address, address + count), t_s)
        )

    def describe(self, request: Message) -> str:
        if isinstance(request, ReadRequest):
            return f"{request.function}:{request.address}+{request.count}"
        return type(request).__name__

    def _image(self, function: int, wanted: range, t_s: float) -> Sequence[int] | None:
        points = self._points.get(function, [])
        held = [where for where, _ in points]
        if not held or wanted.start < min(w.start for w in held) or wanted.stop > max(w.stop for w in held):
            return None
        words: dict[int, int] = {}
        for where, point in points:
            if where.start < wanted.stop and wanted.start < where.stop:
                words.update(zip(where, self._words(point, t_s), strict=True))
        if self._refuse_holes and any(address not in words for address in wanted):
            return None
        return [words.get(address, 0) for address in wanted]

    def _words(self, point: Point, t_s: float) -> tuple[int, ...]:
        try:
            return encode(self._senses(point.name, t_s), point)
        except LocalProtocolError:
            # No value, and the map knows no pattern for that: such a register stays as it was at power-up.
            assert point.modbus is not None  # noqa: S101 - only Modbus points are in the image
            return (0,) * point.modbus.width
