"""Looks after an outbox while it works: lets rows expire, and says as events what happened to it.

An event about a full disk waits in memory like everything else and becomes durable when there is room again; until then
the gateway's health says it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from edge.clock import Clock
from edge.outbox.outbox import Outbox
from protocols.core.errors import StoreError
from protocols.uplink.topics import Lane

log = logging.getLogger("citybrain.edge.outbox")

_LOOK_EVERY_S = 1.0
_EXPIRE_EVERY_LOOKS = 60


class Report(Protocol):
    def __call__(self, event_type: str, device: str, code: str, detail: str = "") -> None: ...


class Upkeep:
    """``ttl_ms``: by lane, what is not in it waits for ever. ``report`` counts what it has said within the minute."""

    def __init__(self, outbox: Outbox, clock: Clock, ttl_ms: Mapping[Lane, int], report: Report, gateway: str) -> None:
        self._outbox = outbox
        self._clock = clock
        self._ttl_ms = ttl_ms
        self._report = report
        self._gateway = gateway
        self._thinned = self._refused = 0
        self._garbled = (0, 0)

    async def run(self) -> None:
        """Until cancelled."""
        self.begun()
        looks = 0
        while True:
            if self._ttl_ms and looks % _EXPIRE_EVERY_LOOKS == 0:
                await asyncio.to_thread(self.expire)
            self.look()
            looks += 1
            await asyncio.sleep(_LOOK_EVERY_S)

    def begun(self) -> None:
        """What was found when the outbox was opened."""
        found = self._outbox.opening
        if found.reason in ("damaged", "restored"):
            detail = f"{found.saved} rows saved, {found.lost} lost: {found.detail}"
            self._report("gw.outbox.damaged", self._gateway, found.reason, detail)

    def expire(self) -> None:
        try:
            lost = self._outbox.expire(self._clock.now_ms(), self._ttl_ms)
        except StoreError as error:
            if not error.retry:
                raise
            return  # a disk that takes nothing: in a minute again
        if lost.rows:
            log.warning("%d rows were not sent in time; %d readings of them are gone", lost.rows, lost.readings)

    def look(self) -> None:
        """Say what is new since the last look."""
        thinned, refused, garbled = self._outbox.thinned, self._outbox.refused, self._outbox.garbled
        if thinned > self._thinned:
            detail = f"{thinned - self._thinned} readings gave way"
            self._report("gw.outbox.thinned", self._gateway, self._outbox.thinned_reason, detail)
        if refused > self._refused:
            self._report("gw.outbox.refused", self._gateway, "disk", "the disk did not take what was to be kept")
        if garbled > self._garbled:
            rows, events = garbled[0] - self._garbled[0], garbled[1] - self._garbled[1]
            detail = f"{rows} rows could not be read any more, with {events} events"
            self._report("gw.outbox.damaged", self._gateway, "row", detail)
        self._thinned, self._refused, self._garbled = thinned, refused, garbled
