"""Cameras by ONVIF: polled for "is it there", where it looks and its clock; moved where the gateway allows it.

Each camera is served on its own: one that hangs costs the others nothing. A movement is always followed by a stop;
where the camera says where it looks, an order is done only when it looks there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge.clock import Clock
from edge.connectors.base import Command, Outcome, Sink
from edge.connectors.config import split_address
from edge.connectors.health import Health
from edge.connectors.onvif_client import OnvifClient, Position
from edge.connectors.secret import read_secret
from edge.connectors.station_server import News
from edge.connectors.street_config import OnvifConfig, OnvifDevice
from protocols.core.errors import DeviceError, LinkDown, LinkRefused, LinkTimeout, TransportError
from protocols.core.model import Sweep
from protocols.devices import load
from protocols.devices.values import Raw, by_key, reading

log = logging.getLogger(__name__)

CLOCK_OFF_S = 60.0
#: How near the wanted place a camera must look, in its own scale of -1 to 1.
NEAR = 0.02
#: How long a dome may take to turn.
TURN_S = 15.0


class _Camera:
    def __init__(self, config: OnvifDevice, base: Path, timeout_s: float) -> None:
        self.config = config
        self.id = config.id
        self.type = load(config.type)
        self.points = by_key(self.type)
        self.health = Health(config.id)
        self.news = News()
        host, port = split_address(config.address, f"device {config.id!r}: address")
        password = read_secret(Path(config.password_file), base) if config.password_file else ""
        self.client = OnvifClient(host, port, config.username, password, profile=config.profile, timeout_s=timeout_s)
        self.turn = asyncio.Lock()  # one call at a time: small cameras answer no more
        self.moving = False


class OnvifCameras:
    """The connector of kind ``onvif``."""

    def __init__(self, config: OnvifConfig, clock: Clock, base: Path) -> None:
        self.id = config.id
        self._config = config
        self._clock = clock
        self._cameras = {device.id: _Camera(device, base, config.timeout_s) for device in config.device}
        self._sink: Sink | None = None

    async def run(self, sink: Sink) -> None:
        self._sink = sink
        try:
            async with asyncio.TaskGroup() as tasks:
                for camera in self._cameras.values():
                    tasks.create_task(self._serve(camera, sink), name=f"{self.id} {camera.id}")
        finally:
            self._sink = None
            for camera in self._cameras.values():
                if camera.moving:
                    with contextlib.suppress(TransportError, DeviceError):
                        await camera.client.stop()
                await camera.client.close()

    async def _serve(self, camera: _Camera, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            async with camera.turn:
                await self._poll(camera, sink)
            lost = camera.health.lost
            period_s = max(camera.config.poll_s, self._config.slow_poll_s) if lost else camera.config.poll_s
            await asyncio.sleep(max(0.0, began_s + period_s - loop.time()))

    async def _poll(self, camera: _Camera, sink: Sink) -> None:
        client = camera.client
        try:
            if not client.open:
                await client.connect()
                info = await client.info()
                log.info("%s is a %s %s, firmware %s", camera.id, info.maker, info.model, info.firmware)
                self._clock_off(camera, sink)
            position = await client.position()
        except (TransportError, DeviceError) as exc:
            await client.close()
            sink.count("polls_missed", connector=self.id)
            refused = isinstance(exc, LinkRefused)
            if refused or isinstance(exc, DeviceError):
                code = "password" if refused else "refused"
                if camera.news.fresh("data.rejected", code, "", self._clock.now_ms()):
                    sink.report("data.rejected", camera.id, code, str(exc))
            was_lost = camera.health.lost
            camera.health.missed(sink, str(exc))
            if camera.health.lost and not was_lost:
                self._emit(camera, {"reachable": 0}, sink)
            return
        camera.health.answered(sink)
        raws: dict[str, Raw] = {"reachable": 1}
        if client.profile is not None and client.profile.ptz:
            raws |= {"pan": position.pan, "tilt": position.tilt, "zoom": position.zoom}
        self._emit(camera, raws, sink)

    def _clock_off(self, camera: _Camera, sink: Sink) -> None:
        off_s = camera.client.clock_off_s
        if off_s is None:
            return
        self._emit(camera, {"clock": off_s}, sink)
        if abs(off_s) > CLOCK_OFF_S:
            if camera.news.fresh("dev.clock_skew", "offset", "", self._clock.now_ms()):
                text = f"the camera's clock is {abs(off_s):.0f} s {'ahead' if off_s > 0 else 'behind'}"
                sink.report("dev.clock_skew", camera.id, "offset", text)
        else:
            camera.news.over("dev.clock_skew", "")

    def _emit(self, camera: _Camera, raws: dict[str, Raw], sink: Sink) -> None:
        now_ms = self._clock.now_ms()
        found = [(point, reading(point, raw)) for key, raw in raws.items() for point in camera.points.get(key, ())]
        if found:
            values = np.array([number for _, (number, _) in found], dtype=np.float64)
            quality = np.array([int(good) for _, (_, good) in found], dtype=np.uint8)
            sink.sweep(Sweep(camera.id, now_ms, now_ms, tuple(point.name for point, _ in found), values, quality))

    # -- orders ---------------------------------------------------------------------------------------------------
    async def command(self, command: Command) -> Outcome:
        """See :class:`edge.connectors.base.Commandable`."""
        camera = self._cameras.get(command.device)
        what = camera.type.command(command.name) if camera is not None else None
        if camera is None or what is None:
            return Outcome("refused", "unknown_command", f"{command.device} has no command {command.name}")
        async with camera.turn:
            if not camera.client.open:
                raise LinkDown(f"{camera.id} is not connected")
            if command.expires_ms and self._clock.now_ms() >= command.expires_ms:
                return Outcome("expired", "expired", "its time ran out before the camera was free")
            try:
                return await self._carry_out(camera, what.key, command.arguments)
            except DeviceError as exc:
                return Outcome("refused", "refused", str(exc))
            except LinkTimeout as exc:
                return Outcome("unknown", "no_answer", str(exc))
            except TransportError as exc:
                return Outcome("unknown", exc.code, str(exc))

    async def _carry_out(self, camera: _Camera, key: str, arguments: Mapping[str, float | int | str | bool]) -> Outcome:
        client = camera.client
        pan, tilt, zoom = (float(arguments.get(name, 0.0)) for name in ("pan", "tilt", "zoom"))
        match key:
            case "move":
                return await self._move(camera, pan, tilt, zoom, float(arguments.get("for_s", 1.0)))
            case "stop":
                await client.stop()
                camera.moving = False
                return await self._shown(camera, None)
            case "look_at":
                await client.look_at(pan, tilt, zoom)
                return await self._shown(camera, Position(pan, tilt, zoom))
            case "preset_goto":
                token = str(arguments.get("preset", ""))
                presets = await client.presets()
                if token not in presets:
                    known = ", ".join(f"{one} ({name})" for one, name in list(presets.items())[:16])
                    return Outcome("refused", "preset", f"no preset {token!r}; the camera has {known or 'none'}")
                await client.goto(token)
                return await self._shown(camera, None)
        return Outcome("refused", "not_supported", f"{key!r} is nothing a camera can be told")

    async def _move(self, camera: _Camera, pan: float, tilt: float, zoom: float, for_s: float) -> Outcome:
        client = camera.client
        camera.moving = True
        try:
            await client.move(pan, tilt, zoom)
            await asyncio.sleep(for_s)
        finally:
            # Whatever happened, also when the giver of the order went away: the camera must not go on turning.
            stop = asyncio.ensure_future(client.stop())
            try:
                await asyncio.shield(stop)
                camera.moving = False
            except asyncio.CancelledError:
                with contextlib.suppress(TransportError, DeviceError):
                    await stop
                    camera.moving = False
                raise
        return await self._shown(camera, None)

    async def _shown(self, camera: _Camera, wanted: Position | None) -> Outcome:
        """Wait until it stands (and looks where it should), as far as it says so."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + TURN_S
        while True:
            seen = await camera.client.position()
            shown = {name: value for name in ("pan", "tilt", "zoom") if (value := getattr(seen, name)) is not None}
            there = wanted is None or all(abs(value - getattr(wanted, name)) <= NEAR for name, value in shown.items())
            if there and seen.moving is not True:
                break
            if loop.time() >= until_s:
                return Outcome("failed", "read_back", "confirmed, but it does not get there", dict(shown))
            await asyncio.sleep(0.5)
        if self._sink is not None:
            raws: dict[str, Raw] = dict(shown)
            self._emit(camera, raws, self._sink)
        if wanted is not None and not shown:
            return Outcome("done", "no_read_back", "the camera does not say where it looks")
        return Outcome("done", "", "", dict(shown))
