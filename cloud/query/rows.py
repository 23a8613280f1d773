"""What the reads return. Times are aware datetimes (UTC); ``age_s`` is measured at the moment of the read.

Unknown stays unknown: None is "never heard", not zero and not fine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

DeviceState = Literal["online", "offline", "unknown", "stale"]
DEVICE_STATES: tuple[DeviceState, ...] = ("online", "stale", "offline", "unknown")


@dataclass(frozen=True, slots=True)
class Lane:
    """How far one lane of one outbox has been committed."""

    gateway_id: str
    epoch: int
    lane: str
    seq: int
    batches: int  # dealt with: committed or set aside
    readings: int
    events: int
    bytes: int
    thinned: int  # readings the gateway declared thrown away
    repeats: int  # batches recognised as already committed
    dead: int  # batches set aside as dead letters
    lost: int  # sequence numbers below the cursor that were not dealt with: must be 0
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Latency:
    kind: str  # sensor_to_commit | sensor_to_alarm
    count: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Gateway:
    gateway_id: str
    shard: int
    name_zh: str
    name_en: str
    lon: float | None
    lat: float | None
    online: bool | None
    state: DeviceState
    state_at: datetime | None
    health: dict[str, Any]
    health_at: datetime | None
    version: str
    epoch: int | None
    devices: int
    readings: int
    events: int
    bytes: int
    thinned: int
    repeats: int
    dead: int
    lost: int
    committed_at: datetime | None  # newest commit of any lane
    district: str  # "": none
    department: str


@dataclass(frozen=True, slots=True)
class GatewayDetail:
    gateway: Gateway
    lanes: list[Lane]
    latencies: list[Latency]


@dataclass(frozen=True, slots=True)
class Device:
    device_id: str
    gateway_id: str
    gateway_zh: str
    gateway_en: str
    device_type: str
    name_zh: str
    name_en: str
    lon: float | None
    lat: float | None
    state: DeviceState
    state_at: datetime | None
    detail: str
    seen_at: datetime | None
    age_s: float | None
    level: str | None  # worst open alarm
    open_alarms: int
    district: str  # its own, else its gateway's; "": none
    department: str


@dataclass(frozen=True, slots=True)
class LastValue:
    series_id: int
    point: str
    unit: str
    decimals: int
    ts: datetime | None
    value: float | None
    quality: int | None  # protocols.core.model.Quality
    age_s: float | None
    stale: bool


@dataclass(frozen=True, slots=True)
class DeviceDetail:
    device: Device
    values: list[LastValue]


@dataclass(frozen=True, slots=True)
class Series:
    series_id: int
    device_id: str
    point: str
    unit: str
    decimals: int


@dataclass(frozen=True, slots=True)
class Readings:
    """Readings of one series, as columns. ``thinned``: each bucket is given by its lowest and its highest value."""

    series: Series
    thinned: bool
    rows: int  # readings in the database in that span
    ts_ms: list[int] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)
    quality: list[int] = field(default_factory=list)
    bucket_s: int = 0  # from rollups of so many seconds; 0: from the readings themselves


@dataclass(frozen=True, slots=True)
class Alarm:
    alarm_id: str
    key: str
    scenario: str
    type: str
    gateway_id: str | None
    device_id: str
    device_zh: str
    device_en: str
    point: str
    level: str
    peak_level: str
    state: str
    onset_at: datetime
    raised_at: datetime
    updated_at: datetime
    acked_at: datetime | None
    acked_by: str | None
    cleared_at: datetime | None
    repeats: int
    values: dict[str, Any]
    evidence: list[dict[str, Any]]
    lon: float | None
    lat: float | None
    drill: bool
    case_id: int | None
    case_number: str | None
    take_due: datetime | None  # when it must have been taken, by level; None once taken or without a limit


@dataclass(frozen=True, slots=True)
class Case:
    case_id: int
    number: str
    type: str
    flow: str
    scenario: str
    level: str
    state: str
    title_zh: str
    title_en: str
    department: str
    support: list[str]
    device_id: str
    lon: float | None
    lat: float | None
    opened_at: datetime
    accept_due: datetime
    onsite_due: datetime
    close_due: datetime
    accepted_at: datetime | None
    onsite_at: datetime | None
    closed_at: datetime | None
    version: int


@dataclass(frozen=True, slots=True)
class Transition:
    transition_id: int
    at: datetime
    who: str
    action: str
    from_state: str
    to_state: str
    reason: str


@dataclass(frozen=True, slots=True)
class CaseDetail:
    case: Case
    alarms: list[Alarm]
    transitions: list[Transition]


@dataclass(frozen=True, slots=True)
class Event:
    event_id: str
    gateway_id: str | None
    ts: datetime
    seen_at: datetime
    received_at: datetime
    type: str
    level: str
    state: str
    key: str
    scenario: str
    device_id: str
    point: str
    values: dict[str, Any]
    quality: str
    evidence: list[dict[str, Any]]
    drill: bool


@dataclass(frozen=True, slots=True)
class DeadLetter:
    dead_letter_id: int
    received_at: datetime
    topic: str
    gateway_id: str | None
    epoch: int | None
    lane: str | None
    seq: int | None
    reason: str
    detail: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Evidence:
    sha256: str
    mime: str
    kind: str
    masked: bool
    device_id: str
    ts: datetime
    content: bytes


@dataclass(frozen=True, slots=True)
class Summary:
    """The header strip: what is open, what runs, and whether anything is missing."""

    open_by_level: dict[str, int]
    waiting_by_level: dict[str, int]  # not acknowledged yet
    devices_by_state: dict[str, int]
    gateways: int
    gateways_online: int
    open_cases: int
    overdue_cases: int
    readings: int
    events: int
    thinned: int
    repeats: int
    dead_letters: int
    lost: int
    committed_at: datetime | None


@dataclass(frozen=True, slots=True)
class MapPoint:
    """One device, or a cluster of ``count`` devices where they lie too close to tell apart."""

    id: str  # device id; "" for a cluster
    lon: float
    lat: float
    count: int
    state: str
    level: str | None
    name_zh: str
    name_en: str
    device_type: str
    open_alarms: int
