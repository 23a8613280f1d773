"""Waiting inside one event loop for what other tasks will do without any time passing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def spin(until: Callable[[], bool], rounds: int = 20_000) -> None:
    """Let the other tasks run until it is so. Fails instead of hanging."""
    for _ in range(rounds):
        if until():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to pass")
