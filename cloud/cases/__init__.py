"""Cases of the cloud core: what is being done about the alarms, by whom, until when. The public names are here."""

from __future__ import annotations

from cloud.cases.errors import (
    CaseConflict,
    CaseError,
    CaseNotFound,
    IllegalAction,
    PolicyInvalid,
    ReasonNeeded,
    Refused,
)
from cloud.cases.flows import ENDED, FLOWS, Action, Flow, State
from cloud.cases.model import Case, ClockEvent, Facts
from cloud.cases.opening import open_for
from cloud.cases.policy import CasePolicy
from cloud.cases.service import act, allowed_actions, load, overdue

__all__ = [
    "ENDED",
    "FLOWS",
    "Action",
    "Case",
    "CaseConflict",
    "CaseError",
    "CaseNotFound",
    "CasePolicy",
    "ClockEvent",
    "Facts",
    "Flow",
    "IllegalAction",
    "PolicyInvalid",
    "ReasonNeeded",
    "Refused",
    "State",
    "act",
    "allowed_actions",
    "load",
    "open_for",
    "overdue",
]
