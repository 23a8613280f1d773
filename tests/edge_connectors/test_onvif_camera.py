"""ONVIF cameras over real HTTP, simulated: log-in with a wrong clock, NAT, orders with read-back, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from citybrain_cli.main import main
from edge.clock import WallClock
from edge.connectors import onvif_camera
from edge.connectors.base import Command, Outcome
from edge.connectors.build import build
from edge.connectors.config import check
from edge.connectors.onvif_camera import OnvifCameras
from edge.connectors.onvif_client import OnvifClient
from edge.connectors.street_config import OnvifConfig, OnvifDevice
from edge.probe import onvif as probe
from firmware_sim.devices.build import service
from firmware_sim.devices.onvif_camera import Dome, OnvifBus
from firmware_sim.devices.world import World
from firmware_sim.ledger import MemoryLedger
from firmware_sim.scene import parse_scene
from protocols.core.errors import ConfigError, DeviceError, LinkDown, LinkRefused, LinkTimeout
from tests.edge_connectors.peers import serving
from tests.support.virtual import RecordingSink

pytest.importorskip("onvif", reason="onvif-zeep-async is not installed")

SCENE = """
id = "dome"
[[bus]]
id = "http"
kind = "onvif"
listen = "127.0.0.1:0"
[[device]]
id = "dome-1"
type = "camera/onvif_ptz"
bus = "http"
address = "SN001"
password = "geheim-01"
"""


def fault(kind: str, more: str = "") -> str:
    return f'[[device.fault]]\nkind = "{kind}"\n{more}\n'


@contextlib.asynccontextmanager
async def camera(extra: str = "") -> AsyncIterator[OnvifBus]:
    clock = WallClock()
    scene = parse_scene(SCENE + extra, "dome.toml")
    bus = service(scene.bus[0], scene, World(clock, clock.now_ms(), MemoryLedger()))
    assert isinstance(bus, OnvifBus)
    await bus.open()
    task = asyncio.create_task(bus.run())
    try:
        yield bus
    finally:
        task.cancel()
        await asyncio.wait([task])
        await bus.close()


def client(bus: OnvifBus, *, password: str = "geheim-01", timeout_s: float = 5.0, **options: Any) -> OnvifClient:  # noqa: S107
    host, _, port = bus.address.rpartition(":")
    return OnvifClient(host, int(port), "admin", password, timeout_s=timeout_s, **options)


def with_client(body: Callable[[OnvifClient, OnvifBus], Awaitable[None]], extra: str = "", **options: Any) -> None:
    async def main() -> None:
        async with camera(extra) as bus:
            one = client(bus, **options)
            try:
                await body(one, bus)
            finally:
                await one.close()

    asyncio.run(main())


# -- the client


def test_a_camera_is_asked_who_it_is_though_it_names_an_inner_address() -> None:
    async def body(one: OnvifClient, bus: OnvifBus) -> None:
        await one.connect()
        info = await one.info()
        assert (info.maker, info.model, info.serial) == ("citybrain", "SIM-DOME", "SN001")
        assert [(p.token, p.ptz) for p in one.profiles] == [("sub", False), ("main", True)]
        assert one.profile is not None and one.profile.token == "main"  # the first that can move
        assert await one.stream_uri() == "rtsp://127.0.0.1:554/stream/main"
        assert await one.presets() == {"1": "路口东", "2": "路口西"}
        assert one.clock_off_s is not None and abs(one.clock_off_s) < 5

    with_client(body)


def test_a_camera_whose_clock_says_1970_is_logged_in_to() -> None:
    async def body(one: OnvifClient, bus: OnvifBus) -> None:
        await one.connect()
        assert one.clock_off_s is not None and one.clock_off_s < -1e9
        assert (await one.position()).pan == 0.0

    with_client(body, fault("clock_step", "set_to = 1970-01-01T00:00:00+00:00"))


def test_failures_are_told_apart() -> None:
    async def wrong(one: OnvifClient, bus: OnvifBus) -> None:
        with pytest.raises(LinkRefused):
            await one.connect()
        assert not one.open

    async def broken(one: OnvifClient, bus: OnvifBus) -> None:
        with pytest.raises(DeviceError):
            await one.connect()

    async def silent(one: OnvifClient, bus: OnvifBus) -> None:
        with pytest.raises(LinkTimeout):
            await one.connect()

    async def gone(one: OnvifClient, bus: OnvifBus) -> None:
        await bus.close()
        with pytest.raises(LinkDown):
            await one.connect()

    async def no_profile(one: OnvifClient, bus: OnvifBus) -> None:
        with pytest.raises(DeviceError, match="main"):
            await one.connect()

    with_client(wrong, password="falsch")
    with_client(broken, fault("broken_xml"))
    with_client(silent, fault("silence"), timeout_s=0.3)
    with_client(gone)
    with_client(no_profile, profile="third")


def test_a_fixed_camera_is_reachable_and_does_not_move() -> None:
    async def body(one: OnvifClient, bus: OnvifBus) -> None:
        await one.connect()
        assert (await one.position()).pan is None
        with pytest.raises(DeviceError, match="cannot move"):
            await one.move(1, 0, 0)

    with_client(body, "options = { fixed = true }\n")


def test_the_library_leaves_our_logging_alone() -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)

    async def body(one: OnvifClient, bus: OnvifBus) -> None:
        await one.connect()

    with_client(body)
    assert (list(root.handlers), root.level) == before


# -- the connector


def config(folder: Path, bus: OnvifBus, **options: Any) -> OnvifConfig:
    (folder / "dome.secret").write_text("geheim-01\n", encoding="utf-8")
    device = OnvifDevice(
        id="dome-1", type="camera/onvif_ptz", address=bus.address, username="admin", password_file="dome.secret",
        poll_s=0.05,
    )  # fmt: skip
    return OnvifConfig(**{"id": "onvif", "device": (device,), "timeout_s": 2.0, **options})


async def until(sink: RecordingSink, true: Callable[[RecordingSink], bool]) -> None:
    async with asyncio.timeout(20):
        while not true(sink):  # noqa: ASYNC110 - the sink is no part of the loop
            await asyncio.sleep(0.02)


def ordered(folder: Path, orders: list[Command], extra: str = "") -> tuple[list[Outcome], RecordingSink, OnvifBus]:
    async def main() -> tuple[list[Outcome], RecordingSink, OnvifBus]:
        sink = RecordingSink()
        async with camera(extra) as bus:
            connector = build(config(folder, bus), WallClock(), base=folder)
            assert isinstance(connector, OnvifCameras)
            async with serving(connector, sink):
                await until(sink, lambda s: bool(s.values("dome-1", "pan")))
                return [await connector.command(order) for order in orders], sink, bus

    return asyncio.run(main())


def order(name: str, **arguments: Any) -> Command:
    return Command(name, "dome-1", name, arguments)


def test_it_is_there_and_looks_somewhere(tmp_path: Path) -> None:
    _, sink, _ = ordered(tmp_path, [])
    assert sink.states == [("dome-1", True)] and sink.reports == []
    assert sink.values("dome-1", "reachable")[0] == 1.0 and sink.values("dome-1", "pan")[0] == 0.0
    assert abs(sink.values("dome-1", "clock_offset")[0]) < 5


def test_orders_are_done_when_the_camera_looks_there(tmp_path: Path) -> None:
    outcomes, _, bus = ordered(
        tmp_path,
        [order("look_at", pan=0.1, tilt=-0.05, zoom=0.1), order("move", pan=1.0, tilt=0.0, zoom=0.0, for_s=0.2)],
    )
    assert [one.state for one in outcomes] == ["done", "done"]
    assert outcomes[0].read_back == pytest.approx({"pan": 0.1, "tilt": -0.05, "zoom": 0.1}, abs=0.02)
    assert float(outcomes[1].read_back["pan"]) > 0.13
    assert bus.heard.index("Stop") > bus.heard.index("ContinuousMove")
    assert not bus.dome.look(1e9)[1]  # it stands


def test_presets_are_checked_before_anything_is_sent(tmp_path: Path) -> None:
    outcomes, _, bus = ordered(tmp_path, [order("preset_goto", preset="9")])
    assert (outcomes[0].state, outcomes[0].code) == ("refused", "preset") and "路口东" in outcomes[0].detail
    assert "GotoPreset" not in bus.heard


def test_a_camera_that_says_yes_and_does_not_move_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onvif_camera, "TURN_S", 0.6)
    outcomes, _, _ = ordered(tmp_path, [order("look_at", pan=0.5, tilt=0.0, zoom=0.0)], fault("stuck"))
    assert (outcomes[0].state, outcomes[0].code) == ("failed", "read_back")


def test_whoever_ordered_a_movement_and_goes_away_leaves_a_stop_behind(tmp_path: Path) -> None:
    async def main() -> OnvifBus:
        sink = RecordingSink()
        async with camera() as bus:
            connector = build(config(tmp_path, bus), WallClock(), base=tmp_path)
            assert isinstance(connector, OnvifCameras)
            async with serving(connector, sink):
                await until(sink, lambda s: bool(s.values("dome-1", "pan")))
                task = asyncio.create_task(connector.command(order("move", pan=1.0, tilt=0.0, zoom=0.0, for_s=10.0)))
                await until(sink, lambda _: "ContinuousMove" in bus.heard)
                task.cancel()
                await asyncio.wait([task])
            return bus

    bus = asyncio.run(main())
    assert "Stop" in bus.heard and not any(bus.dome.speed)


def test_a_refused_login_is_told_and_the_camera_is_lost(tmp_path: Path) -> None:
    async def main() -> RecordingSink:
        sink = RecordingSink()
        async with camera(fault("refuse_login")) as bus:
            connector = build(config(tmp_path, bus), WallClock(), base=tmp_path)
            async with serving(connector, sink):
                await until(sink, lambda s: s.states == [("dome-1", False)])
                with pytest.raises(LinkDown):
                    assert isinstance(connector, OnvifCameras)
                    await connector.command(order("stop"))
        return sink

    sink = asyncio.run(main())
    assert [(report.event_type, report.code) for report in sink.reports] == [("data.rejected", "password")]
    assert sink.values("dome-1", "reachable") == [0.0]


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    device = OnvifDevice(id="a", type="camera/onvif_ptz", address="10.0.0.1:80")
    check(OnvifConfig(id="x", device=(device,)))
    for bad, text in (
        (OnvifDevice(id="a", type="camera/onvif_ptz", address="10.0.0.1"), "host:port"),
        (OnvifDevice(id="a", type="camera/onvif_ptz", address="10.0.0.1:80", username="u"), "password_file"),
        (OnvifDevice(id="a", type="camera/gb28181", address="10.0.0.1:80"), "speaks gb28181"),
    ):
        with pytest.raises(ConfigError, match=text):
            check(OnvifConfig(id="x", device=(bad,)))


# -- discovery


def test_a_camera_is_found_and_its_configuration_written() -> None:
    async def main() -> tuple[list[probe.Found], str]:
        async with camera() as bus:
            host, _, port = bus.address.rpartition(":")
            return await probe.discover(0.5, [(host, int(port))]), bus.address

    found, address = asyncio.run(main())
    (one,) = found  # asked three times, listed once
    assert (one.address, one.name, one.hardware, one.endpoint) == (address, "SIM DOME", "SIM-DOME", "urn:uuid:SN001")
    assert f'address = "{address}"' in probe.snippet(found)


def test_the_command_line_shows_what_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> int:
        async with camera() as bus:
            return await asyncio.to_thread(main, ["probe", f"onvif://{bus.address}"])

    assert asyncio.run(run()) == 0
    shown = capsys.readouterr().out
    assert "SIM-DOME" in shown and 'kind = "onvif"' in shown


def test_answers_that_are_none_are_dropped() -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "b">]><x xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery"/>'
    for data in (b"", b"hello", b"<a>", bomb, b"<a>" + b" " * probe.MOST_BYTES + b"</a>"):
        assert probe.answers(data, "10.0.0.1") == []


def test_a_dome_turns_at_its_speed_and_stops_at_its_end() -> None:
    dome = Dome()
    dome.order(0.0, speed=(1.0, 0.0, 0.0))
    assert dome.look(2.0) == ((0.5, 0.0, 0.0), True)
    assert dome.look(100.0)[0] == (1.0, 0.0, 0.0)
    dome.order(2.0, goal=(0.0, 0.0, 0.1))
    assert dome.look(10.0) == ((0.0, 0.0, 0.1), False)
