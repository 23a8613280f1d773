"""Windows: energy mean, clock hours, valid share, day against night, late data."""

from __future__ import annotations

import math

import pytest

from protocols.core.model import Quality
from tests.scenarios.world import SITE, World, at, brief, samples

DAY = at("2026-03-02 10:00:00")
NIGHT = at("2026-03-02 22:00:00")
HOUR = 3_600_000
MINUTE = 60_000


def noise(**params: float) -> World:
    return World(SITE, {"noise": ["n"]}, params=params)


def dust() -> World:
    return World(SITE, {"dust": ["d"]})


@pytest.mark.parametrize(("level", "states"), [(70.0, []), (70.1, ["raise"])])
def test_laeq_by_day_on_both_sides_of_70(level: float, states: list[str]) -> None:
    events = noise().run("n", "laeq", DAY, 60, [level] * 25)
    assert [event.state for event in events] == states


def test_laeq_adds_energy_not_decibels() -> None:
    """One minute of 68 dB in a night of 48: the arithmetic mean is 49, the energy mean 55.8."""
    world = noise()
    start = at("2026-03-02 23:00:00")
    quiet = world.run("n", "laeq", start, 60, [48.0] * 20)
    assert quiet == []
    (event,) = world.run("n", "laeq", start + 20 * MINUTE, 60, [68.0, 48.0])
    expected = 10 * math.log10((10**6.8 + 19 * 10**4.8) / 20)
    assert event.values["x"] == pytest.approx(expected, abs=0.01)
    assert event.values["limit"] == 55.0
    assert event.values["win_s"] == 1200
    assert event.values["n_good"] == 20
    assert event.ts_ms == start + 21 * MINUTE


def test_noise_clears_3_db_under_the_limit() -> None:
    world = noise()
    start = at("2026-03-02 23:00:00")
    world.run("n", "laeq", start, 60, [60.0] * 21)
    for level, states in ((52.1, []), (51.9, ["clear"])):
        start += 25 * MINUTE
        assert [event.state for event in world.run("n", "laeq", start, 60, [level] * 24)] == states


def test_window_half_day_half_night_has_no_verdict() -> None:
    """65 dB until 22:00 is lawful, though the windows that end shortly after would pass the night limit."""
    world = noise()
    before = world.run("n", "laeq", at("2026-03-02 21:30:00"), 60, [65.0] * 30)
    after = world.run("n", "laeq", NIGHT, 60, [45.0] * 60)
    assert before == after == []
    # ... and the first whole night window speaks
    world = noise()
    (event,) = world.run("n", "laeq", at("2026-03-02 21:30:00"), 60, [65.0] * 60)
    assert event.ts_ms == at("2026-03-02 22:20:00")


@pytest.mark.parametrize(("good", "states"), [(15, ["raise"]), (14, [])])
def test_three_quarters_of_the_window_must_be_good(good: int, states: list[str]) -> None:
    world = World(SITE, {"noise": ["n"]})
    quality = [Quality.GOOD] * good + [Quality.MAINTENANCE] * (20 - good)
    events = world.feed(
        [("n", "laeq", DAY + i * MINUTE, 75.0, q) for i, q in enumerate(quality)]
        # the next verdicts have even fewer good samples
        + [("n", "laeq", DAY + 20 * MINUTE, 30.0, Quality.GOOD)]
    )
    assert [event.state for event in events] == states
    assert world.engine.counters["windows_no_verdict"] > 0


