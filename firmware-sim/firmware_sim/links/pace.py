"""A serial line is slow and there is one of it: bytes take their time, both ways, one after the other.

Without this a simulated bus of 32 meters at 2400 baud would answer in a second what takes the real one half a minute,
and a poll plan that cannot work on the street would pass.
"""

from __future__ import annotations

import asyncio

from firmware_sim.links.base import Link

#: A piece of a frame is handed over as often as this (s), so the reader sees frames grow as on a wire.
SLICE_S = 0.02


class LineTime:
    """Books time on one half-duplex line. ``bits_per_byte``: 10 for 8N1, 11 for 8E1."""

    def __init__(self, baud: int, bits_per_byte: int) -> None:
        self.byte_s = bits_per_byte / baud
        self.busy_s = 0.0  # how long the line carried bytes since the start
        self._free_at_s = 0.0

    async def carry(self, count: int) -> None:
        """Return when ``count`` more bytes have passed the line. Booked ahead, so sleeping late does not add up."""
        loop = asyncio.get_running_loop()
        took_s = count * self.byte_s
        self._free_at_s = max(loop.time(), self._free_at_s) + took_s
        self.busy_s += took_s
        await asyncio.sleep(self._free_at_s - loop.time())


class PacedLink:
    """A Link whose bytes take line time in both directions."""

    def __init__(self, inner: Link, line: LineTime) -> None:
        self._inner = inner
        self._line = line

    async def read(self) -> bytes:
        data = await self._inner.read()
        if data:
            await self._line.carry(len(data))
        return data

    async def write(self, data: bytes) -> None:
        step = max(1, int(SLICE_S / self._line.byte_s))
        for at in range(0, len(data), step):
            piece = data[at : at + step]
            await self._line.carry(len(piece))
            await self._inner.write(piece)

    async def close(self) -> None:
        await self._inner.close()
