"""From a raw batch to rows the blocks may trust: known series, possible times, time order, good quality.

Two clocks bound what is taken: nothing from before 2000 (a device whose clock never was set says 1970), nothing more
than ten minutes ahead of the receiver. Both are counted, neither moves any state.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from protocols.core.model import Float64s, Int32s, Int64s, Quality, SeriesBatch, UInt8s
from scenarios.blocks.rows import Bools, Rows32, grown

EARLIEST_MS = 946_684_800_000  # 2000-01-01T00:00:00Z
AHEAD_MS = 600_000


COUNTERS = ("rows", "rows_unknown", "rows_future", "rows_before_2000", "rows_late", "rows_repeated", "rows_not_good")


@dataclass(slots=True)
class Taken:
    """Rows with a known series and a possible time. ``fresh``: later than all before of its series."""

    series: Int32s
    ts_ms: Int64s
    values: Float64s
    quality: UInt8s
    row: Rows32
    fresh: Bools
    unique: bool


@dataclass(slots=True)
class Intake:
    """Watermarks by series number, and what was refused."""

    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))
    size: int = 0
    watermark: Int64s = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _known: Bools = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    _last: Rows32 = field(default_factory=lambda: np.zeros(0, dtype=np.intp))

    def add(self, index: int) -> None:
        self.size = max(self.size, index + 1)
        self.watermark = grown(self.watermark, self.size, 0)
        self._known = grown(self._known, self.size, False)
        self._last = grown(self._last, self.size, 0)
        self._known[index] = True

    def knows(self, index: int) -> bool:
        return index < self.size and bool(self._known[index])

    def take(self, batch: SeriesBatch, now_ms: int) -> Taken:
        """Check a batch and move the watermarks past it."""
        count = self.counters
        count["rows"] += len(batch)
        taken = self._possible(batch, now_ms)
        series, ts = taken.series, taken.ts_ms
        if not series.size:
            return taken
        place = np.arange(series.size)
        self._last[series] = place  # of rows of one series the last one stays
        taken.unique = bool((self._last[series] == place).all())
        before = self.watermark[series]
        fresh = ts > before
        if not taken.unique and not self._sorted(series, ts):
            fresh &= ts > self._newest_before(series, ts)
        taken.fresh = fresh
        if fresh.all():
            self.watermark[series] = ts
            return taken
        repeated = int((ts == before).sum())
        count["rows_repeated"] += repeated
        count["rows_late"] += int(series.size - fresh.sum()) - repeated
        self.watermark[series[fresh]] = ts[fresh]
        return taken

    def _possible(self, batch: SeriesBatch, now_ms: int) -> Taken:
        series, ts = batch.series, batch.ts_ms
        known = (series >= 0) & (series < self.size)
        if known.all():
            known = self._known[series]
        else:
            known[known] = self._known[series[known]]
        ahead = ts > now_ms + AHEAD_MS
        ancient = ts < EARLIEST_MS
        ok = known & ~ahead & ~ancient
        rows = np.arange(series.size)
        none = np.zeros(0, dtype=np.bool_)
        if ok.all():
            return Taken(series, ts, batch.values, batch.quality, rows, none, True)
        self.counters["rows_unknown"] += int((~known).sum())
        self.counters["rows_future"] += int((known & ahead).sum())
        self.counters["rows_before_2000"] += int((known & ancient).sum())
        return Taken(series[ok], ts[ok], batch.values[ok], batch.quality[ok], rows[ok], none, True)

    @staticmethod
    def _sorted(series: Int32s, ts: Int64s) -> bool:
        """Does every series in the batch go forward in time, without repeats?"""
        order = np.argsort(series, kind="stable")
        s, t = series[order], ts[order]
        return not ((s[1:] == s[:-1]) & (t[1:] <= t[:-1])).any()

    @staticmethod
    def _newest_before(series: Int32s, ts: Int64s) -> Int64s:
        """For each row the greatest time of earlier rows of its series in this batch (0: none).

        One running maximum over the batch brought together by series: each series gets its own band of numbers, so
        that none reaches into the next. 2**16 series times a span of 2**42 ms still fit 63 bits.
        """
        order = np.argsort(series, kind="stable")
        s, t = series[order], ts[order]
        band = np.cumsum(np.concatenate(([0], s[1:] != s[:-1])))
        low = int(t.min())
        span = int(t.max()) - low + 1
        running = np.maximum.accumulate(t - low + band * span)
        newest = np.zeros(series.size, dtype=np.int64)
        same = np.concatenate(([False], s[1:] == s[:-1]))
        newest[same] = (running[:-1] - band[1:] * span)[same[1:]] + low
        back = np.empty_like(newest)
        back[order] = newest
        return back


def good(quality: UInt8s, values: Float64s) -> Bools:
    found: Bools = (quality == Quality.GOOD) & np.isfinite(values)
    return found
