"""What waits becomes durable together: at most ``flush_s`` after it came, in one transaction with one fsync.

News (events, states, outcomes) does not wait. Only when a device's readings are on disk is it told that they arrived.
While the disk refuses, everything waits on in memory, up to a bound.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from edge.clock import Clock
from edge.evidence import chunks
from edge.outbox import Outbox, Pending
from edge.timekeeper import STATE as CLOCK_STATE
from edge.timekeeper import Timekeeper
from edge.waiting import Kind, Waiting
from protocols.core.errors import StoreError
from protocols.uplink.topics import Lane
from scenarios.engine import Engine

log = logging.getLogger("citybrain.edge.pipeline")

_GATHER_S = 0.02  # an event waits this long for its companions
_RETRY_S = 1.0


class Offload(Protocol):
    """Runs a blocking call off the loop (``asyncio.to_thread``), or right here under virtual time."""

    def __call__(self, function: Callable[[], None], /) -> Awaitable[None]: ...


async def inline(function: Callable[[], None], /) -> None:
    function()


class Commits:
    """``kind``: the clock's as of now. ``counters`` are the pipeline's; ``committed`` is called after each commit."""

    def __init__(
        self,
        outbox: Outbox,
        engine: Engine,
        clock: Clock,
        *,
        flush_s: float,
        lane: Callable[[], Lane],
        kind: Callable[[], Kind],
        committed: Callable[[], None],
        offload: Offload,
        timekeeper: Timekeeper | None,
        counters: dict[str, int],
    ) -> None:
        self._outbox = outbox
        self._engine = engine
        self._clock = clock
        self._flush_s = flush_s
        self._lane = lane
        self._kind = kind
        self._committed = committed
        self._offload = offload
        self._time = timekeeper
        self._counters = counters
        self.waiting = Waiting()
        self._inflight_exchanges: set[str] = set()
        self._dirty = asyncio.Event()
        self._urgent = asyncio.Event()

    def soon(self) -> None:
        """Something waits."""
        self._dirty.set()

    def now(self) -> None:
        """Something waits that is news."""
        self._urgent.set()
        self._dirty.set()

    def tell(self, exchange: str, on_durable: Callable[[], None] | None) -> None:
        """Whom to tell when what waits is on disk; ``exchange`` names the push it came in, if it has a name."""
        if exchange:
            calls = self.waiting.exchanges.setdefault(exchange, [])
            if on_durable is not None:
                calls.append(on_durable)
        elif on_durable is not None:
            self.waiting.plain.append(on_durable)
        self.soon()

    def is_repeat(self, exchange: str, on_durable: Callable[[], None] | None) -> bool:
        """A push that waits, is being written, or is durable already; its bearer is told as soon as it is."""
        if exchange in self.waiting.exchanges or exchange in self._inflight_exchanges:
            if on_durable is not None:
                self.tell(exchange, on_durable)
            return True
        try:
            seen = self._outbox.seen_exchange(exchange)
        except StoreError:
            return False  # better twice than not at all
        if seen and on_durable is not None:
            on_durable()
        return seen

    async def run(self) -> None:
        """Commit what waits, until cancelled; the caller flushes once more at the end."""
        while True:
            await self._dirty.wait()
            try:
                async with asyncio.timeout(self._flush_s):
                    await self._urgent.wait()
                await asyncio.sleep(_GATHER_S)
            except TimeoutError:
                pass
            if not await self.flush():
                await asyncio.sleep(_RETRY_S)

    async def flush(self) -> bool:
        """One commit of everything that waits. False if the disk refused; nothing is forgotten then."""
        self._dirty.clear()
        self._urgent.clear()
        if not self.waiting.anything():
            return True
        batch, self.waiting = self.waiting, Waiting()
        self._inflight_exchanges = set(batch.exchanges)
        pending = self._pending(batch)
        snapshot = self._engine.snapshot() if batch.events else None

        def commit() -> None:
            state = {"engine": snapshot} if snapshot is not None else {}
            if self._time is not None and (batch.corrections or self._time.guard.due()):
                state[CLOCK_STATE] = self._time.guard.saved()
            self._outbox.commit(pending, now_ms=self._clock.now_ms(), exchanges=list(batch.exchanges), state=state)

        try:
            await self._offload(commit)
        except StoreError as error:
            if not error.retry:
                raise
            if not self._counters["commits_refused"]:
                log.error("%s", error)
            self._counters["commits_refused"] += 1
            self._put_back(batch)
            return False
        finally:
            self._inflight_exchanges = set()
        self._counters["commits"] += 1
        for call in batch.callbacks():
            call()
        self._committed()
        return True

    def _pending(self, batch: Waiting) -> list[Pending]:
        pending: list[Pending] = []
        now = self._kind()
        if batch.urgent():
            pending.append(
                Pending(
                    "event",
                    clock=now.clock,
                    clock_run=now.run,
                    corrections=batch.corrections,
                    events=batch.events,
                    devices=batch.devices,
                    outcomes=batch.outcomes,
                    reported=batch.reported,
                )
            )
        lane = self._lane()
        pending += [
            Pending(lane, columns.readings(), clock=kind.clock, historical=kind.historical, clock_run=kind.run)
            for kind, columns in batch.columns.items()
            if columns.alias
        ]
        pending += [Pending("evidence", evidence=[c]) for event, still in batch.stills for c in chunks(event, still)]
        return pending

    def _put_back(self, batch: Waiting) -> None:
        if self._time is not None:
            self._time.guard.changed = True
        batch.extend(self.waiting)
        self.waiting = batch
        self._dirty.set()
