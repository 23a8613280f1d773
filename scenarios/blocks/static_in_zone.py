"""Something stands in a zone that must stay free: a car in the fire lane.

    zone.object (static) ──60 s──▶ voice stage ──180 s──▶ blocked (yellow) ──narrow──▶ one level up ──30 min──▶ orange
    zone.empty for clear_s ──────▶ cleared
    cam.state not ok ────────────▶ nothing is believed: neither raised nor cleared

Who or what stands there is not asked: a fact carries a class, a box and a width.
"""

from __future__ import annotations

from typing import Any

from protocols.core.model import LEVEL_RANK, LEVELS, Event, Fact, Level, Quality
from scenarios.blocks.alarm import Alarm, RuleContext
from scenarios.blocks.condition import FACT_NAMES, Condition
from scenarios.blocks.local_time import hour_of_day, weekday
from scenarios.blocks.operator import Operator, Site
from scenarios.blocks.params import Limit, Rule
from scenarios.blocks.payload import Value


class StaticInZoneRule(Rule, frozen=True, kw_only=True, tag="static_in_zone"):
    """``classes``: what may block; anything else in the zone counts as free. ``where``: which facts about such objects
    are believed; the others are passed over, they neither block nor free.

    ``voice_level`` info: the voice stage is told as a plain event, it is no alarm.
    ``narrow_m``: clear width below which the level is one higher, and at least ``long_level`` after ``long_s``."""

    classes: tuple[str, ...]
    where: str = ""
    voice_s: Limit
    voice_level: Level = "info"
    static_s: Limit
    level: Level
    narrow_m: Limit
    long_s: Limit
    long_level: Level
    clear_s: Limit
    cleared_event: str = ""


class _Zone:
    """One zone of one camera."""

    __slots__ = ("alarm", "last_object_ms", "voiced_ms")

    def __init__(self, alarm: Alarm) -> None:
        self.alarm = alarm
        self.last_object_ms = -1  # newest fact of an object that counts
        self.voiced_ms = -1  # onset of the voice stage, -1: not spoken yet


