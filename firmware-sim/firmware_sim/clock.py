"""The simulator's own view of time: anything with ``now_ms()`` serves, so the agent's clock objects fit as they are.

The simulator may not import the agent, hence a protocol of its own. Pacing and reconnect waits use the event loop's
time; what a device *states* (DataTime, signal values) uses the Clock.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone
from typing import Protocol

#: HJ 212 and the meters state local time without a zone; in China that is UTC+8 all year.
CHINA = timezone(timedelta(hours=8))


class Clock(Protocol):
    def now_ms(self) -> int:
        """UTC milliseconds since 1970."""


class WallClock:
    """The machine's UTC clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class LoopClock:
    """UTC that is ``start_ms`` when made and then follows the running loop's time, virtual or not."""

    def __init__(self, start_ms: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._start_ms = start_ms
        self._origin_s = self._loop.time()

    def now_ms(self) -> int:
        return self._start_ms + round((self._loop.time() - self._origin_s) * 1000)


def to_ms(moment: datetime) -> int:
    """UTC milliseconds of an aware datetime."""
    return round(moment.timestamp() * 1000)
