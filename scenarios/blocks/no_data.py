"""A device that has said nothing for three reporting intervals (cloud: the edge knows of its own lines sooner).

Event time decides: a gateway that drains its backlog after a night offline must not flap each device once per batch.
So an outage ends when data come that are themselves fresh.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np

from protocols import devices as device_types
from protocols.core.model import LEVEL_RANK, Event, Int32s, Int64s, SeriesInfo
from protocols.vocabulary import event_types
from scenarios.blocks.alarm import Alarm, RuleContext
from scenarios.blocks.operator import Operator, Site
from scenarios.blocks.params import Rule
from scenarios.blocks.rows import Bools, Rows, grown, places


class NoDataRule(Rule, frozen=True, kw_only=True, tag="no_data"):
    """On every device of the pack that has points (role "*")."""

    intervals: Annotated[int, msgspec.Meta(ge=1)] = 3


class NoDataOperator(Operator):
    rule: NoDataRule

    def __init__(self, rule: NoDataRule, context: RuleContext, site: Site) -> None:
        super().__init__(rule, context, tuple(site.types))
        self._names = list(site.types)
        self._numbers = {device: n for n, device in enumerate(self._names)}
        self._rank = LEVEL_RANK[event_types()[rule.event].level] + 1
        size = len(self._names)
        self._local: Int32s = np.full(0, -1, dtype=np.int32)
        self._last_ms: Int64s = np.full(size, -1, dtype=np.int64)
        self._open: Bools = np.zeros(size, dtype=np.bool_)
        self._limit_ms: Int64s = np.zeros(size, dtype=np.int64)
        for role, members in site.roles.items():
            for device in members:
                if device in self._numbers:
                    # Report by exception sends a steady value only once a snapshot interval.
                    snapshot_s = min(point.snapshot_s for point in device_types.load(site.types[device]).points)
                    interval_s = max(site.interval_s[role], snapshot_s)
                    self._limit_ms[self._numbers[device]] = round(rule.intervals * interval_s * 1000)
        self._alarms = [Alarm(context, device) for device in self._names]
        self._born_ms = -1  # devices never heard of are counted from the first tick

    def wants(self, info: SeriesInfo) -> bool:
        return info.device in self.devices

    def reserve(self, size: int) -> None:
        self._local = grown(self._local, size, -1)

    def bind(self, index: int, info: SeriesInfo) -> None:
        self.reserve(index + 1)
        self._local[index] = self._numbers[info.device]

    def step(self, rows: Rows) -> None:
        local = self._local[rows.alive_series]
        mine = places(local >= 0)
        if not mine.size:
            return
        number, ts = local[mine], rows.alive_ts_ms[mine]
        if self._open.any():
            back = self._open[number] & (ts + self._limit_ms[number] >= rows.now_ms)
            for i in places(back).tolist():
                n = int(number[i])
                rows.put(int(rows.alive_row[mine[i]]), self._alarms[n].clear(int(ts[i]), rows.now_ms, {"code": "ok"}))
                self._open[n] = False
        np.maximum.at(self._last_ms, number, ts)

    def tick(self, now_ms: int) -> list[Event]:
        if self._born_ms < 0:
            self._born_ms = now_ms
        heard = np.where(self._last_ms >= 0, self._last_ms, self._born_ms)
        events: list[Event] = []
        for n in places(~self._open & (heard + self._limit_ms < now_ms)).tolist():
            onset_ms = int(heard[n] + self._limit_ms[n])
            seen = int(self._last_ms[n])
            values = {"code": "no_data", "since": seen if seen >= 0 else None, "n": self.rule.intervals}
            events += self._alarms[n].reach(self._rank, onset_ms, onset_ms, now_ms, values)
            self._open[n] = True
        return events

    def clock_stepped(self, delta_ms: int) -> None:
        super().clock_stepped(delta_ms)
        if self._born_ms >= 0:
            self._born_ms += delta_ms

    # -- state

    def has(self, name: str) -> bool:
        return name in self._numbers

    def save(self) -> dict[str, Any]:
        return {
            device: [int(self._last_ms[n]), self._alarms[n].save()]
            for device, n in self._numbers.items()
            if self._last_ms[n] >= 0 or self._open[n]
        }

    def load(self, name: str, state: Any) -> None:
        n = self._numbers[name]
        self._last_ms[n] = state[0]
        self._alarms[n].load(state[1])
        self._open[n] = self._alarms[n].rank > 0
