"""Threshold: limits on both sides, k of n, holds, hysteresis, day and night, and what must not count."""

from __future__ import annotations

import pytest

from protocols.core.model import Quality
from tests.scenarios.world import SITE, World, at, brief, pack_with, samples

DAY = at("2026-03-02 10:00:00")
NIGHT = at("2026-03-02 22:30:00")

HOLD = """
[[rule]]
id = "loud"
zh = "响"
en = "loud"
at = "edge"
block = "threshold"
role = "noise"
point = "laeq"
unit = "dB"
event = "env.noise.exceed"
standard = "design"
[[rule.levels]]
level = "yellow"
hold_s = 120
limit = { value = 80.0, unit = "dB" }
[[rule.levels]]
level = "red"
hold_s = 60
limit = { value = 100.0, unit = "dB" }
"""

LOW = """
[[rule]]
id = "weak"
zh = "低压"
en = "low pressure"
at = "edge"
block = "threshold"
role = "water"
point = "pressure"
unit = "MPa"
direction = "low"
event = "pipe.pressure.abnormal"
standard = "design"
[[rule.levels]]
level = "yellow"
limit = { value = 0.2, unit = "MPa" }
[[rule.levels]]
level = "orange"
limit = { value = 0.1, unit = "MPa" }
"""


def crane() -> World:
    return World(SITE, {"crane": ["c"]})


def hold() -> World:
    return World(pack_with(HOLD), {"noise": ["n"]})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([89.9] * 10, []),
        ([90.0, 50.0, 50.0, 50.0], []),  # one of three
        ([90.0, 50.0, 90.0], [("raise", "blue")]),  # two of three, the newest among them
        ([90.0, 90.0, 50.0, 50.0], [("raise", "blue"), ("clear", "blue")]),
        ([100.0, 100.0, 100.0], [("raise", "blue")]),  # orange is above 100, not at 100
        ([100.1, 100.1], [("raise", "orange")]),
        ([95.0, 95.0, 104.0, 104.0], [("raise", "blue"), ("update", "orange")]),
        ([104.0, 104.0, 95.0, 95.0, 95.0], [("raise", "orange")]),  # a level is not lowered by a rule
        ([104.0, 104.0, 81.1, 81.1, 81.1], [("raise", "orange")]),  # above 90 % of the lowest limit
        ([104.0, 104.0, 81.0, 95.0, 81.0], [("raise", "orange"), ("clear", "orange")]),
    ],
)
def test_crane_moment(values: list[float], expected: list[tuple[str, str]]) -> None:
    events = crane().run("c", "moment_pct", DAY, 5, values)
    assert [(event.state, event.level) for event in events] == expected
    assert {event.type for event in events} <= {"crane.overload"}
    assert {event.key for event in events} <= {"c/moment_pct:crane_moment"}


def test_event_says_what_the_family_carries() -> None:
    world = crane()
    world.engine.set_location("c", 117.2, 31.8)
    (event,) = world.run("c", "moment_pct", DAY, 5, [104.0, 104.3])
    assert event.values == {"q": "moment_pct", "x": 104.3, "limit": 100.0}
    assert event.scenario == SITE
    assert event.source == "c/moment_pct"
    assert event.location == (117.2, 31.8)
    assert event.ts_ms == event.seen_ms == DAY + 5000


def test_night_maximum_speaks_at_night_only() -> None:
    world = World(SITE, {"noise": ["n"]})
    assert world.run("n", "lamax", DAY, 60, [95.0] * 5) == []
    assert world.run("n", "lamax", NIGHT, 60, [70.0] * 3) == []
    assert brief(world.run("n", "lamax", NIGHT + 600_000, 60, [70.1])) == [("env.noise.exceed", "raise", "yellow")]


def test_night_alarm_is_over_when_day_begins() -> None:
    world = World(SITE, {"noise": ["n"]})
    start = at("2026-03-03 05:58:00")
    events = world.run("n", "lamax", start, 60, [80.0] * 9)
    assert [event.state for event in events] == ["raise", "clear"]
    assert events[1].ts_ms == at("2026-03-03 06:05:00")  # by day the rule is silent; 300 s of that clear it


def test_site_limit_replaces_the_packs() -> None:
    world = World(SITE, {"noise": ["n"]}, params={"noise_lamax.yellow.night": 60.0})
    assert [event.state for event in world.run("n", "lamax", NIGHT, 60, [60.1])] == ["raise"]


def test_hold_is_met_to_the_second() -> None:
    world = hold()
    assert world.run("n", "laeq", DAY, 119, [80.0, 80.0]) == []
    world = hold()
    (event,) = world.run("n", "laeq", DAY, 120, [80.0, 80.0])
    assert (event.level, event.ts_ms) == ("yellow", DAY + 120_000)


def test_higher_level_has_its_own_hold() -> None:
    events = hold().run("n", "laeq", DAY, 60, [80.0, 101.0, 101.0])
    assert [(event.state, event.level, event.ts_ms) for event in events] == [("raise", "red", DAY + 120_000)]


def test_a_break_begins_the_hold_anew() -> None:
    assert hold().run("n", "laeq", DAY, 60, [80.0, 79.9, 80.0, 80.0]) == []


def test_hold_runs_out_by_time_or_by_the_next_sample_alike() -> None:
    first = samples("n", "laeq", DAY, 50, [85.0, 85.0, 85.0])  # 0, 50, 100 s
    after = ("n", "laeq", DAY + 150_000, 60.0, Quality.GOOD)
    by_tick = hold()
    assert by_tick.feed(first) == []
    assert by_tick.engine.tick(DAY + 120_000) == []  # due now, but a sample of this very time may still come
    (raised,) = by_tick.engine.tick(DAY + 121_000)
    by_sample = hold()
    by_sample.feed(first)
    (also,) = by_sample.feed([after])
    assert raised.id == also.id
    assert raised.ts_ms == also.ts_ms == DAY + 120_000
    assert by_tick.feed([after]) == []


