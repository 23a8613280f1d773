"""A scene on memory links in virtual time: the agent's connectors are joined to it without an operating system.

    async with VirtualRig(scene, ledger=ledger) as rig:
        connector = build(config, rig.clock, rig.link_factory("site-485"))

A polled bus is opened like a serial port or a TCP box: each call of its factory gives a fresh link. A station dials by
itself: the factory of its bus waits for the next one that does (``accept``), or a callback takes it (``on_dial``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from firmware_sim.clock import Clock, LoopClock
from firmware_sim.devices.build import polled_bus, stations
from firmware_sim.devices.bus import PolledBus
from firmware_sim.devices.dialing import DialingStation
from firmware_sim.devices.world import World
from firmware_sim.ledger import Ledger, MemoryLedger
from firmware_sim.links.base import Dial, Link
from firmware_sim.links.memory import MemoryLink, memory_pair
from firmware_sim.links.pace import LineTime, PacedLink
from firmware_sim.scene import Bus, Scene
from protocols.core.errors import ConfigError, LinkDown, TransportError

#: Stations that may wait to be accepted, as in a listening socket's backlog.
BACKLOG = 64

OnDial = Callable[[Link], Awaitable[None] | None]


class _Polled:
    """The links to one polled bus."""

    def __init__(self, bus: Bus, slaves: PolledBus[Any], world: World) -> None:
        self.slaves = slaves
        self._bus = bus
        self._world = world
        self.line = LineTime(bus.speed, bus.byte_bits) if bus.serial else None
        self._open: list[MemoryLink] = []

    async def open(self, tasks: asyncio.TaskGroup) -> Link:
        if not self._bus.serial and self.slaves.off(self._world.clock.now_ms()):
            raise LinkDown(f"{self._bus.id}: no power, connection refused")
        if self._bus.serial:
            await self.hang_up()  # a port has one user: opening it again takes it over
        near, far = memory_pair(self._bus.id)
        self._open.append(near)
        tasks.create_task(self._serve(near), name=f"{self._bus.id} bus")
        return far

    async def _serve(self, near: MemoryLink) -> None:
        paced = PacedLink(near, self.line) if self.line is not None and self._bus.pace else near
        with contextlib.suppress(TransportError):
            await self.slaves.serve(paced)
        await near.close()
        if near in self._open:
            self._open.remove(near)

    async def hang_up(self) -> None:
        while self._open:
            await self._open.pop().close()

    async def power(self) -> None:
        """A TCP box without power drops its connections."""
        while True:
            now_ms = self._world.clock.now_ms()
            if not self._bus.serial and self.slaves.off(now_ms):
                await self.hang_up()
            t_s = self._world.t_s(now_ms)
            change_s = self.slaves.next_change_s(t_s)
            if change_s is None:
                return
            await asyncio.sleep(change_s - t_s)


class _Doorbell:
    """Where the stations of one bus ring."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: asyncio.Queue[Link] = asyncio.Queue(BACKLOG)
        self._listening = False
        self._on_dial: OnDial | None = None
        self._open: list[MemoryLink] = []

    def listen(self, on_dial: OnDial | None = None) -> None:
        self._listening, self._on_dial = True, on_dial

    async def accept(self) -> Link:
        self.listen(self._on_dial)
        return await self._waiting.get()

    async def dial(self) -> Link:
        if not self._listening:
            raise LinkDown(f"{self._bus.id}: nobody listens")
        near, far = memory_pair(self._bus.id)
        if self._on_dial is not None:
            taken = self._on_dial(far)
            if taken is not None:
                await taken
        else:
            try:
                self._waiting.put_nowait(far)
            except asyncio.QueueFull:
                raise LinkDown(f"{self._bus.id}: nobody accepts") from None
        self._open = [link for link in self._open if not link.closed]
        self._open.append(far)
        return near

    async def hang_up(self) -> None:
        self._listening = False
        while not self._waiting.empty():
            self._waiting.get_nowait()
        while self._open:
            await self._open.pop().close()


class VirtualRig:
    """A running scene on memory links. Enter it inside the loop; leaving it stops every device.

    ``clock`` is the rig's UTC and fits wherever the agent wants one; it starts at ``start_ms`` (default: the scene's
    ``start``, else 0). Whether time is virtual is the loop's affair.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        ledger: Ledger | None = None,
        start_ms: int | None = None,
        streams_folder: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        begin_ms = start_ms if start_ms is not None else scene.start_ms
        self.scene = scene
        self.clock: Clock = clock if clock is not None else LoopClock(begin_ms or 0)
        self.ledger: Ledger = ledger if ledger is not None else MemoryLedger()
        self.world = World(self.clock, self.clock.now_ms(), self.ledger, scene.seed, streams_folder)
        self._polled: dict[str, _Polled] = {}
        self._doors: dict[str, _Doorbell] = {}
        self._stations: dict[str, Sequence[DialingStation]] = {}
        for bus in scene.bus:
            if bus.what.mechanics == "dials":
                self._doors[bus.id] = _Doorbell(bus)
                self._stations[bus.id] = stations(bus, scene, self.world)
            elif bus.what.mechanics in ("serial", "tcp-box"):
                self._polled[bus.id] = _Polled(bus, polled_bus(bus, scene, self.world), self.world)
        self._tasks: asyncio.TaskGroup | None = None
        self._stop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> VirtualRig:
        self.ledger.write("open", "", self.clock.now_ms(), scene=self.scene.id, seed=self.scene.seed)
        ready = asyncio.Event()
        self._stop = asyncio.create_task(self._run(ready), name=f"rig {self.scene.id}")
        await ready.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._stop is not None  # noqa: S101 - entered before left
        self._stop.cancel()
        await asyncio.wait([self._stop])
        if not self._stop.cancelled():
            await self._stop  # a device model broke: that is the rig's own error

    async def _run(self, ready: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for bus_id, door in self._doors.items():
                for station in self._stations[bus_id]:
                    tasks.create_task(station.run(door.dial), name=station.id)
            for bus_id, polled in self._polled.items():
                tasks.create_task(polled.power(), name=f"{bus_id} power")
            ready.set()
            await asyncio.get_running_loop().create_future()  # until cancelled

    @property
    def t_s(self) -> float:
        """Second of the scene."""
        return self.world.t_s(self.clock.now_ms())

    async def until_s(self, t_s: float) -> None:
        """Sleep to a second of the scene."""
        await asyncio.sleep(max(0.0, t_s - self.t_s))

    def link_factory(self, bus_id: str) -> Dial:
        """Opens the agent's end of a bus; for a bus of stations, gives the next one that dials in."""
        if (door := self._doors.get(bus_id)) is not None:
            return door.accept
        polled, tasks = self._polled.get(bus_id), self._tasks
        if polled is None or tasks is None:
            raise ConfigError(f"{self.scene.id}: no bus {bus_id!r} with a link")

        async def open_link() -> Link:
            return await polled.open(tasks)

        return open_link

    def on_dial(self, bus_id: str, accept: OnDial) -> None:
        """Hand each link of a station that dials in to ``accept`` (awaited if it says so)."""
        self._doors[bus_id].listen(accept)

    async def hang_up(self, bus_id: str) -> None:
        """The agent's end is gone (killed): links close, and stations find nobody until somebody listens again."""
        if (door := self._doors.get(bus_id)) is not None:
            await door.hang_up()
        else:
            await self._polled[bus_id].hang_up()

    def line_time(self, bus_id: str) -> LineTime | None:
        """Line time of a paced serial bus: how busy it was."""
        return self._polled[bus_id].line
