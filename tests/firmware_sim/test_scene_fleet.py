"""The shipped fleet: half an hour with tunnels, repeats and damage, nothing acknowledged is missing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec

from edge.connectors.build import build
from edge.connectors.config import ConnectorConfig, check
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_rig import VirtualRig
from firmware_sim.scene import load_scene
from protocols.jt808.fields import time_bcd, time_text
from tests.support.virtual import RecordingSink, play, running

SCENE = Path(__file__).resolve().parents[2] / "firmware-sim" / "scenes" / "fleet.toml"


def written() -> list[ConnectorConfig]:
    """The connectors that the scene's own remarks show."""
    remarks = [line.removeprefix("#   ") for line in SCENE.read_text().splitlines() if line.startswith("#   ")]
    found = tomllib.loads("\n".join(remarks))
    fleet = found["connector"][0]
    first = fleet["device"][0]
    for n in (2, 3, 4):
        fleet["device"].append({**first, "id": f"truck-{n:02d}", "phone": re.sub("1$", str(n), first["phone"])})
    return [msgspec.convert(one, ConnectorConfig) for one in found["connector"]]


def test_the_shipped_fleet_loses_nothing() -> None:
    for config in written():
        check(config)

    async def body(rig: VirtualRig) -> tuple[RecordingSink, MemoryLedger]:
        sink = RecordingSink()
        connector = build(written()[0], rig.clock, rig.link_factory("road"))
        async with running([connector], sink):
            await rig.until_s(1800)
        assert isinstance(rig.ledger, MemoryLedger)
        return sink, rig.ledger

    sink, ledger = play(load_scene(SCENE), body)
    totals = ledger.totals()
    for device in ("truck-01", "truck-02", "truck-03", "truck-04", "taxi-1"):
        kept = {time_text(time_bcd(s.source_ms)) for s in sink.sweeps if s.device == device}
        done = totals[device]
        assert {moment for _, moment in done.acknowledged} <= kept
        assert len(done.uploads) >= 119
        assert len(done.open) <= 12  # the last minute was a tunnel's
    assert max(sink.values("truck-01", "overspeed")) == 1.0
    assert {round(lon, 5) for lon in sink.values("taxi-1", "lon")} == {117.28}
