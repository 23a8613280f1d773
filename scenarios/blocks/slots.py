"""Samples of many series in slots of equal length: bounded memory, whatever rate a device sends at.

A window is a number of slots, one slot a reporting interval. Each slot keeps a sum and a count (or an extreme), so the
mean of slot means weighs time, not talkativeness, and the share of filled slots is the share of valid data. A late
sample only fills a slot that is still empty, so sending it twice changes nothing.

    slot number = local time // slot length      cell = slot number % size      a cell is valid if it holds that number
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from protocols.core.model import Float64s, Int64s
from scenarios.blocks.rows import grown

Fold = Literal["sum", "max", "min"]


class SlotRing:
    """``size`` slots for each instance. ``head[i]`` is the newest slot of instance i, -1 before its first sample."""

    def __init__(self, size: int, fold: Fold) -> None:
        self.size = size
        self._fold = fold
        self.head: Int64s = np.full(0, -1, dtype=np.int64)
        self._slot: Int64s = np.full((0, size), -1, dtype=np.int64)
        self._value: Float64s = np.zeros((0, size))
        self._count: Int64s = np.zeros((0, size), dtype=np.int64)

    def reserve(self, instances: int) -> None:
        self.head = grown(self.head, instances, -1)
        self._slot = grown(self._slot, instances, -1)
        self._value = grown(self._value, instances, 0.0)
        self._count = grown(self._count, instances, 0)

    def add(self, i: int, slot: int, value: float) -> None:
        """One sample, in time order."""
        cell = slot % self.size
        if self._slot[i, cell] != slot:
            self._slot[i, cell] = slot
            self._value[i, cell] = value
            self._count[i, cell] = 1
        else:
            held = float(self._value[i, cell])
            if self._fold == "sum":
                self._value[i, cell] = held + value
            elif (value > held) == (self._fold == "max"):
                self._value[i, cell] = value
            self._count[i, cell] += 1
        self.head[i] = max(int(self.head[i]), slot)

    def fill(self, i: int, slot: int, value: float) -> bool:
        """One late sample: taken if its slot is still held and empty."""
        head = int(self.head[i])
        if not head - self.size < slot <= head or self._slot[i, slot % self.size] == slot:
            return False
        self.add(i, slot, value)
        return True

    def add_many(self, i: NDArray[np.int32], slot: Int64s, value: Float64s, *, unique: bool) -> None:
        """Many samples, each instance's in time order. ``unique``: no instance occurs twice."""
        self.head[i] = slot  # the last assignment to an instance is its newest
        if not unique:
            kept = slot > self.head[i] - self.size
            if not kept.all():
                i, slot, value = i[kept], slot[kept], value[kept]
        cell = slot % self.size
        fresh = self._slot[i, cell] != slot
        if unique and fresh.all():
            self._value[i, cell] = value
            self._count[i, cell] = 1
            self._slot[i, cell] = slot
            return
        i_fresh, cell_fresh = i[fresh], cell[fresh]
        self._slot[i_fresh, cell_fresh] = slot[fresh]
        self._value[i_fresh, cell_fresh] = {"sum": 0.0, "max": -np.inf, "min": np.inf}[self._fold]
        self._count[i_fresh, cell_fresh] = 0
        fold = {"sum": np.add, "max": np.maximum, "min": np.minimum}[self._fold]
        fold.at(self._value, (i, cell), value)
        np.add.at(self._count, (i, cell), 1)

    def window(self, i: int, first: int, end: int) -> Iterator[tuple[int, float, int]]:
        """(slot, value, count) of the filled slots from ``first`` up to, not including, ``end``; oldest first."""
        slots, values, counts = self._slot[i].tolist(), self._value[i].tolist(), self._count[i].tolist()
        for slot in range(first, end):
            cell = slot % self.size
            if slots[cell] == slot:
                yield slot, values[cell], counts[cell]

    def shift(self, slots: int) -> None:
        """The clock was set: what was seen stays as long ago as it was, to the slot."""
        self.head[self.head >= 0] += slots
        self._slot[self._slot >= 0] += slots
        # A slot lies in cell (number % size), so that all cells move on by as many.
        self._slot = np.roll(self._slot, slots, axis=1)
        self._value = np.roll(self._value, slots, axis=1)
        self._count = np.roll(self._count, slots, axis=1)

    def save(self, i: int) -> list[Any]:
        return [int(self.head[i]), self._slot[i].tolist(), self._value[i].tolist(), self._count[i].tolist()]

    def load(self, i: int, saved: list[Any]) -> None:
        """Raises ValueError if the ring had another size."""
        if len(saved[1]) != self.size:
            raise ValueError(f"{len(saved[1])} slots saved, {self.size} wanted")
        self.head[i], self._slot[i], self._value[i], self._count[i] = saved
