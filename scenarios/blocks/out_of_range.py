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
from scenarios.blocks.rows import Bools, grown, places
from scenarios.blocks.threshold import SLACK

#: Samples in a row that must agree with each other before a new level is believed.
SETTLED = 3


class OutOfRangeRule(Rule, frozen=True, kw_only=True, tag="out_of_range"):
    """On every point of every device of the pack (role "*"). ``jumps``: point -> greatest step between two samples.
    ``clear_n``: good samples in a row that end it."""

    jumps: Mapping[str, Limit] = {}
    clear_n: Annotated[int, msgspec.Meta(ge=1)] = 3


class _Series:
    """One series with an open alarm or a strange new level."""

    __slots__ = ("alarm", "fine", "strange_n", "strange_x")

    def __init__(self, alarm: Alarm) -> None:
        self.alarm = alarm
        self.fine = 0  # good samples in a row while the alarm is open
        self.strange_n = 0  # samples in a row that agree with each other and not with what came before
        self.strange_x = 0.0

    @property
    def busy(self) -> bool:
        return self.alarm.rank > 0 or self.strange_n > 0


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
        # Of series whose steps are watched: the last sample taken for real, and how long it may be compared with.
        self._watched: Bools = np.zeros(0, dtype=np.bool_)
        self._x: Float64s = np.zeros(0)
        self._x_ms: Int64s = np.zeros(0, dtype=np.int64)
        self._span_ms: Int64s = np.zeros(0, dtype=np.int64)
        self._busy: Bools = np.zeros(0, dtype=np.bool_)
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
        self._watched = grown(self._watched, size, False)
        self._x = grown(self._x, size, 0.0)
        self._x_ms = grown(self._x_ms, size, 0)
        self._span_ms = grown(self._span_ms, size, 0)
        self._busy = grown(self._busy, size, False)
        self._mark = grown(self._mark, size, False)

    def bind(self, index: int, info: SeriesInfo) -> None:
        self.reserve(index + 1)
        low, high = device_types.load(self._types[info.device]).point(info.point).range
        self._low[index], self._high[index] = low - SLACK, high + SLACK
        if info.point in self.rule.jumps:
            self._step[index] = self.rule.jumps[info.point].value + SLACK
            self._watched[index] = True
            self._span_ms[index] = self._gap_ms[info.device]
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
        look = outside | self._busy[series]
        self._look_at_steps(series, ts_ms, values, unique, look)
        events: list[tuple[int, Event]] = []
        found = places(look)
        if not found.size:
            return outside, events
        suspect = outside.copy()
        for i, s, ts, x in zip(
            found.tolist(), series[found].tolist(), ts_ms[found].tolist(), values[found].tolist(), strict=True
        ):
            bad = bool(outside[i])
            state = self._state(s)
            code = "range"
            if not bad and self._watched[s]:
                bad = self._jumps(s, state, ts, x)
                code = "jump"
            suspect[i] = bad
            events += [(i, event) for event in self._judge(s, state, bad, code, ts, x, now_ms)]
            self._busy[s] = state.busy
        return suspect, events

    def _look_at_steps(self, series: Int32s, ts_ms: Int64s, values: Float64s, unique: bool, look: Bools) -> None:
        """Add to ``look`` every row of a series that steps too far; take the others' samples as real."""
        if not unique and look.any():
            # Once one sample matters, so do all of that series in this batch.
            names = series[look]
            self._mark[names] = True
            look |= self._mark[series]
            self._mark[names] = False
        mine = places(self._watched[series] & ~look)
        if not mine.size:
            return
        s = series[mine]
        if not unique:
            order = np.argsort(s, kind="stable")
            mine, s = mine[order], s[order]
        x, ts = values[mine], ts_ms[mine]
        before_x, before_ms = self._x[s], self._x_ms[s]
        if not unique:
            again = places(s[1:] == s[:-1]) + 1
            before_x[again], before_ms[again] = x[again - 1], ts[again - 1]
        far = (np.abs(x - before_x) > self._step[s]) & (ts - before_ms <= self._span_ms[s])
        if far.any():
            names = s[far]
            self._mark[names] = True
            hot = self._mark[s]
            self._mark[names] = False
            look[mine[hot]] = True
            s, x, ts = s[~hot], x[~hot], ts[~hot]
        self._x[s], self._x_ms[s] = x, ts

    def _jumps(self, s: int, state: _Series, ts_ms: int, x: float) -> bool:
        known = ts_ms - self._x_ms[s] <= self._span_ms[s]
        if known and abs(x - self._x[s]) > self._step[s]:
            near = state.strange_n > 0 and abs(x - state.strange_x) <= self._step[s]
            state.strange_n = state.strange_n + 1 if near else 1
            state.strange_x = x
            if state.strange_n < SETTLED:
                return True
        state.strange_n = 0
        self._x[s], self._x_ms[s] = x, ts_ms
        return False

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
            return state.alarm.reach(1, ts_ms, ts_ms, now_ms, values)
        if not state.alarm.rank:
            return []
        state.fine += 1
        if state.fine < self.rule.clear_n:
            return []
        return state.alarm.clear(ts_ms, now_ms, {"code": "ok", "detail": f"{x:.6g}"})

    # -- state

    def has(self, name: str) -> bool:
        return name in self._index

    def save(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, i in self._index.items():
            state = self._series.get(i)
            if self._x_ms[i] or (state is not None and state.busy):
                busy = [state.alarm.save(), state.fine, state.strange_n, state.strange_x] if state is not None else None
                found[name] = [float(self._x[i]), int(self._x_ms[i]), busy]
        return found

    def load(self, name: str, state: Any) -> None:
        i = self._index[name]
        self._x[i], self._x_ms[i] = state[0], state[1]
        if state[2] is not None:
            series = self._state(i)
            series.alarm.load(state[2][0])
            series.fine, series.strange_n, series.strange_x = state[2][1:]
            self._busy[i] = series.busy
