"""The agent's clock. Time is an argument: everything asks a Clock, so a story plays 30 minutes in a second.

Under the virtual event loop (see ``firmware_sim.rig.virtual_loop``) ``asyncio.sleep`` and the loop's time jump; a
LoopClock follows them. On a gateway the WallClock is the system's UTC clock, and ``edge/clock_guard.py`` stands before
it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    def now_ms(self) -> int:
        """UTC milliseconds."""


@runtime_checkable
class Steady(Protocol):
    """A clock that also counts time nobody can set: it runs on in suspend and begins anew with each boot."""

    def steady_ms(self) -> int: ...

    def boot(self) -> str:
        """Names the boot it counts from; "" if that cannot be said, and then no two starts have the same."""


class WallClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def steady_ms(self) -> int:
        # Boot time, not monotonic: a gateway that slept for a night has not had its clock set.
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def boot(self) -> str:
        try:
            return _BOOT_ID.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""


class LoopClock:
    """UTC that starts at ``start_ms`` and advances with the running event loop's own time."""

    def __init__(self, start_ms: int) -> None:
        self._start_ms = start_ms
        self._origin_s = asyncio.get_running_loop().time()

    def now_ms(self) -> int:
        return self._start_ms + self.steady_ms()

    def steady_ms(self) -> int:
        return round((asyncio.get_running_loop().time() - self._origin_s) * 1000)

    def boot(self) -> str:
        return ""


def steady_of(clock: Clock) -> Callable[[], int]:
    """Time passed by the same source; of a clock that has none, its own: no step of it can then be seen."""
    return clock.steady_ms if isinstance(clock, Steady) else clock.now_ms


def boot_of(clock: Clock) -> str:
    return clock.boot() if isinstance(clock, Steady) else ""
