"""An alarm becomes a case, or joins the one that is open for its place.

One case per (scenario, device, case type) is open at a time; it takes in the alarms of that place and rises with the
worst of them. It never falls by itself: a level is lowered by clear or by a named officer. An exercise opens nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from psycopg import Connection

from cloud.alarms.model import AlarmChange
from cloud.cases import clocks, happenings, rows
from cloud.cases.flows import FLOWS
from cloud.cases.model import Case, Facts
from cloud.cases.moves import step
from cloud.cases.policy import CasePolicy
from cloud.cases.process import Run, current, keep
from cloud.notify import notify
from protocols.core.model import LEVEL_RANK
from protocols.vocabulary import event_types

#: What a rule does, one after the other, until the case is where the policy wants it.
_AUTO_ACTIONS = {"accepted": "accept", "filed": "file", "dispatched": "dispatch"}


def open_for(conn: Connection[Any], change: AlarmChange, policy: CasePolicy, now_ms: int) -> Case | None:
    """Open a case for a changed alarm, or let the alarm join or raise the open one; None if nothing came of it.

    ``Case.opened`` tells which; ``Case.events`` are for the caller to store in this transaction. Harmless to repeat.
    """
    alarm = change.alarm
    if alarm.drill:
        return None
    rows.lock_place(conn, policy.scenario, alarm.device_id, policy.type)
    linked = rows.of_alarm(conn, alarm.alarm_id)
    if linked is not None and not FLOWS[linked[0].flow].states[linked[0].state].ended:
        return _rise(conn, *linked, change, now_ms)
    if LEVEL_RANK[alarm.peak_level] < LEVEL_RANK[policy.from_level]:
        return None
    if not _is_news(change) and (linked is not None or change.kind == "cleared"):
        return None  # its case has ended, and nothing about it is worse than it was then
    found = rows.open_at(conn, policy.scenario, alarm.device_id, policy.type)
    if found is not None:
        return _join(conn, *found, change, now_ms)
    return _open(conn, change, policy, now_ms)


def _is_news(change: AlarmChange) -> bool:
    """Something a person who has dealt with the alarm before has not seen yet: new, worse, or back again."""
    return change.peak_rose or change.kind == "raised" or (change.before is not None and not change.before.open)


def _join(conn: Connection[Any], case: Case, run: Run, change: AlarmChange, now_ms: int) -> Case | None:
    alarm = change.alarm
    if rows.link(conn, case.case_id, alarm.alarm_id):
        said = f"{alarm.type} {alarm.peak_level} {alarm.alarm_id}"
        rows.record(conn, case.case_id, now_ms, _rule(case.scenario), "join", case.state, case.state, said)
        notify(conn, "case", case.case_id)
        return _rise(conn, case, run, change, now_ms) or case
    return _rise(conn, case, run, change, now_ms)


def _rise(conn: Connection[Any], case: Case, run: Run, change: AlarmChange, now_ms: int) -> Case | None:
    level = change.alarm.peak_level
    if LEVEL_RANK[level] <= LEVEL_RANK[case.level]:
        return None
    said = f"{case.level} -> {level}: {change.alarm.type}"
    case = replace(case, level=level, version=case.version + 1)
    if clocks.runs_around_the_clock(case.flow, level) and not case.facts.around_the_clock:
        case = clocks.go_around_the_clock(case, now_ms)
    rows.save(conn, case, run)
    rows.record(conn, case.case_id, now_ms, _rule(case.scenario), "raise_level", case.state, case.state, said)
    notify(conn, "case", case.case_id)
    return case


def _open(conn: Connection[Any], change: AlarmChange, policy: CasePolicy, now_ms: int) -> Case:
    alarm = change.alarm
    definition = current(policy.flow)
    keep(conn, definition)
    state, run = definition.start()
    around_the_clock = clocks.runs_around_the_clock(policy.flow, alarm.peak_level)
    dues = clocks.due_times(policy.limits_ms, around_the_clock, now_ms)
    device_zh, device_en = rows.device_names(conn, alarm.device_id)
    known = event_types().get(alarm.type)
    case = Case(
        case_id=0, number=rows.next_number(conn, policy.type, now_ms), type=policy.type, flow=policy.flow,
        scenario=policy.scenario, level=alarm.peak_level, state=state,
        title_zh=f"{device_zh}：{known.zh if known else alarm.type}",
        title_en=f"{device_en}: {known.en if known else alarm.type}",
        department=policy.department, support=policy.support, device_id=alarm.device_id, lon=alarm.lon, lat=alarm.lat,
        opened_ms=now_ms, accept_due_ms=dues["accept"], onsite_due_ms=dues["onsite"], close_due_ms=dues["close"],
        accepted_ms=None, onsite_ms=None, closed_ms=None, version=1,
        facts=Facts(limits_ms=policy.limits_ms, around_the_clock=around_the_clock), opened=True,
    )  # fmt: skip
    case = rows.insert(conn, case, run)
    rows.link(conn, case.case_id, alarm.alarm_id)
    who = _rule(policy.scenario)
    rows.record(conn, case.case_id, now_ms, who, "open", "", case.state, f"{alarm.type} {alarm.peak_level}")
    events = [happenings.opened(case, now_ms)]
    for auto_state, action in _AUTO_ACTIONS.items():
        if policy.auto == "reported":
            break
        case, run, event = step(conn, case, run, FLOWS[case.flow].moves[case.state, action], who, "", now_ms)
        events.append(event)
        if policy.auto == auto_state:
            break
    notify(conn, "case", case.case_id)
    return replace(case, events=tuple(events))


def _rule(scenario: str) -> str:
    return f"rule:{scenario}"
