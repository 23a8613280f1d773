"""Clocks: marks told once, standing still, running on, changing calendar."""

from __future__ import annotations

import threading

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection

from cloud.cases import Case, ClockEvent, Refused, act, load, open_for, overdue
from cloud.cases.calendar import calendar_of
from tests.cloud_cases.make import MONDAY, beijing, bring_to, emergency_policy, event, ingest, new_case, policy

MINUTE = 60_000
HOUR = 3_600_000
DAY = 86_400_000


def told(events: list[ClockEvent]) -> list[tuple[str, int]]:
    return [(e.clock, e.percent) for e in events]


def test_each_mark_is_told_once_at_its_moment(conn: Connection) -> None:
    """Accept within 30 min, on site within 2 h of Monday 10:00; marks at 50, 80, 100 and 150 %."""
    case = new_case(conn)
    assert overdue(conn, MONDAY + 15 * MINUTE - 1) == []
    (half,) = overdue(conn, MONDAY + 15 * MINUTE)
    assert half == ClockEvent(case.case_id, case.number, "accept", 50, case.accept_due_ms, "yellow", "housing")
    assert overdue(conn, MONDAY + 15 * MINUTE) == []
    assert told(overdue(conn, MONDAY + 24 * MINUTE)) == [("accept", 80)]
    (over,) = overdue(conn, MONDAY + 30 * MINUTE)
    assert (over.percent, over.due_ms) == (100, MONDAY + 30 * MINUTE)
    assert over.event is not None and (over.event.type, over.event.level) == ("wf.task.overdue", "yellow")
    assert over.event.values["task"] == "accept" and over.event.values["case"] == case.number
    (next_leader,) = overdue(conn, MONDAY + 45 * MINUTE)
    assert next_leader.percent == 150
    assert next_leader.event is not None and next_leader.event.level == "orange"
    assert next_leader.event.id != over.event.id
    assert told(overdue(conn, MONDAY + 60 * MINUTE)) == [("onsite", 50)]
    assert load(conn, case.case_id).version == 1  # a mark is no change to look at again


def test_marks_missed_while_nobody_looked_are_all_told(conn: Connection) -> None:
    new_case(conn)
    late = beijing("2026-03-03 16:00")  # 11 h of working time later
    expected = [("accept", m) for m in (50, 80, 100, 150)] + [("onsite", m) for m in (50, 80, 100, 150)]
    assert told(overdue(conn, late)) == expected
    assert overdue(conn, late) == []


def test_a_met_clock_is_silent(conn: Connection) -> None:
    case = bring_to(conn, new_case(conn), "in_progress")
    assert told(overdue(conn, beijing("2026-03-04 16:30"))) == [("close", 50)]
    bring = act(conn, case.case_id, "feed_back", "wang", now_ms=MONDAY)
    act(conn, case.case_id, "check", "li", now_ms=MONDAY)
    act(conn, bring.case_id, "close", "li", now_ms=MONDAY)
    assert overdue(conn, MONDAY + 90 * DAY) == []


def test_nights_weekends_and_holidays_do_not_count_in_office_hours(conn: Connection) -> None:
    friday = beijing("2026-02-13 17:15")
    case = new_case(conn, friday)
    assert case.accept_due_ms == beijing("2026-02-14 08:45")  # Saturday worked before the Spring Festival
    assert case.onsite_due_ms == beijing("2026-02-14 10:15")
    assert case.close_due_ms == beijing("2026-02-26 11:15")  # the festival's nine days lie between
    assert told(overdue(conn, beijing("2026-02-14 08:29"))) == [("accept", 50)]
    assert told(overdue(conn, beijing("2026-02-14 08:39"))) == [("accept", 80)]


def test_an_emergency_counts_every_hour(conn: Connection) -> None:
    night = beijing("2026-02-17 02:00")  # Spring Festival
    new_case(conn, night, rule=emergency_policy())
    assert told(overdue(conn, night + 3 * MINUTE)) == [("accept", 50)]


