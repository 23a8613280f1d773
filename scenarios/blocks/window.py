"""Aggregate over a time window, then levels: 20-minute LAeq, hourly PM10.

    samples ─▶ slots ─▶ window closes: the series' own time has passed its end
                          ├─ >= 75 % filled ─▶ aggregate ─▶ levels
                          └─ else no verdict, never zero

A mean cannot pass a limit unless some sample did. So series whose samples all stay below it are only summed up, in
NumPy; Python looks at a series from its first sample beyond the limit until that sample has left every window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import repeat
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from protocols.core.model import Event, Float64s, Int32s, Int64s, SeriesInfo
from scenarios.blocks.alarm import Alarm, RuleContext
from scenarios.blocks.ladder import Ladder, LadderSpec, compile_levels
from scenarios.blocks.local_time import OFFSET_MS, is_night
from scenarios.blocks.operator import PointOperator, Site
from scenarios.blocks.params import PointRule, Positive
from scenarios.blocks.payload import Value
from scenarios.blocks.rows import Bools, Rows, grown, places
from scenarios.blocks.slots import SlotRing
from scenarios.blocks.threshold import SLACK

Index = NDArray[np.intp]
Stat = Literal["mean", "energy_mean", "max"]


class WindowRule(PointRule, frozen=True, kw_only=True, tag="window"):
    """``every_s`` equal to ``window_s``: tumbling, aligned to local time; smaller: sliding in such steps."""

    stat: Stat
    window_s: Positive
    every_s: Positive
    min_good_pct: float = 75.0


def slot_count(length_s: float, interval_s: float) -> int:
    """Slots in a window. Raises ValueError if it is not a whole number of reporting intervals."""
    count = length_s / interval_s
    if count < 1 or abs(count - round(count)) > 1e-9:
        raise ValueError(f"{length_s:g} s is not a whole number of reporting intervals of {interval_s:g} s")
    return round(count)


def to_additive(stat: Stat, values: Float64s) -> Float64s:
    """What slots add up: sound energy for dB, else the value itself."""
    return np.power(10.0, values / 10.0) if stat == "energy_mean" else values


def aggregate(stat: Stat, slots: Sequence[tuple[int, float, int]]) -> float:
    """Mean of slot means (or the greatest); rounded so that a level of exactly the limit does not miss it by an ulp."""
    if stat == "max":
        return max(value for _, value, _ in slots)
    mean = sum(value / count for _, value, count in slots) / len(slots)
    return round(10.0 * math.log10(mean), 6) if stat == "energy_mean" else round(mean, 6)


class WindowOperator(PointOperator):
    rule: WindowRule

    def __init__(self, rule: WindowRule, context: RuleContext, site: Site) -> None:
        super().__init__(rule, context, site.roles.get(rule.role, ()), rule.point)
        interval_s = site.interval_s[rule.role]
        if rule.direction == "low" and rule.stat == "max":
            raise ValueError("a low limit on a maximum is not built")
        self._slots = slot_count(rule.window_s, interval_s)
        self._every = slot_count(rule.every_s, interval_s)
        self._slot_ms = round(interval_s * 1000)
        self._needed = math.ceil(self._slots * rule.min_good_pct / 100.0 - 1e-9)
        self.shape = f"window {rule.stat} {self._slots} x {self._slot_ms} ms"
        self._spec: LadderSpec = compile_levels(
            rule.levels, rule.clear, low=rule.direction == "low", gap_ms=round(3000 * rule.every_s)
        )
        self._ring = SlotRing(self._slots, "max" if rule.stat == "max" else "sum")
        self._ladders: list[Ladder] = []
        self._hot_slot: Int64s = np.full(0, -1, dtype=np.int64)  # newest window end a sample beyond the limit reaches
        self._busy: Bools = np.zeros(0, dtype=np.bool_)
        self._mark: Bools = np.zeros(0, dtype=np.bool_)
        self._filled = 0
        self._looked = 0
        self._no_verdict = 0

    def create(self, number: int, index: int, info: SeriesInfo) -> None:
        def describe(x: float, limit: float) -> dict[str, Value]:
            return {
                "q": self.point,
                "x": round(x, info.decimals + 1),
                "unit": self.rule.unit,
                "limit": limit,
                "win_s": self.rule.window_s,
                "std": self.context.standard,
                "n_good": self._filled,
            }

        self._ring.reserve(number + 1)
        self._hot_slot = grown(self._hot_slot, number + 1, -1)
        self._busy = grown(self._busy, number + 1, False)
        self._mark = grown(self._mark, number + 1, False)
        self._ladders.append(Ladder(self._spec, Alarm(self.context, info.device, self.point), describe))

    def step(self, rows: Rows) -> None:
        local = self.local[rows.series]
        mine = places(local >= 0)
        late = self._late(rows)
        if not mine.size and not late.size:
            return
        number = local[mine]
        ts_ms, values = rows.ts_ms[mine], rows.values[mine]
        slot = (ts_ms + OFFSET_MS) // self._slot_ms
        additive = to_additive(self.rule.stat, values)

        lowest = self._spec.lowest(False) - SLACK
        beyond = self._spec.sign * values >= (
            np.where(rows.night()[mine], self._spec.lowest(True) - SLACK, lowest) if self._spec.periods else lowest
        )
        hot = self._busy[number] | (self._ring.head[number] < self._hot_slot[number]) | beyond
        marked = np.concatenate((number[hot], self.local[rows.late_series[late]]))
        if not marked.size:
            self._ring.add_many(number, slot, additive, unique=rows.unique)
            return
        self._mark[marked] = True
        hot = self._mark[number]
        cold = ~hot
        self._ring.add_many(number[cold], slot[cold], additive[cold], unique=rows.unique)
        self._look(rows, mine[hot], number[hot], slot[hot], additive[hot], beyond[hot], late)
        self._mark[marked] = False

    def _late(self, rows: Rows) -> Index:
        """Late samples whose slot may still be open."""
        if not rows.late_series.size:
            return np.zeros(0, dtype=np.intp)
        mine = places(self.local[rows.late_series] >= 0)
        slot = (rows.late_ts_ms[mine] + OFFSET_MS) // self._slot_ms
        return mine[slot > self._ring.head[self.local[rows.late_series[mine]]] - self._slots]

    def _look(
        self, rows: Rows, mine: Index, number: Int32s, slot: Int64s, additive: Float64s, beyond: Bools, late: Index
    ) -> None:
        """Sample by sample, in the order of the batch."""
        self._looked += mine.size + late.size
        work = list(
            zip(
                rows.row[mine].tolist(),
                number.tolist(),
                slot.tolist(),
                additive.tolist(),
                beyond.tolist(),
                repeat(False),
                strict=False,
            )
        )
        if late.size:
            values = rows.late_values[late]
            lowest = min(self._spec.lowest(False), self._spec.lowest(True)) - SLACK
            work += zip(
                rows.late_row[late].tolist(),
                self.local[rows.late_series[late]].tolist(),
                ((rows.late_ts_ms[late] + OFFSET_MS) // self._slot_ms).tolist(),
                to_additive(self.rule.stat, values).tolist(),
                (self._spec.sign * values >= lowest).tolist(),
                repeat(True),
                strict=False,
            )
            work.sort()
        for row, n, s, value, over, is_late in work:
            if is_late:
                if self._ring.fill(n, s, value) and over:
                    self._hot_slot[n] = max(int(self._hot_slot[n]), s + self._slots)
                continue
            rows.put(row, self._close(n, s, rows.now_ms))
            self._ring.add(n, s, value)
            if over:
                self._hot_slot[n] = s + self._slots

    def _close(self, n: int, slot: int, now_ms: int) -> list[Event]:
        """The series' time has reached ``slot``: judge the windows that ended since."""
        head = int(self._ring.head[n])
        if head < 0 or slot <= head:
            return []
        events: list[Event] = []
        first_end = (head // self._every + 1) * self._every
        for end in range(first_end, min(slot, head + self._slots) + 1, self._every):
            events += self._judge(n, end, now_ms)
        self._busy[n] = self._ladders[n].busy
        return events

    def _judge(self, n: int, end: int, now_ms: int) -> list[Event]:
        start_ms = (end - self._slots) * self._slot_ms - OFFSET_MS
        end_ms = end * self._slot_ms - OFFSET_MS
        night = is_night(start_ms)
        if self._spec.periods and night != is_night(end_ms - 1):
            return []  # half day, half night: no limit applies to such a window
        filled = list(self._ring.window(n, end - self._slots, end))
        if len(filled) < self._needed:
            self._no_verdict += 1
            return []
        self._filled = len(filled)
        return self._ladders[n].feed(end_ms, aggregate(self.rule.stat, filled), now_ms, night)

    def clock_stepped(self, delta_ms: int) -> None:
        super().clock_stepped(delta_ms)
        slots = round(delta_ms / self._slot_ms)
        self._ring.shift(slots)
        self._hot_slot[self._hot_slot >= 0] += slots

    def counters(self) -> dict[str, int]:
        return {"rows_looked_at": self._looked, "windows_no_verdict": self._no_verdict}

    def _limits(self) -> list[float]:
        return [self._spec.lowest(False), self._spec.lowest(True)]

    def save(self) -> dict[str, Any]:
        return {
            device: [self._ring.save(n), int(self._hot_slot[n]), self._ladders[n].save(), self._limits()]
            for device, n in self.numbers.items()
            if self._ring.head[n] >= 0
        }

    def load(self, name: str, state: Any) -> None:
        n = self.numbers[name]
        self._ring.load(n, state[0])
        # With other limits, samples that did not matter then may matter now: look at every window that holds them.
        same = list(state[3]) == self._limits()
        self._hot_slot[n] = state[1] if same else int(self._ring.head[n]) + self._slots
        if not self._ladders[n].load(state[2]):
            self.note(name, "levels changed, running holds begin anew")
        self._busy[n] = self._ladders[n].busy
