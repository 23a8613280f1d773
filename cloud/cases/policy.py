"""What a scenario wants done about its alarms: the case part of a pack, checked and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cloud.cases.errors import PolicyInvalid
from cloud.cases.flows import FLOWS
from protocols.core.model import LEVEL_RANK, Level
from protocols.vocabulary import case_types, departments

if TYPE_CHECKING:
    from scenarios.packs.model import Pack

#: How far a rule alone carries a new case of the event flow (events.md section 4: "desk or rule").
Auto = Literal["reported", "accepted", "filed", "dispatched"]

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class CasePolicy:
    """``sla_h``: hours until the case is accepted, somebody is on site, and it is closed. They are counted around the
    clock for emergencies and for red and orange cases, else on the working calendar (7 h a day)."""

    scenario: str
    type: str
    department: str
    sla_h: Mapping[str, float]
    from_level: Level
    support: tuple[str, ...] = ()
    auto: Auto = "reported"
    flow: str = field(init=False)

    def __post_init__(self) -> None:
        known = case_types().get(self.type)
        if known is None:
            raise PolicyInvalid(
                f"{self.scenario}: unknown case type {self.type}", f"{self.scenario}：未知案件类型 {self.type}"
            )
        if known.flow not in FLOWS:
            raise PolicyInvalid(
                f"{self.scenario}: case type {self.type} follows the {known.flow} flow, which has no process yet",
                f"{self.scenario}：案件类型 {self.type} 采用 {known.flow} 流程，尚无对应流程定义",
            )
        strange = {self.department, *self.support} - departments().keys()
        if strange:
            names = ", ".join(sorted(strange))
            raise PolicyInvalid(f"{self.scenario}: unknown department {names}", f"{self.scenario}：未知部门 {names}")
        if set(self.sla_h) != {"accept", "onsite", "close"} or min(self.sla_h.values()) < 0:
            raise PolicyInvalid(
                f"{self.scenario}: sla_h needs accept, onsite and close, none negative",
                f"{self.scenario}：sla_h 须含 accept、onsite、close 且不为负",
            )
        if LEVEL_RANK.get(self.from_level, 0) == 0:
            raise PolicyInvalid(
                f"{self.scenario}: from_level must be blue, yellow, orange or red",
                f"{self.scenario}：from_level 须为四色之一",
            )
        if self.auto != "reported" and known.flow != "event":
            raise PolicyInvalid(
                f"{self.scenario}: auto is for the event flow; an emergency is confirmed by a person",
                f"{self.scenario}：auto 仅用于事件流程，应急事件须由人确认",
            )
        object.__setattr__(self, "flow", known.flow)

    @classmethod
    def from_pack(cls, pack: Pack, auto: Auto = "reported") -> CasePolicy:
        """The policy of a loaded pack. Raises PolicyInvalid."""
        case = pack.case
        return cls(
            scenario=pack.id,
            type=case.type,
            department=case.department,
            sla_h={"accept": case.sla_h.accept, "onsite": case.sla_h.onsite, "close": case.sla_h.close},
            from_level=case.from_level,
            support=case.support,
            auto=auto,
        )

    @property
    def limits_ms(self) -> dict[str, int]:
        return {clock: round(hours * HOUR_MS) for clock, hours in self.sla_h.items()}
