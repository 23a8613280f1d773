"""The three clocks of a case: when they are due, how far they have run, when they stand still.

A due time is stored as an instant. All else follows from it and from the limit: what is left is the counted time from
now to the due time, what has run is the limit less that. Stopping keeps what is left; starting again puts the due
time that far ahead of now. Going over to the 24 h calendar (a case that turns orange or red) does the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import msgspec

from cloud.cases.calendar import calendar_of
from cloud.cases.flows import FLOWS
from cloud.cases.model import CLOCKS, Case, ClockName, Facts
from cloud.cases.policy import HOUR_MS
from protocols.core.model import LEVEL_RANK, Level

#: events.md section 4: warnings at 50 and 80 %, overdue at 100 %, next leader at 150 %.
MARKS = (50, 80, 100, 150)

#: events.md section 4: the operation centre has 4 hours to mediate.
MEDIATION_MS = 4 * HOUR_MS

#: A suspension needs an end date; without one given it is a week.
SUSPENSION_MS = 7 * 24 * HOUR_MS


def runs_around_the_clock(flow: str, level: Level) -> bool:
    return flow == "emergency" or LEVEL_RANK[level] >= LEVEL_RANK["orange"]


def due_times(limits_ms: Mapping[str, int], around_the_clock: bool, from_ms: int) -> dict[str, int]:
    calendar = calendar_of(around_the_clock)
    return {clock: calendar.shift(from_ms, limits_ms[clock]) for clock in CLOCKS}


def stop(facts: Facts, state: str, now_ms: int, until_ms: int | None) -> Facts:
    if until_ms is None:
        calendar = calendar_of(facts.around_the_clock)
        until_ms = calendar.shift(now_ms, MEDIATION_MS) if state == "mediated" else now_ms + SUSPENSION_MS
    return msgspec.structs.replace(facts, stopped_ms=now_ms, until_ms=until_ms)


def restart(case: Case, now_ms: int) -> Case:
    """Let the clocks run again: every clock not met yet gets what it had left."""
    calendar = calendar_of(case.facts.around_the_clock)
    moved: dict[str, int] = {clock: calendar.shift(now_ms, _left(case, clock, now_ms)) for clock in CLOCKS}
    marks = [mark for mark in case.facts.marks if mark.partition(":")[0] in CLOCKS]  # the next stop counts anew
    facts = msgspec.structs.replace(case.facts, stopped_ms=None, until_ms=None, marks=marks)
    return _with_dues(replace(case, facts=facts), moved)


def renew(case: Case, now_ms: int) -> Case:
    """A reopened case: on site and closed within the same limits, from now."""
    dues = due_times(case.facts.limits_ms, case.facts.around_the_clock, now_ms)
    marks = [mark for mark in case.facts.marks if mark.startswith("accept:")]
    facts = msgspec.structs.replace(case.facts, reopened=case.facts.reopened + 1, returns=0, marks=marks)
    return _with_dues(replace(case, facts=facts, onsite_ms=None, closed_ms=None), dues)


def go_around_the_clock(case: Case, now_ms: int) -> Case:
    """From office hours to 24 h. What is left stays the same number of hours, and no longer waits for Monday."""
    reference_ms = case.facts.stopped_ms if case.facts.stopped_ms is not None else now_ms
    left = {clock: calendar_of(False).between(reference_ms, case.due_ms(clock)) for clock in CLOCKS}
    facts = msgspec.structs.replace(case.facts, around_the_clock=True)
    return _with_dues(replace(case, facts=facts), {clock: reference_ms + left[clock] for clock in CLOCKS})


def marks_passed(case: Case, now_ms: int) -> list[tuple[ClockName, int, int]]:
    """Marks that are reached and not reported: (clock, percent, due time)."""
    passed: list[tuple[ClockName, int, int]] = []
    if FLOWS[case.flow].states[case.state].ended:
        return passed
    for clock in CLOCKS:
        limit = case.facts.limits_ms[clock]
        if case.met_ms(clock) is None and limit > 0:
            run = limit - _left(case, clock, now_ms)
            passed += [(clock, mark, case.due_ms(clock)) for mark in MARKS if run * 100 >= limit * mark]
    until_ms = case.facts.until_ms
    if until_ms is not None and now_ms >= until_ms:
        passed.append(("mediate" if case.state == "mediated" else "suspend", 100, until_ms))
    return [entry for entry in passed if mark_name(entry[0], entry[1]) not in case.facts.marks]


def mark_name(clock: str, percent: int) -> str:
    return f"{clock}:{percent}"


def _left(case: Case, clock: Literal["accept", "onsite", "close"], now_ms: int) -> int:
    """Counted time left; negative when overdue. While stopped it stays, but a suspension past its end date runs."""
    calendar = calendar_of(case.facts.around_the_clock)
    facts = case.facts
    if facts.stopped_ms is None:
        return calendar.between(now_ms, case.due_ms(clock))
    left = calendar.between(facts.stopped_ms, case.due_ms(clock))
    if case.state == "suspended" and facts.until_ms is not None and now_ms > facts.until_ms:
        left -= calendar.between(facts.until_ms, now_ms)
    return left


def _with_dues(case: Case, dues: Mapping[str, int]) -> Case:
    """New due times for the clocks that are still running; a met one keeps the due time it was met against."""
    return replace(
        case,
        accept_due_ms=dues["accept"] if case.accepted_ms is None else case.accept_due_ms,
        onsite_due_ms=dues["onsite"] if case.onsite_ms is None else case.onsite_due_ms,
        close_due_ms=dues["close"] if case.closed_ms is None else case.close_due_ms,
    )
