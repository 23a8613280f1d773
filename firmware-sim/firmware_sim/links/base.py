"""The shape of a byte pipe, the same at both ends, and of a place where pipes come from.

A device model never knows whether it talks over TCP, a serial line or memory: it gets a Link. The shape is the one the
agent's connectors use, so the two ends of a memory pipe can be handed to either side.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol


class Link(Protocol):
    """``read`` returns b"" when the other end has closed; it and ``write`` raise TransportError when the link broke."""

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


#: What a listening place does with each link it gets; it owns the link until it returns.
Serve = Callable[[Link], Awaitable[None]]
#: Opens a link, or raises LinkDown / LinkRefused.
Dial = Callable[[], Awaitable[Link]]
