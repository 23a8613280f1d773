"""Something worse nearby makes an open alarm worse: a fire alarm within 300 m of a blocked fire lane.

Either may come first. The alarm keeps its key; the update comes from here, once, and only for a higher level. A drill
escalates drills alone.
"""

from __future__ import annotations

import math
from typing import Any

from protocols.core.model import LEVEL_RANK, Event, Level
from scenarios.blocks.alarm import RuleContext, event_id
from scenarios.blocks.operator import Operator, Site
from scenarios.blocks.params import Limit, Rule
from scenarios.blocks.payload import allowed, payload

EARTH_M = 6_371_008.8  # mean radius
#: Triggers held; the oldest makes room. A district has far fewer open at a time.
MOST = 10_000


class EscalateNearRule(Rule, frozen=True, kw_only=True, tag="escalate_near"):
    """``event``: open alarms of this type; ``near``: event types that make them worse. ``keep_s``: how long a trigger
    counts that never says it is over."""

    near: tuple[str, ...]
    distance_m: Limit
    level: Level
    keep_s: Limit


def distance_m(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Great-circle distance of two (lon, lat) in degrees."""
    lon_a, lat_a, lon_b, lat_b = map(math.radians, (*a, *b))
    h = math.sin((lat_b - lat_a) / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_M * math.asin(math.sqrt(min(1.0, h)))


class EscalateNearOperator(Operator):
    rule: EscalateNearRule

    def __init__(self, rule: EscalateNearRule, context: RuleContext, site: Site) -> None:
        super().__init__(rule, context, site.roles.get(rule.role, ()))
        # key -> [device, source, onset, rank, lon, lat, drill]
        self._open: dict[str, list[Any]] = {}
        # key (or id) -> [id, ts, lon, lat, drill]
        self._near: dict[str, list[Any]] = {}
        self._nowhere = 0

    def event(self, event: Event, now_ms: int) -> list[Event]:
        if event.type == self.rule.event and event.key and event.scenario == self.context.scenario:
            return self._alarm(event, now_ms)
        if event.type in self.rule.near:
            return self._trigger(event, now_ms)
        return []

    def _place(self, event: Event) -> tuple[float, float] | None:
        return event.location or self.context.places.get(event.source.partition("/")[0])

    def _alarm(self, event: Event, now_ms: int) -> list[Event]:
        device = event.source.partition("/")[0]
        if device not in self.devices:
            return []
        if event.state == "clear":
            self._open.pop(event.key, None)
            return []
        held = self._open.get(event.key)
        place = self._place(event)
        if held is None:
            if place is None:
                self._nowhere += 1
                return []
            held = [device, event.source, event.ts_ms, LEVEL_RANK[event.level], *place, event.drill]
            self._open[event.key] = held
        held[3] = max(held[3], LEVEL_RANK[event.level])
        for trigger in self._near.values():
            found = self._escalate(event.key, held, trigger, now_ms, event.ts_ms)
            if found:
                return found
        return []

    def _trigger(self, event: Event, now_ms: int) -> list[Event]:
        name = event.key or event.id
        if event.state == "clear":
            self._near.pop(name, None)
            return []
        place = self._place(event)
        if place is None:
            self._nowhere += 1
            return []
        trigger = self._near[name] = [event.id, event.ts_ms, *place, event.drill]
        while len(self._near) > MOST:
            del self._near[next(iter(self._near))]
        events: list[Event] = []
        for key, held in self._open.items():
            events += self._escalate(key, held, trigger, now_ms, event.ts_ms)
        return events

    def _escalate(self, key: str, held: list[Any], trigger: list[Any], now_ms: int, ts_ms: int) -> list[Event]:
        _, source, onset_ms, rank, lon, lat, drill = held
        by, trigger_ms, trigger_lon, trigger_lat, trigger_drill = trigger
        if rank >= LEVEL_RANK[self.rule.level] or drill != trigger_drill:
            return []
        if ts_ms - trigger_ms > self.rule.keep_s.value * 1000:
            return []
        far_m = distance_m((lon, lat), (trigger_lon, trigger_lat))
        if far_m > self.rule.distance_m.value:
            return []
        held[3] = LEVEL_RANK[self.rule.level]
        scenario = self.context.scenario
        return [
            Event(
                id=event_id(scenario, key, onset_ms, "update", f"{self.rule.id}|{by}"),
                type=self.rule.event,
                ts_ms=ts_ms,
                seen_ms=now_ms,
                source=source,
                scenario=scenario,
                level=self.rule.level,
                state="update",
                key=key,
                values=payload(allowed(self.rule.event), {"by": by, "dist_m": round(far_m, 1)}),
                location=(lon, lat),
                drill=drill,
            )
        ]

    def tick(self, now_ms: int) -> list[Event]:
        over = [name for name, trigger in self._near.items() if now_ms - trigger[1] > self.rule.keep_s.value * 1000]
        for name in over:
            del self._near[name]
        return []

    def counters(self) -> dict[str, int]:
        return {"events_without_place": self._nowhere}

    # -- state: open alarms by device; the triggers go with the first of them

    def has(self, name: str) -> bool:
        return name in self.devices

    def save(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, held in self._open.items():
            found.setdefault(held[0], [{}, {}])[0][key] = held
        if self._near:
            found.setdefault(min(self.devices), [{}, {}])[1] = self._near
        return found

    def load(self, name: str, state: Any) -> None:
        self._open.update(state[0])
        self._near.update(state[1])