def test_one_sample_is_no_run_and_a_gap_ends_one() -> None:
    world = hold()
    world.feed(samples("n", "laeq", DAY, 1, [85.0]))
    assert world.engine.tick(DAY + 10_000_000) == []
    for gap_ms, states in ((180_000, ["raise"]), (180_001, [])):  # three intervals of 60 s
        world = hold()
        world.feed(samples("n", "laeq", DAY, 1, [85.0]))
        assert [event.state for event in world.feed(samples("n", "laeq", DAY + gap_ms, 1, [85.0]))] == states


def test_clear_is_held_as_long_as_the_raise() -> None:
    world = hold()
    world.run("n", "laeq", DAY, 60, [90.0, 90.0, 90.0])
    start = DAY + 180_000
    assert world.run("n", "laeq", start, 60, [72.0, 72.1, 72.0, 72.0]) == []
    (event,) = world.run("n", "laeq", start + 240_000, 60, [72.0])
    assert (event.state, event.ts_ms) == ("clear", start + 240_000)


def test_low_limit_turns_everything_round() -> None:
    world = World(pack_with(LOW), {"water": ["w"]})
    events = world.run("w", "pressure", DAY, 10, [0.201, 0.2, 0.1, 0.15, 0.219, 0.22])
    assert [(event.state, event.level) for event in events] == [
        ("raise", "yellow"),
        ("update", "orange"),
        ("clear", "orange"),  # 110 % of the lowest limit, not a hair before
    ]
    assert events[-1].ts_ms == DAY + 50_000


@pytest.mark.parametrize("quality", [q for q in Quality if q != Quality.GOOD])
def test_only_good_samples_raise_or_clear(quality: Quality) -> None:
    world = crane()
    assert world.run("c", "moment_pct", DAY, 5, [120.0] * 4, quality) == []
    assert world.run("c", "moment_pct", DAY + 60_000, 5, [120.0] * 2) != []
    assert world.run("c", "moment_pct", DAY + 120_000, 5, [20.0] * 9, quality) == []
    assert world.engine.counters["rows_not_good"] == 13


def test_nan_marked_good_is_no_number() -> None:
    assert crane().run("c", "moment_pct", DAY, 5, [float("nan"), float("inf")] * 4) == []


def test_late_samples_and_repeats_do_not_count() -> None:
    world = crane()
    world.run("c", "moment_pct", DAY, 5, [50.0, 50.0, 50.0])
    assert world.run("c", "moment_pct", DAY - 60_000, 5, [120.0] * 4) == []
    assert world.run("c", "moment_pct", DAY + 10_000, 5, [120.0]) == []  # the last one said again, with another value
    assert world.engine.counters["rows_late"] == 4
    assert world.engine.counters["rows_repeated"] == 1
    raised = world.run("c", "moment_pct", DAY + 15_000, 5, [120.0, 120.0])
    assert [event.state for event in raised] == ["raise"]
    assert world.run("c", "moment_pct", DAY + 5_000, 1, [10.0] * 9) == []  # the past does not clear it either


def test_disorder_within_a_batch() -> None:
    world = crane()
    mixed = [(d, p, DAY + s * 1000, x, Quality.GOOD) for d, p, s, x in [
        ("c", "moment_pct", 5, 120.0), ("c", "moment_pct", 0, 120.0), ("c", "moment_pct", 3, 120.0),
        ("c", "moment_pct", 5, 120.0), ("c", "moment_pct", 10, 120.0),
    ]]  # fmt: skip
    events = world.feed(mixed)
    assert [(event.state, event.ts_ms) for event in events] == [("raise", DAY + 10_000)]
    assert world.engine.counters["rows_late"] == 3


def test_impossible_times_move_nothing() -> None:
    world = crane()
    now = DAY + 1000
    never_set = samples("c", "moment_pct", 5_000, 5, [120.0] * 4)  # a clock that never was set: 1970
    assert world.feed(never_set, now) == []
    ahead = samples("c", "moment_pct", now + 600_001, 5, [120.0] * 4)
    assert world.feed(ahead, now) == []
    assert world.engine.counters["rows_before_2000"] == 4
    assert world.engine.counters["rows_future"] == 4
    assert [e.state for e in world.feed(samples("c", "moment_pct", now, 5, [120.0, 120.0]), now + 600_000)] == ["raise"]


def test_unknown_series_are_counted_not_guessed() -> None:
    world = crane()
    batch = world.batch(samples("c", "moment_pct", DAY, 5, [120.0] * 2))
    batch.series[:] = [999, -1]
    assert world.engine.step(batch, DAY) == []
    assert world.engine.counters["rows_unknown"] == 2


def test_empty_batch() -> None:
    world = crane()
    assert world.feed([]) == []


def test_condition_hides_samples_from_the_rule() -> None:
    text = HOLD.replace('standard = "design"', 'standard = "design"\nwhere = "hour >= 12.0 && device == \'n\'"')
    world = World(pack_with(text), {"noise": ["n"]})
    assert world.run("n", "laeq", DAY, 60, [90.0] * 5) == []
    noon = at("2026-03-02 12:00:00")
    assert [event.state for event in world.run("n", "laeq", noon, 60, [90.0] * 3)] == ["raise"]


def test_wind_at_the_crane() -> None:
    world = crane()
    events = world.run("c", "wind_speed", DAY, 5, [19.9, 20.0, 20.0])
    assert brief(events) == [("weather.gust", "raise", "yellow")]
    assert events[0].values["unit"] == "m/s"
