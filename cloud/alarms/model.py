"""One alarm and one change of it, as the rest of the core sees them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from protocols.core.model import LEVEL_RANK, Event, EvidenceRef, Level

#: Name space of every identifier derived here; any constant does, as long as it never changes.
NAMESPACE = uuid.UUID("6f2f2d0c-5f0e-5c54-9a52-0d7f6f1b7c11")

AlarmState = Literal["raised", "acknowledged", "cleared"]

#: raised     seen for the first time (it may have cleared already, when both came in one batch)
#: escalated  the level went up; an acknowledged alarm that passes its peak wants to be acknowledged again
#: lowered    the level went down
#: repeated   raised again while open, or again while chattering
#: grouped    it began to chatter: the raises are now folded into this one alarm
#: updated    only values or evidence are new
#: cleared    the condition is gone
ChangeKind = Literal["raised", "escalated", "lowered", "repeated", "grouped", "updated", "cleared"]


def alarm_id_of(scenario: str, key: str, onset_ms: int) -> str:
    """The same condition that began at the same millisecond is the same alarm, whoever replays it."""
    return str(uuid.uuid5(NAMESPACE, f"alarm\x1f{scenario}\x1f{key}\x1f{onset_ms}"))


@dataclass(frozen=True, slots=True)
class Alarm:
    """A row of table ``alarm``. ``updated_ms`` is the time of the newest fact in it, not of its writing."""

    alarm_id: str
    key: str
    scenario: str
    type: str
    gateway_id: str | None
    device_id: str
    point: str
    level: Level
    peak_level: Level
    state: AlarmState
    onset_ms: int
    raised_ms: int
    updated_ms: int
    acked_ms: int | None = None
    acked_by: str | None = None
    cleared_ms: int | None = None
    repeats: int = 0
    values: Mapping[str, float | int | str | bool | None] = field(default_factory=dict)
    evidence: tuple[EvidenceRef, ...] = ()
    lon: float | None = None
    lat: float | None = None
    h3_9: str | None = None
    drill: bool = False

    @property
    def open(self) -> bool:
        return self.state != "cleared"

    @property
    def grouped(self) -> bool:
        return bool(self.values.get("grouped"))


@dataclass(frozen=True, slots=True)
class AlarmChange:
    """What a batch of events did to one alarm. ``before`` is None for a new one.

    ``hint`` is an event of the core's own (``dev.fault`` when the alarm begins to chatter): the caller stores it.
    """

    kind: ChangeKind
    alarm: Alarm
    before: Alarm | None = None
    hint: Event | None = None

    @property
    def peak_rose(self) -> bool:
        return self.before is None or LEVEL_RANK[self.alarm.peak_level] > LEVEL_RANK[self.before.peak_level]
