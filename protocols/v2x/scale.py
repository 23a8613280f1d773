"""Units and "no value" of the integers in a V2X message; the same in T/CSAE 53 and J2735 unless stated.

(Fact sheet "Building blocks"; J2735 speed limits and lane widths share them.) A sentinel never becomes a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Unit:
    """value = integer * ``factor`` (exact), in ``unit``; integers in ``none`` are no value."""

    factor: Decimal
    unit: str
    none: tuple[int, ...] = ()

    def of(self, raw: int) -> Decimal | None:
        return None if raw in self.none else raw * self.factor


def _unit(factor: str, unit: str, *none: int) -> Unit:
    return Unit(Decimal(factor), unit, none)


LAT = _unit("1E-7", "deg", 900_000_001)
LONG = _unit("1E-7", "deg", 1_800_000_001)
ELEVATION = _unit("0.1", "m", -4096)
SPEED = _unit("0.02", "m/s", 8191)
HEADING = _unit("0.0125", "deg", 28_800)
ACCELERATION = _unit("0.01", "m/s2", 2001)
VERTICAL = _unit("0.02", "g", -127)
YAW = _unit("0.01", "deg/s")
ANGLE = _unit("1.5", "deg", 127)
SECOND = _unit("0.001", "s", 65_535)
TIME_MARK = _unit("0.1", "s", 36_001)
CM = _unit("0.01", "m")
HEIGHT = _unit("0.05", "m")
RADIUS = _unit("0.1", "m")
HALF_PERCENT = _unit("0.5", "%")

#: Field name in a message -> unit. Names that mean different things in different places are not here.
UNITS: Mapping[str, Unit] = {
    "lat": LAT,
    "long": LONG,
    "lon": LONG,
    "elevation": ELEVATION,
    "elev": ELEVATION,
    "speed": SPEED,
    "heading": HEADING,
    "angle": ANGLE,
    "secMark": SECOND,
    "eventRadius": RADIUS,
    "pathRadius": RADIUS,
    "radiusOfCurve": RADIUS,
    "laneWidth": CM,
    "linkWidth": CM,
    "width": CM,
    "length": CM,
    "height": HEIGHT,
    "vert": VERTICAL,
    "yaw": YAW,
    "startTime": TIME_MARK,
    "minEndTime": TIME_MARK,
    "maxEndTime": TIME_MARK,
    "likelyEndTime": TIME_MARK,
    "nextStartTime": TIME_MARK,
    "nextDuration": TIME_MARK,
    "eventConfidence": HALF_PERCENT,
}


def unit_of(path: tuple[str, ...]) -> Unit | None:
    """Unit of the integer at that path of field names (indices left out)."""
    name = path[-1] if path else ""
    above = path[-2] if len(path) > 1 else ""
    if above == "accelSet" and name in ("lat", "long"):
        return ACCELERATION
    if above == "timeDetails":
        return None  # minutes of the year, not tenths of a second
    if above.startswith("position-LL") and name in ("lat", "lon"):
        return _unit("1E-7", "deg")  # an offset has no "unknown"
    if "crumbData" in path and name == "heading":
        return _unit("1.5", "deg", 240)
    return UNITS.get(name)


def number(raw: Any, unit: Unit) -> float | None:
    """As a float, None for no value."""
    found = unit.of(raw) if isinstance(raw, int) else None
    return None if found is None else float(found)
