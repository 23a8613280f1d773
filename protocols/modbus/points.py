"""Registers to values and back: kinds, the four byte orders in use, factor, offset, values that mean "none".

``decode`` takes stacks of register images (captures, replays), ``decode_one`` a single answer, as a poll brings it: for
three registers NumPy would cost fifty times as much. The same table serves the simulator, so what one side writes the
other reads.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protocols.core.errors import LocalProtocolError
from protocols.core.model import Float64s, Quality, UInt8s
from protocols.devices import ModbusPoint, Point

_DTYPES: dict[str, str] = {
    "u16": ">u2", "i16": ">i2", "u32": ">u4", "i32": ">i4", "u64": ">u8", "i64": ">i8", "f32": ">f4", "f64": ">f8",
    "bcd16": ">u2", "bcd32": ">u4", "bcd64": ">u8", "bool": ">u2",
}  # fmt: skip
_STRUCTS: dict[str, struct.Struct] = {
    kind: struct.Struct(f">{code}")
    for kind, code in (
        ("u16", "H"), ("i16", "h"), ("u32", "I"), ("i32", "i"), ("u64", "Q"), ("i64", "q"), ("f32", "f"), ("f64", "d"),
        ("bcd16", "H"), ("bcd32", "I"), ("bcd64", "Q"), ("bool", "H"),
    )
}  # fmt: skip
#: Register orders: registers reversed?, bytes within a register swapped?
_REVERSED = ("CDAB", "DCBA")
_SWAPPED = ("BADC", "DCBA")
_MOST_F32 = 3.4e38

Words = NDArray[np.uint16]


def raw(words: Sequence[int] | Words, kind: str, order: str = "ABCD") -> NDArray[np.generic]:
    """The plain number in registers. ``words`` has shape (..., width); the result (...), in the kind's own type."""
    grid = np.asarray(words, dtype=np.uint16)
    if order in _REVERSED:
        grid = grid[..., ::-1]
    data = np.ascontiguousarray(grid.astype("<u2" if order in _SWAPPED else ">u2"))
    out: NDArray[np.generic] = data.view(_DTYPES[kind])[..., 0]
    return out


def decode(words: Sequence[int] | Words, point: Point) -> tuple[Float64s, UInt8s]:
    """Values (NaN where there is none) and their quality. ``words``: (..., width) registers, or bits for coils."""
    binding = _binding(point)
    number = raw(words, binding.kind, binding.order)
    if binding.kind == "bool":
        values = (number != 0).astype(np.float64)
    elif binding.kind.startswith("bcd") or binding.picks:
        flat = [_number(int(one), binding) for one in np.ravel(number)]
        values = np.round(np.reshape(flat, np.shape(number)) * binding.factor + binding.offset, point.decimals)
    else:
        # Rounded to the point's resolution: 273 * 0.1 is 27.3 on the sheet, not 27.300000000000001.
        values = np.round(number.astype(np.float64) * binding.factor + binding.offset, point.decimals)
    missing = ~np.isfinite(values)
    if binding.invalid:
        pattern = number if number.dtype.kind == "u" else number.view(f">u{number.dtype.itemsize}")
        missing |= np.isin(pattern, np.array(binding.invalid, dtype=pattern.dtype))
    values = np.where(missing, np.nan, values)
    return values, np.where(missing, np.uint8(Quality.MISSING), np.uint8(Quality.GOOD))


def decode_one(words: Sequence[int], point: Point) -> float:
    """One value from its registers (or bit); NaN where there is none."""
    binding = _binding(point)
    if binding.kind == "bool":
        return float(words[0] != 0)
    data = _bytes(words, binding.order)
    if binding.invalid and int.from_bytes(data, "big") in binding.invalid:
        return math.nan
    number = _STRUCTS[binding.kind].unpack(data)[0]
    if binding.picks or binding.kind[0] == "b":
        number = _number(number, binding)
    value = float(number) * binding.factor + binding.offset
    return round(value, point.decimals) if math.isfinite(value) else math.nan


def _number(raw: int, binding: ModbusPoint) -> float:
    """What a bit field or packed digits mean; NaN for digits that are none."""
    if mask := binding.picks:
        return float((raw & mask) >> (mask & -mask).bit_length() - 1)
    digits = f"{raw:x}"
    return float(digits) if digits.isdecimal() else math.nan


def text(words: Sequence[int], order: str = "ABCD") -> str:
    """Registers as characters, high byte first. Texts (serial numbers, versions) are no readings and have no points:
    the installer's tools show them."""
    return _bytes(words, order).decode("ascii", "replace").strip("\0 ")


def encode(value: float, point: Point) -> tuple[int, ...]:
    """The registers (or the bit) that say ``value``. NaN becomes the first invalid pattern; integers saturate, as the
    electronics do. Raises LocalProtocolError if a missing value cannot be said."""
    binding = _binding(point)
    if binding.kind == "bool":
        if math.isnan(value):
            raise LocalProtocolError(f"Modbus point {point.name} has no pattern for a missing value", reason="range")
        return (int(bool(value)),)
    layout = _STRUCTS[binding.kind]
    if math.isinf(value) or (binding.kind == "f32" and abs(value) > _MOST_F32 * abs(binding.factor)):
        raise LocalProtocolError(f"Modbus point {point.name} cannot say {value}", reason="range")
    if binding.kind in ("f32", "f64"):
        data = layout.pack((value - binding.offset) / binding.factor)
    elif math.isnan(value):
        if not binding.invalid:
            raise LocalProtocolError(f"Modbus point {point.name} has no pattern for a missing value", reason="range")
        data = binding.invalid[0].to_bytes(layout.size, "big")
    elif binding.kind.startswith("bcd"):
        digits = min(max(round((value - binding.offset) / binding.factor), 0), 10 ** (2 * layout.size) - 1)
        data = bytes.fromhex(f"{digits:0{2 * layout.size}d}")
    elif mask := binding.picks:
        shift = (mask & -mask).bit_length() - 1
        data = layout.pack(min(max(round((value - binding.offset) / binding.factor), 0), mask >> shift) << shift)
    else:
        bits = 8 * layout.size
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if binding.kind[0] == "i" else (0, (1 << bits) - 1)
        data = layout.pack(min(max(round((value - binding.offset) / binding.factor), low), high))
    endian = "<" if binding.order in _SWAPPED else ">"
    words: tuple[int, ...] = struct.unpack(f"{endian}{layout.size // 2}H", data)
    return words[::-1] if binding.order in _REVERSED else words


def _bytes(words: Sequence[int], order: str) -> bytes:
    endian = "<" if order in _SWAPPED else ">"
    return struct.pack(f"{endian}{len(words)}H", *(reversed(words) if order in _REVERSED else words))


def _binding(point: Point) -> ModbusPoint:
    if point.modbus is None:
        raise LocalProtocolError(f"point {point.name} is not a Modbus point", reason="point")
    return point.modbus
