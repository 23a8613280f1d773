"""Rate of change: how far a value moved within a window, alone or together with a second point of the device.

    rise = value - least value of the window        fall = greatest value of the window - value
    a burst main: pressure falls by a share while flow rises by a share

The extreme the change was measured from is kept while the alarm is open. Otherwise a burst pipe would count as cured
as soon as the drop leaves the window; now it clears when the pressure has come back.

Hot path: per device one number, an extreme that is certainly not less far away than the window's true one (it only
gets refreshed when a sample looks suspicious against it). One compare against it picks the devices to look at.
"""

from __future__ import annotations

from itertools import repeat
from typing import Any, Literal

import msgspec
import numpy as np

from protocols.core.model import Event, Float64s, Int32s, Int64s, SeriesInfo
from scenarios.blocks.alarm import Alarm, RuleContext
from scenarios.blocks.ladder import Ladder, compile_levels
from scenarios.blocks.operator import Operator, Site
from scenarios.blocks.params import ClearSpec, LevelSpec, Limit, Positive, Rule
from scenarios.blocks.payload import Value
from scenarios.blocks.rows import Bools, Rows, grown, places
from scenarios.blocks.slots import SlotRing
from scenarios.blocks.threshold import SLACK
from scenarios.blocks.window import Index, slot_count

Change = Literal["rise", "fall"]


