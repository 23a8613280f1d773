"""What a protocol that names its values itself says, as a point's number and quality; and the way back.

One place for ``value = { key, factor, offset, words, invalid }``, so that every connector and every simulated device
means the same by it.
"""

from __future__ import annotations

import math

from protocols.core.model import Quality
from protocols.devices import DeviceType, Point, ValuePoint

Raw = float | int | bool | str | None


def by_key(kind: DeviceType) -> dict[str, tuple[Point, ...]]:
    """The points of a type by the key the protocol calls them by."""
    out: dict[str, tuple[Point, ...]] = {}
    for point in kind.points:
        if point.value is not None:
            out[point.value.key] = (*out.get(point.value.key, ()), point)
    return out


def reading(point: Point, raw: Raw) -> tuple[float, Quality]:
    """The point's number and how far it can be believed. No value, and texts that stand for none, are MISSING."""
    binding = point.value
    if binding is None or raw is None:
        return math.nan, Quality.MISSING
    number = _number(binding, raw)
    if number is None or not math.isfinite(number) or number in binding.invalid:
        return math.nan, Quality.MISSING
    return number * binding.factor + binding.offset, Quality.GOOD


def _number(binding: ValuePoint, raw: float | int | bool | str) -> float | None:
    if not isinstance(raw, str):
        try:
            return float(raw)
        except OverflowError:
            return None
    if raw in binding.words:
        return binding.words[raw]
    try:
        return float(raw)
    except ValueError:
        return None


def raw_of(point: Point, value: float) -> float | str | None:
    """What a device that means ``value`` says: a word where the number has one. None for no value."""
    binding = point.value
    if binding is None or math.isnan(value):
        return None
    number = (value - binding.offset) / binding.factor
    return next((word for word, meant in binding.words.items() if meant == number), number)
