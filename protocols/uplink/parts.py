"""What a batch is made of, as plain values. How it looks on the wire is ``batch.py``'s business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from protocols.core.model import Event, EvidenceRef
from protocols.uplink.columns import Readings, SeriesCode, empty

#: The gateway's clock while a batch was made: set, or not known to be set since the gateway was switched on.
CLOCK_SET, CLOCK_UNKNOWN = 0, 1
MOST_RUN = 32_767  # the highest number of a run of the clock
MAX_DOCUMENT_BYTES = 256 << 10  # of a twin document, either way
OUTCOME_STATES = ("received", "done", "refused", "failed", "expired", "unknown")
REPORTED_STATES = ("received", "applying", "applied", "refused", "failed", "rolled_back")


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a gateway means by an alias, for the whole epoch."""

    alias: int
    device: str
    point: str
    unit: str
    decimals: int
    reference: int
    device_type: str = ""

    @property
    def code(self) -> SeriesCode:
        return SeriesCode(self.decimals, self.reference)


@dataclass(frozen=True, slots=True)
class DeviceState:
    device: str
    online: bool
    at_ms: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Thinned:
    """Readings the gateway had to throw away, declared in their place."""

    readings: int
    reason: str
    first_ms: int
    last_ms: int
    digest: int = 0
    series: tuple[ThinnedSeries, ...] = ()


@dataclass(frozen=True, slots=True)
class ThinnedSeries:
    """The part of :class:`Thinned` that was one series."""

    alias: int
    readings: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class ClockCorrection:
    """True time = said time + ``offset_ms`` for all that was stamped from ``from_ms`` (incl.) to ``to_ms`` (excl.)."""

    from_ms: int
    to_ms: int
    offset_ms: int
    uncertainty_ms: int = 0
    reason: str = ""
    run: int = 0


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """What became of an order; ``read_back`` is flat."""

    id: str
    state: str
    code: str
    detail: str
    read_back: Mapping[str, object]
    at_ms: int


@dataclass(frozen=True, slots=True)
class Reported:
    """What a gateway made of a document of its twin; ``document`` None: unchanged."""

    name: str
    version: int
    state: str
    detail: str
    document: Mapping[str, object] | None
    at_ms: int


@dataclass(frozen=True, slots=True)
class EvidenceChunk:
    ref: EvidenceRef
    device: str
    ts_ms: int
    total_bytes: int
    offset_bytes: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """One row of one lane. The lane itself stands in the topic."""

    epoch: int
    seq: int
    readings: Readings = field(default_factory=empty)
    declarations: tuple[Declaration, ...] = ()
    events: tuple[Event, ...] = ()
    devices: tuple[DeviceState, ...] = ()
    thinned: tuple[Thinned, ...] = ()
    evidence: tuple[EvidenceChunk, ...] = ()
    clock: int = CLOCK_SET
    corrections: tuple[ClockCorrection, ...] = ()
    historical: bool = False
    clock_run: int = 0
    outcomes: tuple[CommandOutcome, ...] = ()
    reported: tuple[Reported, ...] = ()
