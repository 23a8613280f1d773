"""The agent's clock. Time is an argument: everything asks a Clock, so a story plays 30 minutes in a second.

Under the virtual event loop (see ``firmware_sim.rig.virtual_loop``) ``asyncio.sleep`` and the loop's time jump; a
LoopClock follows them. On a gateway the WallClock is the system's UTC clock.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """UTC milliseconds."""


class WallClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class LoopClock:
    """UTC that starts at ``start_ms`` and advances with the running event loop's own time."""

    def __init__(self, start_ms: int) -> None:
        self._start_ms = start_ms
        self._origin_s = asyncio.get_running_loop().time()

    def now_ms(self) -> int:
        return self._start_ms + round((asyncio.get_running_loop().time() - self._origin_s) * 1000)
