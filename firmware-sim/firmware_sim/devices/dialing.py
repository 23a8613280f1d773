"""A station that dials in and pushes: power, clock, measuring, link, faults; what it says is a protocol's affair.

What it keeps survives a restart and a lost link, as in the flash of a real data logger. Measuring does not care
whether anybody listens: a silent or cut-off station makes records all the same and sends them later, a station
without power makes none.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from zlib import crc32

from firmware_sim.devices.world import Senses, World
from firmware_sim.faults import Faults
from firmware_sim.links.base import Dial, Link
from firmware_sim.links.tcp import Backoff, tcp_dial
from firmware_sim.scene import Device
from protocols.core.errors import TransportError

#: Records a station has room for: half a day at one a second. The oldest goes first, and the ledger says so.
KEEP_RECORDS = 50_000
#: Looks at the answer timers of the protocol this often (s).
TICK_S = 1.0


@dataclass(slots=True)
class _Kept:
    frame: bytes
    label: tuple[str, str]
    due_ms: int


class Kept:
    """Frames that wait for their answer, oldest first; the same bytes again when it is late.

    For protocols whose endpoint does not keep by itself. ``label`` is (what, data time), as the ledger names a record.
    """

    def __init__(self, room: int, timeout_ms: int) -> None:
        self._room = room
        self._timeout_ms = timeout_ms
        self._kept: dict[str, _Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, key: str, frame: bytes, label: tuple[str, str], now_ms: int) -> tuple[str, str] | None:
        """Returns the label of the record that had to go for it, if any."""
        self._kept[key] = _Kept(frame, label, now_ms + self._timeout_ms)
        if len(self._kept) <= self._room:
            return None
        return self._kept.pop(next(iter(self._kept))).label

    def ack(self, key: str) -> tuple[str, str] | None:
        """The label of what was answered; None if nothing of that key waits."""
        kept = self._kept.pop(key, None)
        return None if kept is None else kept.label

    def due(self, now_ms: int) -> list[bytes]:
        """Frames whose answer is late; each is due again after the time-out."""
        late = [kept for kept in self._kept.values() if kept.due_ms <= now_ms]
        for kept in late:
            kept.due_ms = now_ms + self._timeout_ms
        return [kept.frame for kept in late]

    def all(self, now_ms: int) -> list[bytes]:
        """Everything that waits: after a new connection."""
        for kept in self._kept.values():
            kept.due_ms = now_ms + self._timeout_ms
        return [kept.frame for kept in self._kept.values()]


class DialingStation(ABC):
    """One station. :meth:`run` lives as long as the scene."""

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        self.id = device.id
        self.device = device
        self.faults = faults
        self.world = world
        self.senses = Senses(device, world)
        self.set_ms = 0  # correction of the clock by the platform
        self._link: Link | None = None
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue(KEEP_RECORDS)
        self._powered = asyncio.Event()

    # -- what a protocol adds -----------------------------------------------------------------------------------
    @abstractmethod
    def record(self, t_s: float, now_ms: int) -> None:
        """Measure, and :meth:`put` what goes out. Called each ``interval_s`` of the scene's time."""

    @abstractmethod
    def heard(self, data: bytes, now_ms: int) -> None:
        """Bytes from the platform, cut anywhere."""

    def dialled(self, now_ms: int) -> None:
        """A fresh connection: log in, send again what was not answered. Half frames of the old one are void."""

    def tick(self, now_ms: int) -> None:
        """Once a second while connected: time-outs, repeats, heartbeats."""

    def power_lost(self) -> None:
        """Forget what lives in memory only."""

    def sent(self, frame: bytes, now_ms: int, *, intact: bool) -> None:
        """A frame went out (``intact`` False: a fault hit it); for the ledger."""

    def dialler(self, connect: str, key: str) -> Dial:
        """How it calls the agent on a real network; plain TCP unless the protocol says otherwise."""
        return tcp_dial(connect, key)

    # -- what it uses -------------------------------------------------------------------------------------------
    @property
    def connected(self) -> bool:
        return self._link is not None

    def now(self) -> tuple[int, float]:
        """UTC (ms), and the second of the scene."""
        now_ms = self.world.clock.now_ms()
        return now_ms, self.world.t_s(now_ms)

    def clock_ms(self, now_ms: int) -> int:
        """What the station's own clock says."""
        world = self.world
        return now_ms + self.faults.clock_offset_ms(world.t_s(now_ms), now_ms, world.start_ms) + self.set_ms

    def put(self, frame: bytes) -> None:
        """Queue one frame for the link. Without a link, or with a stalled one, it is let go: whatever matters is kept
        by the protocol. So measuring never waits for whoever does not read."""
        if self._link is not None and frame:
            with contextlib.suppress(asyncio.QueueFull):
                self._outbox.put_nowait(frame)

    async def hang_up(self) -> None:
        """End the connection from this side; it dials again."""
        await self._drop_link()

    # -- life ---------------------------------------------------------------------------------------------------
    async def run(self, dial: Dial) -> None:
        self._powered.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._power(), name=f"{self.id} power")
            tasks.create_task(self._measure(), name=f"{self.id} measure")
            tasks.create_task(self._ticks(), name=f"{self.id} ticks")
            tasks.create_task(self._connect(dial), name=f"{self.id} link")

    async def _until_s(self, t_s: float) -> None:
        await asyncio.sleep(max(0.0, t_s - self.now()[1]))

    async def _power(self) -> None:
        while True:
            now_ms, t_s = self.now()
            if self.faults.off(t_s, now_ms):
                self._powered.clear()
                self.power_lost()
                await self._drop_link()
            else:
                self._powered.set()
            change_s = self.faults.next_change_s(t_s)
            if change_s is None:
                return
            await self._until_s(change_s)

    async def _measure(self) -> None:
        """A record each interval of the scene's time: the values depend on the second, not on when we woke up."""
        interval_s = self.device.interval_s
        number = max(1, math.ceil(self.now()[1] / interval_s))
        while True:
            due_s = number * interval_s
            await self._until_s(due_s)
            due_ms = self.world.start_ms + round(due_s * 1000)
            if self._powered.is_set():
                self.record(due_s, due_ms)
            # A machine that stood still has records missing, as a station without power has; it does not catch up.
            number = max(number + 1, math.floor(self.now()[1] / interval_s))

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now_ms, t_s = self.now()
            if self._link is not None and not self.faults.silent(t_s, now_ms):
                self.tick(now_ms)

    async def _connect(self, dial: Dial) -> None:
        # Each station its own jitter: a district whose power comes back must not dial in one millisecond.
        backoff = Backoff(self.world.seed ^ crc32(self.id.encode()))
        while True:
            await self._powered.wait()
            try:
                link = await dial()
                if not self._powered.is_set():  # the power went while the call was on its way
                    await link.close()
                    continue
                self._link = link
                backoff.reset()
                self.dialled(self.now()[0])
                await self._talk(link)
            except TransportError:
                pass  # no agent there, or it went away: that is what the back-off is for
            await self._drop_link()
            if self._powered.is_set():
                await asyncio.sleep(backoff.next_s())

    async def _drop_link(self) -> None:
        link, self._link = self._link, None
        while not self._outbox.empty():
            self._outbox.get_nowait()
        if link is not None:
            await link.close()

    async def _write(self, link: Link) -> None:
        while True:
            frame = await self._outbox.get()
            now_ms, t_s = self.now()
            if self.faults.silent(t_s, now_ms):
                continue
            outgoing = self.faults.outgoing(frame, t_s, now_ms)
            if outgoing.delay_s:
                await asyncio.sleep(outgoing.delay_s)
            self.sent(frame, now_ms, intact=outgoing.intact)
            if outgoing.data:
                await link.write(outgoing.data)

    async def _talk(self, link: Link) -> None:
        """Both directions of one connection, until either ends; then raises what ended it, if anything did."""
        both = [
            asyncio.create_task(self._write(link), name=f"{self.id} write"),
            asyncio.create_task(self._listen(link), name=f"{self.id} read"),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
        # asyncio.wait, because awaiting a task we cancelled would be indistinguishable from being cancelled ourselves.
        await asyncio.wait(both)
        for task in both:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _listen(self, link: Link) -> None:
        while data := await link.read():
            now_ms, t_s = self.now()
            if not self.faults.silent(t_s, now_ms):
                self.heard(data, now_ms)
