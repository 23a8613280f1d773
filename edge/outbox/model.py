"""What goes into an outbox, what comes out of it, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from protocols.core.errors import StoreError
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


class OutboxDamaged(StoreError):
    """The file is no database any more: nothing that time or space heals, but a restart sets it aside."""

    code = "store.damaged"
    retry = False
