"""The connectors against the simulator's whole demo district, faults included, in virtual time."""

from __future__ import annotations

import asyncio
import tomllib
from collections import Counter
from pathlib import Path
from string import Template

import firmware_sim
from edge.connectors.build import build
from edge.connectors.config import (
    ConnectorConfig,
    Dlt645Config,
    Dlt645Device,
    Hj212Device,
    Hj212ServerConfig,
    ModbusDevice,
    ModbusRtuConfig,
    ModbusTcpConfig,
)
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_rig import VirtualRig
from firmware_sim.scene import Scene, parse_scene
from protocols.core.model import Quality
from protocols.hj212.endpoint import ANSWER_TIMEOUT_MS
from tests.support.virtual import RecordingSink, play, running

SECONDS = 240


def district() -> Scene:
    file = Path(firmware_sim.__file__).parent.parent / "scenes" / "district.toml"
    text = file.read_text(encoding="utf-8")
    return parse_scene(Template(text).substitute(tomllib.loads(text)["placeholders"]), "district.toml")


def connectors(scene: Scene) -> dict[str, ConnectorConfig]:
    """The agent's side of every bus, read off the scene."""
    out: dict[str, ConnectorConfig] = {}
    for bus in scene.bus:
        on_bus = [device for device in scene.device if device.bus == bus.id]
        if bus.kind == "hj212-client":
            stations = tuple(Hj212Device(id=d.id, type=d.type, mn=d.mn or "") for d in on_bus)
            out[bus.id] = Hj212ServerConfig(id=bus.id, listen="127.0.0.1:9001", device=stations)
        elif bus.kind == "dlt645":
            meters = tuple(Dlt645Device(id=d.id, type=d.type, address=str(d.address)) for d in on_bus)
            out[bus.id] = Dlt645Config(id=bus.id, port="unused", device=meters)
        elif bus.kind != "camera":
            units = tuple(ModbusDevice(id=d.id, type=d.type, unit=int(d.address or 0)) for d in on_bus)
            if bus.kind == "modbus-tcp":
                out[bus.id] = ModbusTcpConfig(id=bus.id, address="127.0.0.1:1502", device=units)
            else:
                out[bus.id] = ModbusRtuConfig(id=bus.id, port="unused", device=units)
    return out


def test_the_district() -> None:
    scene, sink, ledger = district(), RecordingSink(), MemoryLedger()

    async def body(rig: VirtualRig) -> None:
        built = [build(config, rig.clock, rig.link_factory(bus)) for bus, config in connectors(scene).items()]
        async with running(built, sink):
            await asyncio.sleep(SECONDS)

    play(scene, body, ledger=ledger)
    polls = Counter(sweep.device for sweep in sink.sweeps)
    devices = {device.id: device for device in scene.device}
    assert set(polls) == set(devices)  # everything was heard
    for device in ("site-1-noise", "site-1-crane", "gas-01", "gas-02", "gas-main-1"):
        assert polls[device] >= 0.98 * SECONDS
    assert min(polls[d] for d in devices if d.startswith("meter-")) >= 2
    assert max(sink.values("gas-01", "ch4_lel")) > 50
    assert max(sink.values("site-1-crane", "moment_pct")) > 100
    assert {int(q) for sweep in sink.sweeps for q in sweep.quality} == {Quality.GOOD}

    # Each injected fault was noticed, each damaged upload came again: what the station made is what we have.
    entries = ledger.entries()
    faults = Counter((e["dev"], e["kind"]) for e in entries if e["k"] == "fault")
    codes = Counter((r.device, r.code) for r in sink.reports)
    assert faults["site-1-dust", "wrong_checksum"] >= 1
    assert codes["site-1-dust", "checksum"] == faults["site-1-dust", "wrong_checksum"]
    assert faults["gas-02", "truncate"] >= 1
    assert sum(n for (device, _), n in codes.items() if device == "gas-02") >= faults["gas-02", "truncate"]
    assert {r.event_type for r in sink.reports} == {"data.rejected"}
    assert not [state for state in sink.states if not state[1] and not state[0].startswith("meter-")]

    mn = devices["site-1-dust"].mn
    got = {sweep.exchange: sweep for sweep in sink.sweeps if sweep.device == "site-1-dust"}
    end_ms = max(e["ms"] for e in entries)
    made = [e for e in entries if e["k"] == "up" and e["ms"] < end_ms - ANSWER_TIMEOUT_MS - 2_000]
    assert len(made) > SECONDS - 20
    for record in made:
        sweep = got[f"{mn}/{record['cn']}/{record['dt']}"]
        told = {point: float(text) for point, text in record["v"].items()}
        assert dict(zip(sweep.points, sweep.values.tolist(), strict=True)) == told
