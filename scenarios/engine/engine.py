"""The scenario engine: readings, facts and events in; events out. No clock, no I/O, the same on gateway and core.

Verdicts are those of a machine that looks at one row after the other; columns only make it fast. So however a stream
is cut into batches, the same events come out, with the same ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from protocols.core.errors import ConfigError
from protocols.core.model import Event, Fact, SeriesBatch, SeriesInfo
from scenarios.blocks import QUALITY_RULES, build
from scenarios.blocks.alarm import RuleContext
from scenarios.blocks.operator import Operator, Site
from scenarios.blocks.out_of_range import OutOfRangeOperator
from scenarios.blocks.params import Rule
from scenarios.blocks.rows import Rows, Rows32, places
from scenarios.engine import snapshot
from scenarios.engine.intake import AHEAD_MS, EARLIEST_MS, Intake, Taken, good
from scenarios.packs.model import BoundPack

_FEW_ROWS = 32
_NO_ROWS: Rows32 = np.zeros(0, dtype=np.intp)


class Engine:
    """One engine per agent or shard. ``place`` picks the rules that run here."""

    def __init__(self, packs: Sequence[BoundPack], place: Literal["edge", "cloud"]) -> None:
        self.place = place
        self.versions: dict[str, str] = {bound.pack.id: bound.pack.version for bound in packs}
        #: Rows of the last batch that a data-quality rule calls suspect: to be stored so.
        self.suspect_rows: Rows32 = _NO_ROWS
        self._places: dict[str, tuple[float, float]] = {}
        self._screens: list[OutOfRangeOperator] = []
        self._operators: list[Operator] = []
        self._intake = Intake()
        self._infos: dict[int, SeriesInfo] = {}
        self._users: dict[int, list[int]] = {}  # series -> positions of its operators, screens first
        self._waiting_marks: dict[str, int] = {}  # watermarks restored before their series was added
        self._counts = dict.fromkeys(("rows_suspect", "facts", "facts_refused", "events"), 0)
        self._build(packs)

    def _build(self, packs: Sequence[BoundPack]) -> None:
        taken: set[tuple[str, str, str]] = set()
        judged: dict[type[Rule], set[str]] = {kind: set() for kind in QUALITY_RULES}
        for bound in packs:
            for rule in bound.rules:
                if rule.at != self.place:
                    continue
                site = bound.site
                kind = type(rule)
                if kind in judged:
                    site = self._unjudged(site, judged[kind])
                else:
                    for device in site.roles.get(rule.role, ()):
                        name = (bound.pack.id, rule.id, device)
                        if name in taken:
                            raise ConfigError(f"scenario {bound.pack.id}: {device} is bound twice for {rule.id}")
                        taken.add(name)
                context = RuleContext(bound.pack.id, rule.id, rule.event, rule.standard, self._places)
                operator = build(rule, context, site)
                if isinstance(operator, OutOfRangeOperator):
                    self._screens.append(operator)
                else:
                    self._operators.append(operator)

    @staticmethod
    def _unjudged(site: Site, judged: set[str]) -> Site:
        """Data-quality rules of two packs would say the same about a device they share: the first pack speaks."""
        mine = {device: kind for device, kind in site.types.items() if device not in judged}
        judged.update(mine)
        return replace(site, types=mine)

    @property
    def operators(self) -> tuple[Operator, ...]:
        return (*self._screens, *self._operators)

    # -- what there is

    def add_series(self, index: int, info: SeriesInfo) -> None:
        """``index``: the caller's number for this series, dense. Adding it again is harmless, renaming is refused."""
        if self._intake.knows(index):
            if (self._infos[index].device, self._infos[index].point) != (info.device, info.point):
                raise ConfigError(f"series {index} is {self._infos[index].device}/{self._infos[index].point}")
            return
        self._intake.add(index)
        self._infos[index] = info
        mark = self._waiting_marks.pop(f"{info.device}/{info.point}", None)
        if mark is not None:
            self._intake.watermark[index] = mark
        users = self._users[index] = []
        for position, operator in enumerate(self.operators):
            operator.reserve(index + 1)
            if operator.wants(info):
                operator.bind(index, info)
                users.append(position)

    def set_location(self, device: str, lon: float, lat: float) -> None:
        """WGS 84 degrees. Events of the device carry it; distances are measured from it."""
        self._places[device] = (lon, lat)

    def missing(self) -> dict[str, list[str]]:
        """Rules that cannot speak fully yet: rule -> series they still wait for."""
        found = {f"{op.context.scenario}:{op.rule.id}": op.missing() for op in self.operators}
        return {name: series for name, series in found.items() if series}

    # -- what happens

    def step(self, batch: SeriesBatch, now_ms: int) -> list[Event]:
        """Readings; sorted by time within each series. ``now_ms``: the receiver's clock."""
        self.suspect_rows = _NO_ROWS
        taken = self._intake.take(batch, now_ms)
        if not taken.series.size:
            return []
        screens, operators = self._concerned(taken)
        rows = self._screen(taken, screens, now_ms)
        for operator in operators:
            operator.step(rows)
        if not rows.events:
            return []
        rows.events.sort(key=lambda found: found[0])  # stable: within a row the order of the rules
        self._counts["events"] += len(rows.events)
        return [event for _, event in rows.events]

    def _concerned(self, taken: Taken) -> tuple[Sequence[OutOfRangeOperator], Sequence[Operator]]:
        """Who has to look. A gateway steps once per sweep of a few points, which most rules have nothing to do with."""
        if taken.series.size > _FEW_ROWS:
            return self._screens, self._operators
        users = sorted({user for series in taken.series.tolist() for user in self._users[series]})
        first = len(self._screens)
        return (
            [self._screens[user] for user in users if user < first],
            [self._operators[user - first] for user in users if user >= first],
        )

    def _screen(self, taken: Taken, screens: Sequence[OutOfRangeOperator], now_ms: int) -> Rows:
        fine = good(taken.quality, taken.values)
        self._intake.counters["rows_not_good"] += int(fine.size - fine.sum())
        events: list[tuple[int, Event]] = []
        fresh = taken.fresh & fine
        whole = bool(fresh.all())
        for screen in screens:
            found = places(fresh)
            suspect, told = screen.screen(
                taken.series[found], taken.ts_ms[found], taken.values[found], taken.unique, now_ms
            )
            events += [(int(taken.row[found[i]]), event) for i, event in told]
            if suspect.any():
                whole = False
                self._suspect(taken, found[suspect])
                fresh[found[suspect]] = False
        late = places(fine & ~taken.fresh)
        for screen in screens:
            late = late[~screen.outside(taken.series[late], taken.values[late])]
        pick: Rows32 | slice = slice(None) if whole else places(fresh)
        alive: Rows32 | slice = slice(None) if taken.fresh.all() else places(taken.fresh)
        return Rows(
            now_ms=now_ms,
            series=taken.series[pick],
            ts_ms=taken.ts_ms[pick],
            values=taken.values[pick],
            row=taken.row[pick],
            unique=taken.unique,
            late_series=taken.series[late],
            late_ts_ms=taken.ts_ms[late],
            late_values=taken.values[late],
            late_row=taken.row[late],
            alive_series=taken.series[alive],
            alive_ts_ms=taken.ts_ms[alive],
            alive_row=taken.row[alive],
            events=events,
        )

    def _suspect(self, taken: Taken, found: Rows32) -> None:
        self._counts["rows_suspect"] += found.size
        self.suspect_rows = np.union1d(self.suspect_rows, taken.row[found])

    def facts(self, facts: Sequence[Fact], now_ms: int) -> list[Event]:
        """What vision states, in time order."""
        events: list[Event] = []
        self._counts["facts"] += len(facts)
        for fact in facts:
            if not EARLIEST_MS <= fact.ts_ms <= now_ms + AHEAD_MS:
                self._counts["facts_refused"] += 1
                continue
            for operator in self._operators:
                events += operator.fact(fact, now_ms)
        self._counts["events"] += len(events)
        return events

    def events(self, events: Sequence[Event], now_ms: int) -> list[Event]:
        """Events from elsewhere (cloud: all that gateways report). Own events need not come back."""
        found: list[Event] = []
        for event in events:
            for operator in self._operators:
                found += operator.event(event, now_ms)
        self._counts["events"] += len(found)
        return found

    def tick(self, now_ms: int) -> list[Event]:
        """Time has passed: holds that ran out, devices that fell silent. About once a second."""
        events: list[Event] = []
        for operator in self._operators:
            events += operator.tick(now_ms)
        self._counts["events"] += len(events)
        return events

    def clock_stepped(self, delta_ms: int) -> None:
        """The receiver's clock was set by that much. Without it, a step back would make all that comes late for as long
        as the step was wide, and a step forward would make every device look silent."""
        marks = self._intake.watermark
        marks[marks > 0] += delta_ms
        self._waiting_marks = {name: mark + delta_ms for name, mark in self._waiting_marks.items()}
        for operator in self.operators:
            operator.clock_stepped(delta_ms)

    @property
    def counters(self) -> dict[str, int]:
        """For metrics: everything only ever grows."""
        total = {**self._intake.counters, **self._counts}
        for operator in self.operators:
            for name, count in operator.counters().items():
                total[name] = total.get(name, 0) + count
        return total

    # -- state

    def snapshot(self) -> bytes:
        """All state as one message; :meth:`restore` takes it, in this version or a later one."""
        marks = {
            f"{info.device}/{info.point}": int(self._intake.watermark[index])
            for index, info in self._infos.items()
            if self._intake.watermark[index]
        }
        return snapshot.encode(self.place, self.versions, {**self._waiting_marks, **marks}, self.operators)

    def restore(self, data: bytes) -> list[str]:
        """Take over what still fits; returns what does not, in words. Series may be added before or after.

        Raises ConfigError if the data are no snapshot of this kind of engine."""
        state = snapshot.decode(data, self.place)
        waiting = dict(state.watermarks)
        for index, info in self._infos.items():
            mark = waiting.pop(f"{info.device}/{info.point}", None)
            if mark is not None:
                self._intake.watermark[index] = mark
        self._waiting_marks = waiting
        return snapshot.adopt(state, self.versions, self.operators)

    def notes(self) -> list[str]:
        """What a restore could not do for series that were added after it."""
        return [note for operator in self.operators for note in operator.notes]
