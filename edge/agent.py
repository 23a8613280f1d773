"""The agent: builds the parts from the configuration and runs them as one group of tasks.

```
 connectors ─┐            ┌─▶ outbox ─▶ uplink ─▶ broker
 cameras ────┼─▶ pipeline ┤      ▲
 tick ───────┘   (engine) └──────┘ snapshot
```
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge.clock import Clock
from edge.clock_guard import ClockGuard
from edge.commands import Desk, Target
from edge.config import EdgeConfig, read_secret
from edge.connectors.base import Commandable, Connector, LinkFactory
from edge.connectors.build import build
from edge.core_orders import CoreOrders
from edge.devices import Devices
from edge.doctor.own import OwnCommands
from edge.evidence import Still
from edge.identity.rotate import Rotation
from edge.interlocks import Interlocks
from edge.northbound.config import SparkplugNorthConfig
from edge.order_socket import SOCKET, LocalSocket
from edge.outbox import Outbox, OutboxDamaged
from edge.outbox.opening import open_outbox as open_outbox
from edge.outbox.upkeep import Upkeep
from edge.pipeline import Offload, Pipeline, inline
from edge.remote_config import RemoteConfig
from edge.status import StatusPage
from edge.supervisor import Supervised
from edge.telemetry import Telemetry
from edge.timekeeper import STATE as CLOCK_STATE
from edge.timekeeper import Timekeeper
from edge.twin import Twin
from edge.updates.wiring import attach as attach_updates
from edge.uplink.account import losses
from edge.uplink.uplink import Uplink
from edge.watchdog import Watchdog
from protocols.core.errors import ConfigError
from protocols.devices import load as load_type
from protocols.uplink.topics import Lane
from scenarios.engine import Engine
from scenarios.packs import bind_all

log = logging.getLogger("citybrain.edge")

_TICK_S = 1.0


def agent_version() -> str:
    try:
        return version("citybrain")
    except PackageNotFoundError:
        return "0.1.0+source"


async def to_thread(function: Callable[[], None], /) -> None:
    await asyncio.to_thread(function)


@dataclass(slots=True)
class Parts:
    """A built agent. ``core`` makes it run without uplink and status page (virtual time)."""

    clock: ClockGuard
    outbox: Outbox
    engine: Engine
    pipeline: Pipeline
    supervised: list[Supervised]
    telemetry: Telemetry
    desk: Desk
    orders: CoreOrders
    twin: Twin

    def heard(self, channel: str, payload: bytes) -> None:
        """A message from the core. Channels of later cores are ignored."""
        if channel == "command":
            self.orders.heard(payload)
        elif channel == "twin":
            self.twin.heard(payload)


def assemble(
    config: EdgeConfig,
    base: Path,
    clock: Clock,
    *,
    lane: Callable[[], Lane],
    committed: Callable[[], None],
    offload: Offload = to_thread,
    links: Mapping[str, LinkFactory] | None = None,
) -> Parts:
    """Build everything but the uplink. ``links`` gives connectors memory pipes instead of real links (by id)."""
    state_dir = base / config.gateway.state_dir
    state_dir.mkdir(parents=True, exist_ok=True)
    devices = Devices(config)
    outbox = open_outbox(state_dir / "outbox.db", now_ms=clock.now_ms(), max_bytes=config.outbox.max_mb << 20)
    guard = clock = ClockGuard(clock, outbox.get_state(CLOCK_STATE))
    engine = Engine(bind_all(config.scenario), "edge")
    for device in devices.ids():
        place = devices.location(device)
        if place is not None:
            engine.set_location(device, *place)
    stills: dict[str, Callable[[], Still | None]] = {}
    pipeline = Pipeline(
        outbox,
        engine,
        devices,
        clock,
        flush_s=config.outbox.flush_s,
        lane=lane,
        committed=committed,
        offload=offload,
        still_of=lambda device: stills[device]() if device in stills else None,
        timekeeper=Timekeeper(guard, config.gateway.id),
    )
    snapshot = outbox.get_state("engine")
    if snapshot is not None:
        engine.restore(snapshot)
    supervised: list[Supervised] = []
    targets: dict[str, Target] = {}
    for connector_config in config.connector:
        connector = build(connector_config, clock, (links or {}).get(connector_config.id), base=base)
        supervised.append(Supervised(connector.id, _serve(connector, pipeline)))
        if isinstance(connector, Commandable):
            for item in connector_config.device:
                allow = frozenset(getattr(item, "allow", ()))
                targets[item.id] = Target(load_type(item.type), connector, allow)
    interlocks = Interlocks(config.interlock, clock)
    if config.interlock:
        pipeline.watch = interlocks.see
    desk = Desk(targets, outbox, clock, pipeline.report, gateway=config.gateway.id, interlock=interlocks.held)
    orders = CoreOrders(desk, clock, pipeline.outcome)
    twin = Twin(outbox, clock, pipeline.reported)
    if config.northbound.sparkplug is not None:
        supervised.append(_northbound(config, config.northbound.sparkplug, base, clock, pipeline, outbox, desk))
    if config.camera:
        from edge.cameras import Camera  # an agent without cameras never loads OpenCV

        for camera_config in config.camera:
            camera = Camera(camera_config, state_dir, clock, pipeline, threaded=offload is not inline)
            stills[camera_config.id] = camera.still
            supervised.append(Supervised(camera_config.id, camera.run))
    telemetry = Telemetry(state_dir, clock, outbox, pipeline, supervised)
    return Parts(guard, outbox, engine, pipeline, supervised, telemetry, desk, orders, twin)


def _northbound(
    config: EdgeConfig,
    wanted: SparkplugNorthConfig,
    base: Path,
    clock: Clock,
    pipeline: Pipeline,
    outbox: Outbox,
    desk: Desk,
) -> Supervised:
    """The gateway as an edge node of somebody's SCADA."""
    from edge.connectors.mqtt_link import dial
    from edge.northbound.sparkplug_node import SparkplugNorth

    north = SparkplugNorth(
        wanted,
        {device.id: load_type(device.type) for connector in config.connector for device in connector.device},
        clock,
        dial(wanted, base),
        outbox,
        gateway=config.gateway.id,
        version=agent_version(),
        order=desk.order,
    )
    pipeline.tap = north
    return Supervised("northbound.sparkplug", north.run)


