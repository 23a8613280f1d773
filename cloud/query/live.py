"""One listener a process for everything that changes, shared by all pages and streams.

Whoever writes (ingest, alarms, cases) sends ``NOTIFY citybrain, '{"kind": ..., "id": ...}'`` in its transaction.
The hub hands each change to every subscriber, folded: ten changes of one device while a page was busy are one. A
subscriber that falls behind is told that everything may have changed, instead of growing a queue. The same is told
to all after the listener had lost its connection, because what was sent meanwhile is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

import psycopg

from cloud.query import disks, summary
from cloud.query.pool import Connection, Pool
from cloud.query.rows import Summary
from protocols.core.errors import StoreError

log = logging.getLogger(__name__)

CHANNEL = "citybrain"
Kind = Literal["alarm", "case", "gateway", "device"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_PENDING_MAX = 2000
_SUMMARY_MIN_S = 1.0  # at most this often ...
_SUMMARY_MAX_S = 5.0  # ... and at least this often: ages and deadlines move without any change
_DISKS_EVERY_S = 5.0  # a look at each gateway's health; disks do not fill within seconds


@dataclass(frozen=True, slots=True)
class Change:
    kind: Kind
    id: str


class Subscription:
    """What one page or stream has not looked at yet."""

    def __init__(self, close: Callable[[Subscription], None]) -> None:
        self._close = close
        self._pending: dict[Change, None] = {}
        self._resync = False
        self._ready = asyncio.Event()

    def put(self, change: Change) -> None:
        if len(self._pending) >= _PENDING_MAX:
            self.resync()
        elif not self._resync:
            self._pending[change] = None
            self._ready.set()

    def resync(self) -> None:
        self._pending.clear()
        self._resync = True
        self._ready.set()

    def take(self) -> list[Change] | None:
        """Changes since the last call, in order; None if anything may have changed."""
        changes, everything = list(self._pending), self._resync
        self._pending.clear()
        self._resync = False
        self._ready.clear()
        return None if everything else changes

    async def wait(self, timeout_s: float) -> bool:
        """Whether there is something to take within that time."""
        try:
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self._close(self)


class Hub:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._subscribers: set[Subscription] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self.connected = False
        self.summary: Summary | None = None
        self.disks = disks.Disks()  # as of a few seconds ago
        self.summary_no = 0  # counts up with each new summary, so that a page sees that it is new

    def subscribe(self) -> Subscription:
        subscription = Subscription(self._subscribers.discard)
        self._subscribers.add(subscription)
        return subscription

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._listen_forever(), name="live-listener"),
            asyncio.create_task(self._summarise_forever(), name="live-summary"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    async def _listen_forever(self) -> None:
        pause_s = 0.5
        while True:
            try:
                conn = await self._pool.connect()
                try:
                    await self._listen(conn)
                finally:
                    await conn.close()
            except (StoreError, psycopg.Error) as error:
                if self.connected:
                    log.warning("live updates lost: %s", error)
                    pause_s = 0.5
                self.connected = False
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 10.0)

    async def _listen(self, conn: Connection) -> None:
        await conn.execute("listen citybrain")
        self.connected = True
        log.info("live updates running")
        for subscriber in list(self._subscribers):
            subscriber.resync()
        self._changed.set()
        async for notification in conn.notifies():
            if (change := parse(notification.payload)) is not None:
                self._changed.set()
                for subscriber in list(self._subscribers):
                    subscriber.put(change)

    async def _summarise_forever(self) -> None:
        next_disks_s = 0.0
        while True:
            self._changed.clear()
            began = time.monotonic()
            try:
                async with self._pool.connection() as conn:
                    self.summary = await summary.summary(conn, datetime.now(UTC))
                    if began >= next_disks_s:
                        self.disks = await disks.tight(conn)
                        next_disks_s = began + _DISKS_EVERY_S
                self.summary_no += 1
            except (StoreError, psycopg.Error) as error:
                log.warning("no summary: %s", error)
            # In a large city the figures take longer to count: never more than a tenth of a connection's time.
            await asyncio.sleep(max(_SUMMARY_MIN_S, 9 * (time.monotonic() - began)))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _SUMMARY_MAX_S - _SUMMARY_MIN_S)


def parse(payload: str) -> Change | None:
    """A change out of a notification; None for one that is not ours to understand."""
    try:
        message = json.loads(payload)
        kind, id_ = message["kind"], message["id"]
    except (ValueError, KeyError, TypeError):
        log.warning("notification not understood: %.80r", payload)
        return None
    return Change(kind, str(id_)) if kind in KINDS else None
