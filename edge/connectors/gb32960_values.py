"""From the items of a GB/T 32960 report to one sweep of the vehicle."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from protocols.core.model import Quality, Sweep
from protocols.devices import DeviceType
from protocols.devices.values import reading
from protocols.gb32960.fields import ABNORMAL
from protocols.gb32960.items import ALARM_BITS, Item
from protocols.gb32960.points import Raw, said
from protocols.jt808.gcj02 import to_wgs84


def values_of(items: Sequence[Item], datum: str) -> dict[str, Raw]:
    """Keys and values, positions in WGS 84. ``datum``: of the vehicle where the message does not say."""
    values = said(items)
    lon, lat = values.get("position.lon"), values.get("position.lat")
    told = values.get("position.datum", datum)
    if isinstance(lon, float | int) and isinstance(lat, float | int):
        if told == "gcj02":
            values["position.lon"], values["position.lat"] = to_wgs84(lon, lat)
        elif told not in ("wgs84", "gcj02"):
            # Nobody says how to get from there to anywhere.
            values["position.lon"] = values["position.lat"] = None
    return values


def columns(
    device: str, kind: DeviceType, values: dict[str, Raw], *, source_ms: int, seen_ms: int, exchange: str, resent: bool
) -> Sweep | None:
    """The points of the type that these keys fill; None if it has none of them."""
    points, numbers, grades = [], [], []
    for point in kind.points:
        if point.value is None or point.value.key not in values:
            continue
        raw = values[point.value.key]
        number, grade = reading(point, raw)
        points.append(point.name)
        numbers.append(number if math.isnan(number) else round(number, point.decimals))
        # "Abnormal" is the vehicle's own word for a sensor that is broken.
        grades.append(Quality.BAD if raw == ABNORMAL else grade)
    if not points:
        return None
    return Sweep(
        device,
        source_ms,
        seen_ms,
        tuple(points),
        np.array(numbers, dtype=np.float64),
        np.array(grades, dtype=np.uint8),
        exchange,
        historical=resent,
    )


def alarm_words(values: dict[str, Raw]) -> str:
    """The alarms that are on, in words."""
    found = [f"{zh} {en}" for n, (zh, en) in enumerate(ALARM_BITS) if values.get(f"alarm.bit.{n}") is True]
    return "; ".join(found)