def _serve(connector: Connector, pipeline: Pipeline) -> Callable[[], asyncio.Future[None]]:
    def run() -> asyncio.Future[None]:
        return asyncio.ensure_future(connector.run(pipeline))

    return run


async def _tick(pipeline: Pipeline) -> None:
    while True:
        await asyncio.sleep(_TICK_S)
        pipeline.tick()


async def run_parts(parts: Parts) -> None:
    """Connectors, cameras, rules and commits, until cancelled; then one last commit."""
    try:
        async with asyncio.TaskGroup() as group:
            for supervised in parts.supervised:
                group.create_task(supervised.run(), name=supervised.name)
            group.create_task(parts.pipeline.run(), name="commits")
            group.create_task(_tick(parts.pipeline), name="tick")
            group.create_task(parts.orders.run(), name="orders")
            group.create_task(parts.twin.run(), name="twin")
    finally:
        if await parts.pipeline.flush():
            parts.outbox.put_state("engine", parts.engine.snapshot())


class _Reload(Exception):
    """The parts are to start anew with another configuration."""


async def run(config: EdgeConfig, base: Path, clock: Clock) -> None:
    """The whole agent on a gateway, until cancelled. ``config`` is the installer's; a document of the twin may replace
    parts of it, and then everything but the process starts anew."""
    remote = RemoteConfig(config, base / config.gateway.state_dir)
    while True:
        try:
            await _life(remote.begin(), base, clock, remote)
        except ConfigError as error:
            if not remote.on_trial:
                raise
            remote.reject(str(error))


async def _life(config: EdgeConfig, base: Path, clock: Clock, remote: RemoteConfig) -> None:
    """Returns when another configuration is to be tried."""
    uplink: Uplink | None = None

    def lane() -> Lane:
        return "data" if uplink is not None and uplink.live else "backfill"

    def committed() -> None:
        if uplink is not None:
            uplink.wake()

    async def until_reload() -> None:
        await remote.reload.wait()
        raise _Reload

    password = read_secret(Path(config.mqtt.password_file), base) if config.mqtt.password_file else ""
    parts = assemble(config, base, clock, lane=lane, committed=committed)
    clock = parts.clock
    uplink = Uplink(
        config.mqtt,
        parts.outbox,
        clock,
        gateway=config.gateway.id,
        shard=config.gateway.shard,
        password=password,
        version=agent_version(),
        health=parts.telemetry.health,
        rejected=lambda lane, seq, reason: parts.pipeline.report(
            "data.rejected", config.gateway.id, reason, f"the core set {lane} {seq} aside"
        ),
        heard=parts.heard,
        dropped=lambda: losses(parts.pipeline.counters),
    )
    parts.telemetry.uplink = uplink
    if config.identity is not None:
        parts.telemetry.identity = Rotation(
            config.identity,
            base,
            clock,
            gateway=config.gateway.id,
            report=parts.pipeline.report,
            renewed=uplink.reconnect,
        )
    parts.twin.handlers["config"] = remote.handler
    updates = attach_updates(parts.twin, config.updates, base, clock, parts.telemetry.health)
    own = OwnCommands(
        config,
        base,
        clock,
        health=parts.telemetry.health,
        devices=parts.pipeline.devices_heard,
        report=parts.pipeline.reported,
    )
    own.attach(parts.desk)
    remote.healthy = lambda: uplink.connected and uplink.live
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(until_reload(), name="reload")
            group.create_task(run_parts(parts), name="parts")
            group.create_task(uplink.run(), name="uplink")
            group.create_task(Watchdog().run(), name="watchdog")
            upkeep = Upkeep(parts.outbox, clock, config.outbox.ttl_h.ms(), parts.pipeline.report, config.gateway.id)
            group.create_task(upkeep.run(), name="upkeep")
            if parts.telemetry.identity is not None:
                group.create_task(parts.telemetry.identity.run(), name="identity")
            if updates is not None:
                group.create_task(updates.run(), name="trial")
            group.create_task(
                LocalSocket(base / config.gateway.state_dir / SOCKET, parts.desk, clock).run(), name="local orders"
            )
            if config.gateway.status_listen:
                page = StatusPage(
                    config.gateway.id,
                    config.gateway.status_listen,
                    base / config.gateway.state_dir,
                    parts.telemetry.health,
                    parts.pipeline.devices_heard,
                )
                group.create_task(page.run(), name="status")
    except BaseExceptionGroup as errors:
        broken, others = errors.split(OutboxDamaged)
        _, others = others.split(_Reload) if others is not None else (None, None)
        if others is not None:
            raise others from None
        if broken is not None:  # opened anew, what can be read of the file is saved, and a new epoch begins
            log.error("%s", broken)
        else:
            log.info("starting anew with another configuration")
    finally:
        own.detach()
        parts.outbox.close()
