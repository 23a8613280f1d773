"""One batch as the blocks see it: checked, in columns, with what all of them need worked out once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from protocols.core.model import Event, Float64s, Int32s, Int64s
from scenarios.blocks.local_time import are_night

Bools = NDArray[np.bool_]
Rows32 = NDArray[np.intp]


@dataclass(slots=True)
class Rows:
    """Good samples in time order, and apart from them the late good ones (windows may still take those).

    ``row`` is the position in the batch: verdicts are given as if rows came one at a time in that order, so however a
    stream is cut into batches, the events are the same. ``unique``: no series occurs twice.
    """

    now_ms: int
    series: Int32s
    ts_ms: Int64s
    values: Float64s
    row: Rows32
    unique: bool
    late_series: Int32s
    late_ts_ms: Int64s
    late_values: Float64s
    late_row: Rows32
    alive_series: Int32s  # in time order, of any quality: the device has spoken
    alive_ts_ms: Int64s
    alive_row: Rows32
    events: list[tuple[int, Event]] = field(default_factory=list)
    _night: Bools | None = None

    def night(self) -> Bools:
        if self._night is None:
            self._night = are_night(self.ts_ms)
        return self._night

    def put(self, row: int, events: list[Event]) -> None:
        if events:
            self.events.extend((row, event) for event in events)


def places(mask: Bools) -> Rows32:
    """Where a one-dimensional mask is true. ``np.flatnonzero`` without its detours: they are felt in small batches."""
    found: Rows32 = mask.nonzero()[0]
    return found


ArrayT = TypeVar("ArrayT", bound=np.generic)


def grown(array: NDArray[ArrayT], size: int, fill: Any) -> NDArray[ArrayT]:
    """The same array with room for ``size`` entries, doubled so that adding one series at a time stays cheap."""
    if size <= array.shape[0]:
        return array
    bigger = np.full((max(size, 2 * array.shape[0], 16), *array.shape[1:]), fill, dtype=array.dtype)
    bigger[: array.shape[0]] = array
    return bigger
