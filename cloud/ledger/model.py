"""The ledger as it is read: both books of each lane side by side, what is missing, and what that comes to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

State = Literal["complete", "waiting", "explained", "missing", "unknown"]
#: From harmless to worst. `unknown`: the gateway has never sent an account.
STATES: tuple[State, ...] = ("complete", "unknown", "waiting", "explained", "missing")


@dataclass(frozen=True, slots=True)
class LaneBooks:
    """One lane in one epoch. ``said_*``: the gateway's own book, None: never heard."""

    gateway_id: str
    epoch: int
    lane: str
    current: bool  # the outbox's life now being received
    seq: int  # last row dealt with
    batches: int
    readings: int
    events: int
    thinned: int
    repeats: int  # rows that came again and were recognised
    unproven: int  # rows set aside in whole or part, or stones without a digest
    said_seq: int | None
    said_acked: int | None
    said_readings: int | None
    said_events: int | None
    said_thinned: int | None
    oldest_at: datetime | None
    waiting_bytes: int
    said_at: datetime | None  # gateway's clock
    heard_at: datetime | None
    content: str  # equal | differs | not_comparable; '': not compared yet
    checked_seq: int
    checked_at: datetime | None
    left_because: str  # why the next epoch began: damaged | restored | core_forgot; '': not said
    left_at: datetime | None
    forgotten_seq: int = 0  # up to here a core had acknowledged what this database does not hold; 0: nothing of it
    forgotten_at: datetime | None = None  # when that was heard
    restore_id: int | None = None  # the restore that explains it
    restore_taken_at: datetime | None = None  # the moment its backup shows

    @property
    def produced(self) -> int:
        """Rows that exist or have existed, as far as anybody has said."""
        return max(self.seq, self.said_seq or 0, self.forgotten_seq)

    @property
    def beyond(self) -> int:
        """Rows the gateway spoke of that were not dealt with."""
        return self.produced - self.seq

    @property
    def forgotten(self) -> int:
        """Rows from ``seq`` + 1 on that were committed once and are gone with the database that had them."""
        return max(0, self.forgotten_seq - self.seq)

    @property
    def waiting(self) -> int:
        return self.beyond - self.forgotten if self.current else 0

    @property
    def left_behind(self) -> int:
        """Rows beyond those that went with their outbox. What waited when a core had forgotten what it had
        acknowledged went on in the next epoch."""
        if self.current or self.left_because == "core_forgot":
            return 0
        return self.beyond - self.forgotten

    @property
    def lost(self) -> int:
        """Rows that will not come any more."""
        return self.forgotten + self.left_behind

    @property
    def holes(self) -> int:
        """Rows below the cursor that were neither committed nor set aside: must be 0."""
        return max(0, self.seq - self.batches)


@dataclass(frozen=True, slots=True)
class Gap:
    """A range of rows, both ends inclusive. ``device`` None: the lane as a whole."""

    epoch: int
    lane: str
    kind: str  # thinned | rejected | clock_unknown | lost
    reason: str
    device: str | None
    point: str | None
    first_seq: int
    last_seq: int
    row_count: int
    readings: int
    first_at: datetime | None
    last_at: datetime | None
    told_at: datetime
    restore_id: int | None = None  # of rows lost with a restore: the one among ``LedgerDetail.restores`` ...
    source: str = ""  # ... and the backup's name


@dataclass(frozen=True, slots=True)
class Restore:
    """The database came back from a backup that shows ``taken_at``; what was committed between both times is not in
    it. ``lost_rows``: of this gateway."""

    restore_id: int
    taken_at: datetime
    restored_at: datetime
    gap_s: int
    source: str
    lost_rows: int


@dataclass(frozen=True, slots=True)
class GapSum:
    """All ranges of one kind and reason of a gateway's lanes."""

    kind: str
    reason: str
    row_count: int
    readings: int
    first_at: datetime | None
    last_at: datetime | None
    told_at: datetime


@dataclass(frozen=True, slots=True)
class Dropped:
    """What never became a row."""

    epoch: int
    reason: str
    readings: int
    events: int
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Unplaced:
    """Messages that nobody could open, so that nobody knows which rows they were."""

    reason: str
    letters: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to say about a gateway; ``zh`` and ``en`` say it."""

    state: State
    kind: str  # thinned | rejected | clock_unknown | lost | holes | differs | dropped | unplaced | waiting | silent
    reason: str
    lane: str
    epoch: int
    row_count: int
    readings: int
    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class GatewayLedger:
    gateway_id: str
    name_zh: str
    name_en: str
    online: bool | None
    state: State
    findings: list[Finding]
    produced: int  # rows of the current epoch
    committed: int
    waiting: int
    readings: int
    thinned: int
    lost: int
    repeats: int
    proved_at: datetime | None  # when both books were last found equal
    heard_at: datetime | None


@dataclass(frozen=True, slots=True)
class LedgerDetail:
    gateway: GatewayLedger
    lanes: list[LaneBooks]
    gaps: list[Gap]
    gaps_left_out: int
    dropped: list[Dropped]
    restores: list[Restore]
