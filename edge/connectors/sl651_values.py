"""From an SL 651 report to sweeps: elements to points, observation times, series of five minutes, status bits.

A point's ``key`` is the element's identifier (``39``, ``FF11``); ``45.1`` is bit 1 of element 45; ``F4`` and ``F5`` to
``FC`` give a sweep for each of their twelve slots, any element behind a time step (04) one for each step.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from edge.connectors.station_clock import OLDEST_MS, TOLERANCE_MS, Upload, Verdict
from protocols.core.model import Quality, Sweep
from protocols.devices import DeviceType, Point
from protocols.sl651.elements import BY_NAME, Element, series_width
from protocols.sl651.frame import Telegram
from protocols.sl651.messages import Group, Report, to_ms

#: Bits of element 45 that are worth a report: event, code. Bit 7 is 0 when the door is OPEN.
ALARMS: dict[int, tuple[str, str]] = {
    0: ("dev.fault", "mains_off"),
    1: ("dev.low_battery", "battery"),
    5: ("dev.fault", "flow_meter"),
    6: ("dev.fault", "level_gauge"),
    7: ("dev.tamper", "door_open"),
    8: ("dev.fault", "memory"),
}
DOOR_BIT = 7


@dataclass
class Reading:
    """One time with what was read at it."""

    time_ms: int | None
    slot: str  # tells readings of one telegram apart
    values: dict[str, float] = field(default_factory=dict)
    manual: bool = False


@dataclass
class Found:
    """``status``: element 45, if it was there. ``unmapped``: elements that the device type does not know."""

    readings: list[Reading] = field(default_factory=list)
    status: int | None = None
    unmapped: int = 0


def keys_of(kind: DeviceType) -> dict[str, list[Point]]:
    """Points by element, bits under their element."""
    out: dict[str, list[Point]] = {}
    for point in kind.points:
        if point.value is not None:
            out.setdefault(point.value.key.partition(".")[0], []).append(point)
    return out


def collect(report: Report, points: dict[str, list[Point]]) -> Found:
    """What a report says about the points of its station."""
    found = Found()
    for number, group in enumerate(report.groups):
        reading = Reading(to_ms(group.observed), f"{number}/{group.observed}")
        for one in group.elements:
            if one.id == "45":
                found.status = one.bits
            wanted = points.get(one.id)
            if wanted is None:
                found.unmapped += 1
            elif series_width(one.id) or isinstance(one.value, tuple):
                found.readings += _series(one, group, wanted)
            else:
                for point in wanted:
                    reading.values[point.name] = _value(one, point)
        if reading.values:
            found.readings.append(reading)
    if report.manual is not None:
        found.readings += _manual(report, points, found)
    return found


def _value(one: Element, point: Point) -> float:
    binding = point.value
    assert binding is not None  # noqa: S101 - points are kept by their key
    element, dot, bit = binding.key.partition(".")
    if element == "45":
        if one.bits is None:
            return math.nan
        return float(one.bits >> int(bit) & 1) if dot else float(one.bits)
    value = one.value
    return _number(value if isinstance(value, str) else None, point)


def _number(text: str | None, point: Point) -> float:
    """NaN for no value, and for the numbers that this type of station sends instead of none."""
    binding = point.value
    assert binding is not None  # noqa: S101
    if text is None:
        return math.nan
    number = float(text)
    if number in binding.invalid:
        return math.nan
    return round(number * binding.factor + binding.offset, point.decimals)


def _series(one: Element, group: Group, points: list[Point]) -> Iterator[Reading]:
    """Slots with a value; a slot without one says that nothing was measured then, and nothing is made of it."""
    value, first_ms = one.value, to_ms(group.observed)
    if first_ms is None or not isinstance(value, tuple):
        return
    for number, text in enumerate(value):
        if text is not None:
            values = {point.name: _number(text, point) for point in points}
            yield Reading(first_ms + number * one.step_ms, f"{one.id}/{group.observed}/{number}", values)


def _manual(report: Report, points: dict[str, list[Point]], found: Found) -> Iterator[Reading]:
    """Values typed in by somebody: blank-separated names and values."""
    words = (report.manual or b"").decode("latin-1").split()
    values: dict[str, float] = {}
    for name, text in zip(words[::2], words[1::2], strict=False):
        kind = BY_NAME.get(name.upper())
        wanted = points.get(kind.id) if kind else None
        if wanted is None:
            found.unmapped += 1
            continue
        value = Element(name, text=text).value
        for point in wanted:
            values[point.name] = _number(value if isinstance(value, str) else None, point)
    if values:
        yield Reading(to_ms(report.sent), "manual", values, manual=True)


def named(telegram: Telegram, report: Report) -> Upload:
    """By what the station's clock is judged, and the name under which a repeat of this report is recognised: the same
    serial number and time of sending, in the same function."""
    sent_ms = to_ms(report.sent)
    name = f"{telegram.station}/{telegram.func:02X}/{report.serial}/{report.sent}"
    return Upload(name, zlib.crc32(telegram.body), sent_ms, sent_ms)


def sweeps(device: str, found: Found, report: Report, verdict: Verdict, now_ms: int) -> list[Sweep]:
    """One for each time. Where the station's clock is wrong, times are moved by as much as it is off; where it says no
    time at all, the gateway's counts."""
    sent_ms = to_ms(report.sent)
    shift_ms = now_ms - sent_ms if verdict.skewed and sent_ms is not None else 0
    out: list[Sweep] = []
    for reading in found.readings:
        source_ms = now_ms if reading.time_ms is None else reading.time_ms + shift_ms
        if not -TOLERANCE_MS <= now_ms - source_ms <= OLDEST_MS:
            source_ms = now_ms
        column = np.fromiter(reading.values.values(), dtype=np.float64, count=len(reading.values))
        good = Quality.MANUAL if reading.manual else Quality.GOOD
        quality = np.where(np.isnan(column), np.uint8(Quality.MISSING), np.uint8(good))
        name = f"{verdict.exchange}/{reading.slot}"
        out.append(Sweep(device, source_ms, now_ms, tuple(reading.values), column, quality, name))
    return out
