"""What goes into an outbox, what comes out of it, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from protocols.core.errors import ContractError, StoreError
from protocols.core.model import Event
from protocols.uplink import batch as wire
from protocols.uplink.columns import Readings, empty
from protocols.uplink.topics import Lane


@dataclass(slots=True)
class Pending:
    """What one commit puts into one lane. ``readings.alias`` are aliases given by :meth:`Outbox.alias`."""

    lane: Lane
    readings: Readings = field(default_factory=empty)
    events: Sequence[Event] = ()
    devices: Sequence[wire.DeviceState] = ()
    evidence: Sequence[wire.EvidenceChunk] = ()
    outcomes: Sequence[wire.CommandOutcome] = ()
    reported: Sequence[wire.Reported] = ()
    corrections: Sequence[wire.ClockCorrection] = ()
    clock: int = wire.CLOCK_SET
    historical: bool = False
    clock_run: int = 0
    thinned: Sequence[wire.Thinned] = ()  # stones of an earlier epoch, carried over


@dataclass(frozen=True, slots=True)
class Lost:
    """What emptying rows has done: rows, readings that went, change of the payloads' size (bytes, negative)."""

    rows: int = 0
    readings: int = 0
    size: int = 0

    def __add__(self, other: Lost) -> Lost:
        return Lost(self.rows + other.rows, self.readings + other.readings, self.size + other.size)


@dataclass(frozen=True, slots=True)
class Opening:
    """What was found when the outbox was opened. ``reason``: as in State.epoch_reason; "" when the epoch goes on.

    ``saved`` rows of an earlier life wait to be told from what the core has; ``lost`` sequence numbers do not: nobody
    can read them any more."""

    reason: str = ""
    saved: int = 0
    lost: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    lane: Lane
    seq: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class OutboxDepth:
    """Rows waiting per lane, bytes on disk in payloads, readings thrown away so far, age of the oldest row (ms)."""

    rows: dict[Lane, int]
    payload_bytes: int
    thinned: int
    oldest_ms: int


class NeverWritten(ContractError):
    """The core acknowledges what this outbox has never sent: an old copy of it was put back."""


class OutboxDamaged(StoreError):
    """The file is no database any more: nothing that time or space heals, but a restart sets it aside."""

    code = "store.damaged"
    retry = False
