"""The electric vehicle connector: answered when durable, stored reports, encrypted data, datums, clocks."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.clock import LoopClock
from protocols.core.model import Quality
from protocols.gb32960 import bodies
from protocols.gb32960 import items as i
from protocols.gb32960 import messages as m
from protocols.jt808.gcj02 import to_gcj02
from tests.edge_connectors.peers import START_MS
from tests.edge_connectors.vehicle_peer import HEFEI, OTHER, VIN, Car, codes, config, play, position
from tests.protocols.samples_gb32960 import editions, items
from tests.support.virtual import RecordingSink

# -- readings


def test_a_report_is_one_sweep() -> None:
    vehicle = i.item(1, {"state": "on", "charge": "not_charging", "speed_kmh": 36.5, "soc": 55, "current_a": -12.5})
    motors = i.item(2, {"motors": [{"no": 1, "temp_c": 40}, {"no": 2, "temp_c": 62, "controller_temp_c": 50}]})
    alarm = i.item(7, {"level": 0, "flags": [], "battery_faults": ["00000001"]})

    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        await car.report(vehicle, motors, position(*HEFEI), alarm)
        assert car.flags == [(m.REALTIME, m.OK)]
        assert car.heard[0].data == m.stamp_at(START_MS)

    sink = play(body)
    (sweep,) = sink.sweeps
    said = dict(zip(sweep.points, sweep.values.tolist(), strict=True))
    assert (sweep.device, sweep.source_ms, sweep.historical) == ("bus-1", START_MS, False)
    wanted = {"state": 1.0, "charging": 3.0, "speed": 36.5, "soc": 55.0, "current": -12.5, "motor_t_max": 62.0}
    assert said | wanted == said
    assert (said["lon"], said["lat"], said["fault_codes"]) == (*HEFEI, 1.0)
    assert math.isnan(said["mileage"])
    assert sweep.quality[sweep.points.index("mileage")] == Quality.MISSING


def test_answered_only_when_durable() -> None:
    kept = RecordingSink(durable=False)

    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        await car.report(i.item(1, {"soc": 50}))
        await asyncio.sleep(5)
        assert car.heard == [] and len(car.endpoint.unanswered) == 1
        kept.pending[0]()
        await asyncio.sleep(1)
        assert car.flags == [(m.REALTIME, m.OK)] and car.endpoint.unanswered == ()

    play(body, sink=kept)


def test_abnormal_is_bad_invalid_is_missing() -> None:
    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        await car.report(i.item(1, {"speed_kmh": "abnormal", "soc": "invalid"}))

    (sweep,) = play(body).sweeps
    grades = dict(zip(sweep.points, sweep.quality.tolist(), strict=True))
    assert (grades["speed"], grades["soc"]) == (Quality.BAD, Quality.MISSING)
    assert all(math.isnan(value) for value in sweep.values)


def test_positions() -> None:
    shifted = to_gcj02(*HEFEI)

    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        await car.report(position(0.0, 0.0))
        await car.report(position(*HEFEI), at_ms=START_MS - 1000)
        await car.report(position(*shifted), vin=OTHER)
        await car.report(position(*shifted, datum="gcj02"), edition="2025", at_ms=START_MS - 2000)
        await car.report(position(*HEFEI, datum="other"), edition="2025", at_ms=START_MS - 3000)

    sink = play(body)
    lons, lats = [[float(s.values[s.points.index(name)]) for s in sink.sweeps] for name in ("lon", "lat")]
    assert math.isnan(lons[0]) and math.isnan(lats[0])  # "valid" at 0,0
    for n in (1, 2, 3):
        assert (lons[n], lats[n]) == pytest.approx(HEFEI, abs=2e-6)
    assert math.isnan(lons[4])  # a datum nobody can name


def test_extremes_of_the_2025_issue_come_from_the_lists() -> None:
    cells = i.item(7, {"subsystems": [{"no": 1, "cells_v": [3.9, 4.1, "invalid", 3.8]}]}, "2025")
    probes = i.item(8, {"subsystems": [{"no": 1, "temps_c": [21, 35, "abnormal"]}]}, "2025")

    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        await car.report(cells, probes, edition="2025")

    sink = play(body)
    assert [sink.values("bus-1", name) for name in ("cell_v_max", "cell_v_min", "battery_t_max")] == [
        [4.1],
        [3.8],
        [35.0],
    ]


# -- sessions


def test_login_heartbeat_clock_logout() -> None:
    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        await car.say(m.LOGIN, bodies.login_data(m.stamp_at(START_MS), 1, "89860"))
        await car.say(m.HEARTBEAT)
        await car.say(m.CLOCK)
        await car.say(m.LOGOUT, m.stamp_at(START_MS) + b"\x00\x01")
        assert car.flags == [(command, m.OK) for command in (m.LOGIN, m.HEARTBEAT, m.CLOCK, m.LOGOUT)]
        assert m.time_ms(car.heard[2].data) == START_MS
        assert car.heard[1].data == b""

    assert play(body).states == [("bus-1", True), ("bus-1", False)]


def test_stored_reports_keep_their_time_and_are_marked() -> None:
    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        old_ms = START_MS - 6 * 3_600_000
        await car.report(i.item(1, {"soc": 80}), i.item(7, {"level": 3}), at_ms=old_ms, command=m.RESENT)
        assert car.flags == [(m.RESENT, m.OK)]

    sink = play(body)
    (sweep,) = sink.sweeps
    assert (sweep.source_ms, sweep.historical) == (START_MS - 6 * 3_600_000, True)
    assert codes(sink, "dev.fault") == []  # yesterday's alarm raises nothing today


def test_the_same_data_as_02_and_03_are_one_exchange_but_two_frames_of_one_moment_are_two() -> None:
    kept = RecordingSink(durable=False)

    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        await car.report(i.item(1, {"soc": 80}))
        await car.report(i.item(1, {"soc": 80}), command=m.RESENT)
        await car.report(i.item(7, {"level": 0}))

    play(body, sink=kept)
    first, again, other = [sweep.exchange for sweep in kept.sweeps]
    assert first == again != other


def test_a_platform_with_many_vehicles() -> None:
    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        data = m.stamp_at(START_MS) + b"\x00\x01" + b"maker".ljust(12, b"\0") + b"secret".ljust(20, b"\0") + b"\x01"
        await car.say(m.PLATFORM_LOGIN, data, vin="合肥监控平台")
        await car.say(m.HEARTBEAT, vin="合肥监控平台")
        for vin in (VIN, OTHER):
            await car.report(i.item(1, {"soc": 50}), vin=vin)
        assert car.flags == [(command, m.OK) for command in (5, 7, 2, 2)]
        assert connector.stations.keys() == {VIN, OTHER}  # the platform is no vehicle

    sink = play(body, settings=config(user="maker", password="secret"))
    assert [sweep.device for sweep in sink.sweeps] == ["bus-1", "bus-2"]


def test_only_platforms_that_logged_in_are_heard_where_a_user_is_set() -> None:
    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        await car.report(i.item(1, {"soc": 50}))
        await car.say(m.PLATFORM_LOGIN, m.stamp_at(START_MS) + bytes(35), vin="P")
        await car.report(i.item(1, {"soc": 50}))
        assert car.flags == [(command, m.ERROR) for command in (2, 5, 2)]

    sink = play(body, settings=config(user="maker", password="secret"))
    assert sink.sweeps == []
    assert codes(sink, "data.rejected") == [("bus-1", "not_logged_in"), ("ev", "password")]


def test_an_unknown_vehicle_is_told_so_and_reported() -> None:
    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        await car.say(m.LOGIN, bodies.login_data(m.stamp_at(START_MS), 1, "1"), vin="STRANGER")
        await car.report(i.item(1, {"soc": 50}), vin="STRANGER")
        assert car.flags == [(m.LOGIN, m.VIN_UNKNOWN)]

    sink = play(body)
    assert sink.sweeps == [] and codes(sink, "data.rejected")[0] == ("ev", "stranger")


# -- what cannot be read


def test_encrypted_reports_are_refused_honestly() -> None:
    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        await car.say(m.REALTIME, b"cipher text", encryption=3)
        await car.say(m.REALTIME, b"cipher text", encryption=5, edition="2025")
        assert car.flags == [(m.REALTIME, m.ERROR), (m.REALTIME, m.CANNOT_DECRYPT)]
        assert {message.encryption for message in car.heard} == {m.PLAIN}

    sink = play(body)
    assert sink.sweeps == [] and codes(sink, "data.rejected") == [("bus-1", "encrypted")]
    assert sink.counts["frames_rejected"] == 2


def test_a_vendor_item_without_length_does_not_kill_the_report() -> None:
    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        data = bodies.report_data(m.stamp_at(START_MS), [i.item(1, {"soc": 44})]) + b"\x81" + b"\x01\x00\x05" * 10
        await car.say(m.REALTIME, data)
        assert car.flags == [(m.REALTIME, m.OK)]

    sink = play(body)
    assert sink.values("bus-1", "soc") == [44.0]
    assert codes(sink, "data.rejected") == [("bus-1", "unknown_item")]


def test_too_short_for_a_time_is_an_error() -> None:
    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        await car.say(m.REALTIME, b"\x1a\x03")
        assert car.flags == [(m.REALTIME, m.ERROR)]

    assert codes(play(body), "data.rejected") == [("bus-1", "length")]


def test_a_clock_in_the_future_and_one_that_is_unset() -> None:
    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        await car.report(i.item(1, {"soc": 1}), at_ms=START_MS + 3_600_000)
        await car.say(m.REALTIME, b"\xff" * 6 + i.item(1, {"soc": 2}).data)

    sink = play(body)
    assert [sweep.source_ms == sweep.seen_ms for sweep in sink.sweeps] == [True, True]
    assert [code for _, code in codes(sink, "dev.clock_skew")] == ["offset", "unset"]


def test_alarm_levels_are_told_when_they_begin() -> None:
    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        for n, level in enumerate((0, 1, 1, 3, 0, 1)):
            alarm = i.item(7, {"level": level, "flags": [1, 11] if level else []})
            await car.report(alarm, at_ms=START_MS + 1000 * n)
            await asyncio.sleep(1)

    sink = play(body)
    assert codes(sink, "dev.fault") == [("bus-1", "level_1"), ("bus-1", "level_3"), ("bus-1", "level_1")]
    assert "电池高温报警 battery hot; 绝缘报警 insulation" in sink.reports[0].detail
    assert sink.values("bus-1", "alarm_word")[1] == 2 | 1 << 11


# -- whatever comes


@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 2, 2, 3, 4, 5, 7, 8, 9, 11, 128, 192]), st.binary(max_size=120), editions),
        max_size=25,
    )
)
@settings(max_examples=40, derandomize=True, deadline=None)
def test_nothing_a_vehicle_says_ends_the_connector(said: list[tuple[int, bytes, Any]]) -> None:
    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        for command, data, edition in said:
            await car.link.write(m.encode(m.Message(command, m.vin_bytes(VIN), data, m.IS_COMMAND, edition)))
        await car.say(m.HEARTBEAT)
        assert car.flags[-1] == (m.HEARTBEAT, m.OK)

    play(body)


@given(st.lists(items(), max_size=8), st.lists(items("2025"), max_size=8))
@settings(max_examples=25, derandomize=True, deadline=None)
def test_every_kind_of_item_with_any_values(old: list[list[i.Item]], new: list[list[i.Item]]) -> None:
    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        for number, found in enumerate(old):
            await car.report(*found, at_ms=START_MS - 1000 * number)
        for number, found in enumerate(new):
            await car.report(*found, at_ms=START_MS - 1000 * number, edition="2025")
        assert car.flags == [(m.REALTIME, m.OK)] * (len(old) + len(new))

    play(body)
