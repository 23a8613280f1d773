"""From a charging station's reports to sweeps: places, measurands and states to the points of its device type.

Keys of a type's points: ``<place>/<what>``, place being the connector (1.6) or EVSE (2.0.1), 0 the whole station:
``1/status``, ``1/error``, ``1/transaction`` (1 while charging), ``1/session_energy`` (Wh since its start),
``1/limit`` (W or A, as it was read back) and any measurand, with its phase where it has one:
``1/Power.Active.Import``, ``1/Current.Import@L2``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

import numpy as np

from protocols.core.model import Float64s, Quality, UInt8s
from protocols.devices import DeviceType, Point
from protocols.devices.values import Raw, by_key, reading
from protocols.ocpp.samples import ENERGY, Metered, Sample

#: What a meter outside the station measures is not the station's: only these places are taken for its values.
_OWN = frozenset({"Outlet", "Inlet"})
_ANYWHERE = frozenset({"SoC", "Temperature"})
_POWER = "Power.Active.Import"
#: Charging states of 2.0.1 in the words of the status.
CHARGING_STATES: Mapping[str, str] = {
    "Charging": "Charging",
    "EVConnected": "Preparing",
    "SuspendedEV": "SuspendedEV",
    "SuspendedEVSE": "SuspendedEVSE",
}

Columns = tuple[tuple[str, ...], Float64s, UInt8s]


def places_of(kind: DeviceType) -> frozenset[int]:
    """Numbers of the connectors its points are of, without 0."""
    found = {key.partition("/")[0] for key in by_key(kind)}
    return frozenset(int(place) for place in found if place.isdecimal() and place != "0")


def sampled(place: int, metered: Metered) -> dict[str, Raw]:
    """Values of one moment by key. Inlet stands in where a station has no outlet value."""
    out: dict[str, Raw] = {}
    for sample in sorted(metered.samples, key=lambda one: one.location == "Outlet"):
        if not sample.usable or not (sample.location in _OWN or sample.measurand in _ANYWHERE):
            continue
        key = f"{place}/{sample.measurand}" + (f"@{sample.phase}" if sample.phase else "")
        out[key] = float(sample.value)
    power = f"{place}/{_POWER}"
    if power not in out and (phases := [float(s.value) for s in _phases(metered.samples)]):
        out[power] = sum(phases)
    return out


def _phases(samples: Iterable[Sample]) -> list[Sample]:
    """Power of each phase; stations without a total send the three."""
    found = {s.phase: s for s in samples if s.usable and s.measurand == _POWER and s.phase in ("L1", "L2", "L3")}
    return list(found.values())


def energy_of(place: int, values: Mapping[str, Raw]) -> float | None:
    """The energy register among them."""
    found = values.get(f"{place}/{ENERGY}")
    return float(found) if isinstance(found, int | float) else None


def wh(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def columns(kind: DeviceType, values: Mapping[str, Raw]) -> Columns:
    """What the values say about the points of the type; a key no point has is left out."""
    points = by_key(kind)
    names: list[str] = []
    numbers: list[float] = []
    quality: list[int] = []
    for key, raw in values.items():
        for point in points.get(key, ()):
            number, state = reading(point, raw)
            names.append(point.name)
            numbers.append(_rounded(point, number))
            quality.append(state)
    return tuple(names), np.array(numbers, dtype=np.float64), np.array(quality, dtype=np.uint8)


def _rounded(point: Point, number: float) -> float:
    return round(number, point.decimals)


def is_known(kind: DeviceType, key: str, word: str) -> bool:
    """Whether the type gives that word a number; True where it has no such point at all."""
    return all(reading(point, word)[1] != Quality.MISSING for point in by_key(kind).get(key, ()))
