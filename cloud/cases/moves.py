"""One step of a case that is known to be allowed: the drawing, the clocks, the record of who did it, the event."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
from psycopg import Connection

from cloud.cases import clocks, happenings, rows
from cloud.cases.errors import IllegalAction
from cloud.cases.flows import FLOWS, Action
from cloud.cases.model import Case, Facts
from cloud.cases.process import NoSuchMove, Run, of_run
from protocols.core.model import Event


def step(
    conn: Connection[Any],
    case: Case,
    run: Run,
    action: Action,
    who: str,
    reason: str,
    now_ms: int,
    until_ms: int | None = None,
) -> tuple[Case, Run, Event]:
    """Take the step and write it. The caller holds the case's lock and has asked the guards."""
    definition = of_run(conn, case.flow, run)
    try:
        state, run = definition.step(run, action.id)
    except NoSuchMove:  # a case on an older drawing may know fewer moves than the table
        known = [name for source, name in definition.moves if source == case.state]
        raise IllegalAction(action.id, case.state, known) from None
    before = case.state
    if FLOWS[case.flow].states[before].stopped:
        case = clocks.restart(case, now_ms)
    if before == "closed":
        case = clocks.renew(case, now_ms)
    case = _met(replace(case, state=state, version=case.version + 1), now_ms)
    case = replace(case, facts=_remembered(case, who, now_ms, until_ms))
    rows.save(conn, case, run)
    rows.record(conn, case.case_id, now_ms, who, action.id, before, state, reason)
    return case, run, happenings.moved(case, action.id, reason, now_ms)


def _met(case: Case, now_ms: int) -> Case:
    """The clocks that the new state meets: taken by the department, somebody at work, the matter ended."""
    if case.accepted_ms is None and case.state in ("accepted", "confirmed"):
        return replace(case, accepted_ms=now_ms)
    if case.onsite_ms is None and (case.state == "in_progress" or case.state.startswith("responding_")):
        return replace(case, onsite_ms=now_ms)
    if FLOWS[case.flow].states[case.state].ended:
        return replace(case, closed_ms=now_ms)
    return case


def _remembered(case: Case, who: str, now_ms: int, until_ms: int | None) -> Facts:
    """What later guards will ask about this step."""
    if FLOWS[case.flow].states[case.state].stopped:
        return clocks.stop(case.facts, case.state, now_ms, until_ms)
    if case.state == "dispatched":
        return msgspec.structs.replace(case.facts, dispatched_ms=now_ms)
    if case.state == "returned":
        return msgspec.structs.replace(case.facts, returns=case.facts.returns + 1)
    if case.state == "fed_back":
        return msgspec.structs.replace(case.facts, fed_back_by=who)
    return case.facts
