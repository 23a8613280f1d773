"""The words both sides of the wire share: quality, sweep, series, fact, event.

Readings stay in columns. The smallest unit a connector hands on is a :class:`Sweep`: what one device said at one
time, as arrays. There is no object per reading anywhere on the way to the database.

Times are integer milliseconds since 1970-01-01 UTC (``*_ms``). Positions are WGS 84 ``(lon, lat)`` degrees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float64s = NDArray[np.float64]
Int64s = NDArray[np.int64]
Int32s = NDArray[np.int32]
UInt8s = NDArray[np.uint8]


class Quality(IntEnum):
    """Quality of one reading. Only GOOD feeds alarm rules (scenario catalogue, rule_conventions.quality)."""

    GOOD = 0
    SUSPECT = 1  # outside the plausible, device clock unknown, marked by a rule
    BAD = 2  # the device says that the value is wrong (HJ 212 flag D, T, B)
    CALIBRATING = 3  # HJ 212 flag C
    MAINTENANCE = 4  # HJ 212 flag M, F
    MISSING = 5  # the device has no value (FF.., empty, NaN); the value column holds NaN
    MANUAL = 6  # set by hand (HJ 212 flag S)


Level = Literal["info", "blue", "yellow", "orange", "red"]
LEVELS: tuple[Level, ...] = ("info", "blue", "yellow", "orange", "red")
LEVEL_RANK: dict[str, int] = {name: rank for rank, name in enumerate(LEVELS)}


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one device said at one time.

    ``values``: float64 (n,), NaN where the device has no value; ``quality``: uint8 (n,), :class:`Quality`.
    ``source_ms`` is the device's own time where it has one, else equal to ``seen_ms`` (the gateway's clock).
    ``exchange`` identifies a push so that a repeat of it is recognised after a restart ("" for polled devices).
    ``historical``: the device kept it while nobody listened and says so; it is stored, but raises nothing.
    """

    device: str
    source_ms: int
    seen_ms: int
    points: tuple[str, ...]
    values: Float64s
    quality: UInt8s
    exchange: str = ""
    historical: bool = False


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """What a series is. A series is one point of one device, for ever."""

    device: str
    point: str
    unit: str = ""
    decimals: int = 3  # resolution: values are exact at 10**-decimals
    device_type: str = ""  # e.g. "env/dust_station"


@dataclass(frozen=True, slots=True)
class SeriesBatch:
    """Readings of many series as equally long columns; sorted by time within each series.

    ``series``: int32 (n,), index given by whoever bound the series; ``ts_ms`` int64 (n,); ``values`` float64 (n,);
    ``quality`` uint8 (n,).
    """

    series: Int32s
    ts_ms: Int64s
    values: Float64s
    quality: UInt8s

    def __len__(self) -> int:
        return len(self.series)


@dataclass(frozen=True, slots=True)
class Fact:
    """What vision (or another analytic) states about a place at a time; input of the scenario engine.

    ``kind`` is one of the names in ``protocols/core/README.md`` (``zone.object``, ``zone.empty``, ``cam.state``).
    """

    device: str
    kind: str
    ts_ms: int
    zone: str = ""
    subject: str = ""  # track id within the view; never a person's identity
    values: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    quality: Quality = Quality.GOOD


@dataclass(frozen=True, slots=True)
class EvidenceRef:
    """A still or clip kept as proof: content hash, and whether faces and plates are masked in it."""

    sha256: str
    kind: Literal["still", "clip"] = "still"
    masked: bool = True
    mime: str = "image/jpeg"


@dataclass(frozen=True, slots=True)
class Event:
    """One happening, after ``events.md`` section 1. ``id`` is the idempotency key everywhere.

    ``state`` is "" for a plain event, else raise / update / clear of the alarm named by ``key``.
    ``source`` is ``device[/point]``. ``ts_ms`` is the time of the fact, ``seen_ms`` the gateway's clock at raising.
    """

    id: str
    type: str
    ts_ms: int
    seen_ms: int
    source: str
    scenario: str = ""
    level: Level = "info"
    state: Literal["", "raise", "update", "clear"] = ""
    key: str = ""
    values: Mapping[str, float | int | str | bool | None] = field(default_factory=dict)
    quality: Literal["good", "suspect", "manual"] = "good"
    location: tuple[float, float] | None = None
    evidence: tuple[EvidenceRef, ...] = ()
    drill: bool = False