def test_a_suspended_case_stands_still_and_goes_on_with_what_it_had(conn: Connection) -> None:
    case = bring_to(conn, new_case(conn), "in_progress")
    noon = beijing("2026-03-02 12:00")
    until = beijing("2026-03-20 12:00")
    held = act(conn, case.case_id, "suspend", "wang", "等待材料", now_ms=noon, until_ms=until)
    assert (held.facts.stopped_ms, held.facts.until_ms, held.close_due_ms) == (noon, until, case.close_due_ms)
    assert overdue(conn, beijing("2026-03-19 17:00")) == []
    on = act(conn, case.case_id, "resume", "wang", now_ms=beijing("2026-03-16 10:00"))
    assert on.facts.stopped_ms is None and on.facts.until_ms is None
    left = calendar_of(False).between(noon, case.close_due_ms)
    assert calendar_of(False).between(beijing("2026-03-16 10:00"), on.close_due_ms) == left == 22 * HOUR
    assert (on.accept_due_ms, on.onsite_due_ms) == (case.accept_due_ms, case.onsite_due_ms)  # met: kept as they were


def test_a_suspension_past_its_end_date_is_told_and_the_clock_runs_again(conn: Connection) -> None:
    case = bring_to(conn, new_case(conn), "in_progress")
    noon, until = beijing("2026-03-02 12:00"), beijing("2026-03-04 12:00")
    act(conn, case.case_id, "suspend", "wang", "等待材料", now_ms=noon, until_ms=until)
    (ended,) = overdue(conn, until)
    assert (ended.clock, ended.percent, ended.due_ms) == ("suspend", 100, until) and ended.event is not None
    assert overdue(conn, until) == []
    # 2 h had run by Monday noon; 10 h more are half of 24 h: 3.5 h of Wednesday afternoon and 6.5 h of Thursday.
    assert overdue(conn, beijing("2026-03-05 17:00") - 1) == []
    assert told(overdue(conn, beijing("2026-03-05 17:00"))) == [("close", 50)]
    on = act(conn, case.case_id, "resume", "wang", now_ms=beijing("2026-03-06 08:30"))
    assert on.close_due_ms == beijing("2026-03-09 15:00")  # 11.5 h were left


def test_a_suspension_needs_a_date_ahead_and_has_a_week_without_one(conn: Connection) -> None:
    case = bring_to(conn, new_case(conn), "in_progress")
    with pytest.raises(Refused, match="lies ahead"):
        act(conn, case.case_id, "suspend", "wang", "等待材料", now_ms=MONDAY, until_ms=MONDAY)
    held = act(conn, case.case_id, "suspend", "wang", "等待材料", now_ms=MONDAY)
    assert held.facts.until_ms == MONDAY + 7 * DAY


def test_mediation_stops_the_clocks_and_has_four_hours_itself(conn: Connection) -> None:
    case = bring_to(conn, new_case(conn), "returned")
    case = act(conn, case.case_id, "mediate", "centre", "权属不清", now_ms=MONDAY)
    assert case.facts.until_ms == beijing("2026-03-02 16:00")
    (late,) = overdue(conn, beijing("2026-03-02 16:00"))
    assert (late.clock, late.percent) == ("mediate", 100)
    assert overdue(conn, MONDAY + 30 * DAY) == []  # the unit's clocks stand still however long it takes
    back = act(conn, case.case_id, "dispatch", "centre", now_ms=beijing("2026-03-03 10:00"))
    assert back.onsite_due_ms == beijing("2026-03-03 12:00")


def test_a_clock_that_was_overdue_when_it_stopped_is_as_overdue_afterwards(conn: Connection) -> None:
    case = bring_to(conn, new_case(conn, rule=policy(sla_h={"accept": 0.5, "onsite": 1, "close": 2})), "in_progress")
    stop = beijing("2026-03-02 15:00")  # 3 h of 2 h have run: 150 %
    assert told(overdue(conn, stop)) == [("close", m) for m in (50, 80, 100, 150)]
    act(conn, case.case_id, "suspend", "wang", "等待材料", now_ms=stop)
    on = act(conn, case.case_id, "resume", "wang", now_ms=beijing("2026-03-04 09:30"))
    assert on.close_due_ms == beijing("2026-03-03 17:30")
    assert overdue(conn, beijing("2026-03-04 09:30")) == []


def _rise(conn: Connection, now_ms: int) -> Case:
    (change,) = ingest(conn, [event("update", now_ms, "orange")], now_ms)
    case = open_for(conn, change, policy(), now_ms)
    assert case is not None
    return case


