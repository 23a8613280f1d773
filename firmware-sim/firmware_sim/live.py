"""The buses of a scene on real transports: ports, serial lines and camera streams that anybody's agent can open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Protocol

from firmware_sim.devices.build import polled_bus, service, stations
from firmware_sim.devices.world import World
from firmware_sim.links.base import Link
from firmware_sim.links.pace import LineTime, PacedLink
from firmware_sim.links.pty import PtyLink
from firmware_sim.links.tcp import TcpListener
from firmware_sim.scene import Bus, Scene
from protocols.core.errors import ConfigError, TransportError

#: More devices than this on one bus are summed up in one line.
LISTED = 6


class LiveBus(Protocol):
    """``open`` takes the port or the name (or raises), ``run`` serves until cancelled, ``close`` gives it back."""

    async def open(self) -> None: ...

    def describe(self) -> list[str]: ...

    async def run(self) -> None: ...

    async def close(self) -> None: ...


def live_bus(bus: Bus, scene: Scene, world: World) -> LiveBus:
    """Raises ConfigError if the scene does not say where the bus is offered."""
    places = {"pty": bus.pty, "listen": bus.listen, "connect": bus.connect, "file": bus.file}
    where = next((text for text in places.values() if text is not None), None)
    if where is None:
        raise ConfigError(f"bus {bus.id}: does not say where (pty, listen, connect or file); it runs in stories only")
    match bus.what.mechanics:
        case "camera":
            return _Cameras(bus, scene, world)
        case "dials":
            return _Stations(bus, where, scene, world)
        case "tcp-box":
            return _TcpBox(bus, where, scene, world)
        case "serial":
            return _SerialLine(bus, where, scene, world)
        case "service":
            found: LiveBus = service(bus, scene, world)
            return found


def _slaves(bus: Bus, scene: Scene, key: str) -> str:
    named = [f"{device.id} ({key} {device.address})" for device in scene.devices_on(bus.id)]
    if len(named) > LISTED:
        return f"{named[0]} to {named[-1]}, {len(named)} in all"
    return ", ".join(named)


class _SerialLine:
    def __init__(self, bus: Bus, path: str, scene: Scene, world: World) -> None:
        self._bus, self._path, self._scene = bus, path, scene
        self._slaves = polled_bus(bus, scene, world)
        self._line: PtyLink | None = None

    async def open(self) -> None:
        self._line = PtyLink.open(self._path)

    def describe(self) -> list[str]:
        bus = self._bus
        parity = "N" if bus.byte_bits == 10 else bus.parity or bus.what.parity
        key = "meter" if bus.kind == "dlt645" else "unit"
        return [f"{bus.kind:12} {self._path}  {bus.speed} 8{parity}1  {_slaves(bus, self._scene, key)}"]

    async def run(self) -> None:
        assert self._line is not None  # noqa: S101 - opened before it runs
        link: Link = self._line
        if self._bus.pace is not False:
            link = PacedLink(link, LineTime(self._bus.speed, self._bus.byte_bits))
        await self._slaves.serve(link)

    async def close(self) -> None:
        if self._line is not None:
            await self._line.close()


class _TcpBox:
    def __init__(self, bus: Bus, listen: str, scene: Scene, world: World) -> None:
        self._bus, self._scene, self._world = bus, scene, world
        self._slaves = polled_bus(bus, scene, world)
        self._listener = TcpListener(listen, self._slaves.serve, f"bus {bus.id}: listen")

    async def open(self) -> None:
        await self._listener.resume()

    def describe(self) -> list[str]:
        return [f"{self._bus.kind:12} {self._listener.address}  {_slaves(self._bus, self._scene, 'unit')}"]

    async def run(self) -> None:
        while True:
            now_ms = self._world.clock.now_ms()
            if self._slaves.off(now_ms):
                await self._listener.pause()
            else:
                await self._listener.resume()
            t_s = self._world.t_s(now_ms)
            change_s = self._slaves.next_change_s(t_s)
            if change_s is None:
                await asyncio.get_running_loop().create_future()  # serves until cancelled
            else:
                await asyncio.sleep(max(0.0, change_s - t_s))

    async def close(self) -> None:
        await self._listener.pause()


class _Stations:
    def __init__(self, bus: Bus, connect: str, scene: Scene, world: World) -> None:
        self._bus, self._connect, self._scene = bus, connect, scene
        self._stations = stations(bus, scene, world)
        self._dials = [station.dialler(connect, f"bus {bus.id}: connect") for station in self._stations]

    async def open(self) -> None:
        """Stations dial when they run; nobody has to listen yet."""

    def describe(self) -> list[str]:
        devices = self._scene.devices_on(self._bus.id)
        named = ", ".join(f"{device.id} ({device.mn or device.address})" for device in devices[:LISTED])
        more = f" and {len(devices) - LISTED} more" if len(devices) > LISTED else ""
        return [f"{self._bus.kind:12} dials {self._connect}  {named}{more}"]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for station, dial in zip(self._stations, self._dials, strict=True):
                tasks.create_task(station.run(dial), name=station.id)

    async def close(self) -> None:
        """The stations closed their links when they were cancelled."""


class _Cameras:
    """Streams over RTSP, or files written once. OpenCV and PyAV are imported only when a scene has cameras."""

    def __init__(self, bus: Bus, scene: Scene, world: World) -> None:
        self._bus, self._world = bus, world
        self._models = scene.cameras_on(bus.id)
        self._duration_s = scene.duration_s
        self._server: Any = None
        if bus.file is not None and (len(self._models) != 1 or self._duration_s is None):
            raise ConfigError(f"bus {bus.id}: file: needs one camera and the scene's duration_s")

    async def open(self) -> None:
        if self._bus.file is not None:
            return
        from firmware_sim.camera.server import RtspServer

        world = self._world
        self._server = RtspServer(
            self._bus.listen or "", self._models, elapsed_s=lambda: world.t_s(world.clock.now_ms())
        )
        try:
            await self._server.start()
        except OSError as error:
            raise TransportError(f"cannot listen on {self._bus.listen}: {error.strerror or error}") from error

    def describe(self) -> list[str]:
        if self._server is None:
            return [f"{'camera':12} file {self._bus.file}"]
        return [f"{'camera':12} {self._server.url(model.id)}" for model in self._models]

    async def run(self) -> None:
        if self._bus.file is not None:
            from pathlib import Path

            from firmware_sim.camera.file import write_mp4

            await asyncio.to_thread(write_mp4, self._models[0], Path(self._bus.file), self._duration_s or 0.0)
        else:
            await asyncio.get_running_loop().create_future()  # the server serves by itself

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()


async def serve(buses: list[LiveBus], announce: Callable[[str], None], ready: asyncio.Event | None) -> None:
    """Open all, say what is there, run until cancelled, give everything back."""
    async with contextlib.AsyncExitStack() as stack:
        for bus in buses:
            stack.push_async_callback(bus.close)
            await bus.open()
        for bus in buses:
            for line in bus.describe():
                announce(line)
        if ready is not None:
            ready.set()
        async with asyncio.TaskGroup() as tasks:
            for bus in buses:
                tasks.create_task(bus.run())
