"""Messages between the sessions' threads and the committer's: bounded in number and in bytes.

When it is full, a session's thread waits, reads nothing more from its socket, and so the broker and in the end the
gateways' outboxes hold what the database cannot take: a slow database costs this much memory and no more.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from cloud.ingest.group import Inbound

MESSAGES = 4096
BYTES = 64 << 20


class Inbox:
    def __init__(self, messages: int = MESSAGES, most_bytes: int = BYTES) -> None:
        self._most = messages
        self._most_bytes = most_bytes
        self._items: deque[Inbound] = deque()
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._some = threading.Condition(self._lock)
        self.size = 0
        self.peak = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Inbound, timeout_s: float) -> bool:
        """False if there was no room for so long. One message always has room in an empty inbox."""
        size = len(item.payload)
        with self._lock:
            if not self._room.wait_for(lambda: self._fits(size), timeout_s):
                return False
            self._items.append(item)
            self.size += size
            self.peak = max(self.peak, self.size)
            self._some.notify()
            return True

    def _fits(self, size: int) -> bool:
        return not self._items or (len(self._items) < self._most and self.size + size <= self._most_bytes)

    def get(self, timeout_s: float) -> Inbound | None:
        """The oldest; None if nothing came for so long."""
        with self._lock:
            if not self._items and not self._some.wait_for(lambda: self._items, max(0.0, timeout_s)):
                return None
            item = self._items.popleft()
            self.size -= len(item.payload)
            self._room.notify_all()
            return item

    def gather(self, most: int, most_bytes: int, first_s: float, then_s: float) -> list[Inbound]:
        """A group: waits ``first_s`` for its first message, then ``then_s`` in all for more."""
        first = self.get(first_s)
        if first is None:
            return []
        group, size = [first], len(first.payload)
        until = time.monotonic() + then_s
        while len(group) < most and size < most_bytes:
            item = self.get(until - time.monotonic())
            if item is None:
                break
            group.append(item)
            size += len(item.payload)
        return group
