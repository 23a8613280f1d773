"""The shipped scene of a crossing on real sockets, against the connectors that the scene's own remarks configure."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

import msgspec
import pytest

import firmware_sim
from edge.clock import WallClock
from edge.connectors.build import build
from edge.connectors.config import ConnectorConfig
from firmware_sim.devices.world import World
from firmware_sim.ledger import MemoryLedger
from firmware_sim.live import live_bus, serve
from firmware_sim.scene import load_scene
from protocols.core import tomlfile
from tests.support.virtual import RecordingSink, running

pytest.importorskip("onvif", reason="onvif-zeep-async is not installed")

SCENE = Path(firmware_sim.__file__).parent.parent / "scenes" / "street.toml"


class _Site(msgspec.Struct):
    connector: tuple[ConnectorConfig, ...]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def test_the_street(tmp_path: Path) -> None:
    text = SCENE.read_text(encoding="utf-8")
    remarks = re.findall(r"^# ?(.*)$", text.partition("# The agent's side:")[2], re.MULTILINE)
    site = "\n".join(remarks)
    for name, secret in re.findall(r'"([\w-]+\.secret)"\s+# (\S+)', site):
        (tmp_path / name).write_text(secret, encoding="utf-8")
    ports = {name: free_port() for name in ("signal", "onvif", "sip")}
    for name, old in (("signal", 9250), ("onvif", 9251), ("sip", 9252)):
        site = site.replace(f":{old}", f":{ports[name]}")
    configs = tomlfile.decode(site, _Site, "street.toml remarks").connector
    scene = load_scene(SCENE, {name: f"127.0.0.1:{port}" for name, port in ports.items()})

    async def main() -> RecordingSink:
        sink, clock = RecordingSink(), WallClock()
        world = World(clock, clock.now_ms(), MemoryLedger())
        ready = asyncio.Event()
        buses = [live_bus(bus, scene, world) for bus in scene.bus]
        rig = asyncio.create_task(serve(buses, lambda line: None, ready))
        await ready.wait()
        async with running([build(config, clock, base=tmp_path) for config in configs], sink), asyncio.timeout(30):
            while {name for name, online in sink.states if online} != {"crossing-1", "dome-1", "nvr-1"}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            while not sink.values("nvr-1", "channels"):  # noqa: ASYNC110 - the sink is no part of the loop
                await asyncio.sleep(0.05)
        rig.cancel()
        await asyncio.wait([rig])
        return sink

    sink = asyncio.run(main())
    assert sink.values("crossing-1", "mode")[0] == 23.0
    assert sink.values("dome-1", "pan")[0] == 0.0  # let in, although its clock says 1970
    assert sink.values("nvr-1", "channels") == [9.0]
    told = {(report.event_type, report.device, report.code) for report in sink.reports}
    assert ("dev.clock_skew", "dome-1", "offset") in told
    assert ("data.rejected", "nvr-2", "password") in told
