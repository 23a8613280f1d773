"""The valley's scene with both connectors joined to it: two hours, every station with its habit or fault."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge.connectors.build import build
from edge.connectors.config import ConnectorConfig
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_rig import VirtualRig
from firmware_sim.scene import load_scene
from protocols.core.model import Quality
from tests.support.virtual import MORNING_MS, RecordingSink, play, running

WATER = Path(__file__).resolve().parents[2] / "firmware-sim" / "scenes" / "water.toml"
SCENE = load_scene(WATER)
SERVERS = {
    "hydrology": {
        "id": "hydro", "kind": "sl651-server", "listen": "127.0.0.1:9651",
        "device": [{"id": d.id, "type": d.type, "station": d.address} for d in SCENE.devices_on("hydrology")],
    },
    "environment": {
        "id": "env", "kind": "hj212-server", "listen": "127.0.0.1:9001", "fill_gaps": True,
        "device": [{"id": d.id, "type": d.type, "mn": d.mn} for d in SCENE.devices_on("environment")],
    },
}  # fmt: skip
UNTIL_S = 7_500


def test_two_hours_in_the_valley() -> None:
    ledger = MemoryLedger()

    async def body(rig: VirtualRig) -> RecordingSink:
        sink = RecordingSink()
        connectors = [
            build(msgspec.convert(server, ConnectorConfig), rig.clock, rig.link_factory(bus))
            for bus, server in SERVERS.items()
        ]
        async with running(connectors, sink):
            await rig.until_s(UNTIL_S)
        return sink

    sink = play(SCENE, body, ledger=ledger)
    done: dict[str, set[tuple[str, str]]] = {}
    for kind in ("up", "ack"):
        for line in ledger.entries():
            if line["k"] == kind and line["ms"] < MORNING_MS + (UNTIL_S - 120) * 1000:
                done.setdefault(f"{kind} {line['dev']}", set()).add((line["cn"], line["dt"]))
    for device in SCENE.device:
        left = done[f"up {device.id}"] - done[f"ack {device.id}"]
        assert len(left) <= 2, (device.id, left)  # only what is on its way
    # Nothing is kept twice: a time of a point has one name.
    for device in SCENE.device:
        names: dict[tuple[int, str], set[str]] = {}
        for sweep in (one for one in sink.sweeps if one.device == device.id):
            for point in sweep.points:
                names.setdefault((sweep.source_ms, point), set()).add(sweep.exchange)
        assert names and all(len(one) == 1 for one in names.values())
    told = {(r.device, r.event_type, r.code) for r in sink.reports}
    assert ("underpass-1", "dev.clock_skew", "offset") in told
    assert ("river-1", "dev.low_battery", "battery") in told
    assert {one for one in told if one[1] == "dev.clock_skew"} == {("underpass-1", "dev.clock_skew", "offset")}
    # The underpass: times of a clock in 2059 are moved to ours; ten minutes without a value are missing, not zero.
    depth = [s for s in sink.sweeps if s.device == "underpass-1"]
    assert all(abs(s.source_ms - s.seen_ms) < 60_000 for s in depth)
    assert sum(int(s.quality[0] == Quality.MISSING) for s in depth) == 10
    # The air station's twenty minutes that were never sent came when they were asked for.
    minutes = {s.source_ms for s in sink.sweeps if s.device == "air-1" and "pm10_1min" in s.points}
    assert minutes >= set(range(MORNING_MS, MORNING_MS + 7_200_000, 60_000))
    assert sink.counts["gaps_asked"] == 1
