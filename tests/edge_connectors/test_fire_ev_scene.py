"""The shipped scene of a fire panel and electric buses, through the connectors into a real outbox, in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edge.connectors.build import build
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_loop import run_virtual
from firmware_sim.rig.virtual_rig import VirtualRig
from firmware_sim.scene import load_scene
from tests.edge.gateway import START_MS, Rig, config
from tests.edge_connectors.peers import serving

SCENE = Path(__file__).resolve().parents[2] / "firmware-sim" / "scenes" / "fire_ev.toml"
CONFIG = """
[gateway]
id = "gw-fire"
shard = 3
location = [117.3, 31.8]
status_listen = ""

[mqtt]
url = "mqtt://127.0.0.1:1"

[[connector]]
id = "fire"
kind = "gb26875-server"
listen = "127.0.0.1:5200"
[[connector.device]]
id = "tx-1"
type = "fire/transmission_device"
transmitter = "112233445566"
allow = ["set_clock", "read_state"]
[[connector.device]]
id = "panel-1"
type = "fire/alarm_panel"
transmitter = "112233445566"
part = "1/1"
[[connector.device]]
id = "smoke-1"
type = "fire/smoke_detector"
transmitter = "112233445566"
part = "1/1/131082"
# hydrant-1 of the scene was forgotten here

[[connector]]
id = "ev"
kind = "gb32960-server"
listen = "127.0.0.1:32960"
[[connector.device]]
id = "bus-101"
type = "vehicle/electric"
vin = "LHB00000000000101"
[[connector.device]]
id = "bus-102"
type = "vehicle/electric"
vin = "LHB00000000000102"

[[report]]
device = "*"
mode = "all"
"""


def test_what_was_confirmed_is_in_the_outbox(tmp_path: Path) -> None:
    ledger = MemoryLedger()

    async def main() -> Rig:
        scene = load_scene(SCENE)
        gateway = Rig(tmp_path, CONFIG)
        fire, ev = config(tmp_path, CONFIG).connector
        async with VirtualRig(scene, ledger=ledger, start_ms=START_MS) as rig, asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(gateway.pipeline.run())
            async with (
                serving(build(fire, rig.clock, rig.link_factory("fire")), gateway.pipeline),
                serving(build(ev, rig.clock, rig.link_factory("ev")), gateway.pipeline),
            ):
                await rig.until_s(1_300)
            await asyncio.sleep(2)
            writing.cancel()
        return gateway

    gateway = run_virtual(main(), START_MS)
    totals = ledger.totals()
    for device in ("tx-1", "panel-1", "smoke-1", "bus-101", "bus-102"):
        assert totals[device].uploads and len(totals[device].open) <= 1, device
    events = [(event.type, event.source, event.values["code"]) for event in gateway.events()]
    assert ("fire.alarm", "smoke-1/fire", "fire") in events and ("fire.alarm", "panel-1/fire", "fire") in events
    assert ("dev.fault", "tx-1", "main_power_fault") in events
    assert ("data.rejected", "tx-1/11-1-5", "unknown_part") in events
    assert ("dev.fault", "bus-101/alarm_level", "level_1") in events
    assert not any(kind == "data.rejected" and "bus" in source for kind, source, _ in events)
    series = {(d.device, d.point) for d in gateway.outbox.series()}
    assert ("smoke-1", "fire") in series and ("bus-102", "soc") in series
    readings = sum(len(batch.readings) for batch in gateway.batches())
    acknowledged = len(totals["bus-101"].acknowledged) + len(totals["bus-102"].acknowledged)
    assert readings > 10 * acknowledged > 2_000
