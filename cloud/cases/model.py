"""One case, and what one is told when a clock runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from protocols.core.model import Event, Level

ClockName = Literal["accept", "onsite", "close", "mediate", "suspend"]

#: accept: taken by the department; onsite: a person or a remote action has started; close: disposed and checked.
CLOCKS: tuple[Literal["accept", "onsite", "close"], ...] = ("accept", "onsite", "close")


class Facts(msgspec.Struct, kw_only=True):
    """What the rules must remember about a case besides its row; part of ``case_file.workflow``."""

    limits_ms: dict[str, int]  # of each clock, in time of the case's own calendar
    around_the_clock: bool
    stopped_ms: int | None = None  # since when the clocks stand still
    until_ms: int | None = None  # end date of a suspension; end of the 4 h of a mediation
    dispatched_ms: int | None = None
    returns: int = 0
    reopened: int = 0
    fed_back_by: str = ""
    marks: list[str] = []  # reported already: "accept:50" ... each once


@dataclass(frozen=True, slots=True)
class Case:
    """A row of table ``case_file``. ``events`` are what the call that returned it gave birth to (``wf.*``): the caller
    stores them in its transaction. ``opened`` tells a new case from one that an alarm joined."""

    case_id: int
    number: str
    type: str
    flow: str
    scenario: str
    level: Level
    state: str
    title_zh: str
    title_en: str
    department: str
    support: tuple[str, ...]
    device_id: str
    lon: float | None
    lat: float | None
    opened_ms: int
    accept_due_ms: int
    onsite_due_ms: int
    close_due_ms: int
    accepted_ms: int | None
    onsite_ms: int | None
    closed_ms: int | None
    version: int
    facts: Facts
    events: tuple[Event, ...] = ()
    opened: bool = False

    def due_ms(self, clock: str) -> int:
        return {"accept": self.accept_due_ms, "onsite": self.onsite_due_ms, "close": self.close_due_ms}[clock]

    def met_ms(self, clock: str) -> int | None:
        return {"accept": self.accepted_ms, "onsite": self.onsite_ms, "close": self.closed_ms}[clock]


@dataclass(frozen=True, slots=True)
class ClockEvent:
    """A clock of a case has passed a mark: 50 and 80 warn, 100 is overdue, 150 goes to the next leader.

    ``event`` (``wf.task.overdue``, from 100 on) is for the caller to store.
    """

    case_id: int
    number: str
    clock: ClockName
    percent: int
    due_ms: int
    level: Level
    department: str
    event: Event | None = None
