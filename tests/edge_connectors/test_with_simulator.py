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

    dust = [sweep for sweep in sink.sweeps if sweep.device == "site-1-dust"]
    assert len({sweep.exchange for sweep in dust}) >= SECONDS - 12  # what a bad checksum cost came again
    assert polls["site-1-noise"] >= 0.98 * SECONDS
    assert polls["site-1-crane"] >= 0.98 * SECONDS
    assert min(polls[d] for d in devices if d.startswith("meter-")) >= 2
    assert max(sink.values("gas-01", "ch4_lel")) > 50
    assert max(sink.values("site-1-crane", "moment_pct")) > 100

    codes = Counter((r.event_type, r.code) for r in sink.reports)
    assert codes["data.rejected", "checksum"] >= 4  # one HJ 212 frame in 40 is sent with a wrong checksum
    assert not any(event == "dev.clock_skew" for event, _ in codes)
    assert {int(q) for sweep in sink.sweeps for q in sweep.quality} == {Quality.GOOD}
    assert not [state for state in sink.states if not state[1] and not state[0].startswith("meter-")]
