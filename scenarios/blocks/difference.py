"""Two stations compared: the mean of a window here less the mean of the same window at the reference.

Both stations' own time must have passed the end of a window before it is judged, so a reference that reports later
only delays the verdict. Few series take part (stations, not meters), so this runs sample by sample.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from protocols.core.model import Event, Int32s, SeriesInfo
from scenarios.blocks.alarm import Alarm, RuleContext
from scenarios.blocks.ladder import Ladder, compile_levels
from scenarios.blocks.local_time import OFFSET_MS
from scenarios.blocks.operator import Operator, Site
from scenarios.blocks.params import PointRule, Positive
from scenarios.blocks.payload import Value
from scenarios.blocks.rows import Rows, grown, places
from scenarios.blocks.slots import SlotRing
from scenarios.blocks.window import aggregate, slot_count

#: Row, station, slot, value, late.
Sample = tuple[int, int, int, float, bool]

#: Windows held for a station whose partner is late.
PATIENCE = 3


class DifferenceRule(PointRule, frozen=True, kw_only=True, tag="difference"):
    """``minus``: role of the reference (its first device). Tumbling windows, aligned to local time."""

    minus: str
    window_s: Positive
    min_good_pct: float = 75.0


class DifferenceOperator(Operator):
    rule: DifferenceRule

    def __init__(self, rule: DifferenceRule, context: RuleContext, site: Site) -> None:
        own = site.roles.get(rule.role, ())
        reference = site.roles.get(rule.minus, ())[:1]
        # Without a reference there is nothing to say.
        super().__init__(rule, context, own if reference else ())
        self._reference = reference[0] if reference else ""
        interval_s = site.interval_s[rule.role]
        self._slots = slot_count(rule.window_s, interval_s)
        self._slot_ms = round(interval_s * 1000)
        self._needed = math.ceil(self._slots * rule.min_good_pct / 100.0 - 1e-9)
        self.shape = f"difference {self._slots} x {self._slot_ms} ms"
        self._spec = compile_levels(
            rule.levels, rule.clear, low=rule.direction == "low", gap_ms=round(3000 * rule.window_s)
        )
        self._ring = SlotRing(PATIENCE * self._slots, "sum")
        self._local: Int32s = np.full(0, -1, dtype=np.int32)
        self._numbers: dict[str, int] = {}
        self._judged: list[int] = []  # per station: end (slot) of the last window judged
        self._ladders: list[Ladder | None] = []  # None: the reference
        self._filled = 0
        for device in (self._reference, *own) if reference else ():
            self._create(device)

    def _create(self, device: str) -> None:
        n = len(self._ladders)
        self._numbers[device] = n
        self._ring.reserve(n + 1)
        self._judged.append(-1)
        alarm = Alarm(self.context, device, self.rule.point)
        self._ladders.append(Ladder(self._spec, alarm, self._describe) if n else None)

    def _describe(self, x: float, limit: float) -> dict[str, Value]:
        return {
            "q": f"{self.rule.point}-{self._reference}",
            "x": round(x, 2),
            "unit": self.rule.unit,
            "limit": limit,
            "win_s": self.rule.window_s,
            "std": self.context.standard,
            "n_good": self._filled,
        }

    def wants(self, info: SeriesInfo) -> bool:
        return info.point == self.rule.point and info.device in self._numbers

    def reserve(self, size: int) -> None:
        self._local = grown(self._local, size, -1)

    def bind(self, index: int, info: SeriesInfo) -> None:
        self.reserve(index + 1)
        self._local[index] = self._numbers[info.device]

    def step(self, rows: Rows) -> None:
        if not self._ladders:
            return
        work = self._mine(rows.series, rows.ts_ms, rows.values, rows.row, late=False)
        if rows.late_series.size:
            work += self._mine(rows.late_series, rows.late_ts_ms, rows.late_values, rows.late_row, late=True)
            work.sort()
        for row, n, slot, x, late in work:
            if late:
                if slot >= self._judged[n]:  # windows already judged stay as they are
                    self._ring.fill(n, slot, x)
                continue
            self._ring.add(n, slot, x)
            for station in [n] if n else range(1, len(self._ladders)):
                rows.put(row, self._close(station, rows.now_ms))

    def _mine(
        self, series: Any, ts: Any, values: Any, row: Any, *, late: bool
    ) -> list[tuple[int, int, int, float, bool]]:
        local = self._local[series]
        found = places(local >= 0)
        slots = (ts[found] + OFFSET_MS) // self._slot_ms
        parts = (row[found].tolist(), local[found].tolist(), slots.tolist(), values[found].tolist())
        return [(r, n, slot, x, late) for r, n, slot, x in zip(*parts, strict=True)]

    def _close(self, n: int, now_ms: int) -> list[Event]:
        heads = int(self._ring.head[n]), int(self._ring.head[0])
        end = min(heads) // self._slots * self._slots  # the newest window both have passed
        if min(heads) < 0 or end <= self._judged[n]:
            return []
        first = self._judged[n] + self._slots if self._judged[n] >= 0 else end
        first = max(first, end - (PATIENCE - 1) * self._slots)
        self._judged[n] = end
        events: list[Event] = []
        for until in range(first, end + 1, self._slots):
            events += self._judge(n, until, now_ms)
        return events

    def _judge(self, n: int, end: int, now_ms: int) -> list[Event]:
        here = list(self._ring.window(n, end - self._slots, end))
        there = list(self._ring.window(0, end - self._slots, end))
        ladder = self._ladders[n]
        if ladder is None or min(len(here), len(there)) < self._needed:
            return []
        self._filled = min(len(here), len(there))
        x = round(aggregate("mean", here) - aggregate("mean", there), 6)
        return ladder.feed(end * self._slot_ms - OFFSET_MS, x, now_ms)

    # -- state

    def owns(self, name: str) -> bool:
        return name in self._numbers

    def has(self, name: str) -> bool:
        return name in self._numbers

    def clock_stepped(self, delta_ms: int) -> None:
        super().clock_stepped(delta_ms)
        slots = round(delta_ms / self._slot_ms)
        self._ring.shift(slots)
        # Windows end at multiples of their length, before and after.
        whole = self._slots
        self._judged = [end if end < 0 else (end + slots) // whole * whole for end in self._judged]

    def save(self) -> dict[str, Any]:
        return {
            device: [self._ring.save(n), self._judged[n], ladder.save() if (ladder := self._ladders[n]) else None]
            for device, n in self._numbers.items()
            if self._ring.head[n] >= 0
        }

    def load(self, name: str, state: Any) -> None:
        n = self._numbers[name]
        self._ring.load(n, state[0])
        self._judged[n] = state[1]
        ladder = self._ladders[n]
        if ladder is not None and state[2] is not None and not ladder.load(state[2]):
            self.note(name, "levels changed, running holds begin anew")
