"""What a second listener hears of the pipeline: the readings that are kept, and which devices answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Told:
    """One reading that report by exception kept. ``value`` NaN: no value. ``historical``: not of now."""

    point: str
    ts_ms: int
    value: float
    quality: int
    historical: bool = False


class Tap(Protocol):
    """Both calls return at once and never raise. ``counters`` go into the heartbeat."""

    counters: dict[str, int]

    def readings(self, device: str, told: Sequence[Told]) -> None: ...

    def state(self, device: str, *, online: bool) -> None: ...
