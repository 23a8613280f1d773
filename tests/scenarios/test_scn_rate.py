"""Rates: methane that rises, a water main that bursts."""

from __future__ import annotations

import pytest

from protocols.core.model import Quality
from tests.scenarios.world import PIPES, Sample, World, at, brief

T0 = at("2026-03-02 10:00:00")


def gas() -> World:
    return World(PIPES, {"gas": ["g"]})


def main(pressure: list[float], flow: list[float], step_s: float = 10) -> tuple[World, list[tuple[str, str, str]]]:
    world = World(PIPES, {"water_main": ["w"]})
    events = []
    for i, (p, q) in enumerate(zip(pressure, flow, strict=True)):
        ts = T0 + round(i * step_s * 1000)
        sweep: list[Sample] = [("w", "pressure", ts, p, Quality.GOOD), ("w", "flow", ts, q, Quality.GOOD)]
        events += world.feed(sweep)
    return world, brief(events)


def test_methane_levels_take_their_samples() -> None:
    events = gas().run("g", "ch4_lel", T0, 60, [24.9] * 3 + [25.0, 25.0, 25.0])
    assert brief(events) == [("gas.leak.low", "raise", "orange")]
    assert events[0].ts_ms == T0 + 300_000
    events = gas().run("g", "ch4_lel", T0, 60, [49.9, 49.9, 50.0, 50.0])
    assert brief(events)[-1] == ("gas.leak.high", "raise", "red")
    assert events[-1].key == "g/ch4_lel:gas_high"


def test_one_spike_is_no_leak() -> None:
    assert gas().run("g", "ch4_lel", T0, 60, [2.0, 2.0, 80.0, 2.0, 2.0, 2.0]) == []


@pytest.mark.parametrize(("rise", "states"), [(4.9, []), (5.0, ["raise"])])
def test_rise_of_5_within_10_minutes(rise: float, states: list[str]) -> None:
    ramp = [2.0 + rise * i / 9 for i in range(10)] + [2.0 + rise, 2.0 + rise]
    events = gas().run("g", "ch4_lel", T0, 60, ramp)
    assert [event.state for event in events] == states
    assert all(event.values["win_s"] == 600 and event.level == "yellow" for event in events)


def test_the_same_rise_in_20_minutes_is_none() -> None:
    assert gas().run("g", "ch4_lel", T0, 60, [2.0 + 8.0 * i / 20 for i in range(40)]) == []


def test_biogas_rhythm_of_a_day_stays_quiet() -> None:
    values = [5.0 + 3.0 * ((i % 720) / 360 - 1 if i % 1440 < 720 else 1 - (i % 720) / 360) for i in range(2880)]
    assert gas().run("g", "ch4_lel", T0, 60, values) == []


def test_rise_clears_when_the_gas_has_gone_not_when_it_stays() -> None:
    world = gas()
    assert [e.state for e in world.run("g", "ch4_lel", T0, 60, [2.0, 2.0, 9.0, 9.0])] == ["raise"]
    assert world.run("g", "ch4_lel", T0 + 240_000, 60, [9.0] * 60) == []
    start = T0 + 240_000 + 3_600_000
    assert world.run("g", "ch4_lel", start, 60, [6.6, 6.6]) == []  # 2 + 90 % of 5 = 6.5
    assert [e.state for e in world.run("g", "ch4_lel", start + 120_000, 60, [6.5, 6.5])] == ["clear"]


def test_burst_needs_pressure_and_flow() -> None:
    calm = 30
    _, events = main([0.35] * calm + [0.26] * 4, [120.0] * calm + [160.0] * 4)
    assert events == [("pipe.pressure.abnormal", "raise", "orange")]
    _, events = main([0.35] * calm + [0.26] * 4, [120.0] * (calm + 4))  # a pump stopped
    assert events == []
    _, events = main([0.35] * (calm + 4), [120.0] * calm + [160.0] * 4)  # a hydrant opened
    assert events == []


@pytest.mark.parametrize(
    ("pressure", "flow", "found"),
    [(0.2975, 144.0, True), (0.2976, 144.0, False), (0.2975, 143.9, False)],
)
def test_burst_at_15_and_20_percent(pressure: float, flow: float, found: bool) -> None:
    _, events = main([0.35] * 20 + [pressure] * 4, [120.0] * 20 + [flow] * 4)
    assert bool(events) is found


def test_slow_fall_is_no_burst() -> None:
    n = 60  # 0.35 -> 0.26 over 10 minutes
    _, events = main([0.35 - 0.09 * i / n for i in range(n)], [120.0 + 40.0 * i / n for i in range(n)])
    assert events == []


def test_flow_that_follows_later_still_counts() -> None:
    _, events = main([0.35] * 20 + [0.26] * 8, [120.0] * 24 + [160.0] * 4)
    assert events == [("pipe.pressure.abnormal", "raise", "orange")]


def test_burst_stays_until_the_pressure_is_back() -> None:
    world, events = main([0.35] * 20 + [0.26] * 120, [120.0] * 20 + [160.0] * 120)
    assert events == [("pipe.pressure.abnormal", "raise", "orange")]
    back = T0 + 140 * 10_000
    assert world.run("w", "pressure", back, 10, [0.30] * 6) == []  # 86.5 % of 0.35 is 0.30275
    assert [event.state for event in world.run("w", "pressure", back + 60_000, 10, [0.31] * 2)] == ["clear"]


def test_burst_values() -> None:
    world = World(PIPES, {"water_main": ["w"]})
    events = []
    for i in range(24):
        late = i >= 20
        ts = T0 + i * 10_000
        events += world.feed(
            [("w", "pressure", ts, 0.28 if late else 0.35, 0), ("w", "flow", ts, 160.0 if late else 120.0, 0)]
        )
    assert events[0].values == {"kind": "burst", "x": 20.0, "unit": "%"}


def test_site_with_slow_meters_keeps_its_burst_rule() -> None:
    """Polled once a minute instead of every 10 s: fewer samples, same verdict."""
    _, events = main([0.35] * 10 + [0.26] * 4, [120.0] * 10 + [160.0] * 4, step_s=60)
    assert events == [("pipe.pressure.abnormal", "raise", "orange")]
