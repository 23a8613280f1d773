"""Whose clock is wrong: a gateway that has no time itself judges nobody."""

from __future__ import annotations

from edge.connectors import device_time
from edge.connectors.station_clock import StationClock, Upload

NOW_MS = 1_772_409_600_000


def test_a_gateway_without_the_time_believes_its_stations_and_learns_nothing_of_them() -> None:
    clock = StationClock()
    for n in range(5):
        at_ms = NOW_MS + n * 30_000
        verdict = clock.judge(Upload(f"u{n}", n, at_ms, at_ms), 5_000 + n * 30_000)
        assert (verdict.source_ms, verdict.skewed) == (at_ms, False)
    after = clock.judge(Upload("u5", 5, NOW_MS + 150_000, NOW_MS + 150_000), NOW_MS + 150_040)
    assert (after.source_ms, after.lag_ms, after.skewed) == (NOW_MS + 150_000, 40, False)


def test_a_station_without_the_time_gets_the_gateways_whoever_knows_it() -> None:
    assert StationClock().judge(Upload("u", 1, 9_000, 9_000), NOW_MS).source_ms is None
    assert device_time.judge(9_000, NOW_MS) == (NOW_MS, True)
    assert device_time.judge(NOW_MS, 9_000) == (NOW_MS, False)
    assert device_time.judge(7_000, 9_000) == (7_000, False)
