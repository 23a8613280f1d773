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
        if sent is None or policy.mode == "all":
            return self._send(point)
        newest = self._held or sent
        if point.ts_ms <= newest.ts_ms:
            # Late or corrected: the line cannot be bent backwards, so it goes as it is and changes no state.
            said = (newest.ts_ms, newest.integer, newest.quality)
            return [point] if (point.ts_ms, point.integer, point.quality) != said else []
        if point.quality != sent.quality:
            return self._send(point)
        if policy.mode == "deadband":
            moved = abs(point.integer - sent.integer)
            due = point.ts_ms - sent.ts_ms >= policy.snapshot_ms
            return self._send(point) if due or moved > policy.deadband or (not policy.deadband and moved) else []
        return self._door(point, sent)

    def restart(self) -> list[Point]:
        """The clock was set: no line leads from before to after it. Returns what was held back, to be sent now."""
        out = [self._held] if self._held is not None else []
        self._sent = self._held = None
        self._upper, self._lower = float("inf"), float("-inf")
        return out

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
        slope = (point.integer - sent.integer) / span_ms
        # The line to this very point must pass all before it: that some line does (Bristol's test) leaves twice the
        # deadband to the points between.
        fits = self._lower <= slope <= self._upper
        if fits and span_ms < self._policy.snapshot_ms:
            self._held = point
            self._upper = min(self._upper, slope + width / span_ms)
            self._lower = max(self._lower, slope - width / span_ms)
            return []
        if fits:
            self._held = None  # the line to this point is good; snapshot is due
            return self._send(point)
        if self._held is None:
            return self._send(point)
        out = [self._held]
        self._open_door(self._held)
        return out + self._door(point, out[0])
