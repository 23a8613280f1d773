"""The scene of plants and buildings on real transports: everything it offers opens, speaks and closes."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

pytest.importorskip("asyncua")
pytest.importorskip("bacpypes3")

from firmware_sim.clock import WallClock
from firmware_sim.devices.world import World
from firmware_sim.ledger import MemoryLedger
from firmware_sim.live import live_bus
from firmware_sim.scene import load_scene
from protocols.core.errors import ConfigError

SCENE = Path(__file__).parents[2] / "firmware-sim" / "scenes" / "industry.toml"


def _free(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_every_bus_opens_and_measures() -> None:
    values = {
        "broker": f"127.0.0.1:{_free(socket.SOCK_STREAM)}",  # nobody there: devices that dial measure all the same
        "opcua_listen": f"127.0.0.1:{_free(socket.SOCK_STREAM)}",
        "bacnet_listen": f"127.0.0.1:{_free(socket.SOCK_DGRAM)}",
    }

    async def main() -> None:
        scene = load_scene(SCENE, values)
        clock, ledger = WallClock(), MemoryLedger()
        world = World(clock, clock.now_ms(), ledger)
        buses = [live_bus(bus, scene, world) for bus in scene.bus]
        for bus in buses:
            await bus.open()
        assert all(line for bus in buses for line in bus.describe())
        tasks = [asyncio.create_task(bus.run()) for bus in buses]
        async with asyncio.timeout(20):
            while {e["dev"] for e in ledger.entries() if e["k"] == "told"} != {"pump-1", "pump-2", "ahu-1"}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for bus in buses:
            await bus.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('address = "city/gw1/m1"', 'address = "m1"', "group/node/device"),
        ('address = "0102030405060701"', 'address = "lamp"', "DevEUI"),
        ("address = 3001", 'address = "x"', "device instance"),
        ('kind = "bad_status"', 'kind = "garble"', "opcua-server"),
    ],
)
def test_mistakes_in_a_scene_are_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = SCENE.read_text(encoding="utf-8")
    assert old in text
    file = tmp_path / "wrong.toml"
    file.write_text(text.replace(old, new), encoding="utf-8")
    clock = WallClock()
    with pytest.raises(ConfigError, match=words):
        scene = load_scene(file)
        for bus in scene.bus:
            live_bus(bus, scene, World(clock, clock.now_ms(), MemoryLedger()))
