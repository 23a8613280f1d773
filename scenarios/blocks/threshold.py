"""Threshold: a value beyond a limit, long enough or often enough.

Hot path: one compare of the batch against the lowest limit of each series. While a hold runs or an alarm is open the
series' entry is lowered to -inf, so the same compare also picks every sample that could end it. Everything else never
leaves NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from protocols.core.model import Event, Float64s, SeriesInfo
from scenarios.blocks.alarm import Alarm, RuleContext
from scenarios.blocks.condition import READING_NAMES, Condition
from scenarios.blocks.ladder import NEVER, Ladder, compile_levels
from scenarios.blocks.local_time import hour_of_day, weekday
from scenarios.blocks.operator import PointOperator, Site
from scenarios.blocks.params import PointRule
from scenarios.blocks.payload import Value
from scenarios.blocks.rows import Bools, Rows, Rows32, grown, places

#: Candidates are compared a hair below the limit: 550 * 0.1 need not be 55.0; the ladder decides on rounded values.
SLACK = 1e-9


class ThresholdRule(PointRule, frozen=True, kw_only=True, tag="threshold"):
    """``where``: condition (CEL) on the sample: x, device, point, hour, weekday."""

    where: str = ""


class ThresholdOperator(PointOperator):
    rule: ThresholdRule

    def __init__(self, rule: ThresholdRule, context: RuleContext, site: Site) -> None:
        super().__init__(rule, context, site.roles.get(rule.role, ()), rule.point)
        self._spec = compile_levels(rule.levels, rule.clear, low=rule.direction == "low", gap_ms=site.gap_ms(rule.role))
        self._where = Condition(rule.where, READING_NAMES) if rule.where else None
        self._ladders: list[Ladder] = []
        # By series number: what a (signed) sample must reach to matter. Night has a copy where it differs.
        self._day: Float64s = np.full(0, NEVER)
        self._night: Float64s = np.full(0, NEVER)
        self._mark: Bools = np.zeros(0, dtype=np.bool_)
        self._candidates = 0

    def reserve(self, size: int) -> None:
        super().reserve(size)
        self._day = grown(self._day, size, NEVER)
        self._night = grown(self._night, size, NEVER)
        self._mark = grown(self._mark, size, False)

    def create(self, number: int, index: int, info: SeriesInfo) -> None:
        def describe(x: float, limit: float) -> dict[str, Value]:
            return {
                "q": self.point,
                "x": round(x, info.decimals + 1),
                "unit": self.rule.unit,
                "limit": limit,
                "std": self.context.standard,
            }

        self._ladders.append(Ladder(self._spec, Alarm(self.context, info.device, self.point), describe))
        self._arm(number, index)

    def _arm(self, number: int, index: int) -> None:
        if self._ladders[number].busy:
            self._day[index] = self._night[index] = -np.inf
        else:
            self._day[index] = self._spec.lowest(False) - SLACK
            self._night[index] = self._spec.lowest(True) - SLACK

    def step(self, rows: Rows) -> None:
        if not self._ladders:
            return
        found = self._find(rows)
        if not found.size:
            return
        self._candidates += found.size
        series, local = rows.series[found], self.local
        touched: dict[int, int] = {}
        for i, s, ts_ms, x in zip(
            found.tolist(), series.tolist(), rows.ts_ms[found].tolist(), rows.values[found].tolist(), strict=True
        ):
            number = int(local[s])
            if self._where is not None and not self._holds(number, ts_ms, x):
                continue
            touched[number] = s
            rows.put(int(rows.row[i]), self._ladders[number].feed(ts_ms, x, rows.now_ms))
        for number, s in touched.items():
            self._arm(number, s)

    def _find(self, rows: Rows) -> Rows32:
        values = rows.values if self._spec.sign > 0 else -rows.values
        limits = self._day[rows.series]
        if self._spec.periods:
            night = rows.night()
            if night.any():
                limits = np.where(night, self._night[rows.series], limits)
        found = places(values >= limits)
        if found.size and not rows.unique:
            # Once one sample matters, so do all later ones of that series in this batch.
            names = rows.series[found]
            self._mark[names] = True
            found = places(self._mark[rows.series])
            self._mark[names] = False
        return found

    def _holds(self, number: int, ts_ms: int, x: float) -> bool:
        assert self._where is not None  # noqa: S101
        alarm = self._ladders[number].alarm
        return self._where.holds(
            {
                "x": x,
                "device": alarm.device,
                "point": self.point,
                "hour": hour_of_day(ts_ms),
                "weekday": weekday(ts_ms),
            }
        )

    def tick(self, now_ms: int) -> list[Event]:
        events: list[Event] = []
        for index in places(self._day == -np.inf).tolist():
            number = int(self.local[index])
            events += self._ladders[number].run_out(now_ms, now_ms)
            self._arm(number, index)
        return events

    def counters(self) -> dict[str, int]:
        failed = self._where.failures if self._where is not None else 0
        return {"rows_looked_at": self._candidates, "conditions_failed": failed}

    def save(self) -> dict[str, Any]:
        ladders = self._ladders
        return {device: ladders[n].save() for device, n in self.numbers.items() if ladders[n].busy}

    def load(self, name: str, state: Any) -> None:
        number = self.numbers[name]
        if not self._ladders[number].load(state):
            self.notes.append(
                f"{self.context.scenario}:{self.rule.id}: {name}: levels changed, running holds begin anew"
            )
        self._arm(number, self.series[number])
