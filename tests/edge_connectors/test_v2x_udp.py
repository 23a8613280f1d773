"""The V2X listener against simulated roadside units in virtual time, and over real UDP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from edge.clock import WallClock
from edge.connectors.config import check
from edge.connectors.road_config import V2xDevice, V2xUdpConfig
from edge.connectors.v2x_udp import MAX_WAITING, Datagram, V2xUdp
from edge.connectors.v2x_values import MAX_USERS, Window
from firmware_sim.devices.build import faults_of
from firmware_sim.devices.rsu import RoadsideUnit
from firmware_sim.ledger import MemoryLedger
from firmware_sim.live import live_bus
from firmware_sim.rig.virtual_rig import VirtualRig
from firmware_sim.scene import parse_scene
from protocols.core.errors import ConfigError
from protocols.core.model import Quality
from protocols.v2x.build import frame_of
from protocols.v2x.frame import wrap
from protocols.v2x.messages import Crossing, Participant, Phase, Place, RoadUsers, Signals, Vehicle
from tests.support.virtual import RecordingSink, play, running

HEFEI = (116.6, 30.9, 117.97, 32.6)
HERE = Place(117.2272, 31.8206)
SCENE = """
id = "crossing"
[[bus]]
id = "rsu"
kind = "v2x-rsu"
{where}
[[device]]
id = "rsu-1"
type = "roadside/rsu"
bus = "rsu"
address = "0102030405060708"
options = {{ rate_hz = 2.0, cycle_s = 40.0{options} }}
[device.signals]
motor_count = {{ base = 20.0 }}
pedestrian_count = {{ base = 3.0 }}
speed_mean = {{ base = 8.0 }}
events = {{ steps = [[0, 0.0], [30, 2.0]] }}
{more}
"""


def scene(options: str = "", more: str = "", where: str = "") -> str:
    return SCENE.format(options=options, more=more, where=where)


def config(**more: Any) -> V2xUdpConfig:
    device = V2xDevice(id="rsu-1", type="roadside/rsu", **more.pop("device", {"sender": "10.0.0.1"}))
    return V2xUdpConfig(id="v2x", listen="127.0.0.1:0", device=(device,), area=HEFEI, **more)


def watched(text: str, seconds: float, *, sender: str = "10.0.0.1", **more: Any) -> RecordingSink:
    """What the connector makes of the scene's unit in virtual time."""
    sink = RecordingSink()

    async def body(rig: VirtualRig) -> None:
        air: asyncio.Queue[Datagram] = asyncio.Queue()
        device = rig.scene.device[0]
        unit = RoadsideUnit(device, faults_of(device, "v2x-rsu", rig.world), rig.world)
        loop = asyncio.get_running_loop()
        async with running([V2xUdp(config(**more), rig.clock, air.get)], sink):
            number = 0
            while rig.t_s < seconds:
                number += 1
                await rig.until_s(number / unit.rate_hz)
                for delay_s, data in unit.datagrams(rig.t_s, rig.clock.now_ms()):
                    loop.call_later(delay_s, air.put_nowait, (data, sender))
            await asyncio.sleep(0.1)

    play(text, body, ledger=MemoryLedger())
    return sink


def test_counts_lights_and_notices() -> None:
    sink = watched(scene(), 65)
    assert sink.states == [("rsu-1", True)]
    assert set(sink.values("rsu-1", "motor_count")) == {20.0}
    assert set(sink.values("rsu-1", "pedestrian_count")) == {3.0}
    assert set(sink.values("rsu-1", "bicycle_count")) == {0.0}
    assert {round(v, 1) for v in sink.values("rsu-1", "speed_mean")} == {8.0}
    assert sorted(set(sink.values("rsu-1", "events"))) == [0.0, 2.0]
    assert max(sink.values("rsu-1", "event_priority")) == 4.0
    assert {int(q) for sweep in sink.sweeps for q in sweep.quality} == {Quality.GOOD}
    assert not sink.reports


def test_a_light_is_told_when_it_changes_and_once_a_window() -> None:
    sink = watched(scene(), 81)
    changes = [
        (round((s.source_ms - 1_772_409_600_000) / 1000, 1), float(s.values[s.points.index("phase_1_light")]))
        for s in sink.sweeps
        if "phase_1_light" in s.points
    ]
    # Green to 17 s, yellow to 20 s, red to 40 s, and again.
    firsts = [one for n, one in enumerate(changes) if n == 0 or one[1] != changes[n - 1][1]]
    assert [light for _, light in firsts] == [5.0, 7.0, 3.0, 5.0, 7.0, 3.0, 5.0]
    assert [at for at, _ in firsts] == [0.5, 17.0, 20.0, 40.0, 57.0, 60.0, 80.0]
    assert len(changes) < 30  # not twice a second
    left = next(s for s in sink.sweeps if "phase_1_left" in s.points)
    assert 16.0 <= float(left.values[left.points.index("phase_1_left")]) <= 17.0


