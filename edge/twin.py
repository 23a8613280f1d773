"""The gateway's half of its twin: documents the city wants in force, each name applied by itself, told truthfully.

```
 down/twin ─▶ heard ─▶ journal ─▶ handler of that name ─▶ tell ─▶ journal ─▶ outbox ─▶ core
                          │                                          ▲
                          └── after a restart: what had not ended ───┘
```
A document that was begun when the agent died is begun again: a handler must bear that. The newest version wins; one
that arrives while an older one is being applied waits for it and then follows.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
from google.protobuf.message import DecodeError

from edge.clock import Clock
from protocols.core.errors import CityBrainError, StoreError
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.batch import MAX_DOCUMENT_BYTES, REPORTED_STATES, Reported

log = logging.getLogger("citybrain.edge.twin")

_STATE = "twin"
_MOST_NAMES = 32
_ENDED = frozenset({"applied", "refused", "failed", "rolled_back"})

Document = Mapping[str, Any]


class Tell(Protocol):
    """Say how far it has come; durable before the core hears it. ``document``: what is in force now, or progress."""

    def __call__(self, state: str, detail: str = "", document: Document | None = None) -> None: ...


#: ``await handler(document, version, tell)``. It must end by telling ``applied``, ``refused``, ``failed`` or
#: ``rolled_back``; one that returns without counts as ``applied``, one that raises a CityBrainError as ``refused``.
Handler = Callable[[Document, int, Tell], Awaitable[None]]


class Journal(Protocol):
    """Durable on return (the outbox's state table)."""

    def put_state(self, name: str, value: bytes) -> None: ...

    def get_state(self, name: str) -> bytes | None: ...


class _Entry(msgspec.Struct):
    version: int
    state: str
    document: bytes  # as it came, JSON
    detail: str = ""


class Twin:
    """``report`` puts what is told into the outbox."""

    def __init__(self, journal: Journal, clock: Clock, report: Callable[[Reported], None]) -> None:
        self._journal = journal
        self._clock = clock
        self._report = report
        self.handlers: dict[str, Handler] = {}
        stored = journal.get_state(_STATE)
        self._entries: dict[str, _Entry] = {}
        if stored is not None:
            self._entries = msgspec.msgpack.decode(stored, type=dict[str, _Entry])
        self._wake = asyncio.Event()
        self.counters = {"twin_documents": 0, "twin_refused": 0, "twin_repeats": 0, "twin_not_kept": 0}

    def version(self, name: str) -> int:
        """The newest version known of a document, 0 if none."""
        entry = self._entries.get(name)
        return entry.version if entry is not None else 0

    def document(self, name: str) -> Document | None:
        """The newest document of a name, whatever became of it."""
        entry = self._entries.get(name)
        return None if entry is None else _parsed(entry.document)

    # -- from the core --------------------------------------------------------------------------------------------

    def heard(self, payload: bytes) -> None:
        """A message on ``down/twin``. Never raises for what came from outside."""
        desired = pb.Desired()
        try:
            desired.ParseFromString(payload)
        except DecodeError:
            self.counters["twin_refused"] += 1
            log.warning("a twin document that is no message")
            return
        name, version = desired.name, desired.version
        if not name or len(name) > 64 or not 0 < version < 1 << 63:
            self.counters["twin_refused"] += 1
            return
        known = self._entries.get(name)
        if known is not None and version <= known.version:
            self.counters["twin_repeats"] += 1
            if version == known.version:  # the core has not heard what we told
                self._say(name, version, known.state, known.detail, None)
            return
        refusal = self._refusal(name, desired.document_json)
        if refusal:
            self.counters["twin_refused"] += 1
            if (known is None and len(self._entries) >= _MOST_NAMES) or self._keep(
                name, _Entry(version, "refused", b"{}", refusal)
            ):
                self._say(name, version, "refused", refusal, None)
            return
        if self._keep(name, _Entry(version, "received", desired.document_json)):
            self.counters["twin_documents"] += 1
            self._say(name, version, "received", "", None)
            self._wake.set()

    def _keep(self, name: str, entry: _Entry) -> bool:
        """False if the disk does not take it: then we have not heard it, and the core will say it again."""
        before = self._entries.get(name)
        self._entries[name] = entry
        if self._save():
            return True
        if before is None:
            del self._entries[name]
        else:
            self._entries[name] = before
        return False

    def _refusal(self, name: str, document: bytes) -> str:
        if name not in self.handlers:
            return f"this agent knows no document {name!r}; it knows {', '.join(sorted(self.handlers)) or 'none'}"
        if len(document) > MAX_DOCUMENT_BYTES:
            return f"{len(document)} bytes; at most {MAX_DOCUMENT_BYTES}"
        return "" if _parsed(document) is not None else "not a JSON object"

    # -- applying -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Apply what is wanted, one document of a name at a time, until cancelled. Names do not wait for one another:
        an update may wait for its window all day."""
        self._wake.set()  # what an earlier life of the agent had begun
        busy: set[str] = set()
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for name, entry in self._entries.items():
                    if entry.state not in _ENDED and name not in busy:
                        busy.add(name)
                        group.create_task(self._serve(name, busy), name=f"twin {name}")

    async def _serve(self, name: str, busy: set[str]) -> None:
        while (entry := self._entries[name]).state not in _ENDED:
            await self._apply(name, entry)
        busy.discard(name)

    async def _apply(self, name: str, entry: _Entry) -> None:
        handler, document, version = self.handlers.get(name), _parsed(entry.document), entry.version

        def tell(state: str, detail: str = "", document: Document | None = None) -> None:
            if state not in REPORTED_STATES:
                raise ValueError(f"a twin document cannot be {state!r}")
            current = self._entries[name]
            if current.version != version:  # superseded meanwhile: the newer one speaks for the name
                return
            current.state, current.detail = state, detail
            self._save()
            self._say(name, version, state, detail, document)

        if handler is None or document is None:
            tell("refused", "this agent does not know such a document")
            return
        try:
            await handler(document, version, tell)
        except CityBrainError as error:
            log.warning("twin document %s %d refused: %s", name, version, error)
            tell("refused", str(error))
            return
        current = self._entries[name]
        if current.version == version and current.state not in _ENDED:
            tell("applied")

    def _say(self, name: str, version: int, state: str, detail: str, document: Document | None) -> None:
        self._report(Reported(name, version, state, detail[:2000], document, self._clock.now_ms()))

    def _save(self) -> bool:
        """What is told waits for the same disk: while it refuses, the next thing told writes all of it."""
        try:
            self._journal.put_state(_STATE, msgspec.msgpack.encode(self._entries))
        except StoreError as error:
            if not error.retry:
                raise
            self.counters["twin_not_kept"] += 1
            return False
        return True


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