def test_fast_station_fills_its_slots_and_weighs_time() -> None:
    """A reading a second for half an hour of 200, one a minute for half an hour of 90: 145, not 198."""
    world = dust()
    fast = samples("d", "pm10", DAY, 1, [200.0] * 1800)
    assert world.feed(fast) + world.run("d", "pm10", DAY + HOUR // 2, 60, [90.0] * 31) == []
    world = dust()
    fast = samples("d", "pm10", DAY, 1, [200.0] * 1800)
    (event,) = world.feed(fast) + world.run("d", "pm10", DAY + HOUR // 2, 60, [110.0] * 31)
    assert (event.values["x"], event.values["n_good"]) == (155.0, 60)


@pytest.mark.parametrize(
    ("level", "expected"),
    [(149.9, []), (150.0, [("raise", "yellow")]), (199.9, [("raise", "yellow")]), (200.0, [("raise", "orange")])],
)
def test_dust_hour(level: float, expected: list[tuple[str, str]]) -> None:
    events = dust().run("d", "pm10", DAY, 60, [level] * 61)
    assert [(event.state, event.level) for event in events] == expected
    assert all(event.ts_ms == DAY + HOUR for event in events)  # the hour's end, not the sample that told


def test_dust_hours_are_clock_hours_and_clear_at_90_percent() -> None:
    world = dust()
    half = world.run("d", "pm10", DAY + HOUR // 2, 60, [400.0] * 31)  # half an hour only: under 75 %
    assert half == []
    events = world.run("d", "pm10", DAY + HOUR + MINUTE, 60, [170.0] * 60)
    assert [event.state for event in events] == ["raise"]
    assert world.run("d", "pm10", DAY + 2 * HOUR + MINUTE, 60, [135.1] * 60) == []
    events = world.run("d", "pm10", DAY + 3 * HOUR + MINUTE, 60, [134.9] * 60)
    assert [(event.state, event.ts_ms) for event in events] == [("clear", DAY + 4 * HOUR)]


def test_a_silent_station_is_not_a_clean_one() -> None:
    world = dust()
    world.run("d", "pm10", DAY, 60, [170.0] * 61)
    assert world.run("d", "pm10", DAY + 5 * HOUR, 60, [170.0]) == []  # hours without data: neither clear nor zero
    assert world.engine.counters["windows_no_verdict"] >= 1


def test_late_samples_fill_open_windows_once() -> None:
    """The first 20 minutes of the hour come late, while it is still open; sent twice they count once."""
    world = dust()
    world.run("d", "pm10", DAY + 20 * MINUTE, 60, [100.0] * 30)
    backlog = samples("d", "pm10", DAY, 60, [400.0] * 20)
    assert world.feed(backlog, DAY + HOUR) == []
    assert world.feed(backlog, DAY + HOUR) == []
    assert world.engine.counters["rows_late"] == 40
    events = world.run("d", "pm10", DAY + 50 * MINUTE, 60, [100.0] * 11)
    assert brief(events) == [("env.dust.exceed", "raise", "orange")]
    assert events[0].values["x"] == 200.0  # (20 x 400 + 40 x 100) / 60
    assert events[0].values["n_good"] == 60


def test_late_samples_never_raise_for_a_closed_window() -> None:
    world = dust()
    world.run("d", "pm10", DAY + 20 * MINUTE, 60, [100.0] * 45)
    assert world.feed(samples("d", "pm10", DAY, 60, [900.0] * 20), DAY + 2 * HOUR) == []
    assert world.run("d", "pm10", DAY + HOUR + 5 * MINUTE, 60, [100.0] * 60) == []


def test_calibration_at_999_stays_out() -> None:
    world = dust()
    flags = [Quality.CALIBRATING if 10 <= i < 15 else Quality.GOOD for i in range(61)]
    events = world.feed([("d", "pm10", DAY + i * MINUTE, 999.0 if q else 80.0, q) for i, q in enumerate(flags)])
    assert events == []


def test_interval_of_the_site_shapes_the_window() -> None:
    """A station that reports every 15 minutes: four values make an hour, three are enough, two are not."""
    slow = {"needs.dust.interval_s": 900.0}
    world = World(SITE, {"dust": ["d"]}, params=slow)
    assert brief(world.run("d", "pm10", DAY, 900, [160.0] * 5)) == [("env.dust.exceed", "raise", "yellow")]
    world = World(SITE, {"dust": ["d"]}, params=slow)
    assert world.run("d", "pm10", DAY + HOUR // 2, 900, [160.0] * 3) == []


def test_dust_against_the_district() -> None:
    """80 over the district raises, 79.9 does not; 72 (90 %) clears, 72.1 does not."""
    world = World(SITE, {"dust": ["d"], "district": ["ref"]})
    here = [139.9, 140.0, 132.1, 132.0, 100.0]
    rows = samples("d", "pm10", DAY, 60, [level for level in here for _ in range(60)])
    rows += samples("ref", "pm10", DAY, 60, [60.0] * 300)
    rows.sort(key=lambda row: row[2])
    events = [event for event in world.feed(rows) if event.type == "env.dust.exceed"]
    assert [(event.state, event.ts_ms) for event in events] == [("raise", DAY + 2 * HOUR), ("clear", DAY + 4 * HOUR)]
    assert events[0].values == {
        "q": "pm10-ref", "x": 80.0, "unit": "ug/m3", "limit": 80.0, "win_s": 3600.0, "std": "DUST-REF", "n_good": 60,
    }  # fmt: skip


def test_reference_that_reports_later_only_delays() -> None:
    world = World(SITE, {"dust": ["d"], "district": ["ref"]})
    assert world.run("d", "pm10", DAY, 60, [149.0] * 70) == []
    events = world.run("ref", "pm10", DAY, 60, [40.0] * 61)
    assert brief(events) == [("env.dust.exceed", "raise", "yellow")]
    assert events[0].source == "d/pm10"
    assert events[0].values["x"] == 109.0
