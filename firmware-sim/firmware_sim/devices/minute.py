"""Minute data of a station (HJ 212 CN 2051): average, least and greatest of a minute of its own clock.

Only items with flag N count. DataTime of period data is the START of the period.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Minute:
    begin_ms: int
    factors: dict[str, dict[str, str]]


class MinuteTable:
    """Collects samples; hands a minute out with the first sample after it."""

    def __init__(self) -> None:
        self._begin_ms: int | None = None
        self._samples: dict[str, list[float]] = {}

    def add(self, own_ms: int, values: Mapping[str, float]) -> Minute | None:
        begin_ms = own_ms // MINUTE_MS * MINUTE_MS
        done: Minute | None = None
        if self._begin_ms is not None and begin_ms != self._begin_ms:
            done = Minute(self._begin_ms, {code: _summary(samples) for code, samples in self._samples.items()})
            self._samples = {}
        self._begin_ms = begin_ms
        for code, value in values.items():
            self._samples.setdefault(code, []).append(value)
        return done if done is not None and done.factors else None


def _summary(samples: list[float]) -> dict[str, str]:
    return {
        "Avg": f"{sum(samples) / len(samples):.2f}",
        "Min": f"{min(samples):.2f}",
        "Max": f"{max(samples):.2f}",
        "Flag": "N",
    }
