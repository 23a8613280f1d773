"""A Modbus device: its register image is worked out from the type's points at the moment it is read.

So both registers of a pair always belong to the same instant, and one model serves holding and input registers, coils
and inputs alike. Between the points lie registers that read 0, or that the device refuses (``refuse_holes``), as some
do; outside of all points it answers "illegal address". It can be written where a command of its type writes; what was
written stays and is read back. ``options``: ``single_write = false`` refuses functions 05 and 06 (exception 1),
``multiple_write = false`` 0F and 10; ``stuck = true`` confirms writes and does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from firmware_sim.devices.world import Senses, World
from firmware_sim.faults import Faults
from firmware_sim.scene import Device
from protocols.core.errors import LocalProtocolError
from protocols.devices import ModbusPoint, Point
from protocols.modbus.messages import (
    ILLEGAL_FUNCTION,
    READ_COILS,
    READ_HOLDING,
    WRITE_COIL,
    WRITE_COILS,
    WRITE_REGISTER,
    ExceptionReply,
    Identify,
    MaskWrite,
    Message,
    OtherRequest,
    ReadRequest,
    ReadWrite,
    WriteRequest,
)
from protocols.modbus.orders import target
from protocols.modbus.points import encode
from protocols.modbus.slave import answer

_REQUESTS = (ReadRequest, WriteRequest, MaskWrite, ReadWrite, Identify, OtherRequest)


class ModbusDevice:
    """One unit on a bus or behind a TCP port."""

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        self.id = device.id
        self.faults = faults
        self._unit = device.address
        self._refuse_holes = device.refuse_holes
        self._stuck = bool(device.options.get("stuck", False))
        self._refuses = {
            **dict.fromkeys((WRITE_COIL, WRITE_REGISTER), not device.options.get("single_write", True)),
            **dict.fromkeys((WRITE_COILS, 16), not device.options.get("multiple_write", True)),
        }
        self._senses = Senses(device, world)
        self._points: dict[int, list[tuple[range, Point]]] = {}  # by function
        self._writable: set[tuple[int, int]] = set()  # function that reads it, address
        self._written: dict[tuple[int, int], int] = {}
        self._identity = {0: b"citybrain", 1: self._senses.type.id.encode(), 2: b"simulated"}
        for point in self._senses.type.points:
            if (binding := point.modbus) is not None:
                self._points.setdefault(binding.function, []).append((_range(binding), point))
        for command in self._senses.type.commands:
            if (binding := target(command, self._senses.type).point.modbus) is not None:
                self._writable |= {(binding.function, address) for address in _range(binding)}

    def reply(self, request: Message, t_s: float) -> Message | None:
        if not isinstance(request, _REQUESTS) or request.unit not in (self._unit, 0):
            return None
        if isinstance(request, WriteRequest) and self._refuses.get(request.function):
            return ExceptionReply(request.unit, request.function, ILLEGAL_FUNCTION, request.transaction)
        reply = answer(
            request,
            lambda function, address, count: self._image(function, range(address, address + count), t_s),
            self._write if self._writable else None,
            identity=self._identity,
        )
        return reply if request.unit else None

    def describe(self, request: Message) -> str:
        if isinstance(request, ReadRequest):
            return f"{request.function}:{request.address}+{request.count}"
        return type(request).__name__

    def _write(self, function: int, address: int, values: Sequence[int]) -> bool:
        reads = READ_COILS if function in (WRITE_COIL, WRITE_COILS) else READ_HOLDING
        cells = [(reads, at) for at in range(address, address + len(values))]
        if not all(cell in self._writable for cell in cells):
            return False
        if not self._stuck:
            self._written.update(zip(cells, values, strict=True))
        return True

    def _image(self, function: int, wanted: range, t_s: float) -> Sequence[int] | None:
        points = self._points.get(function, [])
        held = [where for where, _ in points] + [range(at, at + 1) for reads, at in self._writable if reads == function]
        if not held or wanted.start < min(w.start for w in held) or wanted.stop > max(w.stop for w in held):
            return None
        words: dict[int, int] = {at: 0 for reads, at in self._writable if reads == function}
        for where, point in points:
            if where.start < wanted.stop and wanted.start < where.stop:
                for at, word in zip(where, self._words(point, t_s), strict=True):
                    # Several points may be bits of one register.
                    words[at] = words.get(at, 0) | word if point.modbus and point.modbus.picks else word
        words.update({at: word for (reads, at), word in self._written.items() if reads == function})
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


def _range(binding: ModbusPoint) -> range:
    return range(binding.address, binding.address + binding.width)
