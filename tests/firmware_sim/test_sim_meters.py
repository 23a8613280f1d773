"""The estate's meters with the agent's real connectors, on lines as slow as the real ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from edge.connectors.base import Command, Outcome
from edge.connectors.build import build
from edge.connectors.cjt188_bus import Cjt188Bus
from edge.connectors.config import ConnectorConfig
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_rig import VirtualRig
from firmware_sim.scene import Device, Scene, load_scene
from tests.support.virtual import RecordingSink, play, running

METERS = Path(__file__).resolve().parents[2] / "firmware-sim" / "scenes" / "meters.toml"
MINUTES = 30


def paced() -> Scene:
    scene = load_scene(METERS)
    return msgspec.structs.replace(scene, bus=tuple(msgspec.structs.replace(bus, pace=True) for bus in scene.bus))


def connector_of(scene: Scene, bus: str, poll_s: float) -> ConnectorConfig:
    """The agent's side of a line, read off the scene."""

    def row(device: Device) -> dict[str, object]:
        return {"id": device.id, "type": device.type, "address": device.address, "poll_s": poll_s}

    kind = next(one.kind for one in scene.bus if one.id == bus)
    rows = [row(device) for device in scene.devices_on(bus)]
    more = {"preamble": 24} if kind == "cjt188" else {}
    table = {"id": bus, "kind": kind, "port": "x", "device": rows, **more}
    wanted: ConnectorConfig = msgspec.convert(table, ConnectorConfig)
    return wanted


def test_an_estate_is_read_for_half_an_hour() -> None:
    scene, sink = paced(), RecordingSink()

    async def body(rig: VirtualRig) -> tuple[MemoryLedger, Outcome, float]:
        built = [build(connector_of(scene, bus.id, 60.0), rig.clock, rig.link_factory(bus.id)) for bus in scene.bus]
        async with running(built, sink):
            await rig.until_s(60 * MINUTES - 200)
            estate = built[0]
            assert isinstance(estate, Cjt188Bus)
            outcome = await estate.command(Command("1", "water-old", "valve_close"))
            await rig.until_s(60 * MINUTES)
        line = rig.line_time("estate-485")
        assert line is not None
        assert isinstance(rig.ledger, MemoryLedger)
        return rig.ledger, outcome, line.busy_s / (60 * MINUTES)

    ledger, outcome, busy = play(scene, body)
    polls = Counter(sweep.device for sweep in sink.sweeps)
    assert set(polls) == {device.id for device in scene.device}  # everybody was heard, the sleeping one too
    assert min(polls.values()) >= MINUTES - 4
    # Makers' habits: the values are right all the same.
    assert set(sink.values("water-old", "volume")) == {4711.08}
    heat = sink.values("heat", "heat")
    assert heat == sorted(heat)
    assert 54060 <= heat[0] <= heat[-1] <= 54060 + 35
    imported = sink.values("heat-imported", "supply_temperature")
    assert all(101 < value < 102.5 for value in imported)
    # What went wrong was noticed, and nothing else was reported.
    faults = Counter((entry["dev"], entry["kind"]) for entry in ledger.entries() if entry["k"] == "fault")
    codes = Counter((report.device, report.code) for report in sink.reports)
    garbled = sum(number for (_, kind), number in faults.items() if kind == "garble")
    damaged = sum(n for (device, _), n in codes.items() if device.startswith("water-") and device != "water-old")
    assert garbled > 24
    assert damaged >= 0.9 * garbled  # a damaged length makes one report of a frame that is never whole
    assert codes["gas-asleep", "clock"] == 1
    assert codes["water-old", "wrong_ser"] == 1
    assert {device for device, _ in codes} <= {one.id for one in scene.device if one.type == "water/cjt188_meter"} | {
        "gas-asleep"
    }
    # The valve that does not move is no success.
    assert (outcome.state, outcome.read_back) == ("failed", {"valve": 3.0})
    # 30 meters a minute with 24 wake-up bytes each: the line is busy, not crammed.
    assert 0.1 < busy < 0.9


@pytest.mark.parametrize("baud", [2400, 9600])
def test_32_water_meters_are_read_in_the_time_the_line_needs(baud: int) -> None:
    """Asked without a pause, the share of the time in which bytes or the meters' own turnaround keep the line busy."""
    text = f"""
id = "s"
[[bus]]
id = "line"
kind = "cjt188"
baud = {baud}
pace = true
turnaround_ms = 80
[[device]]
id = "w"
type = "water/cjt188_meter"
bus = "line"
address = "78330000000101"
count = 32
signals = {{ volume = {{ base = 12.34 }} }}
"""
    sink = RecordingSink()
    seconds = 120.0

    async def body(rig: VirtualRig) -> float:
        rows = [
            {"id": f"w-{n + 1:02d}", "type": "water/cjt188_meter", "address": f"{78330000000101 + n}", "poll_s": 0.1}
            for n in range(32)
        ]
        table = {"id": "c", "kind": "cjt188", "port": "x", "device": rows, "gap_s": 0.01, "baud": baud}
        wanted: ConnectorConfig = msgspec.convert(table, ConnectorConfig)
        async with running([build(wanted, rig.clock, rig.link_factory("line"))], sink):
            await rig.until_s(seconds)
        line = rig.line_time("line")
        assert line is not None
        return line.busy_s

    busy_s = play(text, body)
    turnarounds_s = len(sink.sweeps) * 0.080
    assert (busy_s + turnarounds_s) / seconds > 0.9
    assert {int(quality) for sweep in sink.sweeps for quality in sweep.quality[:1]} == {0}
