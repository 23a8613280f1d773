"""The command desk: the one way an order reaches a device, whoever gives it.

```
 installer's socket ─┐                        ┌─ refused: type, argument, right, interlock, time
 the core ───────────┼─▶ desk ─▶ journal ─▶ connector ─▶ device ─▶ read-back
                     │             │
                     └── outcome ◀─┘  the same id again gets the same outcome
```

Read-only until configured otherwise: a device takes only the commands its own ``allow`` names. An id is written down
before anything is sent, so a crash in between leaves "unknown", never a second actuation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from edge.clock import Clock
from edge.connectors.base import Command, Commandable, Outcome
from protocols.core.errors import StoreError, TransportError
from protocols.devices import DeviceType
from protocols.devices.arguments import check_arguments

log = logging.getLogger("citybrain.edge.commands")

#: Ended orders that are remembered beyond their own time; far more than can be under way.
REMEMBERED = 512
#: Orders whose time is not over are never forgotten; so many may there be.
_MOST = 4096
#: An order whose sender gave no time is void after this.
DEFAULT_LIFE_MS = 60_000
_STATE = "commands"


class Journal(Protocol):
    """Durable on return (the outbox's state table)."""

    def put_state(self, name: str, value: bytes) -> None: ...

    def get_state(self, name: str) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Target:
    """A device that can be told something: its type, who speaks to it, and what the gateway allows."""

    type: DeviceType
    connector: Commandable
    allow: frozenset[str]


class Entry(msgspec.Struct):
    """What the journal holds of one order. ``received``: accepted from the core, not begun. ``sent``: begun."""

    state: str
    code: str = ""
    detail: str = ""
    read_back: dict[str, Any] = {}
    expires_ms: int = 0
    order: tuple[str, str, dict[str, Any]] | None = None  # device, name, arguments: of one that has not begun
    untold: bool = False  # the core waits for the outcome


Report = Callable[[str, str, str, str], None]  # event type, device, code, detail
#: A command of the gateway itself; its arguments are its own to check.
Own = Callable[[Mapping[str, Any]], Awaitable[Outcome]]
#: Why this order must not be carried out just now, "" if it may.
Interlock = Callable[[str, str], str]


class Desk:
    """Carries out orders one device at a time; :meth:`order` never raises for a bad order.

    ``own``: commands of the gateway itself, for orders whose device is ``gateway``."""

    def __init__(
        self,
        targets: Mapping[str, Target],
        journal: Journal,
        clock: Clock,
        report: Report,
        *,
        gateway: str = "",
        interlock: Interlock = lambda _device, _name: "",
    ) -> None:
        self._targets = targets
        self._journal = journal
        self._clock = clock
        self._report = report
        self._gateway = gateway
        self._interlock = interlock
        self.own: dict[str, Own] = {}
        self._busy: dict[str, asyncio.Lock] = {}
        stored = journal.get_state(_STATE)
        self._entries: dict[str, Entry] = {}
        if stored is not None:
            self._entries = msgspec.msgpack.decode(stored, type=dict[str, Entry])
        for entry in self._entries.values():
            if entry.state == "sent":
                # The agent died between sending and hearing: nobody can say whether it happened.
                entry.state, entry.code, entry.detail = "unknown", "interrupted", "the agent stopped while it waited"

    # -- the core's orders ----------------------------------------------------------------------------------------

    def accept(self, command: Command) -> bool:
        """Take an order of the core into the journal. False if it is there already. Raises StoreError."""
        if command.id in self._entries:
            return False
        order = (command.device, command.name, dict(command.arguments))
        self._write(command.id, Entry("received", expires_ms=command.expires_ms, order=order, untold=True))
        return True

    def waiting(self) -> list[Command]:
        """Orders accepted and not begun: after a restart they are still to be carried out."""
        return [
            Command(name, *entry.order, expires_ms=entry.expires_ms)
            for name, entry in self._entries.items()
            if entry.state == "received" and entry.order is not None
        ]

    def untold(self) -> dict[str, Outcome]:
        """Ended orders whose outcome the core may not have heard."""
        return {
            name: _outcome(entry)
            for name, entry in self._entries.items()
            if entry.untold and entry.state not in ("received", "sent")
        }

    def told(self, command_id: str) -> None:
        """The outcome is on its way, durably. Kept with the next order: telling twice harms nobody."""
        if (entry := self._entries.get(command_id)) is not None:
            entry.untold = False

    def known(self, command_id: str) -> Outcome | None:
        """The outcome of an order that has ended, None for any other."""
        entry = self._entries.get(command_id)
        return None if entry is None or entry.state in ("received", "sent") else _outcome(entry)

    # -- carrying out ---------------------------------------------------------------------------------------------

    async def order(self, command: Command) -> Outcome:
        """Carry the order out once. The same id again gives the first outcome, also after a restart."""
        lock = self._busy.setdefault(command.device, asyncio.Lock())
        async with lock:
            known = self._entries.get(command.id)
            if known is not None and known.state != "received":
                return _outcome(known)
            target = self._targets.get(command.device)
            refusal = self._refusal(command, target)
            if refusal is not None:
                if target is not None:
                    self._report("cmd.rejected", command.device, refusal.code, f"{command.name}: {refusal.detail}")
                if known is not None:  # the core asks again until it hears: the answer must stay the same
                    self._end(command, refusal, untold=True)
                return refusal
            untold = known is not None
            try:
                self._write(command.id, Entry("sent", expires_ms=command.expires_ms, untold=untold))
            except StoreError as error:
                self._restore(command.id, known)
                return Outcome("refused", "journal", f"it could not be written down, so it was not sent: {error}")
            try:
                outcome = await self._carry_out(command, target)
            except TransportError as error:
                # The contract: raised only where nothing was sent. The order may be given again under the same id.
                outcome = Outcome("refused", error.code, str(error))
                if not untold:
                    self._entries.pop(command.id, None)
                    self._save()
                    return outcome
            self._end(command, outcome, untold=untold)
            log.info("command %s on %s: %s %s", command.name, command.device, outcome.state, outcome.code)
            return outcome

    async def _carry_out(self, command: Command, target: Target | None) -> Outcome:
        if target is not None:
            return await target.connector.command(command)
        return await self.own[command.name](command.arguments)

    def _end(self, command: Command, outcome: Outcome, *, untold: bool) -> None:
        """What happened is known in memory whatever the disk says; on disk it is then "sent", and after a crash
        "unknown": never a second actuation."""
        entry = Entry(
            outcome.state, outcome.code, outcome.detail, dict(outcome.read_back), command.expires_ms, untold=untold
        )
        try:
            self._write(command.id, entry)
        except StoreError as error:
            log.error("the outcome of %s could not be kept: %s", command.id, error)

    def _refusal(self, command: Command, target: Target | None) -> Outcome | None:
        if not command.id or len(command.id) > 128:
            return Outcome("refused", "id", "an order needs an id of its own, up to 128 characters")
        if command.expires_ms and command.expires_ms <= self._clock.now_ms():
            return Outcome("expired", "expired", "its time was over before it could be sent")
        if target is None and command.device == self._gateway and self._gateway:
            if command.name not in self.own:
                names = ", ".join(sorted(self.own)) or "none"
                return Outcome("refused", "unknown_command", f"the gateway has no {command.name!r}; it has {names}")
            return None
        if target is None:
            return Outcome("refused", "unknown_device", f"no device {command.device!r} that takes commands")
        kind = target.type.command(command.name)
        if kind is None:
            names = ", ".join(one.name for one in target.type.commands) or "none"
            return Outcome("refused", "unknown_command", f"{target.type.id} has no {command.name!r}; it has {names}")
        if command.name not in target.allow:
            return Outcome("refused", "not_allowed", "read-only here: the device's `allow` does not name this command")
        if wrong := check_arguments(kind, command.arguments):
            return Outcome("refused", "argument", wrong)
        if held := self._interlock(command.device, command.name):
            return Outcome("refused", "interlock", held)
        return None

    def _restore(self, command_id: str, known: Entry | None) -> None:
        if known is None:
            self._entries.pop(command_id, None)
        else:
            self._entries[command_id] = known

    def _write(self, command_id: str, entry: Entry) -> None:
        """Raises StoreError."""
        self._entries.pop(command_id, None)  # to the end: the newest is remembered longest
        self._entries[command_id] = entry
        now_ms = self._clock.now_ms()
        for name, old in list(self._entries.items()):
            surplus = len(self._entries) - REMEMBERED
            if surplus <= 0:
                break
            over = old.expires_ms <= now_ms and old.state not in ("received", "sent") and not old.untold
            if over or len(self._entries) > _MOST:
                del self._entries[name]
        self._save()

    def _save(self) -> None:
        self._journal.put_state(_STATE, msgspec.msgpack.encode(self._entries))


def _outcome(entry: Entry) -> Outcome:
    if entry.state in ("sent", "received"):
        return Outcome("unknown", "under_way", "it was sent and no answer has come yet")
    return Outcome(entry.state, entry.code, entry.detail, entry.read_back)  # type: ignore[arg-type]  # as it was stored
