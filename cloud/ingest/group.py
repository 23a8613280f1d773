"""What one transaction collects before it writes: messages in, changes of lanes, rows, events, replies out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cloud.ingest.copy import Rows
from cloud.ledger.gaps import Piece
from protocols.core.model import Event
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.digest import add

#: (gateway, epoch, lane)
LaneKey = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class Inbound:
    """One message as the broker delivered it. ``done`` tells the broker that it may forget it.

    ``shard``: of the session it came by; None: not from a session."""

    topic: str
    payload: bytes
    done: Callable[[], None]
    shard: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An acknowledgement to publish after the commit."""

    shard: int
    gateway: str
    ack: pb.Ack


@dataclass(frozen=True, slots=True)
class LaneTotals:
    """How far a lane has come and what it holds. ``unproven``: rows whose content cannot be compared with the
    gateway's book, because they were set aside or a stone in them has no digest."""

    seq: int = 0
    readings: int = 0
    events: int = 0
    digest: int = 0
    thinned: int = 0
    thinned_digest: int = 0
    unproven: int = 0


@dataclass(slots=True)
class LaneChange:
    """What this group did to one lane, beyond ``start``."""

    start: LaneTotals
    seq: int
    batches: int = 0
    readings: int = 0
    events: int = 0
    size: int = 0
    digest: int = 0
    thinned: int = 0
    thinned_digest: int = 0
    unproven: int = 0
    repeats: int = 0
    furthest: int = 0  # of the rows that came out of turn
    unreadable: str = ""  # why something that came on this lane could not even be placed
    rejected: list[tuple[int, str]] = field(default_factory=list)

    def totals(self) -> LaneTotals:
        """The lane after this group."""
        start = self.start
        return LaneTotals(
            self.seq,
            start.readings + self.readings,
            start.events + self.events,
            add(start.digest, self.digest),
            start.thinned + self.thinned,
            add(start.thinned_digest, self.thinned_digest),
            start.unproven + self.unproven,
        )


@dataclass(slots=True)
class Group:
    """Everything one transaction collects before it writes."""

    lanes: dict[LaneKey, LaneChange] = field(default_factory=dict)
    shards: dict[str, int] = field(default_factory=dict)
    rows: dict[str, list[Rows]] = field(default_factory=dict)  # by gateway, as they came
    placed: list[Rows] = field(default_factory=list)  # all of them, at the best time known
    timed: list[Rows] = field(default_factory=list)  # those whose true times are known, by true time
    live: dict[str, list[Rows]] = field(
        default_factory=dict
    )  # of these, by gateway, what is not from a device's memory
    own_events: list[Event] = field(default_factory=list)  # the core's: links down and back
    latency: list[tuple[str, str, Any]] = field(default_factory=list)  # gateway, kind, source times
    events: dict[str, list[Event]] = field(default_factory=dict)  # by gateway
    gaps: list[Piece] = field(default_factory=list)
    online: set[str] = field(default_factory=set)  # gateways that have just said that they are there
    gateways_changed: set[str] = field(default_factory=set)
    devices_changed: set[str] = field(default_factory=set)
    days: set[int] = field(default_factory=set)
