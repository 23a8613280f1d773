"""Report by exception: what is left out can be rebuilt within the deadband, every point of it."""

from __future__ import annotations

import itertools
from fractions import Fraction

from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge.report import Mode, Point, Reporter, ReportPolicy

STEPS = st.lists(
    st.tuples(
        st.integers(1, 5000), st.one_of(st.integers(-3, 3), st.integers(-200, 200), st.integers(-(10**8), 10**8))
    ),
    min_size=1,
    max_size=60,
)
POLICY = st.tuples(st.integers(0, 50), st.one_of(st.integers(1, 20_000), st.just(10**9)))


def points_of(steps: list[tuple[int, int]]) -> list[Point]:
    ts_ms, value, out = 1_772_400_000_000, 0, []
    for after_ms, change in steps:
        ts_ms += after_ms
        value += change
        out.append(Point(ts_ms, 0, value, 0))
    return out


def offer_all(mode: Mode, deadband: int, snapshot_ms: int, points: list[Point]) -> tuple[Reporter, list[Point]]:
    reporter = Reporter(ReportPolicy(mode, deadband, snapshot_ms))
    return reporter, [sent for point in points for sent in reporter.offer(point)]


def rebuilt(sent: list[Point], ts_ms: int) -> Fraction:
    after = next(k for k, point in enumerate(sent) if point.ts_ms >= ts_ms)
    if sent[after].ts_ms == ts_ms:
        return Fraction(sent[after].integer)
    a, b = sent[after - 1], sent[after]
    return a.integer + Fraction((b.integer - a.integer) * (ts_ms - a.ts_ms), b.ts_ms - a.ts_ms)


@given(STEPS, POLICY)
@example([(1, 0), (1, 100), (1, 0), (1, 100), (1, 0)], (50, 10**9))
@example([(10, 0), (10, 10), (10, -8), (10, 10), (10, -7), (10, 3), (10, 40)], (5, 10**9))
@settings(max_examples=400, deadline=None)
def test_the_swinging_door_keeps_every_point_within_the_deadband(
    steps: list[tuple[int, int]], policy: tuple[int, int]
) -> None:
    points = points_of(steps)
    _, sent = offer_all("swinging-door", *policy, points)
    assert sent[0] == points[0]
    assert [p.ts_ms for p in sent] == sorted({p.ts_ms for p in sent})
    assert set(sent) <= set(points)
    for point in points:
        if point.ts_ms <= sent[-1].ts_ms:
            assert abs(rebuilt(sent, point.ts_ms) - point.integer) <= policy[0] + Fraction(1, 10**4)


@given(STEPS, POLICY)
@settings(max_examples=100, deadline=None)
def test_the_swinging_door_is_never_silent_longer_than_the_snapshot(
    steps: list[tuple[int, int]], policy: tuple[int, int]
) -> None:
    """Between two that are sent there is no third that would have been due."""
    points = points_of(steps)
    _, sent = offer_all("swinging-door", *policy, points)
    for a, b in itertools.pairwise(sent):
        between = [p for p in points if a.ts_ms < p.ts_ms < b.ts_ms]
        assert all(p.ts_ms - a.ts_ms < policy[1] for p in between)


@given(STEPS, POLICY)
@settings(max_examples=150, deadline=None)
def test_the_deadband_is_exact(steps: list[tuple[int, int]], policy: tuple[int, int]) -> None:
    """Against the rule in words: changed by more than the deadband (0: at all) since the last sent, or snapshot due."""
    deadband, snapshot_ms = policy
    points = points_of(steps)
    expected: list[Point] = []
    for point in points:
        if (
            not expected
            or abs(point.integer - expected[-1].integer) > deadband
            or point.ts_ms - expected[-1].ts_ms >= snapshot_ms
        ):
            expected.append(point)
    assert offer_all("deadband", deadband, snapshot_ms, points)[1] == expected


@given(STEPS, st.sampled_from(["deadband", "swinging-door"]), POLICY)
@settings(max_examples=60, deadline=None)
def test_a_changed_quality_goes_at_once_and_nothing_held_is_lost(
    steps: list[tuple[int, int]], mode: Mode, policy: tuple[int, int]
) -> None:
    points = points_of(steps)
    reporter, sent = offer_all(mode, *policy, points)
    bad = Point(points[-1].ts_ms + 1, 0, points[-1].integer, 5)
    out = reporter.offer(bad)
    assert out[-1] == bad
    if mode == "swinging-door":
        assert points[-1] in [*sent, *out]  # the last good one ends the line
    good = Point(bad.ts_ms + 1, 0, points[-1].integer, 0)
    assert reporter.offer(good)[-1] == good


@given(STEPS, st.sampled_from(["deadband", "swinging-door", "all"]), POLICY, st.data())
@settings(max_examples=150, deadline=None)
def test_late_and_doubled_points_go_as_they_are_and_bend_no_line(
    steps: list[tuple[int, int]], mode: Mode, policy: tuple[int, int], data: st.DataObject
) -> None:
    """Also at the very time of another: two values of one moment, in any order, stop nothing."""
    points = points_of(steps)
    _, plain = offer_all(mode, *policy, points)
    reporter = Reporter(ReportPolicy(mode, *policy))
    sent: list[Point] = []
    for number, point in enumerate(points):
        sent += reporter.offer(point)
        if mode != "all" and data.draw(st.booleans()):
            # What was not sent leaves no trace in a deadband: there only what is older than the last sent is late.
            known = [p for p in points[: number + 1] if mode == "swinging-door" or p.ts_ms <= sent[-1].ts_ms]
            old = known[data.draw(st.integers(0, len(known) - 1))]
            late = Point(old.ts_ms, 9, old.integer + data.draw(st.integers(-60, 60)), data.draw(st.integers(0, 1)))
            out = reporter.offer(late)
            assert out == [late] or (out == [] and (late.integer, late.quality) == (old.integer, old.quality))
    assert sent == plain


def test_mode_all_keeps_all() -> None:
    points = points_of([(1000, 0)] * 50)
    assert offer_all("all", 10, 10**9, points)[1] == points


def test_a_steady_signal_costs_one_point_a_snapshot() -> None:
    points = points_of([(1000, 0)] * 301)
    for mode in ("deadband", "swinging-door"):
        _, sent = offer_all(mode, 2, 60_000, points)
        assert [p.ts_ms - points[0].ts_ms for p in sent] == [0, 60_000, 120_000, 180_000, 240_000, 300_000]


def test_a_ramp_costs_its_ends() -> None:
    points = points_of([(1000, 7)] * 100)
    _, sent = offer_all("swinging-door", 1, 10**9, [*points, Point(points[-1].ts_ms + 1000, 0, 0, 0)])
    assert sent == [points[0], points[-1]]
