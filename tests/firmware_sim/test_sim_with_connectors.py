"""Simulator and the agent's real connectors joined in virtual time: the ledger against what the agent kept."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge.connectors.build import build
from edge.connectors.config import ConnectorConfig
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_rig import VirtualRig
from firmware_sim.scene import load_scene
from firmware_sim.signals import Signal
from protocols import devices
from protocols.hj212.messages import parse_time
from tests.support.virtual import RecordingSink, play, running

DISTRICT = Path(__file__).resolve().parents[2] / "firmware-sim" / "scenes" / "district.toml"
METER_TYPE = "meter/electricity_three_phase"
METERS = [{"id": f"meter-{n:02d}", "type": METER_TYPE, "address": f"{100 + n:012d}"} for n in range(1, 33)]
CONNECTORS = {
    "site-hj212": {
        "id": "dust", "kind": "hj212-server", "listen": "127.0.0.1:9001",
        "device": [{"id": "site-1-dust", "type": "env/dust_station", "mn": "010000A8900016F000169DC0"}],
    },
    "site-485": {
        "id": "noise", "kind": "modbus-rtu", "port": "x",
        "device": [{"id": "site-1-noise", "type": "env/noise_meter", "unit": 4}],
    },
    "site-crane": {
        "id": "crane", "kind": "modbus-tcp", "address": "127.0.0.1:1502",
        "device": [{"id": "site-1-crane", "type": "crane/tower_crane", "unit": 1}],
    },
    "gas-485": {
        "id": "gas", "kind": "modbus-rtu", "port": "x",
        "device": [
            {"id": "gas-01", "type": "gas/combustible", "unit": 11},
            {"id": "gas-02", "type": "gas/combustible", "unit": 12},
            {"id": "gas-main-1", "type": "gas/main_pressure", "unit": 21},
        ],
    },
    "meter-485": {"id": "meters", "kind": "dlt645", "port": "x", "device": METERS},
}  # fmt: skip


def connectors(rig: VirtualRig, *buses: str) -> list[object]:
    return [build(msgspec.convert(CONNECTORS[bus], ConnectorConfig), rig.clock, rig.link_factory(bus)) for bus in buses]


def test_district_tells_its_whole_story_in_180_seconds() -> None:
    async def body(rig: VirtualRig) -> RecordingSink:
        sink = RecordingSink()
        async with running(connectors(rig, *CONNECTORS), sink):  # type: ignore[arg-type]
            await rig.until_s(180)
        return sink

    sink = play(load_scene(DISTRICT), body)
    gas = sink.values("gas-01", "ch4_lel")
    assert max(gas) == pytest.approx(60, abs=2)
    assert gas[-1] == pytest.approx(5, abs=2)
    moment = sink.values("site-1-crane", "moment_pct")
    assert max(moment) == pytest.approx(104, abs=2)
    assert 25 <= sum(value > 100 for value in moment) <= 35  # 30 s at one poll a second
    assert 215 < max(sink.values("site-1-dust", "pm10")) < 250
    assert 50 < min(sink.values("site-1-noise", "laeq")) < max(sink.values("site-1-noise", "laeq")) < 75
    assert {f"meter-{n:02d}" for n in range(1, 33)} <= {sweep.device for sweep in sink.sweeps}
    codes = {(report.device, report.code) for report in sink.reports}
    assert ("site-1-dust", "checksum") in codes
    assert any(device == "gas-02" for device, _ in codes)  # the truncated answer


def test_polled_values_are_the_signals_values() -> None:
    scene = load_scene(DISTRICT)

    async def body(rig: VirtualRig) -> RecordingSink:
        sink = RecordingSink()
        async with running(connectors(rig, "gas-485"), sink):  # type: ignore[arg-type]
            await rig.until_s(60)
        return sink

    sink = play(scene, body)
    gas = next(device for device in scene.device if device.id == "gas-main-1")
    signal = Signal(gas.signals["pressure"], "gas-main-1/pressure", scene.seed)
    decimals = devices.load("gas/main_pressure").point("pressure").decimals
    sweeps = [sweep for sweep in sink.sweeps if sweep.device == "gas-main-1"]
    start_ms = 1_772_409_600_000
    assert len(sweeps) > 50
    for sweep in sweeps:
        # The register was read at most an answer's time before the sweep was made.
        around = signal.values((sweep.source_ms - start_ms - np.arange(0, 120)) / 1000)
        assert min(abs(around - sweep.values[0])) <= 0.5 * 10**-decimals + 1e-9


def test_agent_killed_again_and_again_loses_no_record() -> None:
    """The loss proof in small: an agent that forgets what was not durable, killed a dozen times in half an hour."""
    rng = random.Random(11)

    async def body(rig: VirtualRig) -> tuple[set[str], MemoryLedger]:
        kept: dict[str, int] = {}
        while rig.t_s < 1800:
            sink = RecordingSink(durable=False)
            until_s = rig.t_s + rng.uniform(20, 200)
            async with running(connectors(rig, "site-hj212"), sink):  # type: ignore[arg-type]
                while True:
                    await asyncio.sleep(0.25)  # a disk that syncs four times a second
                    if rig.t_s >= until_s:
                        break  # killed before the sync: what came since the last one is gone
                    for sweep in sink.sweeps:
                        kept[sweep.exchange] = kept.get(sweep.exchange, 0) + 1
                    for answer in sink.pending:
                        answer()
                    sink.sweeps.clear()
                    sink.pending.clear()
            await rig.hang_up("site-hj212")
            await asyncio.sleep(rng.uniform(0, 30))
        assert isinstance(rig.ledger, MemoryLedger)
        return set(kept), rig.ledger

    kept, ledger = play(load_scene(DISTRICT), body)
    dust = ledger.totals()["site-1-dust"]
    assert len(dust.uploads) > 1790
    assert dust.faults["wrong_checksum"] >= len(dust.uploads) // 150  # the scene damages every 150th frame
    exchanges = {f"010000A8900016F000169DC0/{cn}/{moment}": (cn, moment) for cn, moment in dust.uploads}
    lost = [record for exchange, record in exchanges.items() if exchange not in kept]
    assert not dust.acknowledged & set(lost)
    assert set(lost) <= dust.open
    newest_ms = max(parse_time(moment) or 0 for _, moment in dust.uploads)
    assert all(newest_ms - (parse_time(moment) or 0) < 60_000 for _, moment in lost)  # made after the last kill


def test_32_meters_are_read_within_the_physics_of_their_line() -> None:
    scene = load_scene(DISTRICT)
    paced = msgspec.structs.replace(
        scene,
        bus=tuple(msgspec.structs.replace(bus, pace=True) for bus in scene.bus if bus.id == "meter-485"),
        device=tuple(device for device in scene.device if device.bus == "meter-485"),
        camera=(),
    )
    minutes = 10

    async def body(rig: VirtualRig) -> tuple[RecordingSink, float]:
        sink = RecordingSink()
        async with running(connectors(rig, "meter-485"), sink):  # type: ignore[arg-type]
            await rig.until_s(60 * minutes)
        line = rig.line_time("meter-485")
        assert line is not None
        return sink, line.busy_s / (60 * minutes)

    sink, share = play(paced, body)
    rounds = {f"meter-{n:02d}": len(sink.values(f"meter-{n:02d}", "voltage_a")) for n in range(1, 33)}
    assert min(rounds.values()) >= minutes - 2, rounds  # one reading a minute each; one meter was silent for a while
    assert 0.05 < share < 0.95, share
    lost = [device for device, online in sink.states if not online]
    assert lost in ([], ["meter-32"])
