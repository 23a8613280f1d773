"""Outside the physically possible, or an impossible jump: the reading becomes suspect and no alarm rule sees it.

The ranges are those of the device types, so they are written once. A jump that stays is real after all: when the
third sample in a row agrees with the new level, it is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np

from protocols import devices as device_types
from protocols.core.model import Event, Float64s, Int32s, Int64s, SeriesInfo
from scenarios.blocks.alarm import Alarm, RuleContext
from scenarios.blocks.operator import Operator, Site
from scenarios.blocks.params import Limit, Rule
from scenarios.blocks.payload import Value
from scenarios.blocks.rows import Bools, grown
from scenarios.blocks.threshold import SLACK

#: Samples in a row that must agree with each other before a new level is believed.
SETTLED = 3


class OutOfRangeRule(Rule, frozen=True, kw_only=True, tag="out_of_range"):
    """On every point of every device of the pack (role "*"). ``jumps``: point -> greatest step between two samples.
    ``clear_n``: good samples in a row that end it."""

    jumps: Mapping[str, Limit] = {}
    clear_n: Annotated[int, msgspec.Meta(ge=1)] = 3


class _Series:
    """One series with an open alarm or a watched step."""

    __slots__ = ("alarm", "fine", "last_ms", "last_x", "strange_n", "strange_x")

    def __init__(self, alarm: Alarm) -> None:
        self.alarm = alarm
        self.fine = 0
        self.last_ms = -1
        self.last_x = 0.0
        self.strange_n = 0
        self.strange_x = 0.0

    def jumps(self, ts_ms: int, x: float, step: float, gap_ms: int) -> bool:
        known = self.last_ms >= 0 and ts_ms - self.last_ms <= gap_ms
        if known and abs(x - self.last_x) > step:
            near = self.strange_n > 0 and abs(x - self.strange_x) <= step
            self.strange_n = self.strange_n + 1 if near else 1
            self.strange_x = x
            if self.strange_n < SETTLED:
                return True
        self.strange_n = 0
        self.last_ms, self.last_x = ts_ms, x
        return False


class OutOfRangeOperator(Operator):
    rule: OutOfRangeRule

    def __init__(self, rule: OutOfRangeRule, context: RuleContext, site: Site) -> None:
        context.quality = "suspect"
        super().__init__(rule, context, tuple(site.types))
        self._types = site.types
        self._gap_ms = site.gaps_ms()
        self._low: Float64s = np.full(0, -np.inf)
        self._high: Float64s = np.full(0, np.inf)
        self._step: Float64s = np.full(0, np.inf)
        self._open: Bools = np.zeros(0, dtype=np.bool_)
        self._mark: Bools = np.zeros(0, dtype=np.bool_)
        self._series: dict[int, _Series] = {}
        self._index: dict[str, int] = {}
        self._info: dict[int, SeriesInfo] = {}

    def wants(self, info: SeriesInfo) -> bool:
        if info.device not in self.devices:
            return False
        known = device_types.load(self._types[info.device])
        return any(point.name == info.point for point in known.points)

    def reserve(self, size: int) -> None:
        self._low = grown(self._low, size, -np.inf)
        self._high = grown(self._high, size, np.inf)
        self._step = grown(self._step, size, np.inf)
        self._open = grown(self._open, size, False)
        self._mark = grown(self._mark, size, False)

    def bind(self, index: int, info: SeriesInfo) -> None:
        self.reserve(index + 1)
        low, high = device_types.load(self._types[info.device]).point(info.point).range
        self._low[index], self._high[index] = low - SLACK, high + SLACK
        if info.point in self.rule.jumps:
            self._step[index] = self.rule.jumps[info.point].value + SLACK
        name = f"{info.device}/{info.point}"
        self._index[name] = index
        self._info[index] = info
        self.claim(name)

    def outside(self, series: Int32s, values: Float64s) -> Bools:
        """Which of these values cannot be, whatever came before."""
        found: Bools = (values < self._low[series]) | (values > self._high[series])
        return found

    def screen(
        self, series: Int32s, ts_ms: Int64s, values: Float64s, unique: bool, now_ms: int
    ) -> tuple[Bools, list[tuple[int, Event]]]:
        """For samples in time order: which are suspect, and events by position."""
        outside = self.outside(series, values)
        look = outside | self._open[series] | np.isfinite(self._step[series])
        events: list[tuple[int, Event]] = []
        found = np.flatnonzero(look)
        if not found.size:
            return outside, events
        if not unique:
            names = series[found]
            self._mark[names] = True
            found = np.flatnonzero(self._mark[series])
            self._mark[names] = False
        suspect = outside.copy()
        for i, s, ts, x in zip(
            found.tolist(), series[found].tolist(), ts_ms[found].tolist(), values[found].tolist(), strict=True
        ):
            bad = bool(outside[i])
            state = self._state(s)
            code = "range"
            if not bad and self._step[s] < np.inf:
                bad = state.jumps(ts, x, float(self._step[s]), self._gap_ms[self._info[s].device])
                code = "jump"
            suspect[i] = bad
            events += [(i, event) for event in self._judge(s, state, bad, code, ts, x, now_ms)]
        return suspect, events

    def _state(self, series: int) -> _Series:
        state = self._series.get(series)
        if state is None:
            info = self._info[series]
            state = self._series[series] = _Series(Alarm(self.context, info.device, info.point))
        return state

    def _judge(self, s: int, state: _Series, bad: bool, code: str, ts_ms: int, x: float, now_ms: int) -> list[Event]:
        if bad:
            state.fine = 0
            limits = f"{self._low[s]:.6g}..{self._high[s]:.6g}" if code == "range" else f"step {self._step[s]:.6g}"
            values: dict[str, Value] = {"code": code, "detail": f"{x:.6g} not within {limits}", "since": ts_ms}
            self._open[s] = True
            return state.alarm.reach(1, ts_ms, ts_ms, now_ms, values)
        if not state.alarm.rank:
            return []
        state.fine += 1
        if state.fine < self.rule.clear_n:
            return []
        self._open[s] = False
        return state.alarm.clear(ts_ms, now_ms, {"code": "ok", "detail": f"{x:.6g}"})

    # -- state

    def has(self, name: str) -> bool:
        return name in self._index

    def save(self) -> dict[str, Any]:
        return {
            name: [s.alarm.save(), s.fine, s.last_ms, s.last_x, s.strange_n, s.strange_x]
            for name, index in self._index.items()
            if (s := self._series.get(index)) is not None
        }

    def load(self, name: str, state: Any) -> None:
        series = self._state(self._index[name])
        series.alarm.load(state[0])
        series.fine, series.last_ms, series.last_x, series.strange_n, series.strange_x = state[1:]
        self._open[self._index[name]] = series.alarm.rank > 0
