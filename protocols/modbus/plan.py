"""Which requests read a device: points merged into blocks, over small gaps, never over a hole the device refuses.

A device that answers exception 2 (illegal address) to a block is asked again in two halves, and the cut is
remembered; a single point that is refused is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from protocols.devices import ModbusPoint, Point

#: Reading ten registers too many costs 21 ms at 9600 baud; another request costs more.
MAX_GAP = 10
MAX_REGISTERS = 125


@dataclass(frozen=True, slots=True)
class Block:
    """One read request and the points it brings."""

    function: int
    address: int
    count: int
    points: tuple[Point, ...]

    def words_of(self, point: Point) -> slice:
        """Where the point's registers are in the answer."""
        binding = _binding(point)
        start = binding.address - self.address
        return slice(start, start + binding.width)


class Plan:
    def __init__(self, points: Iterable[Point], *, max_gap: int = MAX_GAP, max_count: int = MAX_REGISTERS) -> None:
        self._max_gap = max_gap
        self._max_count = max_count
        self.refused: tuple[str, ...] = ()  # points the device does not have
        self.blocks: tuple[Block, ...] = tuple(self._merge(points))

    def refuse(self, block: Block) -> None:
        """The device answered exception 2 to this block: cut it at its widest gap, else in the middle."""
        at = self.blocks.index(block)
        if len(block.points) == 1:
            self.refused += (block.points[0].name,)
            self.blocks = self.blocks[:at] + self.blocks[at + 1 :]
            return
        bounds = [(_binding(p).address, _binding(p).address + _binding(p).width) for p in block.points]
        gaps = [bounds[n][0] - max(end for _, end in bounds[:n]) for n in range(1, len(bounds))]
        widest = max(gaps)
        cut = 1 + (gaps.index(widest) if widest > 0 else (len(gaps) - 1) // 2)
        halves = (block_of(block.points[:cut]), block_of(block.points[cut:]))
        self.blocks = self.blocks[:at] + halves + self.blocks[at + 1 :]

    def _merge(self, points: Iterable[Point]) -> Iterable[Block]:
        ordered = sorted(points, key=lambda p: (_binding(p).function, _binding(p).address))
        group: list[Point] = []
        for point in ordered:
            if group and not self._fits(group, point):
                yield block_of(tuple(group))
                group = []
            group.append(point)
        if group:
            yield block_of(tuple(group))

    def _fits(self, group: list[Point], point: Point) -> bool:
        first, new = _binding(group[0]), _binding(point)
        end = max(_binding(p).address + _binding(p).width for p in group)
        return (
            new.function == first.function
            and new.address - end <= self._max_gap
            and max(end, new.address + new.width) - first.address <= self._max_count
        )


def _binding(point: Point) -> ModbusPoint:
    if point.modbus is None:
        raise ValueError(f"point {point.name} is not a Modbus point")
    return point.modbus


def block_of(points: tuple[Point, ...]) -> Block:
    """The one request that brings these points (of one function, in the order of their addresses)."""
    first = _binding(points[0])
    end = max(_binding(p).address + _binding(p).width for p in points)
    return Block(first.function, first.address, end - first.address, points)