def test_turning_orange_goes_over_to_the_24_hour_clock_with_the_hours_left(conn: Connection) -> None:
    friday = beijing("2026-03-06 16:30")
    case = new_case(conn, friday)
    assert case.onsite_due_ms == beijing("2026-03-09 09:30")
    risen = _rise(conn, beijing("2026-03-06 17:00"))
    assert risen.facts.around_the_clock and risen.level == "orange"
    assert risen.accept_due_ms == beijing("2026-03-06 17:00")
    assert risen.onsite_due_ms == beijing("2026-03-06 18:30")
    assert risen.close_due_ms == beijing("2026-03-07 16:30")
    assert load(conn, case.case_id) == type(risen)(**{f: getattr(risen, f) for f in risen.__slots__} | {"events": ()})


def test_turning_orange_while_suspended_keeps_the_hours_left(conn: Connection) -> None:
    case = bring_to(conn, new_case(conn), "in_progress")
    act(conn, case.case_id, "suspend", "wang", "等待材料", now_ms=beijing("2026-03-02 12:00"))
    _rise(conn, beijing("2026-03-03 20:00"))
    on = act(conn, case.case_id, "resume", "wang", now_ms=beijing("2026-03-04 20:00"))
    assert on.close_due_ms == beijing("2026-03-05 18:00")  # 22 h later


def test_two_processes_tell_a_mark_once(dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        for number in range(20):
            new_case(conn, key=f"site-{number}/laeq:day")
    gate = threading.Barrier(3)
    heard: list[ClockEvent] = []

    def watch() -> None:
        with psycopg.connect(dsn) as conn:
            gate.wait()
            heard.extend(overdue(conn, MONDAY + 24 * MINUTE))

    threads = [threading.Thread(target=watch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with psycopg.connect(dsn) as conn:
        assert overdue(conn, MONDAY + 24 * MINUTE) == []
    assert len(heard) == 40
    assert len({(e.case_id, e.percent) for e in heard}) == 40


def test_while_one_is_telling_the_others_do_not_wait(dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        new_case(conn)
    with psycopg.connect(dsn) as first:
        with psycopg.connect(dsn) as second:
            assert told(overdue(first, MONDAY + 15 * MINUTE)) == [("accept", 50)]
            assert overdue(second, MONDAY + 15 * MINUTE) == []
        first.rollback()  # what was told is forgotten with its transaction, and told by the next
        assert told(overdue(first, MONDAY + 15 * MINUTE)) == [("accept", 50)]


def test_a_case_that_moves_meanwhile_is_told_next_time(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloud.cases import rows

    case = new_case(conn)
    real = rows.add_marks

    def overtaken(*args: object) -> set[int]:
        act(conn, case.case_id, "accept", "li", now_ms=MONDAY)
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(rows, "add_marks", overtaken)
    assert overdue(conn, MONDAY + 60 * MINUTE) == []
    monkeypatch.setattr(rows, "add_marks", real)
    assert told(overdue(conn, MONDAY + 60 * MINUTE)) == [("onsite", 50)]  # accept was met in between


@given(
    pauses=st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 9000)), max_size=5),
    looks=st.integers(1, 6),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_often_it_stops_the_time_at_work_is_the_limit(
    conn: Connection, pauses: list[tuple[int, int]], looks: int
) -> None:
    """Work and pauses in minutes: at the due time exactly the limit has been worked, and each mark was told once."""
    with conn.transaction(force_rollback=True):
        case = bring_to(conn, new_case(conn), "in_progress")
        calendar, now, worked = calendar_of(False), MONDAY, 0
        marks: list[tuple[str, int]] = []
        for run, pause in pauses:
            for look in range(looks):
                marks += told(overdue(conn, now + run * MINUTE * look // looks))
            worked += calendar.between(now, now + run * MINUTE)
            now += run * MINUTE
            act(conn, case.case_id, "suspend", "wang", "等待", now_ms=now, until_ms=now + 90 * DAY)
            now += pause * MINUTE
            act(conn, case.case_id, "resume", "wang", now_ms=now)
        due = load(conn, case.case_id).close_due_ms
        assert calendar.between(now, due) == 24 * HOUR - worked
        marks += told(overdue(conn, due + 100 * DAY))
        assert sorted(m for m in marks if m[0] == "close") == [("close", p) for p in (50, 80, 100, 150)]
