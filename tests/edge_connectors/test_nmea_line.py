"""The NMEA connector against the simulated receiver: one moment one sweep, fixes, clocks, damage, silence."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
import pytest

from edge.connectors.base import Link
from edge.connectors.build import build
from edge.connectors.config import ConnectorConfig
from edge.connectors.links import tcp_client
from edge.connectors.nmea_line import said_by
from firmware_sim.clock import LoopClock, WallClock
from firmware_sim.devices.build import faults_of
from firmware_sim.devices.nmea_receiver import NmeaBus, NmeaReceiver
from firmware_sim.devices.world import World
from firmware_sim.ledger import MemoryLedger
from firmware_sim.links.memory import memory_pair
from firmware_sim.rig.virtual_loop import run_virtual
from firmware_sim.scene import parse_scene
from protocols.core.errors import TransportError
from protocols.core.model import Quality
from protocols.nmea_beidou.sentence import Sentence
from tests.support.virtual import MORNING_MS, RecordingSink, running

SCENE = """
id = "sky"
seed = 3
[[bus]]
id = "line"
kind = "nmea"
listen = "127.0.0.1:0"
[[device]]
id = "gnss"
type = "%s"
bus = "line"
address = "1"
%s
[device.signals]
lat = { base = -31.820801 }
lon = { base = 117.227365 }
speed = { base = 36.0 }
satellites = { base = 14.0 }
"""


def scene_text(fault: str = "", kind: str = "gnss/receiver") -> str:
    return SCENE % (kind, "") + (f"[[device.fault]]\n{fault}\n" if fault else "")


def listen(text: str, until_s: float, **options: Any) -> RecordingSink:
    sink = RecordingSink()
    scene = parse_scene(text, "test.toml")
    device = scene.device[0]

    async def main() -> None:
        clock = LoopClock(MORNING_MS)
        world = World(clock, MORNING_MS, MemoryLedger(), scene.seed)
        receiver = NmeaReceiver(device, faults_of(device, "nmea", world), world)
        talking: set[asyncio.Task[None]] = set()

        async def open_link() -> Link:
            near, far = memory_pair("line")
            talking.add(asyncio.create_task(receiver.speak(near)))
            return far

        row = {"id": device.id, "type": device.type}
        config = msgspec.convert(
            {"id": "sky", "kind": "nmea", "port": "x", "device": [row], **options}, ConnectorConfig
        )
        async with running([build(config, clock, open_link)], sink):
            await asyncio.sleep(until_s)
        for task in talking:
            task.cancel()

    run_virtual(main(), MORNING_MS)
    return sink


def test_one_moment_is_one_sweep_with_the_satellites_time() -> None:
    sink = listen(scene_text(), 30.9)
    assert len(sink.sweeps) == 30
    sweep = sink.sweeps[0]
    said = dict(zip(sweep.points, sweep.values.tolist(), strict=True))
    assert (said["lat"], said["lon"]) == (-31.820801, 117.227365)
    assert (said["fix"], said["fix_quality"], said["satellites"], said["hdop"]) == (1.0, 1.0, 14.0, 0.8)
    assert said["speed"] == pytest.approx(36.0, abs=0.1)
    assert [one.source_ms for one in sink.sweeps] == [MORNING_MS + 1000 * n for n in range(1, 31)]
    assert said["clock_offset"] == 0.0
    assert sink.states == [("gnss", True)]
    assert not sink.reports


def test_fewer_moments_where_asked() -> None:
    assert len(listen(scene_text(), 60.9, every_s=10.0).sweeps) == 6


def test_no_fix_is_no_place() -> None:
    sink = listen(scene_text('kind = "no_fix"\nat_s = 10'), 30.9)
    sweep = sink.sweeps[-1]
    said = dict(zip(sweep.points, sweep.values.tolist(), strict=True))
    grade = dict(zip(sweep.points, sweep.quality.tolist(), strict=True))
    assert said["fix"] == 0.0
    assert math.isnan(said["lat"]) and math.isnan(said["altitude"])
    assert grade["lat"] == grade["lon"] == Quality.MISSING
    assert sweep.source_ms == sweep.seen_ms


def test_a_receiver_1024_weeks_behind_is_put_right_and_reported_once() -> None:
    sink = listen(scene_text('kind = "week_rollover"'), 20.9)
    assert [one.source_ms for one in sink.sweeps] == [MORNING_MS + 1000 * n for n in range(1, 21)]
    assert [report.code for report in sink.reports] == ["week_rollover"]


def test_a_clock_that_disagrees_is_not_used() -> None:
    sink = listen(scene_text('kind = "clock_step"\noffset_s = -3600'), 20.9)
    assert all(one.source_ms == one.seen_ms for one in sink.sweeps)
    assert [report.code for report in sink.reports] == ["offset"]
    assert sink.values("gnss", "clock_offset")[0] == pytest.approx(-3600, abs=1)


@pytest.mark.parametrize("kind", ["garble", "truncate", "wrong_checksum", "drop", "cut_line"])
def test_damaged_sentences_cost_themselves_only(kind: str) -> None:
    sink = listen(scene_text(f'kind = "{kind}"\nevery = 3'), 60.9)
    assert len(sink.sweeps) >= 55
    assert set(sink.values("gnss", "lat")) == {-31.820801}
    assert set(sink.values("gnss", "satellites")) <= {14.0}


def test_sentences_without_checksum_only_where_configured() -> None:
    assert not listen(scene_text('kind = "no_checksum"'), 20.9).sweeps
    assert len(listen(scene_text('kind = "no_checksum"'), 20.9, bare=True).sweeps) == 20


def test_silence_is_reported_and_ends() -> None:
    sink = listen(scene_text('kind = "silence"\nat_s = 10\nfor_s = 30'), 60.9)
    assert sink.states == [("gnss", True), ("gnss", False), ("gnss", True)]


def test_weather_station() -> None:
    text = SCENE % ("gnss/weather_station", "")
    text = text[: text.index("lat =")] + "wind_dir = { base = 271.0 }\nwind_speed = { base = 3.2 }\n"
    text += "temperature = { base = -4.5 }\npressure = { base = 1013.2 }\n"
    sink = listen(text, 10.9)
    said = dict(zip(sink.sweeps[0].points, sink.sweeps[0].values.tolist(), strict=True))
    assert said == {"wind_dir": 271.0, "wind_speed": 3.2, "temperature": -4.5, "pressure": 1013.2}


def test_knots_and_invalid_wind() -> None:
    assert said_by(Sentence("II", "MWV", ("10.0", "R", "10.0", "N", "A")))["wind.speed"] == pytest.approx(
        5.144, abs=1e-3
    )
    assert math.isnan(said_by(Sentence("II", "MWV", ("10.0", "R", "10.0", "N", "V")))["wind.speed"])


def test_beidou_messages_are_counted_not_taken_for_readings() -> None:
    sink = RecordingSink()

    async def main() -> None:
        clock = LoopClock(MORNING_MS)

        async def open_link() -> Link:
            near, far = memory_pair("line")
            await near.write(b"$BDTXR,1,4207733,1,2337,90000000000065C1FAF4B2E2CAD4*3F\r\n")
            return far

        row = {"id": "gnss", "type": "gnss/receiver"}
        config = msgspec.convert({"id": "sky", "kind": "nmea", "port": "x", "device": [row]}, ConnectorConfig)
        async with running([build(config, clock, open_link)], sink):
            await asyncio.sleep(5)

    run_virtual(main(), MORNING_MS)
    assert sink.counts["beidou_messages"] == 1
    assert not sink.sweeps


def test_over_a_real_tcp_port() -> None:
    """The live service of the simulator and the connector's own TCP link, on the wall clock."""
    sink = RecordingSink()
    scene = parse_scene(scene_text(), "test.toml")

    async def main() -> None:
        clock = WallClock()
        bus = NmeaBus(scene.bus[0], scene, World(clock, clock.now_ms(), MemoryLedger(), scene.seed))
        await bus.open()
        address = bus.describe()[0].rpartition(" ")[2]
        host, _, port = address.rpartition(":")
        row = {"id": "gnss", "type": "gnss/receiver"}
        values = {"id": "sky", "kind": "nmea", "port": f"tcp://{address}", "device": [row]}
        config = msgspec.convert(values, ConnectorConfig)
        try:
            async with running([build(config, clock, tcp_client(host, int(port)))], sink), asyncio.timeout(20):
                while len(sink.sweeps) < 2:  # noqa: ASYNC110 - a recording sink has nothing to wait for
                    await asyncio.sleep(0.05)
        except TransportError:
            pytest.fail("the line broke")
        finally:
            await bus.close()

    asyncio.run(main())
    assert sink.values("gnss", "lat")[0] == -31.820801
