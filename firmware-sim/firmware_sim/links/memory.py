"""A byte pipe in memory: two Links back to back, for virtual time and for tests without an operating system.

It behaves as a socket does where that matters: bytes arrive in order, a close is seen by the other end after the bytes
before it, writing to a closed pipe raises LinkDown. It can be cut like a cable (:meth:`MemoryLink.break_`).
"""

from __future__ import annotations

import asyncio
from collections import deque

from protocols.core.errors import LinkDown

#: What one end may have in flight before its writer waits: a socket's send and receive buffer, roughly.
CAPACITY_BYTES = 256 * 1024


class MemoryLink:
    """One end; made by :func:`memory_pair`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._inbox: deque[bytes] = deque()
        self._held = 0
        self._changed = asyncio.Event()
        self._closed = False
        self._broken = False
        self._peer: MemoryLink | None = None

    @property
    def closed(self) -> bool:
        """True once either end has closed, or the cable was cut."""
        return self._closed or self._broken or self._peer is None or self._peer._closed

    async def read(self) -> bytes:
        while True:
            if self._broken:
                raise LinkDown(f"{self.name}: the link broke")
            if self._closed:
                raise LinkDown(f"{self.name}: read on a closed link")
            if self._inbox:
                data = b"".join(self._inbox)
                self._inbox.clear()
                self._held = 0
                if self._peer is not None:
                    self._peer._changed.set()  # there is room again
                return data
            if self._peer is None or self._peer._closed:
                return b""
            await self._wait()

    async def write(self, data: bytes) -> None:
        peer = self._peer
        while not self.closed and peer is not None and peer._held >= CAPACITY_BYTES:
            await self._wait()
        if self.closed or peer is None:
            raise LinkDown(f"{self.name}: write on a closed link")
        if data:
            peer._inbox.append(bytes(data))
            peer._held += len(data)
            peer._changed.set()

    async def close(self) -> None:
        self._closed = True
        self._inbox.clear()
        self._wake()

    def break_(self) -> None:
        """Cut the cable: both ends get LinkDown, bytes under way are lost."""
        for end in (self, self._peer):
            if end is not None:
                end._broken = True
                end._inbox.clear()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        if self._peer is not None:
            self._peer._changed.set()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def memory_pair(name: str = "memory") -> tuple[MemoryLink, MemoryLink]:
    """Two ends of one pipe."""
    near, far = MemoryLink(f"{name} (device end)"), MemoryLink(f"{name} (agent end)")
    near._peer, far._peer = far, near
    return near, far
