"""From a stream of numbers to an alarm: levels, hold times, hysteresis.

    x ──▶ beyond blue?  ──hold──▶ ┐
      ──▶ beyond orange? ──hold──▶├─ highest level held ──▶ raise / update
      ──▶ back within the lowest limit less 10 % ──hold──▶ clear

Low limits are the same with the sign turned: everything inside counts upwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from protocols.core.model import LEVEL_RANK, Event
from scenarios.blocks.alarm import Alarm
from scenarios.blocks.hold import Debounce, debounce
from scenarios.blocks.local_time import is_night
from scenarios.blocks.params import ClearSpec, LevelSpec, Limit
from scenarios.blocks.payload import Value

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Rung:
    rank: int
    day: float  # signed limit; inf where the rule does not speak
    night: float
    strict: bool
    hold_s: float
    k: int
    n: int


@dataclass(frozen=True, slots=True)
class LadderSpec:
    """Levels of one rule with the sign already applied. ``gap_ms``: longest pause between samples of one run."""

    rungs: tuple[Rung, ...]
    sign: float
    clear_day: float
    clear_night: float
    clear_hold_s: float
    clear_k: int
    clear_n: int
    gap_ms: int
    periods: bool  # limits differ by day and night

    def lowest(self, night: bool) -> float:
        """No sample below this can begin anything."""
        return min(r.night if night else r.day for r in self.rungs)


def compile_levels(levels: Sequence[LevelSpec], clear: ClearSpec, *, low: bool, gap_ms: int) -> LadderSpec:
    """Raises ValueError if the levels contradict each other."""
    sign = -1.0 if low else 1.0
    ordered = sorted(levels, key=lambda level: LEVEL_RANK[level.level])
    rungs = tuple(
        Rung(
            rank=LEVEL_RANK[level.level] + 1,
            day=_signed(level.limit or level.day, sign),
            night=_signed(level.limit or level.night, sign),
            strict=level.compare == ">",
            hold_s=level.hold_s,
            k=level.k,
            n=level.n,
        )
        for level in ordered
    )
    for below, above in pairwise(rungs):
        if below.rank == above.rank:
            raise ValueError("a level appears twice")
        if above.day < below.day or above.night < below.night:
            raise ValueError("a higher level has a limit that is reached earlier than the one below")
    first = rungs[0]
    return LadderSpec(
        rungs=rungs,
        sign=sign,
        clear_day=_clear_at(first.day, clear),
        clear_night=_clear_at(first.night, clear),
        clear_hold_s=first.hold_s if clear.hold_s is None else clear.hold_s,
        clear_k=first.k if clear.hold_s is None else 0,
        clear_n=first.n if clear.hold_s is None else 0,
        gap_ms=gap_ms,
        periods=any(rung.day != rung.night for rung in rungs),
    )


def _signed(limit: Limit | None, sign: float) -> float:
    return NEVER if limit is None else round(sign * limit.value, 9)


def _clear_at(limit: float, clear: ClearSpec) -> float:
    if limit == NEVER:  # the rule is silent now, so whatever is open is over
        return NEVER
    if clear.offset is not None:
        return round(limit - abs(clear.offset.value), 9)
    return round(limit - (1.0 - clear.ratio) * abs(limit), 9)


class Ladder:
    """State of one alarm on one stream of numbers. ``describe`` gives the event's values for a number and a limit."""

    __slots__ = ("_clear", "_describe", "_last_x", "_rungs", "_spec", "alarm")

    def __init__(self, spec: LadderSpec, alarm: Alarm, describe: Callable[[float, float], Mapping[str, Value]]) -> None:
        self._spec = spec
        self._describe = describe
        self._rungs: list[Debounce] = [debounce(r.hold_s, r.k, r.n, spec.gap_ms) for r in spec.rungs]
        self._clear: Debounce = debounce(spec.clear_hold_s, spec.clear_k, spec.clear_n, spec.gap_ms)
        self._last_x = 0.0
        self.alarm = alarm

    @property
    def busy(self) -> bool:
        """An alarm is open or a hold is running: the next sample matters whatever its value."""
        return self.alarm.rank > 0 or any(rung.busy for rung in self._rungs)

    def feed(self, ts_ms: int, x: float, now_ms: int, night: bool | None = None) -> list[Event]:
        """One good sample, later than all before. ``night``: which limits, where the time stamp does not say (the
        end of a window)."""
        spec = self._spec
        events = self.run_out(ts_ms, now_ms)
        value = round(spec.sign * x, 9)
        if night is None:
            night = spec.periods and is_night(ts_ms)
        reached = -1
        onset_ms = 0
        for i, rung in enumerate(spec.rungs):
            limit = rung.night if night else rung.day
            beyond = value > limit if rung.strict else value >= limit
            onset = self._rungs[i].feed(ts_ms, beyond and limit != NEVER)
            if onset is not None:
                reached, onset_ms = i, onset
        self._last_x = x
        if reached >= 0:
            events += self._reach(reached, onset_ms, ts_ms, now_ms, night)
        if self.alarm.rank:
            within = value <= (spec.clear_night if night else spec.clear_day)
            if self._clear.feed(ts_ms, within) is not None:
                events += self._over(ts_ms, now_ms, night)
        return events

    def run_out(self, until_ms: int, now_ms: int) -> list[Event]:
        """Holds met since the last sample, before ``until_ms``: the same verdict whether time or a sample tells."""
        events: list[Event] = []
        for i, rung in enumerate(self._rungs):
            found = rung.run_out(until_ms)
            if found is not None:
                events += self._reach(i, found[0], found[1], now_ms, is_night(found[1]))
        if self.alarm.rank:
            found = self._clear.run_out(until_ms)
            if found is not None:
                events += self._over(found[1], now_ms, is_night(found[1]))
        return events

    def _reach(self, i: int, onset_ms: int, ts_ms: int, now_ms: int, night: bool) -> list[Event]:
        rung = self._spec.rungs[i]
        if rung.rank <= self.alarm.rank:
            return []
        limit = rung.night if night else rung.day
        values = self._describe(self._last_x, self._spec.sign * limit)
        return self.alarm.reach(rung.rank, onset_ms, ts_ms, now_ms, values)

    def _over(self, ts_ms: int, now_ms: int, night: bool) -> list[Event]:
        self._clear.reset()
        for rung in self._rungs:
            rung.reset()
        limit = self._spec.lowest(night)
        shown = self._describe(self._last_x, self._spec.sign * limit if limit != NEVER else float("nan"))
        values = {key: value for key, value in shown.items() if value == value}
        return self.alarm.clear(ts_ms, now_ms, values)

    def save(self) -> list[Any]:
        return [self.alarm.save(), self._last_x, self._clear.save(), [rung.save() for rung in self._rungs]]

    def load(self, saved: list[Any]) -> bool:
        """Takes over what still fits; False if the levels are not the same in number and kind any more.

        Then the open alarm is kept and the running holds begin anew.
        """
        self.alarm.load(saved[0])
        self._last_x = saved[1]
        rungs = saved[3]
        fits = len(rungs) == len(self._rungs) and all(
            len(state) == len(rung.save()) for state, rung in zip(rungs, self._rungs, strict=True)
        )
        if fits:
            self._clear.load(saved[2])
            for rung, state in zip(self._rungs, rungs, strict=True):
                rung.load(state)
        return fits
