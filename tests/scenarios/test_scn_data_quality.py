"""Data quality: flat lines, impossible values and jumps, silent devices."""

from __future__ import annotations

import pytest

from protocols.core.errors import ConfigError
from protocols.core.model import Event, Quality
from scenarios.engine import Engine
from scenarios.packs import bind, load
from tests.scenarios.world import PIPES, SITE, World, at, brief, pack_with, samples

T0 = at("2026-03-02 10:00:00")
HOUR = 3_600_000


def noise() -> World:
    return World(SITE, {"noise": ["n"]})


def dust() -> World:
    return World(SITE, {"dust": ["d"]})


@pytest.mark.parametrize(("minutes", "states"), [(119, []), (120, ["raise"]), (180, ["raise"])])
def test_flat_for_two_hours_is_frozen(minutes: int, states: list[str]) -> None:
    events = noise().run("n", "laeq", T0, 60, [55.0] * (minutes + 1))
    assert [event.state for event in events] == states
    assert {event.type for event in events} <= {"data.frozen"}


def test_frozen_says_since_when_and_clears_with_the_first_move() -> None:
    world = noise()
    moving = world.run("n", "laeq", T0, 60, [55.1, 55.2])
    (event,) = world.run("n", "laeq", T0 + 120_000, 60, [55.0] * 130)
    assert moving == []
    assert event.values == {"code": "flat", "detail": "55", "since": T0 + 120_000}
    (over,) = world.run("n", "laeq", T0 + 4 * HOUR, 60, [55.1])
    assert (over.state, over.key) == ("clear", event.key)


def test_one_step_of_the_last_digit_is_life() -> None:
    assert noise().run("n", "laeq", T0, 60, [55.0 + 0.1 * (i % 100 == 99) for i in range(400)]) == []


def test_quiet_points_may_be_flat() -> None:
    assert noise().run("n", "status", T0, 60, [0.0] * 400) == []


def test_a_hole_in_the_data_is_no_flat_line() -> None:
    world = noise()
    assert world.run("n", "laeq", T0, 60, [55.0] * 60) == []
    assert world.run("n", "laeq", T0 + 3 * HOUR, 60, [55.0] * 60) == []


@pytest.mark.parametrize(("value", "bad"), [(120.0, False), (120.1, True), (-5.0, False), (-5.1, True), (655.3, True)])
def test_range_of_the_device_type(value: float, bad: bool) -> None:
    world = World(PIPES, {"gas": ["g"]})
    events = world.feed(samples("g", "ch4_lel", T0, 60, [2.0, value]))
    assert brief(events) == ([("data.out_of_range", "raise", "info")] if bad else [])
    assert world.engine.suspect_rows.tolist() == ([1] if bad else [])
    assert all(event.quality == "suspect" and event.values["code"] == "range" for event in events)


def test_saturated_sensor_raises_no_gas_alarm_and_recovers() -> None:
    world = World(PIPES, {"gas": ["g"]})
    events = world.run("g", "ch4_lel", T0, 60, [2.0] + [655.3] * 10 + [2.0] * 5)
    assert [(event.type, event.state) for event in events] == [
        ("data.out_of_range", "raise"),
        ("data.out_of_range", "clear"),
    ]
    assert events[1].ts_ms == T0 + 13 * 60_000  # the third good one
    assert world.engine.counters["rows_suspect"] == 10


def test_suspect_input_is_told_but_feeds_no_rule() -> None:
    world = World(PIPES, {"gas": ["g"]})
    assert world.run("g", "ch4_lel", T0, 60, [80.0] * 5, Quality.SUSPECT) == []


def test_impossible_jump_and_a_new_level_that_stays() -> None:
    world = dust()
    spike = world.run("d", "temperature", T0, 60, [20.0, 20.1, 35.0, 20.2, 20.1, 20.0])
    assert [(event.type, event.state) for event in spike] == [
        ("data.out_of_range", "raise"),
        ("data.out_of_range", "clear"),
    ]
    assert spike[0].values["code"] == "jump"
    level = world.run("d", "temperature", T0 + 2 * HOUR, 60, [0.0, 15.0, 15.1, 15.0, 15.0, 15.0])
    assert [(event.type, event.state) for event in level] == [
        ("data.out_of_range", "raise"),
        ("data.out_of_range", "clear"),
    ]
    assert level[1].ts_ms == T0 + 2 * HOUR + 5 * 60_000  # third sample believed, then three good ones


def test_jump_after_a_long_silence_is_weather() -> None:
    assert dust().run("d", "temperature", T0, 3600, [5.0, 20.0, 5.0]) == []


def offline() -> World:
    return World(SITE, {"noise": ["n"], "dust": ["d"]}, "cloud")


def silence(world: World, after_ms: int) -> list[Event]:
    return world.engine.tick(T0 + after_ms)


def test_offline_after_three_intervals_and_back() -> None:
    world = offline()
    world.feed([("n", "laeq", T0, 55.0, 0), ("d", "pm10", T0, 55.0, 0)])
    assert silence(world, 180_000) == []
    events = silence(world, 180_001)
    assert brief(events) == [("dev.offline", "raise", "blue")] * 2
    assert [event.source for event in events] == ["n", "d"]
    assert events[0].values == {"code": "no_data", "since": T0, "n": 3}
    assert silence(world, 900_000) == []
    (back,) = world.feed([("n", "laeq", T0 + 900_000, 55.0, Quality.MAINTENANCE)], T0 + 901_000)
    assert (back.type, back.state, back.key) == ("dev.offline", "clear", "n:no_data")


def test_backlog_does_not_flap_a_device() -> None:
    world = offline()
    world.feed([("n", "laeq", T0, 55.0, 0)])
    silence(world, HOUR)
    for minute in range(1, 50):  # old readings, sent after the link came back an hour later
        assert world.feed([("n", "laeq", T0 + minute * 60_000, 55.0, 0)], T0 + HOUR) == []
        assert silence(world, HOUR) == []
    assert [e.state for e in world.feed([("n", "laeq", T0 + HOUR, 55.0, 0)], T0 + HOUR)] == ["clear"]


def test_device_never_heard_of_is_counted_from_the_first_tick() -> None:
    world = World(SITE, {"noise": ["n"]}, "cloud", add=False)
    assert silence(world, 0) == []
    assert silence(world, 180_000) == []
    assert [event.source for event in silence(world, 180_001)] == ["n"]


def test_edge_does_not_judge_silence() -> None:
    world = noise()
    world.feed([("n", "laeq", T0, 55.0, 0)])
    assert silence(world, 10 * HOUR) == []


def test_device_in_two_packs_is_judged_once() -> None:
    other = pack_with(
        """
[[rule]]
id = "out_of_range"
zh = "越界"
en = "range"
at = "edge"
block = "out_of_range"
role = "*"
event = "data.out_of_range"
standard = "design"
""",
        pack_id=PIPES,
    )
    world = noise()
    engine = Engine([world.bound, bind(other, {"noise": ["n"]})], "edge")
    world.add_all(engine)
    events = world.feed(samples("n", "laeq", T0, 60, [151.0, 151.0]), engine=engine)
    assert [(event.scenario, event.state) for event in events] == [(SITE, "raise")]


def test_device_twice_in_one_pack_is_refused() -> None:
    bound = bind(load(SITE), {"noise": ["n"]})
    with pytest.raises(ConfigError, match="n is bound twice"):
        Engine([bound, bound], "edge")