class Companion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The second point that must move too, within the same window."""

    point: str
    change: Change
    relative: bool = False
    limit: Limit


class RateRule(Rule, frozen=True, kw_only=True, tag="rate"):
    """``relative``: the change in percent of the value it started from, instead of in ``unit``."""

    point: str
    unit: str
    change: Change
    relative: bool = False
    window_s: Positive
    levels: tuple[LevelSpec, ...]
    clear: ClearSpec = ClearSpec()
    companion: Companion | None = None
    kind: str = ""  # word for the event (burst ...)


def moved(change: Change, relative: bool, start: float, value: float) -> float:
    """Signed so that more is worse. A relative change needs something above nothing to start from."""
    far = value - start if change == "rise" else start - value
    if not relative:
        return round(far, 9)
    return round(100.0 * far / start, 9) if start > 0 else 0.0


class _Point:
    """One of the (at most two) points: recent extremes and the newest sample of every device."""

    def __init__(self, name: str, change: Change, relative: bool, slots: int) -> None:
        self.name = name
        self.change: Change = change
        self.relative = relative
        self.ring = SlotRing(slots, "min" if change == "rise" else "max")
        self.local: Int32s = np.full(0, -1, dtype=np.int32)
        self.last_ms: Int64s = np.full(0, -1, dtype=np.int64)
        self.last_x: Float64s = np.zeros(0)

    def reserve(self, devices: int) -> None:
        self.ring.reserve(devices)
        self.last_ms = grown(self.last_ms, devices, -1)
        self.last_x = grown(self.last_x, devices, 0.0)

    def add_many(self, number: Int32s, ts_ms: Int64s, values: Float64s, slot_ms: int, *, unique: bool) -> None:
        if number.size:
            self.ring.add_many(number, ts_ms // slot_ms, values, unique=unique)
            self.last_ms[number] = ts_ms
            self.last_x[number] = values

    def add(self, n: int, ts_ms: int, x: float, slot_ms: int) -> None:
        self.ring.add(n, ts_ms // slot_ms, x)
        self.last_ms[n] = ts_ms
        self.last_x[n] = x

    def start(self, n: int, slot: int) -> float | None:
        """Where the change counts from: the extreme of the window that ends with ``slot``."""
        found = [value for _, value, _ in self.ring.window(n, slot - self.ring.size + 1, slot + 1)]
        if not found:
            return None
        return min(found) if self.change == "rise" else max(found)


class RateOperator(Operator):
    rule: RateRule

    def __init__(self, rule: RateRule, context: RuleContext, site: Site) -> None:
        super().__init__(rule, context, site.roles.get(rule.role, ()))
        interval_s = site.interval_s[rule.role]
        self._slot_ms = round(interval_s * 1000)
        self._gap_ms = site.gap_ms(rule.role)
        # One slot more than the window has intervals: 10 minutes of minute values have 11 ends.
        slots = slot_count(rule.window_s, interval_s) + 1
        self.shape = f"rate {rule.change} {slots} x {self._slot_ms} ms"
        self._spec = compile_levels(rule.levels, rule.clear, low=False, gap_ms=self._gap_ms)
        if self._spec.periods:
            raise ValueError("a rate has no day and night limits")
        self._limit = self._spec.lowest(False) - SLACK
        self._points = [_Point(rule.point, rule.change, rule.relative, slots)]
        if rule.companion is not None:
            self._points.append(_Point(rule.companion.point, rule.companion.change, rule.companion.relative, slots))
        self._numbers: dict[str, int] = {}
        self._ladders: list[Ladder] = []
        self._held: list[float | None] = []  # where an open alarm's change is measured from
        self._waiting: dict[int, tuple[int, float, float]] = {}  # a verdict that waits for the companion's sample
        self._bound: set[tuple[str, str]] = set()
        self._nothing = np.inf if rule.change == "rise" else -np.inf
        self._far: Float64s = np.full(0, self._nothing)
        self._busy: Bools = np.zeros(0, dtype=np.bool_)
        self._mark: Bools = np.zeros(0, dtype=np.bool_)
        self._looked = 0

    # -- binding

    def wants(self, info: SeriesInfo) -> bool:
        return info.device in self.devices and any(info.point == point.name for point in self._points)

    def reserve(self, size: int) -> None:
        for point in self._points:
            point.local = grown(point.local, size, -1)

    def bind(self, index: int, info: SeriesInfo) -> None:
        new = info.device not in self._numbers
        if new:
            self._create(info.device)
        self.reserve(index + 1)
        for point in self._points:
            if point.name == info.point:
                point.local[index] = self._numbers[info.device]
                self._bound.add((info.device, info.point))
        if new:
            self.claim(info.device)

    def _create(self, device: str) -> None:
        n = len(self._ladders)
        self._numbers[device] = n
        for point in self._points:
            point.reserve(n + 1)
        self._far = grown(self._far, n + 1, self._nothing)
        self._busy = grown(self._busy, n + 1, False)
        self._mark = grown(self._mark, n + 1, False)
        self._ladders.append(Ladder(self._spec, Alarm(self.context, device, self.rule.point), self._describe))
        self._held.append(None)

    def _describe(self, x: float, limit: float) -> dict[str, Value]:
        return {
            "q": self.rule.point,
            "kind": self.rule.kind,
            "x": round(x, 3),
            "unit": "%" if self.rule.relative else self.rule.unit,
            "limit": limit,
            "rate": round(x, 3),
            "win_s": self.rule.window_s,
            "std": self.context.standard,
        }

    def missing(self) -> list[str]:
        wanted = {(device, point.name) for device in self.devices for point in self._points}
        return [f"{device}/{point}" for device, point in sorted(wanted - self._bound)]

    # -- running

    def step(self, rows: Rows) -> None:
        parts = []
        for point in self._points:
            local = point.local[rows.series]
            mine = places(local >= 0)
            parts.append((point, mine, local[mine]))
        marked = self._suspects(rows, parts[0][1], parts[0][2])
        for _, _, number in parts[1:]:  # a verdict may wait for the companion alone
            marked = np.concatenate((marked, number[self._busy[number]]))
        if not marked.size:
            for point, mine, number in parts:
                point.add_many(number, rows.ts_ms[mine], rows.values[mine], self._slot_ms, unique=rows.unique)
            return
        self._mark[marked] = True
        work: list[tuple[int, int, int, int, float]] = []
        for which, (point, mine, number) in enumerate(parts):
            hot = self._mark[number]
            cold, its = mine[~hot], mine[hot]
            point.add_many(number[~hot], rows.ts_ms[cold], rows.values[cold], self._slot_ms, unique=rows.unique)
            work += zip(
                rows.row[its].tolist(),
                repeat(which),
                number[hot].tolist(),
                rows.ts_ms[its].tolist(),
                rows.values[its].tolist(),
                strict=False,
            )
        self._mark[marked] = False
        self._looked += len(work)
        work.sort()
        for row, which, n, ts_ms, x in work:
            self._points[which].add(n, ts_ms, x, self._slot_ms)
            rows.put(row, self._look(n, which, ts_ms, x, rows.now_ms))

    def _suspects(self, rows: Rows, mine: Index, number: Int32s) -> Int32s:
        """Devices to look at sample by sample. Their extremes are merged first, those of later samples too: that can
        only make more samples suspicious."""
        values = rows.values[mine]
        farther = np.minimum if self.rule.change == "rise" else np.maximum
        if rows.unique:
            self._far[number] = farther(self._far[number], values)
        else:
            farther.at(self._far, number, values)
        far = self._far[number]
        change = values - far if self.rule.change == "rise" else far - values
        limit = np.maximum(far, 0.0) * (self._limit / 100.0) - SLACK if self.rule.relative else self._limit
        suspicious = change >= limit
        if self.rule.relative and self.rule.change == "fall":
            suspicious &= far > 0
        found: Int32s = number[suspicious | self._busy[number]]
        return found

    def _look(self, n: int, which: int, ts_ms: int, x: float, now_ms: int) -> list[Event]:
        waiting = self._waiting.pop(n, None)
        events = self._judge(n, *waiting, now_ms) if waiting is not None else []
        if which != 0:
            return events
        start = self._points[0].start(n, ts_ms // self._slot_ms)
        held = self._held[n]
        origin = held if held is not None else start if start is not None else x
        change = moved(self.rule.change, self.rule.relative, origin, x)
        if len(self._points) > 1 and change >= self._limit and int(self._points[1].last_ms[n]) < ts_ms:
            # The companion's sample of the same sweep is still to come: with it the verdict is the same wherever
            # the sweep was cut.
            self._waiting[n] = (ts_ms, change, origin)
            self._busy[n] = True
            return events
        return events + self._judge(n, ts_ms, change, origin, now_ms)

    def _judge(self, n: int, ts_ms: int, change: float, origin: float, now_ms: int) -> list[Event]:
        ladder = self._ladders[n]
        beyond = change >= self._limit
        alone = beyond and not ladder.alarm.rank and not self._companion_moves(n, ts_ms)
        events = ladder.feed(ts_ms, 0.0 if alone else change, now_ms)
        self._settle(n, origin)
        self._busy[n] |= beyond  # the companion may follow
        return events

    def _settle(self, n: int, origin: float) -> None:
        """After the ladder has spoken: keep or drop the origin, and see whether the device is quiet again."""
        if not self._ladders[n].alarm.rank:
            self._held[n] = None
        elif self._held[n] is None:
            self._held[n] = origin
        self._busy[n] = self._ladders[n].busy
        start = self._points[0].start(n, int(self._points[0].last_ms[n]) // self._slot_ms)
        self._far[n] = self._nothing if start is None else start

    def _companion_moves(self, n: int, ts_ms: int) -> bool:
        rule = self.rule.companion
        if rule is None:
            return True
        point = self._points[1]
        last_ms = int(point.last_ms[n])
        start = point.start(n, last_ms // self._slot_ms)
        if start is None or abs(ts_ms - last_ms) > self._gap_ms:
            return False
        return moved(rule.change, rule.relative, start, float(point.last_x[n])) >= rule.limit.value - SLACK

    def tick(self, now_ms: int) -> list[Event]:
        events: list[Event] = []
        for n in places(self._busy).tolist():
            found = self._ladders[n].run_out(now_ms, now_ms)
            if found:
                events += found
                start = self._points[0].start(n, int(self._points[0].last_ms[n]) // self._slot_ms)
                self._settle(n, float(self._points[0].last_x[n]) if start is None else start)
        return events

    def counters(self) -> dict[str, int]:
        return {"rows_looked_at": self._looked}

    # -- state

    def has(self, name: str) -> bool:
        return name in self._numbers

    def clock_stepped(self, delta_ms: int) -> None:
        super().clock_stepped(delta_ms)
        for point in self._points:
            point.ring.shift(round(delta_ms / self._slot_ms))

    def save(self) -> dict[str, Any]:
        return {
            device: [
                [[point.ring.save(n), int(point.last_ms[n]), float(point.last_x[n])] for point in self._points],
                self._held[n],
                self._ladders[n].save(),
                self._waiting.get(n),
            ]
            for device, n in self._numbers.items()
            if any(point.last_ms[n] >= 0 for point in self._points)
        }

    def load(self, name: str, state: Any) -> None:
        n = self._numbers[name]
        for point, (ring, last_ms, last_x) in zip(self._points, state[0], strict=True):
            point.ring.load(n, ring)
            point.last_ms[n], point.last_x[n] = last_ms, last_x
        self._held[n] = state[1]
        if not self._ladders[n].load(state[2]):
            self.note(name, "levels changed, running holds begin anew")
        if state[3] is not None:
            self._waiting[n] = tuple(state[3])
        self._busy[n] = True  # let the next sample decide: it also refreshes what is only kept in memory
