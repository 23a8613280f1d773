"""However a stream is cut, interrupted or repeated, the same events come out, with the same ids."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.core.errors import ConfigError
from protocols.core.model import Event, Quality
from scenarios.engine import Engine
from tests.scenarios.world import LANE, PIPES, SITE, Sample, World, at, lane_fact, pack_with

START = at("2026-03-02 21:30:00")  # crosses into the night
MINUTE = 60_000

#: What each point does: a calm value, and values on and beyond its limits.
PLAYS = {
    ("n", "laeq"): (50.0, 55.0, 55.1, 70.0, 75.0, 151.0),
    ("n", "lamax"): (60.0, 70.0, 70.1, 90.0),
    ("d", "pm10"): (80.0, 150.0, 260.0, 999.0),
    ("d", "temperature"): (20.0, 20.1, 35.0, 50.0),
    ("ref", "pm10"): (60.0, 70.0),
    ("c", "moment_pct"): (50.0, 90.0, 100.1, 81.0),
    ("c", "wind_speed"): (5.0, 20.0, 17.0),
}
PIPE_PLAYS = {
    ("g", "ch4_lel"): (2.0, 7.0, 25.0, 50.0, 300.0),
    ("w", "pressure"): (0.35, 0.2975, 0.26, 3.0),
    ("w", "flow"): (120.0, 144.0, 160.0),
}


def site() -> World:
    return World(SITE, {"noise": ["n"], "dust": ["d"], "district": ["ref"], "crane": ["c"]})


def pipes() -> World:
    return World(PIPES, {"gas": ["g"], "water_main": ["w"]})


def stream(seed: int, plays: dict[tuple[str, str], tuple[float, ...]], minutes: int, step_s: int) -> list[Sample]:
    """A few hours of all points: runs of one value, some readings bad, missing, repeated, late or swapped."""
    rng = random.Random(seed)
    rows: list[Sample] = []
    now: dict[tuple[str, str], float] = {name: values[0] for name, values in plays.items()}
    for i in range(minutes * 60 // step_s):
        for name, values in plays.items():
            if rng.random() < (0.02 if name[1] == "pm10" else 0.1):  # an hour has to be of one kind
                now[name] = rng.choice(values)
            if rng.random() < 0.03:
                continue
            quality = rng.choice([Quality.BAD, Quality.CALIBRATING]) if rng.random() < 0.03 else Quality.GOOD
            rows.append((*name, START + i * step_s * 1000, now[name], int(quality)))
            if rng.random() < 0.02:
                rows.append(rows[rng.randrange(max(0, len(rows) - 60), len(rows))])
    for _ in range(len(rows) // 50):  # some overtake others
        i = rng.randrange(len(rows) - 8)
        rows[i], rows[i + rng.randrange(8)] = rows[i + rng.randrange(8)], rows[i]
    return rows


def play(world: World, rows: Sequence[Sample], cuts: Sequence[int], engine: Engine | None = None) -> list[Event]:
    now = rows[-1][2] + 24 * 3_600_000
    events: list[Event] = []
    for first, end in pairwise([0, *cuts, len(rows)]):
        events += world.feed(rows[first:end], now, engine)
    return events


@pytest.mark.parametrize(("make", "plays", "step_s"), [(site, PLAYS, 60), (pipes, PIPE_PLAYS, 20)])
def test_the_streams_of_these_tests_are_eventful(make, plays, step_s) -> None:  # type: ignore[no-untyped-def]
    found = [event for seed in range(6) for event in play(make(), stream(seed, plays, 300, step_s), [])]
    kinds = {(event.type, event.state) for event in found}
    wanted = {
        SITE: {"env.noise.exceed", "env.dust.exceed", "crane.overload", "weather.gust", "data.out_of_range"},
        PIPES: {"gas.leak.low", "gas.leak.high", "pipe.pressure.abnormal", "data.out_of_range"},
    }[make().pack.id]
    assert {(kind, "raise") for kind in wanted} <= kinds
    assert {(kind, "clear") for kind in wanted} <= kinds


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(1, 1500), max_size=40), which=st.booleans())
def test_any_cut_gives_the_same_events(seed: int, cuts: list[int], which: bool) -> None:
    make, plays, step_s = (site, PLAYS, 60) if which else (pipes, PIPE_PLAYS, 20)
    rows = stream(seed, plays, 180, step_s)
    cuts = sorted({cut for cut in cuts if cut < len(rows)})
    assert play(make(), rows, cuts) == play(make(), rows, [])


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000), which=st.booleans())
def test_row_by_row_is_the_meaning(seed: int, which: bool) -> None:
    make, plays, step_s = (site, PLAYS, 60) if which else (pipes, PIPE_PLAYS, 20)
    rows = stream(seed, plays, 150, step_s)
    assert play(make(), rows, range(1, len(rows))) == play(make(), rows, [])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 0.95), which=st.booleans(), before=st.booleans())
def test_snapshot_in_the_middle_changes_nothing(seed: int, share: float, which: bool, before: bool) -> None:
    make, plays, step_s = (site, PLAYS, 60) if which else (pipes, PIPE_PLAYS, 20)
    rows = stream(seed, plays, 180, step_s)
    cut = max(1, round(len(rows) * share))
    whole = play(make(), rows, [cut])
    world = make()
    now = rows[-1][2] + 24 * 3_600_000
    first = world.feed(rows[:cut], now)
    second = world.new(add=before)
    assert second.restore(world.engine.snapshot()) == []
    world.add_all(second)
    assert second.notes() == []
    assert first + world.feed(rows[cut:], now, second) == whole


def test_replay_to_the_same_engine_says_nothing_new() -> None:
    world, rows = site(), stream(3, PLAYS, 240, 60)
    assert play(world, rows, []) != []
    open_now = world.engine.snapshot()
    assert play(world, rows, [7, 100]) == []
    again = world.new()
    again.restore(open_now)
    assert play(world, rows, [], again) == []


def test_replay_to_a_fresh_engine_gives_the_same_ids() -> None:
    rows = stream(4, PLAYS, 240, 60)
    first, second = play(site(), rows, []), play(site(), rows, [50])
    assert [event.id for event in first] == [event.id for event in second]
    assert len({event.id for event in first}) == len(first)


def test_series_numbers_may_change_between_runs() -> None:
    world, rows = site(), stream(5, PLAYS, 180, 60)
    cut = len(rows) // 2
    whole = play(site(), rows, [cut])
    now = rows[-1][2] + 24 * 3_600_000
    first = world.feed(rows[:cut], now)
    turned = site()
    turned.infos.reverse()
    turned.index = {(info.device, info.point): i for i, info in enumerate(turned.infos)}
    turned.engine = turned.new()
    assert turned.engine.restore(world.engine.snapshot()) == []
    assert first + turned.feed(rows[cut:], now) == whole


def test_lane_state_survives_a_restart() -> None:
    lane = World(LANE, {"lane_cam": ["cam"]})
    facts = [lane_fact(START + s * 1000, float(s)) for s in range(400)]
    whole = World(LANE, {"lane_cam": ["cam"]}).engine.facts(facts, facts[-1].ts_ms)
    for cut in (30, 61, 179, 181, 399):
        lane = World(LANE, {"lane_cam": ["cam"]})
        first = lane.engine.facts(facts[:cut], facts[-1].ts_ms)
        second = lane.new()
        assert second.restore(lane.engine.snapshot()) == []
        assert first + second.facts(facts[cut:], facts[-1].ts_ms) == whole


RULE = """
[[rule]]
id = "{id}"
zh = "窗"
en = "window"
at = "edge"
block = "window"
role = "noise"
point = "laeq"
unit = "dB"
stat = "mean"
window_s = {window}
every_s = 60
event = "env.noise.exceed"
standard = "design"
[[rule.levels]]
level = "yellow"
limit = {{ value = {limit}, unit = "dB" }}
"""


def changed(**values: object) -> World:
    return World(pack_with(RULE.format(**{"id": "w", "window": 600, "limit": 60.0, **values})), {"noise": ["n"]})


def test_changed_pack_restores_what_fits_and_says_what_not() -> None:
    old = changed()
    assert [event.state for event in old.run("n", "laeq", START, 60, [65.0] * 12)] == ["raise"]
    data = old.engine.snapshot()

    same = changed(limit=62.0)  # another limit fits: the alarm stays open and clears in its own time
    assert same.engine.restore(data) == []
    assert [e.state for e in same.run("n", "laeq", START + 12 * MINUTE, 60, [30.0] * 12)] == ["clear"]

    (said,) = changed(window=1200).engine.restore(data)
    assert "w" in said and "was window mean 10 x 60000 ms" in said
    (said,) = changed(id="other").engine.restore(data)
    assert "rule is gone" in said and "n" in said


def test_lower_limit_after_a_restart_sees_the_samples_already_there() -> None:
    old = changed(limit=80.0)
    old.run("n", "laeq", START, 60, [65.0] * 9)
    new = changed(limit=60.0)
    assert new.engine.restore(old.engine.snapshot()) == []
    assert [e.state for e in new.run("n", "laeq", START + 9 * MINUTE, 60, [55.0, 55.0])] == ["raise"]


def test_device_no_longer_bound_is_said() -> None:
    world = site()
    play(world, stream(1, PLAYS, 60, 60), [])
    smaller = World(SITE, {"noise": ["n"], "crane": ["c"]})
    said = smaller.engine.restore(world.engine.snapshot())
    assert any("no longer bound" in line and "d" in line for line in said)


@pytest.mark.parametrize("data", [b"", b"\x00\x01", b"\x81\xa1x\x01"])
def test_broken_state_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match="scenario state"):
        site().engine.restore(data)


def test_state_of_the_other_place_is_refused() -> None:
    with pytest.raises(ConfigError, match="wanted 1 of the cloud"):
        World(SITE, {"noise": ["n"]}, "cloud").engine.restore(site().engine.snapshot())
