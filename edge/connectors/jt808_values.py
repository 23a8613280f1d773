"""From a vehicle's position to one sweep: what the keys of a device type mean, datum, what is believed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from protocols.core.errors import ConfigError
from protocols.core.model import Float64s, Quality, UInt8s
from protocols.devices import DeviceType
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
        return _nothing  # filled in by Columns.of: both together, and only with a fix
    if key in _PLAIN:
        return _PLAIN[key]
    kind, _, name = key.partition(".")
    bits = {"status": STATUS_BITS, "alarm": ALARM_BITS}.get(kind, {})
    if name in bits:
        return _bit(kind, bits[name])
    if kind == "extra" and name.isidentifier():
        return _nothing  # filled in by Columns.of
    known = ", ".join(("lat", "lon", *_PLAIN, "status.<bit>", "alarm.<bit>", "extra.<name>"))
    raise ConfigError(f"jt808 key {key!r} is none of {known}")


def _nothing(position: Position) -> float:
    return math.nan


def _bit(kind: str, bit: int) -> _Get:
    if kind == "status":
        return lambda p: float(p.status >> bit & 1)
    return lambda p: float(p.alarm >> bit & 1)


class Columns:
    """How positions of one device type become columns. ``shifted``: its terminals send GCJ-02."""

    def __init__(self, kind: DeviceType, *, shifted: bool) -> None:
        self._shifted = shifted
        bound = [(point, point.value) for point in kind.points if point.value is not None]
        self.points = tuple(point.name for point, _ in bound)
        self._places = [(at, value.key) for at, (_, value) in enumerate(bound) if value.key in ("lat", "lon")]
        #: Extra items by name; read once a position, not once a point.
        self._extras = [(at, value.key[6:]) for at, (_, value) in enumerate(bound) if value.key.startswith("extra.")]
        self._getters = [getter(value.key) for _, value in bound]
        self._factors = np.array([value.factor for _, value in bound])
        self._offsets = np.array([value.offset for _, value in bound])
        self._steps = np.array([10.0**point.decimals for point, _ in bound])
        self._invalid = [(at, value.invalid) for at, (_, value) in enumerate(bound) if value.invalid]

    def of(self, position: Position) -> tuple[Float64s, UInt8s]:
        """Values and quality of every point, at its resolution; a number that is not there is MISSING."""
        raw = [get(position) for get in self._getters]
        if position.positioned:
            lon, lat = position.lon, position.lat
            if self._shifted:
                lon, lat = to_wgs84(lon, lat)
            for at, key in self._places:
                raw[at] = lat if key == "lat" else lon
        if self._extras:
            said = extras.vendor(position.extras)
            for at, name in self._extras:
                found = said.get(name)
                if isinstance(found, int | float):
                    raw[at] = float(found)
        for at, numbers in self._invalid:
            if raw[at] in numbers:
                raw[at] = math.nan
        values = np.rint((np.array(raw) * self._factors + self._offsets) * self._steps) / self._steps
        quality = np.where(np.isnan(values), np.uint8(Quality.MISSING), np.uint8(Quality.GOOD))
        return values, quality
