"""Fire lane: stages, widths, cameras that cannot be believed, and a fire nearby."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest

from protocols.core.model import Event, Fact, Level, Quality
from scenarios.blocks.alarm import State
from scenarios.blocks.escalate_near import distance_m
from scenarios.blocks.static_in_zone import StaticInZoneRule
from tests.scenarios.world import LANE, PIPES, World, at, brief, lane_fact

T0 = at("2026-03-02 10:00:00")
NORTH_100_M = 0.0009  # degrees of latitude


def world(**params: float) -> World:
    return World(LANE, {"lane_cam": ["cam"]}, params=params)


def stay(lane: World, seconds: Sequence[int], start_ms: int = T0, /, **values: float | str | bool) -> list[Event]:
    events: list[Event] = []
    for second in seconds:
        ts_ms = start_ms + second * 1000
        events += lane.engine.facts([lane_fact(ts_ms, float(second), **values)], ts_ms)
    return events


def empty(lane: World, start_ms: int, seconds: int) -> list[Event]:
    events: list[Event] = []
    for second in range(seconds + 1):
        ts_ms = start_ms + second * 1000
        events += lane.engine.facts([Fact("cam", "zone.empty", ts_ms, "lane")], ts_ms)
    return events


def state(lane: World, ts_ms: int, code: str) -> list[Event]:
    return lane.engine.facts([Fact("cam", "cam.state", ts_ms, values={"code": code, "detail": "x"})], ts_ms)


def test_van_of_90_seconds_hears_the_voice_and_is_no_alarm() -> None:
    lane = world()
    events = stay(lane, range(91))
    assert brief(events) == [("vision.lane.blocked", "", "info")]
    assert events[0].ts_ms == T0 + 60_000
    assert events[0].values["stage"] == "voice"
    assert empty(lane, T0 + 91_000, 60) == []


@pytest.mark.parametrize(("seconds", "states"), [(179, []), (180, ["raise"])])
def test_blocked_after_three_minutes(seconds: int, states: list[str]) -> None:
    events = stay(world(), range(seconds + 1))
    assert [event.state for event in events if event.state] == states
    assert all(event.level == "yellow" for event in events if event.state)


@pytest.mark.parametrize(("width", "level"), [(4.0, "yellow"), (3.99, "orange"), (2.4, "orange")])
def test_narrow_lane_is_one_level_up(width: float, level: str) -> None:
    assert stay(world(), [200], clear_width_m=width)[-1].level == level


def test_long_and_narrow_is_at_least_orange() -> None:
    lane = world()
    events = stay(lane, [200, 1799, 1801], clear_width_m=4.2)
    assert brief(events) == [("vision.lane.blocked", "raise", "yellow")]
    events = stay(lane, [1900], clear_width_m=3.9)
    assert brief(events) == [("vision.lane.blocked", "update", "orange")]


def test_stage_as_alarm_where_a_pack_wants_it() -> None:
    lane = world()
    rules = tuple(
        msgspec.structs.replace(rule, voice_level="blue") if isinstance(rule, StaticInZoneRule) else rule
        for rule in lane.bound.rules
    )
    lane.bound = replace(lane.bound, rules=rules)
    lane.engine = lane.new()
    assert brief(stay(lane, [61, 181])) == [
        ("vision.lane.blocked", "raise", "blue"),
        ("vision.lane.blocked", "update", "yellow"),
    ]


def test_cleared_after_half_a_minute_empty() -> None:
    lane = world()
    raised = stay(lane, range(200))
    assert empty(lane, T0 + 200_000, 28) == []
    events = empty(lane, T0 + 229_000, 0)
    assert brief(events) == [("vision.lane.blocked", "clear", "yellow"), ("vision.lane.cleared", "", "info")]
    assert events[0].key == raised[-1].key == "cam/lane:lane_blocked"
    assert events[1].values["dwell_s"] == 199
    assert empty(lane, T0 + 230_000, 60) == []


def test_flicker_of_the_detector_does_not_clear() -> None:
    lane = world()
    stay(lane, range(200))
    assert empty(lane, T0 + 200_000, 20) == []
    assert stay(lane, [221]) == []
    assert empty(lane, T0 + 222_000, 20) == []


def test_people_in_the_lane_block_nothing_and_keep_nothing_blocked() -> None:
    lane = world()
    assert stay(lane, range(300), cls="person") == []
    stay(lane, range(200), T0 + 400_000)
    walk = [lane_fact(T0 + 600_000 + s * 1000, 0.0, cls="person") for s in range(31)]
    events = [event for fact in walk for event in lane.engine.facts([fact], fact.ts_ms)]
    assert brief(events)[0] == ("vision.lane.blocked", "clear", "yellow")


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({"conf": 0.49}, 0),
        ({"conf": 0.5}, 1),
        ({"cls": "object", "area_m2": 0.5}, 0),
        ({"cls": "object", "area_m2": 0.6}, 1),
        ({"conf": "high"}, 0),
        ({"static_s": "long"}, 0),
    ],
)
def test_which_facts_are_believed(values: dict[str, float | str], count: int) -> None:
    assert len(stay(world(), [200], **values)) == count


def test_fact_without_confidence_is_not_believed_and_frees_nothing() -> None:
    lane = world()
    stay(lane, range(200))
    for second in range(100):
        fact = lane_fact(T0 + 200_000 + second * 1000, 200.0 + second)
        fact = replace(fact, values={k: v for k, v in fact.values.items() if k != "conf"})
        assert lane.engine.facts([fact], fact.ts_ms) == []


def test_moved_camera_blocks_the_rule_both_ways() -> None:
    lane = world()
    assert brief(state(lane, T0, "moved")) == [("cam.moved", "raise", "blue")]
    assert stay(lane, range(1, 400)) == []
    assert state(lane, T0 + 400_000, "moved") == []
    assert brief(state(lane, T0 + 401_000, "ok")) == [("cam.moved", "clear", "blue")]
    assert brief(stay(lane, [402])) == [("vision.lane.blocked", "raise", "yellow")]
    # an open alarm is not cleared by a blind camera either
    assert brief(state(lane, T0 + 403_000, "low_conf")) == [("vision.low_conf", "raise", "info")]
    assert empty(lane, T0 + 404_000, 100) == []
    state(lane, T0 + 505_000, "ok")
    assert empty(lane, T0 + 506_000, 28) == []  # emptiness counts from when it could be seen again
    assert brief(empty(lane, T0 + 535_000, 0))[0] == ("vision.lane.blocked", "clear", "yellow")


@pytest.mark.parametrize(
    ("code", "kinds"),
    [
        ("blocked", ["cam.blocked"]),
        ("dark", ["vision.low_conf"]),
        ("frozen", ["data.frozen"]),
        ("lost", []),
        ("ok", []),
    ],
)
def test_camera_codes(code: str, kinds: list[str]) -> None:
    lane = world()
    assert [event.type for event in state(lane, T0, code)] == kinds
    assert (stay(lane, [200]) == []) is (code != "ok")


def test_camera_that_goes_from_one_trouble_to_the_next() -> None:
    lane = world()
    first = state(lane, T0, "low_conf")
    then = state(lane, T0 + 1000, "moved")
    assert brief(first + then) == [
        ("vision.low_conf", "raise", "info"),
        ("vision.low_conf", "clear", "info"),
        ("cam.moved", "raise", "blue"),
    ]
    assert len({event.id for event in first + then}) == 3


def test_late_future_and_foreign_facts() -> None:
    lane = world()
    stay(lane, [100])
    assert lane.engine.facts([lane_fact(T0 + 50_000, 500.0)], T0 + 100_000) == []
    assert lane.engine.facts([lane_fact(T0 + 800_000, 500.0)], T0 + 100_000) == []
    assert lane.engine.facts([lane_fact(5_000, 500.0)], T0 + 100_000) == []
    assert lane.engine.facts([replace(lane_fact(T0 + 101_000, 500.0), device="elsewhere")], T0 + 101_000) == []
    suspect = replace(lane_fact(T0 + 102_000, 500.0), quality=Quality.SUSPECT)
    assert lane.engine.facts([suspect], T0 + 102_000) == []
    assert lane.engine.counters["facts_late"] == 1
    assert lane.engine.counters["facts_refused"] == 2


def test_zones_of_one_camera_are_apart() -> None:
    lane = world()
    stay(lane, range(200))
    other = [replace(lane_fact(T0 + 200_000 + s * 1000, 0.0), zone="gate", kind="zone.empty") for s in range(60)]
    assert [event for fact in other for event in lane.engine.facts([fact], fact.ts_ms)] == []


# -- a fire nearby (at the core)


def cloud() -> World:
    lane = World(LANE, {"lane_cam": ["cam"]}, "cloud")
    lane.engine.set_location("cam", 117.2, 31.8)
    return lane


def blocked(level: Level = "yellow", what: State = "raise", **more: object) -> Event:
    key = "cam/lane:lane_blocked"
    event = Event("lane-1", "vision.lane.blocked", T0, T0, "cam/lane", LANE, level, what, key)
    return replace(event, **more)  # type: ignore[arg-type]


def fire(north_m: float = 100.0, what: State = "raise", ts_ms: int = T0 + 600_000, **more: object) -> Event:
    place = (117.2, 31.8 + north_m * NORTH_100_M / 100)
    event = Event("fire-1", "fire.alarm", ts_ms, ts_ms, "host-3", "x", "orange", what, "host-3:part", location=place)
    return replace(event, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("fire_first", [False, True])
def test_fire_within_300_m_makes_the_lane_red(fire_first: bool) -> None:
    lane = cloud()
    pair = [fire(), blocked()] if fire_first else [blocked(), fire()]
    (event,) = lane.engine.events(pair, T0)
    assert (event.type, event.state, event.level) == ("vision.lane.blocked", "update", "red")
    assert event.key == "cam/lane:lane_blocked"
    assert event.values["by"] == "fire-1"
    assert event.values["dist_m"] == pytest.approx(100.0, abs=0.5)
    assert lane.engine.events([blocked("orange", "update"), fire(), event], T0) == []  # once


@pytest.mark.parametrize(("metres", "count"), [(299.0, 1), (301.0, 0)])
def test_distance_counts(metres: float, count: int) -> None:
    assert len(cloud().engine.events([blocked(), fire(metres)], T0)) == count


def test_what_does_not_escalate() -> None:
    assert cloud().engine.events([blocked(), blocked(what="clear"), fire()], T0) == []
    assert cloud().engine.events([fire(), fire(what="clear"), blocked()], T0) == []
    assert cloud().engine.events([blocked("red"), fire()], T0) == []
    assert cloud().engine.events([blocked(), fire(drill=True)], T0) == []
    assert cloud().engine.events([blocked(scenario=PIPES), fire()], T0) == []
    assert cloud().engine.events([blocked(source="other/lane"), fire()], T0) == []
    lane = cloud()
    assert lane.engine.events([blocked(), fire(location=None)], T0) == []
    assert lane.engine.counters["events_without_place"] == 1


def test_old_fire_is_forgotten() -> None:
    lane = cloud()
    lane.engine.events([fire()], T0)
    later = T0 + 600_000 + 7_200_001
    lane.engine.tick(later)
    assert lane.engine.events([blocked(ts_ms=later)], later) == []


def test_escalation_survives_a_restart() -> None:
    lane = cloud()
    lane.engine.events([blocked()], T0)
    again = lane.new()
    again.set_location("cam", 117.2, 31.8)
    assert again.restore(lane.engine.snapshot()) == []
    (event,) = again.events([fire()], T0)
    assert [event.id] == [e.id for e in lane.engine.events([fire()], T0)]


def test_distance_of_two_known_points() -> None:
    """One degree along a meridian is 111.19 km on the sphere used."""
    assert distance_m((117.0, 31.0), (117.0, 32.0)) == pytest.approx(111_195, abs=1)
    assert distance_m((117.0, 31.0), (117.0, 31.0)) == 0.0