def test_no_identity_leaves_the_connector() -> None:
    sink = RecordingSink()

    async def body(rig: VirtualRig) -> None:
        air: asyncio.Queue[Datagram] = asyncio.Queue()
        async with running([V2xUdp(config(), rig.clock, air.get)], sink):
            for number in range(50):
                air.put_nowait((frame_of(Vehicle(number, b"SECRET!!", HERE, 12.0, 90.0)), "10.0.0.1"))
                await asyncio.sleep(0.2)
            air.put_nowait((frame_of(Vehicle(1, b"SECRET!!", HERE, 12.0, 90.0))[:-9], "10.0.0.1"))
            await asyncio.sleep(5)

    play('id = "none"\nbus = []\n', body)
    assert sink.values("rsu-1", "vehicles_heard")[0] == 1.0  # fifty messages of one vehicle
    said = repr([sink.sweeps, sink.reports, sink.counts])
    assert "SECRET" not in said and b"SECRET!!".hex() not in said


def test_faults_of_the_unit_cost_only_the_datagrams_they_hit() -> None:
    more = "".join(
        f'[[device.fault]]\nkind = "{kind}"\nat_s = {at}\nfor_s = 10\n'
        for kind, at in (("truncate", 5), ("duplicate", 20), ("wrong_version", 35))
    )
    sink = watched(scene(more=more), 70)
    codes = {r.code for r in sink.reports}
    assert "extension" in codes and "decode" in codes
    assert sink.counts["datagrams_repeated"] >= 20
    assert {r.event_type for r in sink.reports} == {"data.rejected"}
    assert {r.device for r in sink.reports} == {"rsu-1"}
    assert sink.values("rsu-1", "motor_count")[-1] == 20.0
    assert sink.states == [("rsu-1", True)]


def test_a_wrong_clock_makes_lights_suspect_and_is_told_once() -> None:
    sink = watched(scene(more='[[device.fault]]\nkind = "clock_step"\nat_s = 30\noffset_s = -900.0\n'), 70)
    assert [(r.event_type, r.code) for r in sink.reports] == [("dev.clock_skew", "stale")]
    marks = [
        (s.source_ms - 1_772_409_600_000 > 30_000, int(s.quality[s.points.index("phase_1_light")]))
        for s in sink.sweeps
        if "phase_1_light" in s.points
    ]
    assert set(marks) == {(False, Quality.GOOD), (True, Quality.SUSPECT)}
    assert set(sink.values("rsu-1", "motor_count")) == {20.0}


def test_a_silent_unit_is_offline_and_its_lights_are_forgotten() -> None:
    sink = watched(scene(more='[[device.fault]]\nkind = "silence"\nat_s = 20\nfor_s = 40\n'), 90)
    assert sink.states == [("rsu-1", True), ("rsu-1", False), ("rsu-1", True)]
    told = [(s.source_ms - 1_772_409_600_000) / 1000 for s in sink.sweeps]
    assert not [at for at in told if 40 < at < 60]  # no old light is told as if it were new


def test_a_vendors_wrapper_names_the_unit() -> None:
    named = {"name": "0102030405060708"}
    sink = watched(scene(options=', wrapping = "vendor"'), 25, sender="172.16.0.9", wrapping="vendor", device=named)
    assert sink.values("rsu-1", "motor_count") and not sink.reports


def by_hand(steps: Callable[[Callable[[bytes, str], None]], Awaitable[None]], **more: Any) -> RecordingSink:
    sink = RecordingSink()

    async def body(rig: VirtualRig) -> None:
        air: asyncio.Queue[Datagram] = asyncio.Queue()
        async with running([V2xUdp(config(**more), rig.clock, air.get)], sink):
            await steps(lambda data, sender="10.0.0.1": air.put_nowait((data, sender)))
            await asyncio.sleep(25)

    play('id = "none"\nbus = []\n', body)
    return sink


def test_strangers_far_places_and_wrong_clocks_are_told() -> None:
    here = frame_of(RoadUsers(1, "00" * 8, HERE, (Participant("motor", 1, "video", HERE, 1.0, 0.0),)))
    far = frame_of(RoadUsers(2, "00" * 8, Place(-83.0, 42.0), (Participant("motor", 1, "video", None, 1.0, 0.0),)))

    async def steps(send: Any) -> None:
        send(here, "192.168.9.9")
        send(far, "10.0.0.1")

    sink = by_hand(steps)
    assert [(r.device, r.code) for r in sink.reports] == [("v2x", "stranger"), ("rsu-1", "position")]
    assert not [s for s in sink.sweeps if "motor_count" in s.points]

    async def late(send: Any) -> None:
        send(wrap(b"unit", 1_772_409_600_000 - 700_000, [here]), "10.0.0.1")
        send(wrap(b"unit", 1_772_409_600_000 - 690_000, [here]), "10.0.0.1")

    sink = by_hand(late, wrapping="vendor", device={"name": "unit"})
    assert [(r.event_type, r.code) for r in sink.reports] == [("dev.clock_skew", "offset")]


