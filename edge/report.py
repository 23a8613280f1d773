"""Report by exception: which readings are worth sending.

Rules see every reading; this decides what goes into the outbox. A reading is sent when its quality changed, when it
moved by more than the deadband since the last one sent, or when the last one is older than the snapshot interval. The
swinging door (Bristol 1990) instead keeps the points from which a straight line rebuilds the signal within the
deadband; it sends the point before the one that opened the door.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["deadband", "swinging-door", "all"]


@dataclass(frozen=True, slots=True)
class ReportPolicy:
    """``deadband`` in integer steps of the series' resolution; 0 sends every change."""

    mode: Mode
    deadband: int
    snapshot_ms: int


@dataclass(frozen=True, slots=True)
class Point:
    ts_ms: int
    lag_ms: int
    integer: int
    quality: int


class Reporter:
    """State of one series. :meth:`offer` returns the points to send now, oldest first."""

    __slots__ = ("_held", "_lower", "_policy", "_sent", "_upper")

    def __init__(self, policy: ReportPolicy) -> None:
        self._policy = policy
        self._sent: Point | None = None
        self._held: Point | None = None
        self._upper = float("inf")  # slopes of the door, steps per ms
        self._lower = float("-inf")

    def offer(self, point: Point) -> list[Point]:
        sent, policy = self._sent, self._policy
        if sent is None or policy.mode == "all" or point.quality != sent.quality:
            return self._send(point)
        if point.ts_ms <= sent.ts_ms:
            # Late or corrected: the line cannot be bent backwards, so it goes as it is and changes no state.
            return [point] if point.integer != sent.integer or point.ts_ms < sent.ts_ms else []
        if policy.mode == "deadband":
            moved = abs(point.integer - sent.integer)
            due = point.ts_ms - sent.ts_ms >= policy.snapshot_ms
            return self._send(point) if due or moved > policy.deadband or (not policy.deadband and moved) else []
        return self._door(point, sent)

    def _send(self, point: Point) -> list[Point]:
        out = [self._held, point] if self._held is not None else [point]
        self._open_door(point)
        return out

    def _open_door(self, point: Point) -> None:
        self._sent, self._held = point, None
        self._upper, self._lower = float("inf"), float("-inf")

    def _door(self, point: Point, sent: Point) -> list[Point]:
        span_ms = point.ts_ms - sent.ts_ms
        width = max(self._policy.deadband, 0)
        upper = min(self._upper, (point.integer + width - sent.integer) / span_ms)
        lower = max(self._lower, (point.integer - width - sent.integer) / span_ms)
        if upper >= lower and span_ms < self._policy.snapshot_ms:
            self._held, self._upper, self._lower = point, upper, lower
            return []
        if upper >= lower:
            self._held = None  # the line to this point is good; snapshot is due
            return self._send(point)
        if self._held is None:
            return self._send(point)
        out = [self._held]
        self._open_door(self._held)
        return out + self._door(point, out[0])
