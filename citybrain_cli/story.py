"""Plays a story in virtual time: simulated device bytes through a whole agent into its outbox, hours in seconds.

The agent is the real one: connectors, vision, rules and outbox; only the links are memory pipes, and the clock jumps.
What comes out is an outbox file, which the uplink can then bring to a core like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from edge.agent import assemble, run_parts
from edge.config import EdgeConfig, GatewayConfig, MqttConfig, OutboxConfig, Place, ReportRule
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
from edge.outbox import Outbox
from edge.pipeline import Pipeline, inline
from edge.vision.config import CameraConfig
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_loop import run_virtual
from firmware_sim.rig.virtual_rig import VirtualRig
from firmware_sim.scene import Device, Expect, Scene, load_scene
from protocols.core.errors import ConfigError
from protocols.core.ids import derived_id
from protocols.core.model import Event
from protocols.uplink import batch as wire
from protocols.uplink.topics import Lane
from scenarios.binding import ScenarioBinding
from scenarios.packs import load, roles_for

GATEWAY, SHARD = "gw-story", 9
PLACE = (117.30, 31.80)
_FLUSH_S = 5.0  # an HJ 212 station repeats what is not acknowledged within 10 s
_POLLS = 1200  # a long story is polled about this often, between once a second and once in ten
_ANALYSE_FPS = 1.0
_METRES_PER_DEGREE = 111_195.0  # of latitude


@dataclass(frozen=True, slots=True)
class Played:
    scene: Scene
    pack: str
    outbox: Path
    devices: dict[str, str]  # id -> type; cameras "camera"
    events: tuple[Event, ...]  # as the agent produced them, in order
    counters: dict[str, int]


def binding(scene: Scene, pack_id: str) -> ScenarioBinding:
    """The pack bound to the devices of the scene, by their types."""
    return ScenarioBinding(pack=pack_id, devices=roles_for(load(pack_id), device_types(scene)))


def device_types(scene: Scene) -> dict[str, str]:
    return {d.id: d.type for d in scene.device} | {str(c["id"]): "camera" for c in scene.camera}


def agent_config(scene: Scene, pack_id: str, folder: Path, report: tuple[ReportRule, ...] = ()) -> EdgeConfig:
    """What an installer would have written for these devices. Cameras become recordings in ``folder``."""
    poll_s = min(10.0, max(1.0, (scene.duration_s or 0) / _POLLS))
    return EdgeConfig(
        gateway=GatewayConfig(id=GATEWAY, shard=SHARD, location=PLACE, status_listen=""),
        mqtt=MqttConfig(url="mqtt://127.0.0.1:1883"),
        outbox=OutboxConfig(flush_s=_FLUSH_S),
        connector=tuple(
            _connector(bus.id, bus.kind, [d for d in scene.device if d.bus == bus.id], poll_s)
            for bus in scene.bus
            if bus.kind != "camera"
        ),
        camera=tuple(_camera(table, scene, folder) for table in scene.camera),
        scenario=(binding(scene, pack_id),),
        report=report,
        place=tuple(Place(device, *PLACE) for device in device_types(scene)),
    )


def _connector(bus: str, kind: str, devices: list[Device], poll_s: float) -> ConnectorConfig:
    if kind == "hj212-client":
        stations = tuple(Hj212Device(id=d.id, type=d.type, mn=str(d.mn)) for d in devices)
        return Hj212ServerConfig(id=bus, listen="127.0.0.1:0", device=stations)
    if kind == "dlt645":
        meters = tuple(Dlt645Device(id=d.id, type=d.type, address=str(d.address)) for d in devices)
        return Dlt645Config(id=bus, port=bus, device=meters)
    units = tuple(ModbusDevice(id=d.id, type=d.type, unit=int(d.address or 1), poll_s=poll_s) for d in devices)
    if kind == "modbus-tcp":
        return ModbusTcpConfig(id=bus, address="127.0.0.1:1", device=units)
    return ModbusRtuConfig(id=bus, port=bus, device=units)


def _camera(table: dict[str, object], scene: Scene, folder: Path) -> CameraConfig:
    from firmware_sim.camera.file import write_mp4
    from firmware_sim.camera.geometry import Pinhole, lane_ground
    from firmware_sim.camera.model import CameraModel

    if scene.duration_s is None:
        raise ConfigError(f"{scene.id}: a story with a camera needs duration_s")
    known = {key: value for key, value in table.items() if key != "bus"}
    model = CameraModel.from_table(known, seed=scene.seed)
    path = folder / f"{table['id']}.mp4"
    write_mp4(model, path, scene.duration_s)
    zone = lane_ground(Pinhole()).as_config()
    fps = min(_ANALYSE_FPS, float(model.fps))
    return msgspec.convert(
        {"id": table["id"], "url": str(path), "analyse_fps": fps, "zone": [zone]}, CameraConfig, strict=False
    )


def play(
    path: Path,
    folder: Path,
    *,
    pack_id: str | None = None,
    streams: Path | None = None,
    report: tuple[ReportRule, ...] = (),
) -> Played:
    """Play the story at ``path`` (below ``packs/<pack>/stories``), leaving the outbox in ``folder``."""
    scene = load_scene(path)
    pack = pack_id or "/".join(path.resolve().parts[-4:-2])
    if scene.start_ms is None or scene.duration_s is None:
        raise ConfigError(f"{path}: a story needs start and duration_s")
    config = agent_config(scene, pack, folder, report)
    counters = run_virtual(_run(scene, config, folder, streams), scene.start_ms)
    outbox = folder / config.gateway.state_dir / "outbox.db"
    return Played(scene, pack, outbox, device_types(scene), tuple(events_in(outbox)), counters)


async def _run(scene: Scene, config: EdgeConfig, folder: Path, streams: Path | None) -> dict[str, int]:
    assert scene.duration_s is not None  # noqa: S101 - checked by play
    lane: Lane = "data"
    async with VirtualRig(scene, ledger=MemoryLedger(keep=False), streams_folder=streams) as rig:
        parts = assemble(
            config,
            folder,
            rig.clock,
            lane=lambda: lane,
            committed=lambda: None,
            offload=inline,
            links={bus.id: rig.link_factory(bus.id) for bus in scene.bus if bus.kind != "camera"},
        )
        task = asyncio.create_task(run_parts(parts))
        told = asyncio.create_task(_report(scene, rig, parts.pipeline))
        until = asyncio.create_task(rig.until_s(scene.duration_s))
        await asyncio.wait([task, until], return_when=asyncio.FIRST_COMPLETED)
        until.cancel()
        told.cancel()
        if task.done():
            await task  # the agent broke: that is the story's failure
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        counters = dict(parts.pipeline.counters)
        parts.outbox.close()
        return counters


async def _report(scene: Scene, rig: VirtualRig, pipeline: Pipeline) -> None:
    """What others report meanwhile, as raised alarms of their own."""
    for reported in sorted(scene.reported, key=lambda r: r.at_s):
        await rig.until_s(reported.at_s)
        now_ms = rig.clock.now_ms()
        pipeline.happened(
            Event(
                id=derived_id(scene.id, reported.source, now_ms),
                type=reported.type,
                ts_ms=now_ms,
                seen_ms=now_ms,
                source=reported.source,
                scenario="reported",
                level=reported.level,
                state="raise",
                key=f"{reported.source}:{reported.type}",
                location=(PLACE[0], PLACE[1] + reported.north_m / _METRES_PER_DEGREE),
            )
        )


def events_in(outbox_path: Path) -> list[Event]:
    """All events that wait in an outbox, in order."""
    outbox = Outbox(outbox_path, now_ms=0)
    try:
        rows = outbox.rows("event", 0, limit=1_000_000)
        codes = {d.alias: d.code for d in outbox.series()}
        return [event for row in rows for event in wire.decode(wire.open_envelope(row.payload), codes).events]
    finally:
        outbox.close()


def complaints(expect: Expect, seen: list[str], raised: set[str], cleared: set[str]) -> list[str]:
    """What does not match. ``seen``: every event type; ``raised`` and ``cleared``: types of alarms."""
    out = [f"{kind} never came" for kind in expect.events if kind not in seen]
    out += [f"{kind} came" for kind in dict.fromkeys(seen) for p in expect.none_of if fnmatchcase(kind, p)]
    out += [f"{kind} did not clear" for kind in expect.cleared if kind not in cleared or kind not in raised]
    return out


def at_the_edge(played: Played) -> list[str]:
    """Complaints about what the agent alone can show (``wf.*`` and cases are the core's)."""
    expect = played.scene.expect
    if expect is None:
        return [f"{played.scene.id} expects nothing"]
    mine = msgspec.structs.replace(expect, events=tuple(e for e in expect.events if not e.startswith("wf.")))
    return complaints(
        mine,
        [e.type for e in played.events if e.level != "info" or e.type in expect.events or e.state],
        {e.type for e in played.events if e.state == "raise"},
        {e.type for e in played.events if e.state == "raise"} & _cleared_types(played.events),
    )


def _cleared_types(events: tuple[Event, ...]) -> set[str]:
    kind_of = {e.key: e.type for e in events if e.state == "raise"}
    return {kind_of[e.key] for e in events if e.state == "clear" and e.key in kind_of}
