"""Can this camera be believed? Tells once when not, and once when it can again; rules on its facts pause meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protocols.core.model import LEVEL_RANK, Event, Fact
from protocols.vocabulary import event_types
from scenarios.blocks.alarm import Alarm, RuleContext
from scenarios.blocks.operator import Operator, Site
from scenarios.blocks.params import Rule
from scenarios.blocks.payload import Value


class CameraStateRule(Rule, frozen=True, kw_only=True, tag="camera_state"):
    """``events``: code of ``cam.state`` -> event type. Codes left out (lost, ended) are the connector's to report."""

    events: Mapping[str, str]


class CameraStateOperator(Operator):
    rule: CameraStateRule

    def __init__(self, rule: CameraStateRule, context: RuleContext, site: Site) -> None:
        super().__init__(rule, context, site.roles.get(rule.role, ()))
        self._alarms = {camera: Alarm(context, camera) for camera in sorted(self.devices)}
        self._newest_ms: dict[str, int] = {}

    def fact(self, fact: Fact, now_ms: int) -> list[Event]:
        if fact.kind != "cam.state" or fact.device not in self.devices:
            return []
        if fact.ts_ms < self._newest_ms.get(fact.device, -1):
            return []
        self._newest_ms[fact.device] = fact.ts_ms
        alarm = self._alarms[fact.device]
        code = str(fact.values.get("code", ""))
        kind = self.rule.events.get(code, "")
        if alarm.rank and kind == alarm.event:
            return []
        values: dict[str, Value] = {"code": code, "detail": str(fact.values.get("detail", ""))}
        events = alarm.clear(fact.ts_ms, now_ms, values)
        if kind:
            rank = LEVEL_RANK[event_types()[kind].level] + 1
            values["since"] = fact.ts_ms
            events += alarm.reach(rank, fact.ts_ms, fact.ts_ms, now_ms, values, event=kind)
        return events

    # -- state

    def has(self, name: str) -> bool:
        return name in self.devices

    def save(self) -> dict[str, Any]:
        return {camera: [ts_ms, self._alarms[camera].save()] for camera, ts_ms in self._newest_ms.items()}

    def load(self, name: str, state: Any) -> None:
        self._newest_ms[name] = state[0]
        self._alarms[name].load(state[1])