class StaticInZoneOperator(Operator):
    rule: StaticInZoneRule

    def __init__(self, rule: StaticInZoneRule, context: RuleContext, site: Site) -> None:
        super().__init__(rule, context, site.roles.get(rule.role, ()))
        self._where = Condition(rule.where, FACT_NAMES) if rule.where else None
        self._zones: dict[str, _Zone] = {}
        self._newest_ms: dict[str, int] = {}  # camera -> its own time
        self._blind: dict[str, str] = {}  # camera -> why it is not believed
        self._late = 0
        self._ignored = 0

    def fact(self, fact: Fact, now_ms: int) -> list[Event]:
        if fact.device not in self.devices:
            return []
        if fact.ts_ms < self._newest_ms.get(fact.device, -1):
            self._late += 1
            return []
        self._newest_ms[fact.device] = fact.ts_ms
        if fact.kind == "cam.state":
            self._camera(fact)
            return []
        if fact.device in self._blind or fact.quality != Quality.GOOD:
            self._ignored += 1
            return []
        if fact.kind == "zone.object" and fact.values.get("cls") in self.rule.classes:
            return self._object(fact, now_ms) if self._believed(fact) else []
        if fact.kind in ("zone.object", "zone.empty"):
            return self._free(fact, now_ms)
        return []

    def _camera(self, fact: Fact) -> None:
        code = str(fact.values.get("code", ""))
        if code != "ok":
            self._blind[fact.device] = code
        elif self._blind.pop(fact.device, None) is not None:
            # What happened while nothing was seen is unknown: emptiness is counted anew.
            for name, zone in self._zones.items():
                if name.startswith(f"{fact.device}/"):
                    zone.last_object_ms = max(zone.last_object_ms, fact.ts_ms)

    def _believed(self, fact: Fact) -> bool:
        if self._where is None:
            return True
        local = {
            "zone": fact.zone,
            "device": fact.device,
            "hour": hour_of_day(fact.ts_ms),
            "weekday": weekday(fact.ts_ms),
        }
        return self._where.holds({**fact.values, **local})

    def _object(self, fact: Fact, now_ms: int) -> list[Event]:
        rule, zone = self.rule, self._zone(fact)
        zone.last_object_ms = fact.ts_ms
        static_s = fact.values.get("static_s")
        if fact.values.get("static") is not True or not isinstance(static_s, int | float):
            return []
        onset_ms = fact.ts_ms - round(static_s * 1000)
        values = self._values(fact)
        if static_s < rule.voice_s.value:
            return []
        if static_s < rule.static_s.value:
            return self._voice(zone, fact, onset_ms, now_ms, values)
        rank = LEVEL_RANK[rule.level]
        width = fact.values.get("clear_width_m")
        if isinstance(width, int | float) and width < rule.narrow_m.value:
            rank = min(rank + 1, len(LEVELS) - 1)
            if static_s > rule.long_s.value:
                rank = max(rank, LEVEL_RANK[rule.long_level])
        return zone.alarm.reach(rank + 1, onset_ms, fact.ts_ms, now_ms, values)

    def _voice(self, zone: _Zone, fact: Fact, onset_ms: int, now_ms: int, values: dict[str, Value]) -> list[Event]:
        """Speak to the driver once per stay. Above info it is the alarm's first level."""
        values = {**values, "stage": "voice"}
        if self.rule.voice_level != "info":
            rank = LEVEL_RANK[self.rule.voice_level] + 1
            return zone.alarm.reach(rank, onset_ms, fact.ts_ms, now_ms, values)
        if zone.voiced_ms >= 0 or zone.alarm.rank:
            return []
        zone.voiced_ms = onset_ms
        return [self._plain(fact, self.rule.event, onset_ms, "voice", now_ms, values)]

    def _free(self, fact: Fact, now_ms: int) -> list[Event]:
        zone = self._zones.get(f"{fact.device}/{fact.zone}")
        if zone is None or fact.ts_ms - zone.last_object_ms < self.rule.clear_s.value * 1000:
            return []
        zone.voiced_ms = -1
        if not zone.alarm.rank:
            return []
        onset_ms = zone.alarm.onset_ms
        values: dict[str, Value] = {"roi": fact.zone, "dwell_s": (zone.last_object_ms - onset_ms) // 1000}
        events = zone.alarm.clear(fact.ts_ms, now_ms, values)
        if self.rule.cleared_event:
            events.append(self._plain(fact, self.rule.cleared_event, onset_ms, "cleared", now_ms, values))
        return events

    def _plain(self, fact: Fact, event: str, onset_ms: int, stage: str, now_ms: int, values: dict[str, Value]) -> Event:
        return self.context.emit(
            device=fact.device,
            point=fact.zone,
            key=self.context.key(fact.device, fact.zone),
            onset_ms=onset_ms,
            ts_ms=fact.ts_ms,
            now_ms=now_ms,
            level="info",
            state="",
            n=stage,
            values=values,
            event=event,
        )

    def _zone(self, fact: Fact) -> _Zone:
        name = f"{fact.device}/{fact.zone}"
        zone = self._zones.get(name)
        if zone is None:
            zone = self._zones[name] = _Zone(Alarm(self.context, fact.device, fact.zone))
        return zone

    def _values(self, fact: Fact) -> dict[str, Value]:
        known = {key: fact.values.get(key) for key in ("cls", "conf", "box", "area_m2")}
        return {**known, "dwell_s": fact.values.get("dwell_s", fact.values.get("static_s")), "roi": fact.zone}

    def counters(self) -> dict[str, int]:
        failed = self._where.failures if self._where is not None else 0
        return {"facts_late": self._late, "facts_not_believed": self._ignored, "conditions_failed": failed}

    # -- state: one entry per camera

    def has(self, name: str) -> bool:
        return name in self.devices

    def save(self) -> dict[str, Any]:
        return {
            camera: [
                newest_ms,
                self._blind.get(camera, ""),
                {
                    zone.alarm.point: [zone.alarm.save(), zone.last_object_ms, zone.voiced_ms]
                    for zone in self._zones.values()
                    if zone.alarm.device == camera
                },
            ]
            for camera, newest_ms in self._newest_ms.items()
        }

    def load(self, name: str, state: Any) -> None:
        self._newest_ms[name] = state[0]
        if state[1]:
            self._blind[name] = state[1]
        for point, (alarm, last_object_ms, voiced_ms) in state[2].items():
            zone = self._zones[f"{name}/{point}"] = _Zone(Alarm(self.context, name, point))
            zone.alarm.load(alarm)
            zone.last_object_ms, zone.voiced_ms = last_object_ms, voiced_ms
