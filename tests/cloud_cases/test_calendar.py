"""Working time, at the places where it goes wrong: lunch, evenings, weekends, holidays, days worked instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.cases.calendar import DAY_MS, RoundTheClock, calendar_of, local_day, working_calendar
from tests.cloud_cases.make import beijing

HOUR_MS = 3_600_000
CITY = working_calendar()


@pytest.mark.parametrize(
    ("start", "hours", "end"),
    [
        ("2026-03-02 10:00", 1, "2026-03-02 11:00"),
        ("2026-03-02 11:30", 1, "2026-03-02 14:30"),  # over lunch
        ("2026-03-02 10:00", 2, "2026-03-02 12:00"),  # ends with the morning, not with the afternoon's beginning
        ("2026-03-02 07:00", 1, "2026-03-02 09:30"),  # before the office opens
        ("2026-03-02 16:30", 4, "2026-03-03 11:30"),
        ("2026-03-06 16:30", 4, "2026-03-09 11:30"),  # Friday to Monday
        ("2026-03-07 13:00", 0.5, "2026-03-09 09:00"),  # Saturday
        ("2026-03-02 22:00", 24, "2026-03-06 11:30"),  # 24 h are three days and three hours of 7
        ("2026-02-13 17:00", 1, "2026-02-14 09:00"),  # Saturday worked before the Spring Festival
        ("2026-02-14 17:00", 1, "2026-02-24 09:00"),  # over the Spring Festival
        ("2026-09-30 17:00", 7, "2026-10-08 17:00"),  # over the National Day
        ("2026-10-09 17:00", 1, "2026-10-10 09:00"),  # Saturday worked after it
        ("2027-03-05 17:00", 1, "2027-03-08 09:00"),  # a year without a notice: plain weeks
    ],
)
def test_deadlines(start: str, hours: float, end: str) -> None:
    duration = round(hours * HOUR_MS)
    assert CITY.shift(beijing(start), duration) == beijing(end)
    assert CITY.between(beijing(start), beijing(end)) == duration
    assert CITY.between(beijing(end), beijing(start)) == -duration


def test_nothing_to_wait_for_is_now_even_at_night() -> None:
    assert CITY.shift(beijing("2026-03-07 03:00"), 0) == beijing("2026-03-07 03:00")


def test_backwards_for_what_is_already_overdue() -> None:
    assert CITY.shift(beijing("2026-03-09 09:30"), -2 * HOUR_MS) == beijing("2026-03-06 16:30")


instants = st.integers(beijing("2020-02-01 00:00"), beijing("2031-01-01 00:00"))
spans = st.integers(0, 300 * 7 * HOUR_MS)


@given(instants, spans)
def test_a_deadline_is_as_far_away_as_was_given(start: int, duration: int) -> None:
    end = CITY.shift(start, duration)
    assert CITY.between(start, end) == duration
    assert end >= start
    assert duration == 0 or CITY.between(start, end - 1) == duration - 1  # the first such instant


@given(instants.map(lambda at_ms: at_ms + 2 * 366 * DAY_MS), spans)
def test_backwards_is_the_inverse(start: int, duration: int) -> None:
    assert CITY.between(CITY.shift(start, -duration), start) == duration


@given(instants, spans, spans)
def test_time_adds_up_and_never_runs_faster_than_the_wall(start: int, first: int, second: int) -> None:
    middle, end = start + first, start + first + second
    assert CITY.between(start, end) == CITY.between(start, middle) + CITY.between(middle, end)
    assert 0 <= CITY.between(start, end) <= end - start


def test_before_the_table_begins_nothing_counts() -> None:
    assert CITY.between(0, beijing("2020-01-01 00:00")) == 0
    assert CITY.shift(0, HOUR_MS) == beijing("2020-01-01 09:30")  # a day off in truth; nothing of ours is that old


def test_round_the_clock() -> None:
    assert isinstance(calendar_of(True), RoundTheClock)
    assert calendar_of(True).shift(5, DAY_MS) == 5 + DAY_MS
    assert calendar_of(True).between(7, 5) == -2


def test_the_day_of_a_case_is_the_citys_day() -> None:
    assert f"{local_day(beijing('2026-03-02 00:00')):%Y%m%d}" == "20260302"
    assert f"{local_day(beijing('2026-03-02 23:59')):%Y%m%d}" == "20260302"
    assert f"{local_day(beijing('2026-03-02 07:00')):%Y%m%d}" == "20260302"  # still the 1st in UTC
