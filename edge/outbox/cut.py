"""Cutting what is too big for one row, in order."""

from __future__ import annotations

from dataclasses import replace

from edge.outbox.model import Pending
from protocols.uplink.columns import Readings

_MAX_ROW_READINGS = 50_000  # a row that is too big for the wire all the same is halved


def split(readings: Readings) -> list[Readings]:
    if len(readings) <= _MAX_ROW_READINGS:
        return [readings]
    return [every(readings, slice(at, at + _MAX_ROW_READINGS)) for at in range(0, len(readings), _MAX_ROW_READINGS)]


def size_of(part: Pending) -> int:
    """Of what could be cut: the longest of its parts."""
    return max(
        len(part.readings),
        len(part.events),
        len(part.devices),
        len(part.evidence),
        len(part.outcomes),
        len(part.reported),
        len(part.corrections),
    )


def half_of(part: Pending, which: int) -> Pending:
    """The first (0) or second (1) half of everything."""

    def cut(length: int) -> slice:
        return slice(0, length // 2) if which == 0 else slice(length // 2, length)

    return replace(
        part,
        readings=every(part.readings, cut(len(part.readings))),
        events=part.events[cut(len(part.events))],
        devices=part.devices[cut(len(part.devices))],
        evidence=part.evidence[cut(len(part.evidence))],
        outcomes=part.outcomes[cut(len(part.outcomes))],
        reported=part.reported[cut(len(part.reported))],
        corrections=part.corrections[cut(len(part.corrections))],
    )


def every(readings: Readings, which: slice) -> Readings:
    return Readings(
        readings.alias[which],
        readings.ts_ms[which],
        readings.lag_ms[which],
        readings.integer[which],
        readings.quality[which],
    )
