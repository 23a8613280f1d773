"""A bus of devices that speak when asked: one link, several slaves, one answer at a time.

The bus knows the mechanics (whose request is it, when may it answer, what do the faults make of it), a device only
what it would say. A request to an address that nobody has is met with silence, as on a real line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from firmware_sim.devices.world import World
from firmware_sim.faults import Faults
from firmware_sim.links.base import Link
from firmware_sim.scene import Bus
from protocols.core.endpoint import Endpoint
from protocols.core.errors import RemoteProtocolError

MessageT = TypeVar("MessageT")


class PolledDevice(Protocol[MessageT]):
    """A slave. ``reply`` gives None if the request is not meant for it, or wants no answer."""

    id: str
    faults: Faults

    def reply(self, request: MessageT, t_s: float) -> MessageT | None: ...

    def describe(self, request: MessageT) -> str:
        """The request in a word or two, for the ledger."""


class PolledBus(Generic[MessageT]):
    """Serves any number of links, in practice one serial line or the connections of one TCP box."""

    def __init__(
        self,
        bus: Bus,
        devices: Sequence[PolledDevice[MessageT]],
        world: World,
        new_endpoint: Callable[[], Endpoint[Any]],
    ) -> None:
        self.bus = bus
        self.devices = tuple(devices)
        self.heard_damaged = 0  # what could not be read as a request
        self.collisions = 0  # answers of several devices at once
        self._world = world
        self._new_endpoint = new_endpoint
        self._turn = asyncio.Lock()

    async def serve(self, link: Link) -> None:
        """Answer what comes until the other end closes. Raises TransportError when the link breaks."""
        endpoint = self._new_endpoint()
        while data := await link.read():
            if self.bus.echo:
                await link.write(data)
            now_ms = self._world.clock.now_ms()
            heard = []
            # The start of a request that never ended is void after the protocol's silence, before new bytes count.
            if (deadline_ms := endpoint.deadline()) is not None and deadline_ms <= now_ms:
                heard += endpoint.tick(now_ms)
            heard += endpoint.feed(data, now_ms)
            for message in heard:
                if isinstance(message, RemoteProtocolError):
                    self.heard_damaged += 1
                else:
                    await self._answer(message, endpoint, link)

    async def _answer(self, request: MessageT, endpoint: Endpoint[Any], link: Link) -> None:
        async with self._turn:
            said: list[bytes] = []
            for device in self.devices:
                now_ms = self._world.clock.now_ms()
                t_s = self._world.t_s(now_ms)
                # A device without power or cable hears no order either.
                if device.faults.off(t_s, now_ms) or device.faults.silent(t_s, now_ms):
                    continue
                reply = device.reply(request, t_s)
                if reply is None:
                    continue
                if not said:
                    await asyncio.sleep(self.bus.turnaround_ms / 1000)
                outgoing = device.faults.outgoing(endpoint.send(reply, now_ms), t_s, now_ms)
                if outgoing.delay_s:
                    await asyncio.sleep(outgoing.delay_s)
                self._world.ledger.write(
                    "ans", device.id, self._world.clock.now_ms(), intact=outgoing.intact, what=device.describe(request)
                )
                said.append(outgoing.data)
            self.collisions += len(said) > 1
            if data := collided(said):
                await link.write(data)

    # -- power --------------------------------------------------------------------------------------------------
    def off(self, now_ms: int) -> bool:
        """Nobody on this bus has power: a TCP box that is the device itself is off the network too."""
        t_s = self._world.t_s(now_ms)
        off = [device.faults.off(t_s, now_ms) for device in self.devices]  # each has to notice its own restart
        return bool(off) and all(off)

    def next_change_s(self, t_s: float) -> float | None:
        """The next second of the scene at which some device loses or regains power."""
        moments = [device.faults.next_change_s(t_s) for device in self.devices]
        return min((moment for moment in moments if moment is not None), default=None)


def collided(said: Sequence[bytes]) -> bytes:
    """What a line carries when several speak at once: nobody begins at the same moment (here each a byte later than
    the one before), and where they overlap a 0 wins over a 1."""
    out = bytearray(b"\xff" * max((late + len(one) for late, one in enumerate(said)), default=0))
    for late, one in enumerate(said):
        for at, byte in enumerate(one, late):
            out[at] &= byte
    return bytes(out)
