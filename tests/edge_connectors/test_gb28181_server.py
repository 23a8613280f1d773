"""Cameras registering with the gateway: log-in, silence, channels, alarms, orders; over TCP and over real UDP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from edge.clock import WallClock
from edge.connectors.base import Command, Outcome
from edge.connectors.build import build
from edge.connectors.config import check
from edge.connectors.gb28181_alarms import kind_of
from edge.connectors.gb28181_server import Gb28181Server
from edge.connectors.street_config import Gb28181Device, Gb28181ServerConfig
from firmware_sim.devices.build import service
from firmware_sim.devices.gb28181_camera import Gb28181Camera, UdpCameras
from firmware_sim.devices.world import World
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_rig import VirtualRig
from firmware_sim.scene import parse_scene
from protocols.core.errors import ConfigError, LinkDown
from protocols.core.model import Quality
from protocols.gb28181 import manscdp, ptz
from protocols.gb28181.device import Ordered
from tests.edge_connectors.peers import serving
from tests.support.virtual import RecordingSink, play, running

SERVER, RECORDER = "34010000002000000001", "34010000001180000001"
FIRST = "34010000001310000001"
SCENE = f"""
id = "cameras"
start = 2026-03-02T08:00:00+08:00
[[bus]]
id = "sip"
kind = "KIND"
connect = "CONNECT"
[[device]]
id = "nvr-1"
type = "camera/gb28181"
bus = "sip"
address = "{RECORDER}"
password = "geheim-01"
options = {{ server = "{SERVER}", channels = 9, part = 2 }}
"""
TCP = SCENE.replace("KIND", "gb28181-client").replace("CONNECT", "127.0.0.1:5060")


def config(folder: Path, **options: Any) -> Gb28181ServerConfig:
    (folder / "nvr.secret").write_text("geheim-01\n", encoding="utf-8")
    device = Gb28181Device(id="nvr-1", type="camera/gb28181", gb_id=RECORDER, password_file="nvr.secret")
    base = {"id": "sip", "listen": "127.0.0.1:5060", "server_id": SERVER, "device": (device,)}
    return Gb28181ServerConfig(**{**base, **options})


Body = Callable[[VirtualRig, Gb28181Server, Gb28181Camera], Awaitable[None]]


def run(folder: Path, body: Body, faults: str = "", scene: str = TCP, **options: Any) -> RecordingSink:
    sink = RecordingSink()

    async def main(rig: VirtualRig) -> None:
        connector = build(config(folder, **options), rig.clock, rig.link_factory("sip"), base=folder)
        assert isinstance(connector, Gb28181Server)
        (camera,) = rig._stations["sip"]
        assert isinstance(camera, Gb28181Camera)
        async with running([connector], sink):
            await body(rig, connector, camera)

    play(scene + faults, main)
    return sink


def fault(kind: str, at_s: float = 0.0, for_s: float = 1e6, more: str = "") -> str:
    return f'[[device.fault]]\nkind = "{kind}"\nat_s = {at_s}\nfor_s = {for_s}\n{more}\n'


def minutes(count: float) -> Body:
    async def body(rig: VirtualRig, connector: Gb28181Server, camera: Gb28181Camera) -> None:
        await asyncio.sleep(60 * count)

    return body


# -- who is there


def test_a_recorder_registers_and_tells_its_channels(tmp_path: Path) -> None:
    found: list[Any] = []

    async def body(rig: VirtualRig, connector: Gb28181Server, camera: Gb28181Camera) -> None:
        await asyncio.sleep(300)
        found.extend(connector.channels("nvr-1"))

    sink = run(tmp_path, body)
    assert sink.states == [("nvr-1", True)] and sink.reports == []
    assert [one.name for one in found] == [f"nvr-1 通道{n}" for n in range(1, 10)]
    assert sink.values("nvr-1", "channels") == [9.0] and sink.values("nvr-1", "channels_on") == [9.0]
    assert len(sink.values("nvr-1", "healthy")) >= 4 and set(sink.values("nvr-1", "healthy")) == {1.0}
    assert sink.values("nvr-1", "recording") == [0.0]
    assert abs(sink.values("nvr-1", "clock_offset")[0]) < 1.0
    assert {int(q) for sweep in sink.sweeps for q in sweep.quality} == {Quality.GOOD}


def test_a_wrong_password_is_told_and_keeps_it_out(tmp_path: Path) -> None:
    sink = run(tmp_path, minutes(8), fault("wrong_password"))
    assert sink.sweeps == [] and sink.states == [("nvr-1", False)]
    assert {(report.event_type, report.code) for report in sink.reports} == {
        ("data.rejected", "password"),
        ("data.rejected", "locked"),
    }
    assert all("geheim" not in report.detail for report in sink.reports)


def test_a_password_put_right_lets_it_in_once_the_lock_is_over(tmp_path: Path) -> None:
    sink = run(tmp_path, minutes(20), fault("wrong_password", 0, 120))
    assert sink.states[-1] == ("nvr-1", True)


def test_without_keepalives_it_is_offline_and_registers_bring_it_back(tmp_path: Path) -> None:
    sink = run(tmp_path, minutes(10), fault("no_keepalive", 60, 400), status_s=3_600.0)
    assert sink.states == [("nvr-1", True), ("nvr-1", False), ("nvr-1", True)]


def test_a_stranger_is_counted_and_told(tmp_path: Path) -> None:
    sink = run(tmp_path, minutes(1), scene=TCP.replace(RECORDER, "34010000001180000666"))
    assert sink.counts["strangers"] >= 1
    assert sink.reports[0].device == "sip" and sink.reports[0].code == "stranger"


def test_power_lost_and_back(tmp_path: Path) -> None:
    sink = run(tmp_path, minutes(10), fault("restart", 60, 300))
    assert sink.states == [("nvr-1", True), ("nvr-1", False), ("nvr-1", True)]
    short = run(tmp_path, minutes(5), fault("restart", 60, 30))
    assert short.states == [("nvr-1", True)]  # it was back before anybody could miss it


def test_a_wrong_clock_is_told_and_nothing_is_dated_by_it(tmp_path: Path) -> None:
    sink = run(tmp_path, minutes(3), fault("clock_step", 0, 1e6, "set_to = 1970-01-01T00:00:00+00:00"))
    assert [report.event_type for report in sink.reports] == ["dev.clock_skew"]
    assert all(sweep.source_ms == sweep.seen_ms for sweep in sink.sweeps)


def test_a_camera_that_says_it_is_not_well(tmp_path: Path) -> None:
    sink = run(tmp_path, minutes(3), "signals.healthy = { base = 0.0 }\n")
    assert set(sink.values("nvr-1", "healthy")) == {0.0}


def test_damaged_messages_cost_themselves_only(tmp_path: Path) -> None:
    sink = run(tmp_path, minutes(10), fault("garble", 5, 1e6, "every = 3") + fault("truncate", 5, 1e6, "every = 7"))
    assert len(sink.values("nvr-1", "healthy")) >= 3
    assert sink.states[0] == ("nvr-1", True)


# -- alarms


def test_a_tamper_alarm_is_told_once(tmp_path: Path) -> None:
    sink = run(tmp_path, minutes(2), fault("opened", 30, 60))
    told = [(report.event_type, report.code) for report in sink.reports]
    assert told == [("dev.tamper", "opened")] and FIRST in sink.reports[0].detail


def test_alarms_in_the_words_of_the_catalogue() -> None:
    def alarm(method: str, kind: str) -> tuple[str, str] | None:
        return kind_of(manscdp.body("Notify", "Alarm", 1, FIRST, AlarmMethod=method, AlarmType=kind))

    assert alarm("5", "6") == ("vision.intrusion", "zone")
    assert alarm("2", "9") == ("dev.fault", "alarm_9")
    assert alarm("5", "2") is None and alarm("1", "1") is None and alarm("2", "<x>") is None
    nested = manscdp.parse(
        b"<Notify><CmdType>Alarm</CmdType><AlarmMethod>2</AlarmMethod><Info><AlarmType>1</AlarmType></Info></Notify>"
    )
    assert kind_of(nested) == ("dev.fault", "video_lost")


# -- orders


def ordered(
    folder: Path, name: str, faults: str = "", wait_s: float = 1.0, **arguments: Any
) -> tuple[Outcome, list[Ordered], Gb28181Camera]:
    outcomes: list[Outcome] = []
    cameras: list[Gb28181Camera] = []

    async def body(rig: VirtualRig, connector: Gb28181Server, camera: Gb28181Camera) -> None:
        await asyncio.sleep(30)
        outcomes.append(await connector.command(Command("1", "nvr-1", name, arguments)))
        await asyncio.sleep(wait_s)
        cameras.append(camera)

    run(folder, body, faults)
    return outcomes[0], cameras[0].orders, cameras[0]


def test_a_movement_is_followed_by_a_stop(tmp_path: Path) -> None:
    outcome, orders, _ = ordered(tmp_path, "move", channel=FIRST, pan=-0.5, tilt=0, zoom=0, for_s=2)
    assert outcome.state == "done"
    assert orders == [Ordered(FIRST, ptz.Motion(pan=-1, pan_speed=128)), Ordered(FIRST, ptz.STOP)]


def test_whoever_ordered_a_movement_and_goes_away_leaves_a_stop_behind(tmp_path: Path) -> None:
    cameras: list[Gb28181Camera] = []

    async def body(rig: VirtualRig, connector: Gb28181Server, camera: Gb28181Camera) -> None:
        await asyncio.sleep(30)
        arguments = {"channel": FIRST, "pan": 1.0, "tilt": 0.0, "zoom": 0.0, "for_s": 10.0}
        task = asyncio.create_task(connector.command(Command("1", "nvr-1", "move", arguments)))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.sleep(1)
        cameras.append(camera)

    run(tmp_path, body)
    assert [order.order for order in cameras[0].orders] == [ptz.Motion(pan=1, pan_speed=255), ptz.STOP]


def test_presets_go_to_the_channel_that_was_meant(tmp_path: Path) -> None:
    outcome, orders, _ = ordered(tmp_path, "preset_goto", channel=FIRST, preset=7)
    assert outcome.state == "done" and orders == [Ordered(FIRST, ptz.Preset("goto", 7))]
    outcome, orders, _ = ordered(tmp_path, "preset_goto", channel="34010000001310099999", preset=7)
    assert (outcome.state, outcome.code) == ("refused", "channel") and orders == []


def test_recording_is_read_back(tmp_path: Path) -> None:
    outcome, orders, camera = ordered(tmp_path, "record_start", channel="")
    assert (outcome.state, outcome.read_back) == ("done", {"recording": 1.0})
    assert camera.camera.recording and orders[0].control == "RecordCmd"


def test_a_stream_is_asked_for_and_ended(tmp_path: Path) -> None:
    cameras: list[Gb28181Camera] = []

    async def body(rig: VirtualRig, connector: Gb28181Server, camera: Gb28181Camera) -> None:
        await asyncio.sleep(30)
        arguments = {"channel": FIRST, "host": "10.0.0.2", "port": 6000}
        started = await connector.command(Command("1", "nvr-1", "stream_start", arguments))
        assert started.state == "done" and "SSRC 0" in started.detail
        again = await connector.command(Command("2", "nvr-1", "stream_start", arguments))
        assert again.code == "streaming"
        stopped = await connector.command(Command("3", "nvr-1", "stream_stop", {"channel": FIRST}))
        assert stopped.state == "done"
        await asyncio.sleep(1)
        none = await connector.command(Command("4", "nvr-1", "stream_stop", {"channel": FIRST}))
        assert none.code == "no_stream"
        cameras.append(camera)

    run(tmp_path, body)
    on, off = cameras[0].streams
    assert on.offer is not None and (on.offer.ip, on.offer.port, on.on) == ("10.0.0.2", 6000, True)
    assert not off.on


def test_an_order_to_a_camera_that_went_silent_is_unknown(tmp_path: Path) -> None:
    outcome, orders, _ = ordered(tmp_path, "preset_goto", fault("silence", 25, 60), channel=FIRST, preset=7)
    assert (outcome.state, outcome.code) == ("unknown", "no_answer") and orders == []


def test_an_order_to_a_camera_that_never_came_is_not_sent(tmp_path: Path) -> None:
    async def body(rig: VirtualRig, connector: Gb28181Server, camera: Gb28181Camera) -> None:
        await asyncio.sleep(5)
        with pytest.raises(LinkDown):
            await connector.command(Command("1", "nvr-1", "stop", {"channel": ""}))

    run(tmp_path, body, fault("wrong_password"))


# -- UDP, real


@pytest.mark.parametrize("lost_every", [0, 3])
def test_over_udp_on_the_loopback(tmp_path: Path, lost_every: int) -> None:
    async def main() -> tuple[RecordingSink, list[Ordered], Outcome]:
        sink = RecordingSink()
        clock = WallClock()
        connector = build(config(tmp_path, listen="127.0.0.1:0"), clock, base=tmp_path)
        assert isinstance(connector, Gb28181Server)
        async with serving(connector, sink), asyncio.timeout(40):
            while not connector.port:  # noqa: ASYNC110 - opened by its own task
                await asyncio.sleep(0.01)
            text = SCENE.replace("KIND", "gb28181-client-udp").replace("CONNECT", f"127.0.0.1:{connector.port}")
            if lost_every:
                text += fault("drop", more=f"every = {lost_every}")
            scene = parse_scene(text, "cameras.toml")
            bus = service(scene.bus[0], scene, World(clock, clock.now_ms(), MemoryLedger()))
            assert isinstance(bus, UdpCameras)
            cameras = asyncio.create_task(bus.run())
            while not sink.values("nvr-1", "channels"):  # noqa: ASYNC110 - the sink is no part of the loop
                await asyncio.sleep(0.02)
            outcome = await connector.command(Command("1", "nvr-1", "preset_goto", {"channel": FIRST, "preset": 3}))
            cameras.cancel()
            await asyncio.wait([cameras])
            return sink, bus.stations[0].orders, outcome

    sink, orders, outcome = asyncio.run(main())
    assert sink.states == [("nvr-1", True)]
    assert sink.values("nvr-1", "channels") == [9.0]
    assert orders == [Ordered(FIRST, ptz.Preset("goto", 3))] and outcome.state == "done"


# -- configuration


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    good = config(tmp_path)
    check(good)
    for options, text in (
        ({"listen": "0.0.0.0:5060"}, "advertise"),
        ({"listen": "5060"}, "host:port"),
        ({"device": good.device * 2}, "used 2 times"),
        ({"server_id": RECORDER}, "our own number"),
    ):
        with pytest.raises(ConfigError, match=text):
            check(config(tmp_path, **options))
    (tmp_path / "nvr.secret").unlink()
    with pytest.raises(ConfigError, match=r"nvr\.secret"):
        build(good, WallClock(), base=tmp_path)
