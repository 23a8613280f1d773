"""What people do with cases: look, act, and see which clocks have run out. All in the caller's transaction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from psycopg import Connection

from cloud.cases import clocks, happenings, rows
from cloud.cases.errors import CaseConflict, CaseNotFound, IllegalAction, ReasonNeeded, Refused
from cloud.cases.flows import FLOWS, GRADE_OF_LEVEL, Action
from cloud.cases.guards import Alarms, refusal
from cloud.cases.model import Case, ClockEvent
from cloud.cases.moves import step
from cloud.notify import notify


def load(conn: Connection[Any], case_id: int) -> Case:
    found = rows.by_id(conn, case_id)
    if found is None:
        raise CaseNotFound(case_id)
    return found[0]


def allowed_actions(case: Case, now_ms: int | None = None, who: str | None = None) -> list[Action]:
    """The buttons of a case in its present state, with their words and whether they need a reason.

    With ``now_ms`` those whose time has passed are left out, with ``who`` the check of one's own work (which may still
    be taken when the alarms have cleared: only ``act`` looks at them).
    """
    unknown = Alarms(0, 0)
    return [
        action for action in FLOWS[case.flow].actions(case.state) if refusal(case, action, who, now_ms, unknown) is None
    ]


def act(
    conn: Connection[Any],
    case_id: int,
    action: str,
    who: str,
    reason: str = "",
    expected_version: int | None = None,
    *,
    now_ms: int | None = None,
    until_ms: int | None = None,
    into: int | None = None,
) -> Case:
    """Take one action on a case and return it as it is then, with the event it gave birth to in ``Case.events``.

    ``expected_version`` is the version the person saw; if the case has moved since, nothing happens (CaseConflict).
    ``until_ms`` is the end date of a suspension, ``into`` the case another is merged into (its alarms go along).
    ``respond`` without a grade takes the one of the case's level. ``now_ms`` None takes the database's clock.
    Raises CaseNotFound, CaseConflict, IllegalAction (names what is allowed), ReasonNeeded, Refused.
    """
    found = rows.by_id(conn, case_id, lock=True)
    if found is None:
        raise CaseNotFound(case_id)
    case, run = found
    if expected_version is not None and expected_version != case.version:
        raise CaseConflict(case.number, expected_version, case.version)
    if now_ms is None:
        now_ms = rows.clock_ms(conn)
    flow = FLOWS[case.flow]
    name = f"respond_{GRADE_OF_LEVEL[case.level]}" if action == "respond" else action
    move = flow.moves.get((case.state, name))
    if move is None:
        raise IllegalAction(action, case.state, [known.id for known in flow.actions(case.state)])
    if move.reason and not reason.strip():
        raise ReasonNeeded(move.id)
    refused = refusal(case, move, who, now_ms, rows.alarms_of(conn, case_id) if move.id == "check" else None)
    if refused is not None:
        raise refused
    if move.id == "suspend" and until_ms is not None and until_ms <= now_ms:
        raise Refused("the end date of a suspension lies ahead", "挂账截止日期须晚于当前时间")
    if move.id == "merge" and into is not None:
        _hand_over(conn, case, into)
    if move.id == "check" and who == case.facts.fed_back_by:
        reason = f"{reason} [sensor: all alarms cleared]"
    case, run, event = step(conn, case, run, move, who, reason.strip(), now_ms, until_ms)
    notify(conn, "case", case_id)
    return replace(case, events=(event,))


def overdue(conn: Connection[Any], now_ms: int) -> list[ClockEvent]:
    """The marks (50, 80, 100, 150 %) that clocks of open cases have passed since the last call, each told once.

    Whoever calls it, and from how many processes: a mark is noted in the case in the same transaction, and while one
    is at it the others have nothing to tell. About 0.1 ms for each open case.
    """
    if not rows.may_tell(conn):
        return []
    passed = [(case, marks) for case in rows.open_cases(conn) if (marks := clocks.marks_passed(case, now_ms))]
    if not passed:
        return []
    noted = rows.add_marks(
        conn,
        [
            (
                case.case_id,
                case.version,
                [*case.facts.marks, *(clocks.mark_name(c, percent) for c, percent, _ in marks)],
            )
            for case, marks in passed
        ],
    )
    told = []
    for case, marks in passed:
        if case.case_id in noted:
            notify(conn, "case", case.case_id)
            for clock, percent, due_ms in marks:
                event = happenings.overdue(case, clock, percent, due_ms, now_ms) if percent >= 100 else None
                told.append(
                    ClockEvent(case.case_id, case.number, clock, percent, due_ms, case.level, case.department, event)
                )
    return told


def _hand_over(conn: Connection[Any], case: Case, into: int) -> None:
    target = rows.by_id(conn, into)
    if target is None:
        raise CaseNotFound(into)
    other = target[0]
    if other.case_id == case.case_id or FLOWS[other.flow].states[other.state].ended:
        raise Refused(
            f"{case.number} cannot be merged into {other.number}: it must be another, open case",
            f"{case.number} 不能合并到 {other.number}：须为另一个未结案件",
        )
    rows.hand_over(conn, case.case_id, into)
