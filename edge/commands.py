"""The command desk: the one way an order reaches a device, whoever gives it.

```
 installer's socket ─┐                        ┌─ refused: type, argument, right, time
 (cloud, later) ─────┼─▶ desk ─▶ journal ─▶ connector ─▶ device ─▶ read-back
                     │             │
                     └── outcome ◀─┘  the same id again gets the same outcome
```

Read-only until configured otherwise: a device takes only the commands its own ``allow`` names. An id is written down
before anything is sent, so a crash in between leaves "unknown", never a second actuation.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from edge.clock import Clock
from edge.connectors.base import Command, Commandable, Outcome
from protocols.core.errors import TransportError
from protocols.devices import Argument, CommandType, DeviceType

log = logging.getLogger("citybrain.edge.commands")

#: Orders that are remembered; far more than can be under way at a time.
REMEMBERED = 512
#: An order whose sender gave no time is void after this.
DEFAULT_LIFE_MS = 60_000
_MAX_LINE_BYTES = 16_384
_STATE = "commands"
#: The local socket's name in the agent's state folder.
SOCKET = "orders.sock"


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


class _Entry(msgspec.Struct):
    state: str
    code: str = ""
    detail: str = ""
    read_back: dict[str, float | str] = {}


Report = Callable[[str, str, str, str], None]  # event type, device, code, detail


class Desk:
    """Carries out orders one device at a time; :meth:`order` never raises for a bad order."""

    def __init__(self, targets: Mapping[str, Target], journal: Journal, clock: Clock, report: Report) -> None:
        self._targets = dict(targets)
        self._journal = journal
        self._clock = clock
        self._report = report
        self._busy: dict[str, asyncio.Lock] = {}
        stored = journal.get_state(_STATE)
        self._entries: dict[str, _Entry] = {}
        if stored is not None:
            self._entries = msgspec.msgpack.decode(stored, type=dict[str, _Entry])
        for entry in self._entries.values():
            if entry.state == "sent":
                # The agent died between sending and hearing: nobody can say whether it happened.
                entry.state, entry.code, entry.detail = "unknown", "interrupted", "the agent stopped while it waited"

    async def order(self, command: Command) -> Outcome:
        """Carry the order out once. The same id again gives the first outcome, also after a restart."""
        lock = self._busy.setdefault(command.device, asyncio.Lock())
        async with lock:
            known = self._entries.get(command.id)
            if known is not None:
                return _outcome(known)
            target = self._targets.get(command.device)
            refusal = self._refusal(command, target)
            if refusal is not None:
                if target is not None:
                    self._report("cmd.rejected", command.device, refusal.code, f"{command.name}: {refusal.detail}")
                return refusal
            assert target is not None  # noqa: S101 - an unknown device was refused
            self._write(command.id, _Entry("sent"))
            try:
                outcome = await target.connector.command(command)
            except TransportError as error:
                # The contract: raised only where nothing was sent. The order may be given again under the same id.
                self._entries.pop(command.id, None)
                self._save()
                return Outcome("refused", error.code, str(error))
            self._write(command.id, _Entry(outcome.state, outcome.code, outcome.detail, dict(outcome.read_back)))
            log.info("command %s on %s: %s %s", command.name, command.device, outcome.state, outcome.code)
            return outcome

    def _refusal(self, command: Command, target: Target | None) -> Outcome | None:
        if not command.id or len(command.id) > 128:
            return Outcome("refused", "id", "an order needs an id of its own, up to 128 characters")
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
        if command.expires_ms and command.expires_ms <= self._clock.now_ms():
            return Outcome("expired", "expired", "its time was over before it could be sent")
        return None

    def _write(self, command_id: str, entry: _Entry) -> None:
        self._entries[command_id] = entry
        while len(self._entries) > REMEMBERED:
            del self._entries[next(iter(self._entries))]
        self._save()

    def _save(self) -> None:
        self._journal.put_state(_STATE, msgspec.msgpack.encode(self._entries))


def _outcome(entry: _Entry) -> Outcome:
    if entry.state == "sent":
        return Outcome("unknown", "under_way", "it was sent and no answer has come yet")
    return Outcome(entry.state, entry.code, entry.detail, entry.read_back)  # type: ignore[arg-type]  # as it was stored


def check_arguments(kind: CommandType, given: Mapping[str, object]) -> str:
    """What is wrong with them, "" if nothing."""
    wanted = {argument.name: argument for argument in kind.argument}
    if unknown := sorted(set(given) - set(wanted)):
        return f"{kind.name} knows no {', '.join(unknown)}; it takes {', '.join(wanted) or 'nothing'}"
    for name, argument in wanted.items():
        if name not in given:
            return f"{name} is missing"
        if wrong := _wrong(argument, given[name]):
            return f"{name}: {wrong}"
    return ""


def _wrong(argument: Argument, value: object) -> str:
    if argument.kind == "bool":
        return "" if isinstance(value, bool) else "true or false"
    if argument.kind == "text":
        if not isinstance(value, str):
            return "a text"
        return "" if not argument.one_of or value in argument.one_of else f"one of {', '.join(argument.one_of)}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "a number"
    if argument.kind == "integer" and value != int(value):
        return "a whole number"
    assert argument.range is not None  # noqa: S101 - numbers have one, the device type was checked
    low, high = argument.range
    return "" if low <= value <= high else f"{low:g} to {high:g} {argument.unit}".rstrip()


class _Order(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    device: str
    name: str
    arguments: dict[str, float | int | str | bool] = {}
    life_ms: int = DEFAULT_LIFE_MS


class LocalSocket:
    """Orders from whoever may write to the agent's own folder (mode 0600): one JSON line in, one out."""

    def __init__(self, path: Path, desk: Desk, clock: Clock) -> None:
        self._path = path
        self._desk = desk
        self._clock = clock

    async def run(self) -> None:
        self._path.unlink(missing_ok=True)
        mask = os.umask(0o177)  # nobody else may order, not even for the moment before a chmod
        try:
            server = await asyncio.start_unix_server(self._serve, str(self._path), limit=_MAX_LINE_BYTES)
        except OSError as error:
            # A path longer than the kernel's 107 bytes, a folder on a file system without sockets: the agent does its
            # work all the same.
            log.warning("no local command socket at %s: %s", self._path, error)
            return
        finally:
            os.umask(mask)
        try:
            async with server:
                await server.serve_forever()
        finally:
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            line = await reader.readline()
            outcome = await self._take(line)
            writer.write(msgspec.json.encode(outcome) + b"\n")
            await writer.drain()
        writer.close()

    async def _take(self, line: bytes) -> Outcome:
        try:
            order = msgspec.json.decode(line, type=_Order)
        except msgspec.DecodeError as error:
            return Outcome("refused", "malformed", str(error))
        expires_ms = self._clock.now_ms() + max(1, order.life_ms)
        return await self._desk.order(Command(order.id, order.device, order.name, order.arguments, expires_ms))


async def give(path: Path, order: Mapping[str, object], timeout_s: float) -> Outcome:
    """Send one order to a running agent's socket. Raises OSError, TimeoutError or ValueError."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            writer.write(msgspec.json.encode(order) + b"\n")
            await writer.drain()
            return msgspec.json.decode(await reader.readline(), type=Outcome)
        finally:
            writer.close()
