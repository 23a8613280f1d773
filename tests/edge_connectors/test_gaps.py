"""Holes in period data: found when something newer comes, cut to what is still missing, asked for a bounded number of
times."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.connectors.gaps import HOUR_MS, LONGEST_MS, RETRY_MS, ROOM, SETTLE_MS, TRIES, Gaps, Hole

MINUTE_MS = 60_000
T0 = 1_772_409_600_000


def minutes(gaps: Gaps, numbers: list[int], now_ms: int = T0) -> None:
    for number in numbers:
        gaps.seen("2051", T0 + number * MINUTE_MS, now_ms)


def asked(gaps: Gaps, now_ms: int) -> list[tuple[int, int]]:
    return [((hole.begin_ms - T0) // MINUTE_MS, (hole.end_ms - T0) // MINUTE_MS) for hole in gaps.due(now_ms)]


def test_a_hole_is_asked_for_once_it_has_had_time_to_fill_itself() -> None:
    gaps = Gaps()
    minutes(gaps, [0, 1, 2, 3, 10])
    assert asked(gaps, T0 + SETTLE_MS - 1) == []
    assert gaps.next_ms() == T0 + SETTLE_MS
    assert asked(gaps, T0 + SETTLE_MS) == [(4, 9)]


def test_what_came_by_itself_is_not_asked_for() -> None:
    gaps = Gaps()
    minutes(gaps, [0, 1, 2, 3, 10, 5, 4, 9])
    assert asked(gaps, T0 + SETTLE_MS) == [(6, 8)]
    minutes(gaps, [6, 7, 8])
    assert asked(gaps, T0 + SETTLE_MS + RETRY_MS) == []
    assert gaps.next_ms() is None
    assert gaps.given_up == 0


def test_an_unknown_rhythm_is_learnt_before_anything_is_missed() -> None:
    gaps = Gaps()
    minutes(gaps, [0, 10, 20])  # ten-minute data: two steps say nothing yet
    minutes(gaps, [60])
    assert asked(gaps, T0 + SETTLE_MS) == []
    gaps = Gaps()
    minutes(gaps, [0, 10, 20, 30, 60])
    assert asked(gaps, T0 + SETTLE_MS) == [(40, 50)]


def test_hour_data_have_a_rhythm_by_nature() -> None:
    gaps = Gaps()
    gaps.seen("2061", T0, T0)
    gaps.seen("2061", T0 + 3 * HOUR_MS, T0)
    (hole,) = gaps.due(T0 + SETTLE_MS)
    assert (hole.begin_ms, hole.end_ms) == (T0 + HOUR_MS, T0 + 2 * HOUR_MS)


def test_a_station_that_was_away_for_a_month_sends_a_day() -> None:
    gaps = Gaps()
    gaps.seen("2061", T0, T0)
    gaps.seen("2061", T0 + 30 * 24 * HOUR_MS, T0)
    (hole,) = gaps.due(T0 + SETTLE_MS)
    assert hole.end_ms - hole.begin_ms == LONGEST_MS


def test_it_is_asked_for_three_times_and_then_stays_a_hole() -> None:
    gaps = Gaps()
    minutes(gaps, [0, 1, 2, 3, 10])
    times = 0
    for step in range(10):
        times += len(asked(gaps, T0 + SETTLE_MS + step * RETRY_MS))
    assert times == TRIES
    assert gaps.given_up == 1
    assert gaps.next_ms() is None


def test_holes_are_bounded() -> None:
    gaps = Gaps()
    minutes(gaps, [0, 1, 2, 3])
    minutes(gaps, [3 + 5 * n for n in range(1, 4 * ROOM)])
    assert len(asked(gaps, T0 + SETTLE_MS)) <= ROOM


@settings(max_examples=100, deadline=None, derandomize=True)
@given(numbers=st.lists(st.integers(0, 400), min_size=1, max_size=60))
def test_nothing_is_asked_for_that_has_come(numbers: list[int]) -> None:
    gaps = Gaps()
    minutes(gaps, numbers)
    for hole in gaps.due(T0 + SETTLE_MS):
        assert isinstance(hole, Hole)
        assert (hole.begin_ms - T0) // MINUTE_MS not in numbers
        assert (hole.end_ms - T0) // MINUTE_MS not in numbers
        assert min(numbers) * MINUTE_MS < hole.begin_ms - T0 <= hole.end_ms - T0 < max(numbers) * MINUTE_MS
