"""The ``wf.*`` events a case gives birth to. Their ids derive from the case and the step, never from chance."""

from __future__ import annotations

import uuid

from cloud.alarms.model import NAMESPACE
from cloud.cases.model import Case
from protocols.core.model import Event, Level
from protocols.vocabulary import event_types

#: Each step of a case is one event; those without a name of their own are a change of stage.
_TYPE_OF_STATE = {"dispatched": "wf.case.dispatched", "returned": "wf.case.returned", "closed": "wf.case.closed"}


def opened(case: Case, now_ms: int) -> Event:
    return _event(case, "wf.case.opened", "open", now_ms, {"due": case.close_due_ms})


def moved(case: Case, action: str, reason: str, now_ms: int) -> Event:
    """The step that led to the state the case is in now."""
    values: dict[str, str | int] = {"task": action, "due": case.close_due_ms}
    if reason:
        values["reason"] = reason
    return _event(case, _TYPE_OF_STATE.get(case.state, "wf.stage.changed"), f"step\x1f{case.version}", now_ms, values)


def overdue(case: Case, clock: str, percent: int, due_ms: int, now_ms: int) -> Event:
    """From 150 % on it is the next leader's matter (events.md section 4)."""
    level: Level = "orange" if percent > 100 else event_types()["wf.task.overdue"].level
    step = f"overdue\x1f{clock}\x1f{percent}\x1f{due_ms}"
    return _event(case, "wf.task.overdue", step, now_ms, {"task": clock, "due": due_ms, "percent": percent}, level)


def _event(
    case: Case, type: str, step: str, now_ms: int, values: dict[str, str | int], level: Level | None = None
) -> Event:
    return Event(
        id=str(uuid.uuid5(NAMESPACE, f"case\x1f{case.number}\x1f{step}")), type=type, ts_ms=now_ms, seen_ms=now_ms,
        source=case.device_id, scenario=case.scenario, level=level or event_types()[type].level,
        values={"case": case.number, "unit": case.department, "state": case.state, **values},
        location=None if case.lon is None or case.lat is None else (case.lon, case.lat),
    )  # fmt: skip
