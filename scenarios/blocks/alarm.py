"""The life of one alarm: raised once, made worse, cleared; every event with an id that a replay gives again.

A level rises and is never lowered by a rule: lowering is a clear, or a named officer's act (events.md, section 2).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from protocols.core.model import LEVELS, Event, EvidenceRef, Level
from scenarios.blocks.payload import Value, allowed, payload

#: Root of all event ids of this engine. Never change it: ids are the idempotency key everywhere.
NAMESPACE = uuid.UUID("6c0c1d2e-6f0b-5a57-9a49-0d2f6f5b7c11")

State = Literal["", "raise", "update", "clear"]


def event_id(scenario: str, key: str, onset_ms: int, state: str, n: int | str) -> str:
    return str(uuid.uuid5(NAMESPACE, f"{scenario}|{key}|{onset_ms}|{state}|{n}"))


@dataclass(slots=True)
class RuleContext:
    """What the events of one rule have in common. ``places``: device -> (lon, lat), shared by the whole engine."""

    scenario: str
    rule: str
    event: str
    standard: str
    places: dict[str, tuple[float, float]] = field(default_factory=dict)
    quality: Literal["good", "suspect"] = "good"  # of the samples that decide
    keys: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.keys = allowed(self.event)

    def key(self, device: str, point: str = "") -> str:
        return f"{device}/{point}:{self.rule}" if point else f"{device}:{self.rule}"

    def emit(
        self,
        *,
        device: str,
        point: str,
        key: str,
        onset_ms: int,
        ts_ms: int,
        now_ms: int,
        level: Level,
        state: State,
        n: int | str,
        values: Mapping[str, Value],
        event: str = "",
        evidence: tuple[EvidenceRef, ...] = (),
    ) -> Event:
        kind = event or self.event
        keys = self.keys if not event else allowed(event)
        return Event(
            id=event_id(self.scenario, f"{key}|{kind}" if event else key, onset_ms, state, n),
            type=kind,
            ts_ms=ts_ms,
            seen_ms=now_ms,
            source=f"{device}/{point}" if point else device,
            scenario=self.scenario,
            level=level,
            state=state,
            key=key if state else "",
            values=payload(keys, values),
            quality=self.quality,
            location=self.places.get(device),
            evidence=evidence,
        )


class Alarm:
    """One alarm of one device and rule. ``rank`` 0 means: not raised (``info`` alarms have rank 1 here)."""

    __slots__ = ("context", "device", "event", "key", "n", "onset_ms", "point", "rank")

    def __init__(self, context: RuleContext, device: str, point: str = "") -> None:
        self.context = context
        self.device = device
        self.point = point
        self.key = context.key(device, point)
        self.event = ""  # differs from the rule's event where one rule reports several (camera state)
        self.rank = 0
        self.onset_ms = 0
        self.n = 0

    @property
    def level(self) -> Level:
        return LEVELS[max(self.rank - 1, 0)]

    def reach(
        self, rank: int, onset_ms: int, ts_ms: int, now_ms: int, values: Mapping[str, Value], event: str = ""
    ) -> list[Event]:
        """The rule finds this rank true: raise, update, or nothing if it is no news."""
        if rank <= self.rank:
            return []
        state: State = "update" if self.rank else "raise"
        if state == "raise":
            self.onset_ms = onset_ms
            self.n = 0
            self.event = event
        else:
            self.n += 1
        self.rank = rank
        return [self._emit(ts_ms, now_ms, state, values)]

    def clear(self, ts_ms: int, now_ms: int, values: Mapping[str, Value]) -> list[Event]:
        if not self.rank:
            return []
        self.n += 1
        event = self._emit(ts_ms, now_ms, "clear", values)
        self.rank = 0
        return [event]

    def _emit(self, ts_ms: int, now_ms: int, state: State, values: Mapping[str, Value]) -> Event:
        return self.context.emit(
            device=self.device,
            point=self.point,
            key=self.key,
            onset_ms=self.onset_ms,
            ts_ms=ts_ms,
            now_ms=now_ms,
            level=self.level,
            state=state,
            n=self.n,
            values=values,
            event=self.event,
        )

    def save(self) -> list[Any]:
        return [self.rank, self.onset_ms, self.n, self.event]

    def load(self, saved: list[Any]) -> None:
        self.rank, self.onset_ms, self.n, self.event = saved
