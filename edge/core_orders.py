"""Orders that come from the core: into the journal first, then to the desk; every outcome told durably.

```
 down/command ─▶ journal ("received") ─▶ desk ─▶ journal (outcome) ─▶ outbox ─▶ core
                     │ a repeat: told again what is known
```
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from edge.clock import Clock
from edge.commands import Desk
from edge.connectors.base import Command, Outcome
from protocols.core.errors import StoreError
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.batch import CommandOutcome

log = logging.getLogger("citybrain.edge.commands")

_MOST_UNDER_WAY = 64
_MAX_ARGUMENTS_BYTES = 16_384

#: Puts an outcome into the outbox; the callback comes once it is on disk.
Say = Callable[[CommandOutcome, Callable[[], None]], None]


class CoreOrders:
    def __init__(self, desk: Desk, clock: Clock, say: Say) -> None:
        self._desk = desk
        self._clock = clock
        self._say = say
        self._queue: asyncio.Queue[Command] = asyncio.Queue()
        for command in desk.waiting():  # what an earlier life accepted and did not begin
            self._queue.put_nowait(command)
        self._room = asyncio.Semaphore(_MOST_UNDER_WAY)
        self.counters = {"orders": 0, "orders_repeated": 0, "orders_malformed": 0, "orders_not_kept": 0}

    def heard(self, payload: bytes) -> None:
        """A message on ``down/command``. Never raises for what came from outside."""
        command = _command(payload)
        if command is None:
            self.counters["orders_malformed"] += 1
            log.warning("an order that makes no sense (%d bytes)", len(payload))
            return
        try:
            fresh = self._desk.accept(command)
        except StoreError as error:
            if not error.retry:
                raise
            self.counters["orders_not_kept"] += 1  # we have not heard it: the core will say it again
            return
        if fresh:
            self.counters["orders"] += 1
            self._tell(command.id, "received", Outcome("unknown"))
            self._queue.put_nowait(command)
            return
        self.counters["orders_repeated"] += 1
        known = self._desk.known(command.id)
        if known is None:
            self._tell(command.id, "received", Outcome("unknown"))
        else:
            self._tell(command.id, known.state, known)

    async def run(self) -> None:
        """Until cancelled. What an earlier life did not tell comes first."""
        for command_id, outcome in self._desk.untold().items():
            self._tell(command_id, outcome.state, outcome)
        async with asyncio.TaskGroup() as group:
            while True:
                command = await self._queue.get()
                await self._room.acquire()
                group.create_task(self._carry_out(command))

    async def _carry_out(self, command: Command) -> None:
        try:
            outcome = await self._desk.order(command)
        finally:
            self._room.release()
        self._tell(command.id, outcome.state, outcome)

    def _tell(self, command_id: str, state: str, outcome: Outcome) -> None:
        told = CommandOutcome(
            command_id, state, outcome.code, outcome.detail[:500], dict(outcome.read_back), self._clock.now_ms()
        )
        ended = state != "received"
        self._say(told, (lambda: self._desk.told(command_id)) if ended else lambda: None)


def _command(payload: bytes) -> Command | None:
    order = pb.Order()
    try:
        order.ParseFromString(payload)
    except DecodeError:
        return None
    if not 0 < len(order.id) <= 128 or not order.device or not order.name or order.expires_ms <= 0:
        return None
    arguments = _arguments(order.arguments_json)
    return None if arguments is None else Command(order.id, order.device, order.name, arguments, order.expires_ms)


def _arguments(text: str) -> dict[str, Any] | None:
    if len(text) > _MAX_ARGUMENTS_BYTES:
        return None
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not all(isinstance(value, str | int | float) for value in found.values()):
        return None
    return found
