"""Simulated chargers and roadside units: what they refuse, and the demonstration scene with its connectors."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path

import msgspec
import pytest

import firmware_sim
from edge.connectors.base import Link
from edge.connectors.build import build
from edge.connectors.config import ConnectorConfig, check
from edge.connectors.ocpp_link import OcppLink
from edge.connectors.ocpp_server import OcppServer
from edge.connectors.road_config import OcppServerConfig, V2xUdpConfig
from firmware_sim.devices.build import faults_of
from firmware_sim.devices.rsu import RoadsideUnit
from firmware_sim.ledger import MemoryLedger
from firmware_sim.links.lines import LineLink
from firmware_sim.rig.virtual_rig import VirtualRig
from firmware_sim.scene import load_scene, parse_scene
from protocols.core.errors import ConfigError
from tests.support.virtual import RecordingSink, play, running

ROAD = Path(firmware_sim.__file__).parent.parent / "scenes" / "road.toml"


def connectors() -> list[OcppServerConfig | V2xUdpConfig]:
    """Those the scene file proposes in its remarks."""
    lines = ROAD.read_text(encoding="utf-8").splitlines()
    first = lines.index("# [[connector]]")
    table = tomllib.loads("\n".join(line.removeprefix("# ") for line in lines[first:]))
    found: list[OcppServerConfig | V2xUdpConfig] = msgspec.convert(table["connector"], list[ConnectorConfig])
    return found


def test_the_scenes_connectors_fit_its_devices() -> None:
    scene, found = load_scene(ROAD), connectors()
    for config in found:
        check(config)
        build(config, _NoClock())
    ours = {device.id: device.type for config in found for device in config.device}
    assert ours == {device.id: device.type for device in scene.device}


class _NoClock:
    def now_ms(self) -> int:
        return 0


def test_both_versions_of_the_scene_charge_through_a_power_cut() -> None:
    text = ROAD.read_text(encoding="utf-8").replace("${ocpp}", "x:1").replace("${v2x}", "x:2")
    # A line to each station of its own: in memory there is no URL to tell them apart.
    for station in ("pile-ac-1", "pile-dc-1"):
        config = next(one for one in connectors() if isinstance(one, OcppServerConfig))
        device = next(one for one in config.device if one.id == station)
        scene = parse_scene(text, "road.toml")
        kept = tuple(one for one in scene.device if one.id == station)
        version = "2.0.1" if station == "pile-dc-1" else "1.6"
        sink = RecordingSink()

        async def body(rig: VirtualRig, name: str = device.identity, version: str = version) -> None:
            async def arrive() -> Link:
                spoken = "2.0.1" if version == "2.0.1" else "1.6"
                return OcppLink(LineLink(await rig.link_factory("chargers")()), name, spoken)  # type: ignore[arg-type]

            async with running([OcppServer(config, rig.clock, arrive)], sink):  # noqa: B023 - used before the next turn
                await rig.until_s(1_250)

        ledger = MemoryLedger()
        play(msgspec.structs.replace(scene, device=kept, start=None), body, ledger=ledger)
        points = {1: "transaction"} if station == "pile-ac-1" else {1: "gun_1_transaction", 2: "gun_2_transaction"}
        made = {
            (points[e["slot"]], e["ms"], 1.0 if e["what"] == "start" else 0.0)
            for e in ledger.entries()
            if e["k"] == "charge"
        }
        told = {
            (name, sweep.source_ms, float(sweep.values[sweep.points.index(name)]))
            for sweep in sink.sweeps
            for name in points.values()
            if name in sweep.points
        }
        # Each start and stop is here, at the station's own time; the power cut's stop came after it.
        assert len(made) >= 3 and made <= told
        assert not [r for r in sink.reports if r.device == station]
        assert not [e for e in ledger.entries() if e["k"] == "gave_up"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('version = "1.6"', 'version = "1.5"', "1.6 or 2.0.1"),
        ('kind = "integer_ids"', 'kind = "wrong_checksum"', "wrong_checksum"),
        ('kind = "duplicate"', 'kind = "integer_ids"', "integer_ids"),
    ],
)
def test_a_wrong_scene_is_refused(old: str, new: str, said: str) -> None:
    text = ROAD.read_text(encoding="utf-8").replace(old, new)

    async def nothing(rig: VirtualRig) -> None:
        await asyncio.sleep(0)

    with pytest.raises(ConfigError, match=said):
        play(parse_scene(text, "road.toml"), nothing)


def test_a_units_address_is_its_id() -> None:
    scene = parse_scene(ROAD.read_text(encoding="utf-8").replace('"3400000000000001"', '"RSU-1"'), "road.toml")

    async def body(rig: VirtualRig) -> None:
        device = next(one for one in scene.device if one.id == "rsu-1")
        with pytest.raises(ConfigError, match="16 hex digits"):
            RoadsideUnit(device, faults_of(device, "v2x-rsu", rig.world), rig.world)

    play('id = "none"\nbus = []\n', body)
