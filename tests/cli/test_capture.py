"""Recording a connector's real traffic and playing it back: through the codec, and as the device itself."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from citybrain_cli.main import main
from edge.capture import Watcher, capture
from edge.clock import WallClock
from edge.connectors.config import Hj212Device, Hj212ServerConfig, ModbusDevice, ModbusTcpConfig
from firmware_sim.clock import WallClock as SimClock
from firmware_sim.devices.build import polled_bus, stations
from firmware_sim.devices.world import World
from firmware_sim.ledger import MemoryLedger
from firmware_sim.links.tcp import TcpListener, tcp_dial
from firmware_sim.replay import Answerer, Pusher, polled
from firmware_sim.scene import parse_scene
from protocols.core.errors import ConfigError
from protocols.core.recording import Recording, parse, read

SCENE = """
id = "site"
[[bus]]
id = "gas"
kind = "modbus-tcp"
[[bus]]
id = "hj"
kind = "hj212-client"
[[device]]
id = "gas-1"
type = "gas/combustible"
bus = "gas"
address = 11
[device.signals]
ch4_lel = { base = 3.0 }
[[device]]
id = "dust-1"
type = "env/dust_station"
bus = "hj"
mn = "010000A8900016F000169DC0"
[device.signals]
pm10 = { base = 90.0 }
"""


def silent(_: str) -> None:
    """Nobody listens to what a capture says."""


def world() -> World:
    clock = SimClock()
    return World(clock, clock.now_ms(), MemoryLedger(), 1)


async def _record_gas(address: str, file: Path, for_s: float) -> Watcher:
    config = ModbusTcpConfig(
        id="gas", address=address, device=(ModbusDevice(id="gas-1", type="gas/combustible", unit=11, poll_s=0.1),)
    )
    _, watcher = await capture(config, file, WallClock(), for_s=for_s, tell=silent)
    return watcher


def test_a_polled_device_is_recorded_told_and_played_back_as_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"

    async def body() -> None:
        scene = parse_scene(SCENE, "site.toml")
        device = TcpListener("127.0.0.1:0", polled_bus(scene.bus[0], scene, world()).serve)
        await device.resume()
        watcher = await _record_gas(device.address, first, 0.6)
        await device.pause()
        assert watcher.readings > 0
        recording = read(first)
        assert (recording.protocol, recording.kind) == ("modbus", "modbus-tcp")
        assert polled(recording, 0)
        again = Answerer(recording, 0)
        player = TcpListener("127.0.0.1:0", again.serve)
        await player.resume()
        replayed = await _record_gas(player.address, second, 0.6)
        await player.pause()
        assert replayed.readings > 0
        assert again.answered > 0

    asyncio.run(body())
    asked = {request[7:] for request, _ in read(second).exchanges(0)}  # without the transaction's header
    assert asked <= {request[7:] for request, _ in read(first).exchanges(0)}
    assert main(["replay", str(first), "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["direction"] for one in told} == {"in", "out"}
    assert all(one["ok"] for one in told)


def test_a_pushing_station_gets_no_acknowledgement_and_is_played_back(tmp_path: Path) -> None:
    file = tmp_path / "dust.jsonl"
    config = Hj212ServerConfig(
        id="dust",
        listen="127.0.0.1:0",
        device=(Hj212Device(id="dust-1", type="env/dust_station", mn="010000A8900016F000169DC0"),),
    )

    async def body() -> tuple[Recording, bytes]:
        scene = parse_scene(SCENE, "site.toml")
        place = world()
        (station,) = stations(scene.bus[1], scene, place)

        opened: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def tell(line: str) -> None:
            if line.startswith("listening on "):
                opened.set_result(line.removeprefix("listening on "))

        recording = asyncio.create_task(capture(config, file, WallClock(), for_s=2.6, tell=tell))
        dialling = asyncio.create_task(station.run(tcp_dial(await opened)))
        _, watcher = await recording
        dialling.cancel()
        await asyncio.gather(dialling, return_exceptions=True)
        assert watcher.sweeps > 0
        found = read(file)
        heard = bytearray()

        async def platform(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.extend(await reader.read(65_536))
            writer.close()

        server = await asyncio.start_server(platform, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        link = await tcp_dial(f"{host}:{port}")()
        pusher = Pusher(found, 0, SimClock(), speed=1_000.0)
        await pusher.serve(link)
        await link.close()
        server.close()
        return found, bytes(heard)

    recording, heard = asyncio.run(body())
    assert not polled(recording, 0)
    assert b"CN=2011" in recording.stream(0, "in")
    assert b"9014" not in recording.stream(0, "out")
    assert heard
    assert recording.stream(0, "in").startswith(heard)


def test_a_torn_last_line_costs_only_itself_and_other_damage_is_named() -> None:
    head = '{"citybrain_recording":1,"protocol":"dlt645","kind":"dlt645","start_ms":5}'
    piece = '{"t":1,"l":0,"d":"in","x":"6868"}'
    assert parse([head, piece, '{"t":2,"l":0,"d":"i'], "r").stream(0, "in") == b"hh"
    with pytest.raises(ConfigError, match="r:2"):
        parse([head, '{"t":', piece], "r")
    with pytest.raises(ConfigError, match="r:2"):
        parse([head, '{"t":1,"l":0,"d":"in","x":"6"}', piece], "r")
    with pytest.raises(ConfigError, match="no recording of version 1"):
        parse(["{}"], "r")


def test_a_missing_recording_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path / "missing.jsonl")]) == 2
    assert "cannot be read" in capsys.readouterr().err
