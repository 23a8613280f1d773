"""All values of one answer at once: what a gateway with hundreds of devices spends its time on.

The registers of a block are gathered by kind with one index array each, so thirty values cost a handful of NumPy calls
instead of thirty times a struct, a factor and a rounding. Kinds that are rare (bits, packed digits) go one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.core.model import Float64s
from protocols.devices import ModbusPoint, Point
from protocols.modbus.messages import READ_COILS, READ_INPUTS
from protocols.modbus.plan import Block
from protocols.modbus.points import decode_one

_DTYPES = {
    "u16": ">u2", "i16": ">i2", "u32": ">u4", "i32": ">i4", "u64": ">u8", "i64": ">i8", "f32": ">f4", "f64": ">f8",
}  # fmt: skip
#: Beyond this a double has no decimals left to round.
_EXACT = 2.0**52


@dataclass(frozen=True, slots=True)
class _Group:
    """Points of one kind: where their bytes stand, highest first, and their places among the values."""

    dtype: str
    pick: NDArray[np.intp]
    at: NDArray[np.intp]


class Reader:
    """Reads answers to one block. ``names``: its points, in the order of :meth:`values`."""

    def __init__(self, block: Block) -> None:
        self.names = tuple(point.name for point in block.points)
        self._singly: list[tuple[int, Point, slice]] = []
        self._groups: list[_Group] = []
        self._invalid: list[tuple[int, Point, slice]] = []
        by_kind: dict[str, list[int]] = {}
        for n, point in enumerate(block.points):
            binding = point.modbus
            if binding is None or binding.picks or binding.kind not in _DTYPES or block.function in _BITS:
                self._singly.append((n, point, block.words_of(point)))
                continue
            by_kind.setdefault(binding.kind, []).append(n)
            if binding.invalid:
                self._invalid.append((n, point, block.words_of(point)))
        for kind, members in by_kind.items():
            pick = [_bytes_of(block, block.points[n]) for n in members]
            self._groups.append(_Group(_DTYPES[kind], np.array(pick, dtype=np.intp), np.array(members, dtype=np.intp)))
        bindings = [point.modbus or ModbusPoint(address=0) for point in block.points]
        self._factor = np.array([binding.factor for binding in bindings])
        self._offset = np.array([binding.offset for binding in bindings])
        self._scale = np.array([10.0**point.decimals for point in block.points])

    def values(self, words: Sequence[int]) -> Float64s:
        """One value a point; NaN where there is none."""
        out = np.zeros(len(self.names), dtype=np.float64)
        if self._groups:
            data = np.array(words, dtype=">u2").view(np.uint8)
            for group in self._groups:
                out[group.at] = data[group.pick].view(group.dtype)[:, 0]
            with np.errstate(invalid="ignore", over="ignore"):
                out = out * self._factor + self._offset
                scaled = out * self._scale
                out = np.where(np.abs(scaled) < _EXACT, np.rint(scaled) / self._scale, out)
            out[~np.isfinite(out)] = np.nan
        for n, point, where in self._invalid:
            binding = point.modbus
            if binding is not None and _pattern(words[where], binding.order) in binding.invalid:
                out[n] = np.nan
        for n, point, where in self._singly:
            out[n] = decode_one(words[where], point)
        return out


_BITS = (READ_COILS, READ_INPUTS)


def _bytes_of(block: Block, point: Point) -> list[int]:
    """Places of a point's bytes in the answer, highest first."""
    binding = point.modbus
    assert binding is not None  # noqa: S101 - the caller has looked
    start = binding.address - block.address
    registers = range(start, start + binding.width)
    ordered = reversed(registers) if binding.order in ("CDAB", "DCBA") else registers
    pair = (1, 0) if binding.order in ("BADC", "DCBA") else (0, 1)
    return [2 * register + half for register in ordered for half in pair]


def _pattern(words: Sequence[int], order: str) -> int:
    number = 0
    for word in reversed(words) if order in ("CDAB", "DCBA") else words:
        number = number << 16 | ((word & 0xFF) << 8 | word >> 8 if order in ("BADC", "DCBA") else word)
    return number
