"""Cutting what is too big for one row, in order."""

from __future__ import annotations

from protocols.uplink.columns import Readings

_MAX_ROW_READINGS = 50_000  # a row that is too big for the wire all the same is halved


def split(readings: Readings) -> list[Readings]:
    if len(readings) <= _MAX_ROW_READINGS:
        return [readings]
    return [every(readings, slice(at, at + _MAX_ROW_READINGS)) for at in range(0, len(readings), _MAX_ROW_READINGS)]


def half(length: int, which: int) -> slice:
    return slice(0, length // 2) if which == 0 else slice(length // 2, length)


def every(readings: Readings, which: slice) -> Readings:
    return Readings(
        readings.alias[which],
        readings.ts_ms[which],
        readings.lag_ms[which],
        readings.integer[which],
        readings.quality[which],
    )
