"""From a vehicle's position to one sweep: what the keys of a device type mean, datum, what is believed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from protocols.core.errors import ConfigError
from protocols.core.model import Float64s, Quality, UInt8s
from protocols.devices import DeviceType, Point
from protocols.devices.values import reading
from protocols.jt808 import extras
from protocols.jt808.gcj02 import to_wgs84
from protocols.jt808.position import ALARM_BITS, STATUS_BITS, Position

_Get = Callable[[Position], float]

#: Numbers of a position by their key.
_PLAIN: dict[str, _Get] = {
    "speed": lambda p: p.speed_kmh,
    "direction": lambda p: float(p.direction) if p.direction <= 360 else math.nan,
    "altitude": lambda p: math.nan if p.altitude is None else float(p.altitude),
    "alarm": lambda p: float(p.alarm),
    "status": lambda p: float(p.status),
    "load": lambda p: float(p.status >> 8 & 3),
}


def getter(key: str) -> _Get:
    """What a key stands for: ``lat``, ``lon``, ``speed`` ...; ``status.acc``, ``alarm.sos``: one bit;
    ``extra.mileage``: a number among the extra items. Raises ConfigError for anything else."""
    if key in ("lat", "lon"):
        return lambda p: math.nan  # filled in by Reading.of: both together, and only with a fix
    if key in _PLAIN:
        return _PLAIN[key]
    kind, _, name = key.partition(".")
    bits = {"status": STATUS_BITS, "alarm": ALARM_BITS}.get(kind, {})
    if name in bits:
        return _bit(kind, bits[name])
    if kind == "extra" and name.isidentifier():
        return lambda p: extras.number(p.extras, name)
    known = ", ".join(("lat", "lon", *_PLAIN, "status.<bit>", "alarm.<bit>", "extra.<name>"))
    raise ConfigError(f"jt808 key {key!r} is none of {known}")


def _bit(kind: str, bit: int) -> _Get:
    if kind == "status":
        return lambda p: float(p.status >> bit & 1)
    return lambda p: float(p.alarm >> bit & 1)


@dataclass(frozen=True, slots=True)
class _Column:
    point: Point
    key: str
    get: _Get


class Columns:
    """How positions of one device type become columns. ``shifted``: its terminals send GCJ-02."""

    def __init__(self, kind: DeviceType, *, shifted: bool) -> None:
        self._shifted = shifted
        self._columns = [
            _Column(point, point.value.key, getter(point.value.key)) for point in kind.points if point.value is not None
        ]
        self.points = tuple(column.point.name for column in self._columns)
        #: Most points are the number itself: those skip the binding's arithmetic.
        self._direct = [
            point.value is not None and (point.value.factor, point.value.offset, point.value.invalid) == (1.0, 0.0, ())
            for point in (column.point for column in self._columns)
        ]

    def of(self, position: Position) -> tuple[Float64s, UInt8s]:
        """Values and quality of every point; a number that is not there is MISSING."""
        lon = lat = math.nan
        if position.positioned:
            lon, lat = position.lon, position.lat
            if self._shifted:
                lon, lat = to_wgs84(lon, lat)
        values = np.empty(len(self._columns))
        for at, (column, direct) in enumerate(zip(self._columns, self._direct, strict=True)):
            raw = lat if column.key == "lat" else lon if column.key == "lon" else column.get(position)
            value = raw if direct else reading(column.point, None if math.isnan(raw) else raw)[0]
            values[at] = round(value, column.point.decimals) if not math.isnan(value) else math.nan
        quality = np.where(np.isnan(values), np.uint8(Quality.MISSING), np.uint8(Quality.GOOD))
        return values, quality
