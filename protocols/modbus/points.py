"""Registers to values and back: kinds, the four byte orders in use, factor, offset, values that mean "none".

Vectorised over the leading axes: a stack of register images decodes in one go. The same table serves the simulator,
so what one side writes the other reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protocols.core.errors import LocalProtocolError
from protocols.core.model import Float64s, Quality, UInt8s
from protocols.devices import ModbusPoint, Point

_DTYPES: dict[str, str] = {
    "u16": ">u2", "i16": ">i2", "u32": ">u4", "i32": ">i4", "u64": ">u8", "i64": ">i8", "f32": ">f4", "f64": ">f8",
    "bool": ">u2",
}  # fmt: skip

Words = NDArray[np.uint16]


def raw(words: Sequence[int] | Words, kind: str, order: str = "ABCD") -> NDArray[np.generic]:
    """The plain number in registers. ``words`` has shape (..., width); the result (...), in the kind's own type."""
    grid = np.asarray(words, dtype=np.uint16)
    if order in ("CDAB", "DCBA"):
        grid = grid[..., ::-1]
    data = np.ascontiguousarray(grid.astype(">u2" if order in ("ABCD", "CDAB") else "<u2"))
    out: NDArray[np.generic] = data.view(_DTYPES[kind])[..., 0]
    return out


def decode(words: Sequence[int] | Words, point: Point) -> tuple[Float64s, UInt8s]:
    """Values (NaN where there is none) and their quality. ``words``: (..., width) registers, or bits for coils."""
    binding = _binding(point)
    number = raw(words, binding.kind, binding.order)
    if binding.kind == "bool":
        values = (number != 0).astype(np.float64)
    else:
        # Rounded to the point's resolution: 273 * 0.1 is 27.3 on the sheet, not 27.300000000000001.
        values = np.round(number.astype(np.float64) * binding.factor + binding.offset, point.decimals)
    missing = ~np.isfinite(values)
    if binding.invalid:
        pattern = number if number.dtype.kind == "u" else number.view(f">u{number.dtype.itemsize}")
        missing |= np.isin(pattern, np.array(binding.invalid, dtype=pattern.dtype))
    values = np.where(missing, np.nan, values)
    return values, np.where(missing, np.uint8(Quality.MISSING), np.uint8(Quality.GOOD))


def encode(value: float, point: Point) -> tuple[int, ...]:
    """The registers (or the bit) that say ``value``. NaN becomes the first invalid pattern; integers saturate, as the
    electronics do. Raises LocalProtocolError if a missing value cannot be said."""
    binding = _binding(point)
    if binding.kind == "bool":
        return (int(bool(value)),)
    dtype = np.dtype(_DTYPES[binding.kind])
    if binding.kind in ("f32", "f64"):
        data = np.array([(value - binding.offset) / binding.factor], dtype=dtype)
    elif np.isnan(value):
        if not binding.invalid:
            raise LocalProtocolError(f"Modbus point {point.name} has no pattern for a missing value", reason="range")
        data = np.array([binding.invalid[0]], dtype=f">u{dtype.itemsize}")
    else:
        limits = np.iinfo(dtype)
        scaled = round((value - binding.offset) / binding.factor)
        data = np.array([min(max(scaled, int(limits.min)), int(limits.max))], dtype=dtype)
    words = data.view(">u2" if binding.order in ("ABCD", "CDAB") else "<u2")
    if binding.order in ("CDAB", "DCBA"):
        words = words[::-1]
    return tuple(int(word) for word in words)


def _binding(point: Point) -> ModbusPoint:
    if point.modbus is None:
        raise LocalProtocolError(f"point {point.name} is not a Modbus point", reason="point")
    return point.modbus
