"""How a command of a device type is said in Modbus: which register or coil gets which value.

The ``key`` of a command (``protocols/devices``) is one of

    coil:0            the argument, on or off, by function 5
    coil:0=1          always on: a command without argument
    holding:100:u16   the argument as that kind; also holding:100:u32:CDAB and holding:100:u16:ABCD:0.1 (factor)
    holding:100:u16=3 always 3
    point:setpoint    as the type's own point is stored: its kind, order, factor, bit
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from protocols.core.errors import ConfigError, LocalProtocolError
from protocols.devices import CommandType, DeviceType, Kind, ModbusPoint, Order, Point
from protocols.modbus import points
from protocols.modbus.messages import (
    READ_COILS,
    READ_HOLDING,
    WRITE_COIL,
    WRITE_COILS,
    WRITE_REGISTER,
    WRITE_REGISTERS,
    MaskWrite,
    WriteRequest,
)

_FORMS = "coil:<address>, holding:<address>:<kind>[:<order>[:<factor>]] or point:<name>, with =<value> behind or not"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a command writes, and what: ``value`` None takes it from the argument."""

    point: Point
    value: float | None


def target(what: CommandType, kind: DeviceType) -> Target:
    """What a command's ``key`` says. Raises ConfigError."""
    where = f"{kind.id}: command {what.name}: key {what.key!r}"
    head, equals, fixed = what.key.partition("=")
    parts = head.split(":")
    try:
        value = float(fixed) if equals else None
        point = _point(parts, kind)
    except (ValueError, KeyError, IndexError) as exc:
        raise ConfigError(f"{where}: {_FORMS}") from exc
    binding = point.modbus
    if binding is None or binding.function not in (READ_COILS, READ_HOLDING):
        raise ConfigError(f"{where}: only coils and holding registers can be written")
    if (value is None) != (len(what.argument) == 1):
        raise ConfigError(f"{where}: one argument, or =<value> and none")
    return Target(point, value)


def _point(parts: list[str], kind: DeviceType) -> Point:
    match parts:
        case ["point", name]:
            return kind.point(name)
        case ["coil", address]:
            return _made(ModbusPoint(function=1, address=int(address), kind="bool"))
        case ["holding", address, number, *rest] if number in get_args(Kind) and len(rest) <= 2:
            order, factor = rest[0] if rest else "ABCD", float(rest[1]) if len(rest) == 2 else 1.0
            if order not in get_args(Order) or factor == 0 or number == "bool":
                raise ValueError(order)
            binding = {"address": int(address), "kind": number, "order": order, "factor": factor}
            return _made(ModbusPoint(function=3, **binding))  # type: ignore[arg-type]  # checked against the literals
    raise ValueError(parts)


def _made(binding: ModbusPoint) -> Point:
    if not 0 <= binding.address <= 65536 - binding.width:
        raise ValueError(binding.address)
    return Point(name="written", decimals=6, range=(-1e300, 1e300), modbus=binding)


def request(unit: int, found: Target, arguments: Mapping[str, float | int | str | bool]) -> WriteRequest | MaskWrite:
    """The request that carries an order out. Raises LocalProtocolError for what the registers cannot say."""
    binding = found.point.modbus
    value = found.value if found.value is not None else next(iter(arguments.values()), None)
    if binding is None or value is None or isinstance(value, str):
        raise LocalProtocolError("Modbus registers take numbers", reason="argument")
    if binding.function == READ_COILS:
        return WriteRequest(unit, WRITE_COIL, binding.address, (int(bool(value)),))
    words = points.encode(float(value), found.point)
    back = points.decode_one(words, found.point)
    rounding = 1e-6 * abs(float(value)) if binding.kind[0] == "f" else 0.51 * abs(binding.factor)
    if not abs(back - float(value)) <= rounding:
        text = f"{value:g} does not fit into {binding.kind}: it would become {back:g}"
        raise LocalProtocolError(text, reason="range")
    if mask := binding.picks:
        if binding.width != 1:
            raise LocalProtocolError("a bit of several registers cannot be written by itself", reason="mask")
        return MaskWrite(unit, binding.address, 0xFFFF & ~_swap(mask, binding.order), words[0])
    function = WRITE_REGISTER if len(words) == 1 else WRITE_REGISTERS
    return WriteRequest(unit, function, binding.address, words)


def _swap(mask: int, order: str) -> int:
    return mask if order in ("ABCD", "CDAB") else (mask & 0xFF) << 8 | mask >> 8


def otherwise(asked: WriteRequest | MaskWrite) -> WriteRequest | None:
    """The same order by the other function: devices take 10H but not 06H, or the reverse. None if there is none."""
    if not isinstance(asked, WriteRequest) or len(asked.values) != 1:
        return None
    other = {
        WRITE_COIL: WRITE_COILS, WRITE_COILS: WRITE_COIL,
        WRITE_REGISTER: WRITE_REGISTERS, WRITE_REGISTERS: WRITE_REGISTER,
    }[asked.function]  # fmt: skip
    return WriteRequest(asked.unit, other, asked.address, asked.values)