def test_a_flashing_controller_says_so_and_another_crossing_is_not_ours() -> None:
    phases = (Phase(1, "flashing-yellow"),)

    async def steps(send: Any) -> None:
        send(frame_of(Signals(1, (Crossing(None, 9, phases), Crossing(None, 4, phases, (2,))))), "10.0.0.1")

    sink = by_hand(steps, device={"sender": "10.0.0.1", "crossing": 4})
    assert sink.values("rsu-1", "signal_fault")[0] == 1.0
    assert sink.values("rsu-1", "phase_1_light")[0] == 8.0
    first = next(s for s in sink.sweeps if "phase_1_left" in s.points)
    assert first.quality[first.points.index("phase_1_left")] == Quality.MISSING
    assert not by_hand(steps, device={"sender": "10.0.0.1", "crossing": 5}).sweeps


def test_old_lights_are_suspect() -> None:
    """2026-03-02 00:00:00 UTC is minute 86 400 of the year."""

    def spat(second_ms: int) -> bytes:
        return frame_of(Signals(1, (Crossing(None, 4, (Phase(1, "red", 5.0),)),), 86_400, second_ms))

    async def fresh(send: Any) -> None:
        send(spat(0), "10.0.0.1")

    async def late(send: Any) -> None:
        await asyncio.sleep(8)
        send(spat(0), "10.0.0.1")

    sink = by_hand(fresh)
    assert {int(q) for s in sink.sweeps for q in s.quality} == {Quality.GOOD} and not sink.reports
    sink = by_hand(late)
    first = next(s for s in sink.sweeps if "phase_1_light" in s.points)
    assert first.quality[first.points.index("phase_1_light")] == Quality.SUSPECT
    assert [(r.event_type, r.code) for r in sink.reports] == [("dev.clock_skew", "stale")]


def test_a_window_is_bounded() -> None:
    window = Window()
    for start in range(0, MAX_USERS + 320, 16):
        users = tuple(Participant("motor", n % 65_536, "video", None, 1.0, None) for n in range(start, start + 16))
        window.users(RoadUsers(1, "00" * 8, None, users))
    assert window.lost == 320
    assert window.close()["users/motor"] == MAX_USERS
    assert window.close() == {}


# -- real sockets


async def until(shown: Callable[[], bool], most_s: float = 20.0) -> None:
    """Real sockets have no event for "has arrived": look until it has, and fail after a bound."""
    for _ in range(round(most_s / 0.02)):
        if shown():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come")


@contextlib.asynccontextmanager
async def listening(sink: RecordingSink) -> AsyncIterator[V2xUdp]:
    connector = V2xUdp(config(device={"sender": "127.0.0.1"}, window_s=1.0), WallClock())
    task = asyncio.create_task(connector.run(sink))
    try:
        await until(lambda: bool(connector.port) or task.done())
        yield connector
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_simulated_unit_over_real_udp() -> None:
    sink = RecordingSink()

    async def body() -> None:
        async with listening(sink) as connector:
            from firmware_sim.devices.world import World

            clock = WallClock()
            found = parse_scene(scene(where=f'connect = "127.0.0.1:{connector.port}"'), "test.toml")
            world = World(clock, clock.now_ms(), MemoryLedger())
            bus = live_bus(found.bus[0], found, world)
            await bus.open()
            run = asyncio.create_task(bus.run())
            try:
                await until(lambda: bool(sink.values("rsu-1", "motor_count")))
            finally:
                run.cancel()
                await asyncio.gather(run, return_exceptions=True)
                await bus.close()

    asyncio.run(body())
    assert sink.values("rsu-1", "motor_count")[-1] == 20.0
    assert sink.states == [("rsu-1", True)]


def test_a_flood_drops_the_oldest_and_says_how_many() -> None:
    sink = RecordingSink()

    async def body() -> None:
        async with listening(sink) as connector:
            # What the operating system would hand over between two turns of the loop.
            for number in range(MAX_WAITING + 500):
                connector._inbox.datagram_received(number.to_bytes(4, "big"), ("127.0.0.1", 5))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
                far.sendto(frame_of(Vehicle(1, b"12345678", HERE)), ("127.0.0.1", connector.port))
                await until(lambda: bool(sink.values("rsu-1", "vehicles_heard")))

    asyncio.run(body())
    assert sink.counts["datagrams_dropped"] == 500
    assert sink.counts["datagrams"] == MAX_WAITING + 1


@pytest.mark.parametrize(
    ("device", "more", "said"),
    [
        ({}, {}, "either sender or name"),
        ({"sender": "10.0.0.1", "name": "x"}, {"wrapping": "vendor"}, "either sender or name"),
        ({"name": "x"}, {}, "wrapper only"),
        ({"sender": "crossing-1"}, {}, "no IP address"),
        ({"sender": "10.0.0.1"}, {"area": (117.0, 32.0, 116.0, 31.0)}, "west, south, east, north"),
    ],
)
def test_what_a_site_may_get_wrong(device: dict[str, Any], more: dict[str, Any], said: str) -> None:
    made = V2xDevice(id="rsu-1", type="roadside/rsu", **device)
    with pytest.raises(ConfigError, match=said):
        check(V2xUdpConfig(id="v2x", listen="127.0.0.1:1", device=(made,), **more))
