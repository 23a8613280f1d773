"""A flat line on a quantity that always moves a little: the sensor, not the world, has come to rest."""

from __future__ import annotations

from typing import Any

import numpy as np

from protocols import devices as device_types
from protocols.core.model import LEVEL_RANK, Event, Float64s, Int64s, SeriesInfo
from protocols.vocabulary import event_types
from scenarios.blocks.alarm import Alarm, RuleContext
from scenarios.blocks.operator import Operator, Site
from scenarios.blocks.params import Positive, Rule
from scenarios.blocks.payload import Value
from scenarios.blocks.rows import Bools, Rows, grown, places


class FrozenRule(Rule, frozen=True, kw_only=True, tag="frozen"):
    """On every point the device types call noisy, of every device of the pack (role "*")."""

    flat_s: Positive = 7200.0


class FrozenOperator(Operator):
    rule: FrozenRule

    def __init__(self, rule: FrozenRule, context: RuleContext, site: Site) -> None:
        super().__init__(rule, context, tuple(site.types))
        self._types = site.types
        self._gaps = site.gaps_ms()
        self._flat_ms = round(rule.flat_s * 1000)
        self._rank = LEVEL_RANK[event_types()[rule.event].level] + 1
        # By series number. A series that is not ours has a gap of -1 and is left out.
        self._gap_ms: Int64s = np.full(0, -1, dtype=np.int64)
        self._x: Float64s = np.full(0, np.nan)
        self._last_ms: Int64s = np.zeros(0, dtype=np.int64)
        self._since_ms: Int64s = np.zeros(0, dtype=np.int64)
        self._open: Bools = np.zeros(0, dtype=np.bool_)
        self._mark: Bools = np.zeros(0, dtype=np.bool_)
        self._alarms: dict[int, Alarm] = {}
        self._index: dict[str, int] = {}
        self._looked = 0

    def wants(self, info: SeriesInfo) -> bool:
        if info.device not in self.devices:
            return False
        points = device_types.load(self._types[info.device]).points
        return any(point.name == info.point and point.noisy for point in points)

    def reserve(self, size: int) -> None:
        self._gap_ms = grown(self._gap_ms, size, -1)
        self._x = grown(self._x, size, np.nan)
        self._last_ms = grown(self._last_ms, size, 0)
        self._since_ms = grown(self._since_ms, size, 0)
        self._open = grown(self._open, size, False)
        self._mark = grown(self._mark, size, False)

    def bind(self, index: int, info: SeriesInfo) -> None:
        self.reserve(index + 1)
        self._gap_ms[index] = self._gaps[info.device]
        self._alarms[index] = Alarm(self.context, info.device, info.point)
        name = f"{info.device}/{info.point}"
        self._index[name] = index
        self.claim(name)

    def step(self, rows: Rows) -> None:
        mine = places(self._gap_ms[rows.series] >= 0)
        if not mine.size:
            return
        s = rows.series[mine]
        if not rows.unique:  # bring each series together; a stable sort keeps its time order
            order = np.argsort(s, kind="stable")
            mine, s = mine[order], s[order]
        ts, x = rows.ts_ms[mine], rows.values[mine]
        before_x, before_ms = self._x[s], self._last_ms[s]
        if not rows.unique:
            again = places(s[1:] == s[:-1]) + 1
            before_x[again], before_ms[again] = x[again - 1], ts[again - 1]
        moved = (x != before_x) | (ts - before_ms > self._gap_ms[s])
        since = np.where(moved, ts, self._since_ms[s])
        if not rows.unique:
            since = self._carried(s, ts, moved)
        self._x[s], self._last_ms[s], self._since_ms[s] = x, ts, since
        flat = ts - since >= self._flat_ms
        hot = flat | self._open[s]
        if not hot.any():
            return
        names = s[hot]
        self._mark[names] = True
        found = places(self._mark[s] & (flat | moved))
        self._mark[names] = False
        self._looked += found.size
        for i in found.tolist():
            events = self._judge(int(s[i]), bool(flat[i]), int(since[i]), int(ts[i]), float(x[i]), rows.now_ms)
            rows.put(int(rows.row[mine[i]]), events)

    def _carried(self, s: np.ndarray[Any, Any], ts: Int64s, moved: Bools) -> Int64s:
        """Since when each sample's value has stood, within runs of equal series."""
        place = np.arange(s.size)
        starts = np.concatenate(([True], s[1:] != s[:-1]))
        first = np.maximum.accumulate(np.where(starts, place, 0))
        newest = np.maximum.accumulate(np.where(moved, place, -1))
        since: Int64s = np.where(newest >= first, ts[newest], self._since_ms[s])
        return since

    def _judge(self, s: int, flat: bool, since_ms: int, ts_ms: int, x: float, now_ms: int) -> list[Event]:
        alarm = self._alarms[s]
        if flat:
            values: dict[str, Value] = {"code": "flat", "detail": f"{x:.6g}", "since": since_ms}
            events = alarm.reach(self._rank, since_ms, ts_ms, now_ms, values)
        else:
            events = alarm.clear(ts_ms, now_ms, {"code": "ok", "detail": f"{x:.6g}"})
        self._open[s] = alarm.rank > 0
        return events

    def counters(self) -> dict[str, int]:
        return {"rows_looked_at": self._looked}

    # -- state

    def has(self, name: str) -> bool:
        return name in self._index

    def save(self) -> dict[str, Any]:
        return {
            name: [float(self._x[i]), int(self._last_ms[i]), int(self._since_ms[i]), self._alarms[i].save()]
            for name, i in self._index.items()
            if self._last_ms[i]
        }

    def load(self, name: str, state: Any) -> None:
        i = self._index[name]
        self._x[i], self._last_ms[i], self._since_ms[i] = state[:3]
        self._alarms[i].load(state[3])
        self._open[i] = self._alarms[i].rank > 0
