from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Batch(_message.Message):
    __slots__ = ("epoch", "seq", "declare", "readings", "readings_zstd", "events", "devices", "thinned", "evidence", "clock", "corrections", "historical", "outcomes", "reported", "version", "clock_run")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DECLARE_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    READINGS_ZSTD_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    THINNED_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    CORRECTIONS_FIELD_NUMBER: _ClassVar[int]
    HISTORICAL_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    REPORTED_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLOCK_RUN_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    seq: int
    declare: _containers.RepeatedCompositeFieldContainer[SeriesDecl]
    readings: bytes
    readings_zstd: bytes
    events: _containers.RepeatedCompositeFieldContainer[Event]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceState]
    thinned: _containers.RepeatedCompositeFieldContainer[Thinned]
    evidence: _containers.RepeatedCompositeFieldContainer[EvidenceChunk]
    clock: int
    corrections: _containers.RepeatedCompositeFieldContainer[ClockCorrection]
    historical: bool
    outcomes: _containers.RepeatedCompositeFieldContainer[CommandOutcome]
    reported: _containers.RepeatedCompositeFieldContainer[Reported]
    version: int
    clock_run: int
    def __init__(self, epoch: _Optional[int] = ..., seq: _Optional[int] = ..., declare: _Optional[_Iterable[_Union[SeriesDecl, _Mapping]]] = ..., readings: _Optional[bytes] = ..., readings_zstd: _Optional[bytes] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[DeviceState, _Mapping]]] = ..., thinned: _Optional[_Iterable[_Union[Thinned, _Mapping]]] = ..., evidence: _Optional[_Iterable[_Union[EvidenceChunk, _Mapping]]] = ..., clock: _Optional[int] = ..., corrections: _Optional[_Iterable[_Union[ClockCorrection, _Mapping]]] = ..., historical: _Optional[bool] = ..., outcomes: _Optional[_Iterable[_Union[CommandOutcome, _Mapping]]] = ..., reported: _Optional[_Iterable[_Union[Reported, _Mapping]]] = ..., version: _Optional[int] = ..., clock_run: _Optional[int] = ...) -> None: ...

class ClockCorrection(_message.Message):
    __slots__ = ("from_ms", "to_ms", "offset_ms", "uncertainty_ms", "reason", "run")
    FROM_MS_FIELD_NUMBER: _ClassVar[int]
    TO_MS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_MS_FIELD_NUMBER: _ClassVar[int]
    UNCERTAINTY_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    from_ms: int
    to_ms: int
    offset_ms: int
    uncertainty_ms: int
    reason: str
    run: int
    def __init__(self, from_ms: _Optional[int] = ..., to_ms: _Optional[int] = ..., offset_ms: _Optional[int] = ..., uncertainty_ms: _Optional[int] = ..., reason: _Optional[str] = ..., run: _Optional[int] = ...) -> None: ...

class SeriesDecl(_message.Message):
    __slots__ = ("alias", "device", "point", "unit", "decimals", "reference", "device_type")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    POINT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    DECIMALS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    alias: int
    device: str
    point: str
    unit: str
    decimals: int
    reference: int
    device_type: str
    def __init__(self, alias: _Optional[int] = ..., device: _Optional[str] = ..., point: _Optional[str] = ..., unit: _Optional[str] = ..., decimals: _Optional[int] = ..., reference: _Optional[int] = ..., device_type: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("id", "type", "ts_ms", "seen_ms", "source", "scenario", "level", "state", "key", "values_json", "quality", "lon", "lat", "evidence", "drill")
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TS_MS_FIELD_NUMBER: _ClassVar[int]
    SEEN_MS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUES_JSON_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    LON_FIELD_NUMBER: _ClassVar[int]
    LAT_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    DRILL_FIELD_NUMBER: _ClassVar[int]
    id: str
    type: str
    ts_ms: int
    seen_ms: int
    source: str
    scenario: str
    level: int
    state: int
    key: str
    values_json: str
    quality: int
    lon: float
    lat: float
    evidence: _containers.RepeatedCompositeFieldContainer[EvidenceRef]
    drill: bool
    def __init__(self, id: _Optional[str] = ..., type: _Optional[str] = ..., ts_ms: _Optional[int] = ..., seen_ms: _Optional[int] = ..., source: _Optional[str] = ..., scenario: _Optional[str] = ..., level: _Optional[int] = ..., state: _Optional[int] = ..., key: _Optional[str] = ..., values_json: _Optional[str] = ..., quality: _Optional[int] = ..., lon: _Optional[float] = ..., lat: _Optional[float] = ..., evidence: _Optional[_Iterable[_Union[EvidenceRef, _Mapping]]] = ..., drill: _Optional[bool] = ...) -> None: ...

class EvidenceRef(_message.Message):
    __slots__ = ("sha256", "kind", "masked", "mime")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MASKED_FIELD_NUMBER: _ClassVar[int]
    MIME_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    kind: str
    masked: bool
    mime: str
    def __init__(self, sha256: _Optional[bytes] = ..., kind: _Optional[str] = ..., masked: _Optional[bool] = ..., mime: _Optional[str] = ...) -> None: ...

class EvidenceChunk(_message.Message):
    __slots__ = ("ref", "device", "ts_ms", "total_bytes", "offset_bytes", "content")
    REF_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    TS_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    ref: EvidenceRef
    device: str
    ts_ms: int
    total_bytes: int
    offset_bytes: int
    content: bytes
    def __init__(self, ref: _Optional[_Union[EvidenceRef, _Mapping]] = ..., device: _Optional[str] = ..., ts_ms: _Optional[int] = ..., total_bytes: _Optional[int] = ..., offset_bytes: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...

class DeviceState(_message.Message):
    __slots__ = ("device", "online", "at_ms", "detail")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    device: str
    online: bool
    at_ms: int
    detail: str
    def __init__(self, device: _Optional[str] = ..., online: _Optional[bool] = ..., at_ms: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class Thinned(_message.Message):
    __slots__ = ("readings", "reason", "first_ms", "last_ms", "digest", "series")
    READINGS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIRST_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_MS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    readings: int
    reason: str
    first_ms: int
    last_ms: int
    digest: int
    series: _containers.RepeatedCompositeFieldContainer[ThinnedSeries]
    def __init__(self, readings: _Optional[int] = ..., reason: _Optional[str] = ..., first_ms: _Optional[int] = ..., last_ms: _Optional[int] = ..., digest: _Optional[int] = ..., series: _Optional[_Iterable[_Union[ThinnedSeries, _Mapping]]] = ...) -> None: ...

class ThinnedSeries(_message.Message):
    __slots__ = ("alias", "readings", "first_ms", "last_ms")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    FIRST_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_MS_FIELD_NUMBER: _ClassVar[int]
    alias: int
    readings: int
    first_ms: int
    last_ms: int
    def __init__(self, alias: _Optional[int] = ..., readings: _Optional[int] = ..., first_ms: _Optional[int] = ..., last_ms: _Optional[int] = ...) -> None: ...

class State(_message.Message):
    __slots__ = ("online", "epoch", "at_ms", "agent_version", "wire_version", "farewell", "previous_epoch", "epoch_reason", "session")
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    WIRE_VERSION_FIELD_NUMBER: _ClassVar[int]
    FAREWELL_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_EPOCH_FIELD_NUMBER: _ClassVar[int]
    EPOCH_REASON_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    online: bool
    epoch: int
    at_ms: int
    agent_version: str
    wire_version: int
    farewell: bool
    previous_epoch: int
    epoch_reason: str
    session: str
    def __init__(self, online: _Optional[bool] = ..., epoch: _Optional[int] = ..., at_ms: _Optional[int] = ..., agent_version: _Optional[str] = ..., wire_version: _Optional[int] = ..., farewell: _Optional[bool] = ..., previous_epoch: _Optional[int] = ..., epoch_reason: _Optional[str] = ..., session: _Optional[str] = ...) -> None: ...

class Account(_message.Message):
    __slots__ = ("epoch", "at_ms", "lanes", "dropped", "previous_epoch", "epoch_reason", "session", "ended")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_EPOCH_FIELD_NUMBER: _ClassVar[int]
    EPOCH_REASON_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    at_ms: int
    lanes: _containers.RepeatedCompositeFieldContainer[LaneAccount]
    dropped: _containers.RepeatedCompositeFieldContainer[Dropped]
    previous_epoch: int
    epoch_reason: str
    session: str
    ended: _containers.RepeatedCompositeFieldContainer[EndedLane]
    def __init__(self, epoch: _Optional[int] = ..., at_ms: _Optional[int] = ..., lanes: _Optional[_Iterable[_Union[LaneAccount, _Mapping]]] = ..., dropped: _Optional[_Iterable[_Union[Dropped, _Mapping]]] = ..., previous_epoch: _Optional[int] = ..., epoch_reason: _Optional[str] = ..., session: _Optional[str] = ..., ended: _Optional[_Iterable[_Union[EndedLane, _Mapping]]] = ...) -> None: ...

class EndedLane(_message.Message):
    __slots__ = ("epoch", "lane", "acked")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    lane: str
    acked: int
    def __init__(self, epoch: _Optional[int] = ..., lane: _Optional[str] = ..., acked: _Optional[int] = ...) -> None: ...

class LaneAccount(_message.Message):
    __slots__ = ("lane", "seq", "acked", "readings", "events", "digest", "thinned", "oldest_ms", "waiting_bytes")
    LANE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    THINNED_FIELD_NUMBER: _ClassVar[int]
    OLDEST_MS_FIELD_NUMBER: _ClassVar[int]
    WAITING_BYTES_FIELD_NUMBER: _ClassVar[int]
    lane: str
    seq: int
    acked: int
    readings: int
    events: int
    digest: int
    thinned: int
    oldest_ms: int
    waiting_bytes: int
    def __init__(self, lane: _Optional[str] = ..., seq: _Optional[int] = ..., acked: _Optional[int] = ..., readings: _Optional[int] = ..., events: _Optional[int] = ..., digest: _Optional[int] = ..., thinned: _Optional[int] = ..., oldest_ms: _Optional[int] = ..., waiting_bytes: _Optional[int] = ...) -> None: ...

class Dropped(_message.Message):
    __slots__ = ("reason", "readings", "events")
    REASON_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    readings: int
    events: int
    def __init__(self, reason: _Optional[str] = ..., readings: _Optional[int] = ..., events: _Optional[int] = ...) -> None: ...

class Health(_message.Message):
    __slots__ = ("at_ms", "values", "texts")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class TextsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    at_ms: int
    values: _containers.ScalarMap[str, float]
    texts: _containers.ScalarMap[str, str]
    def __init__(self, at_ms: _Optional[int] = ..., values: _Optional[_Mapping[str, float]] = ..., texts: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("epoch", "lane", "committed", "resend", "rejected_seq", "reason", "held")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    RESEND_FIELD_NUMBER: _ClassVar[int]
    REJECTED_SEQ_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    lane: str
    committed: int
    resend: bool
    rejected_seq: int
    reason: str
    held: _containers.RepeatedCompositeFieldContainer[Range]
    def __init__(self, epoch: _Optional[int] = ..., lane: _Optional[str] = ..., committed: _Optional[int] = ..., resend: _Optional[bool] = ..., rejected_seq: _Optional[int] = ..., reason: _Optional[str] = ..., held: _Optional[_Iterable[_Union[Range, _Mapping]]] = ...) -> None: ...

class Range(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class Order(_message.Message):
    __slots__ = ("id", "device", "name", "arguments_json", "expires_ms", "issued_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    ISSUED_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    device: str
    name: str
    arguments_json: str
    expires_ms: int
    issued_ms: int
    def __init__(self, id: _Optional[str] = ..., device: _Optional[str] = ..., name: _Optional[str] = ..., arguments_json: _Optional[str] = ..., expires_ms: _Optional[int] = ..., issued_ms: _Optional[int] = ...) -> None: ...

class CommandOutcome(_message.Message):
    __slots__ = ("id", "state", "code", "detail", "read_back_json", "at_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    READ_BACK_JSON_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: str
    code: str
    detail: str
    read_back_json: str
    at_ms: int
    def __init__(self, id: _Optional[str] = ..., state: _Optional[str] = ..., code: _Optional[str] = ..., detail: _Optional[str] = ..., read_back_json: _Optional[str] = ..., at_ms: _Optional[int] = ...) -> None: ...

class Desired(_message.Message):
    __slots__ = ("name", "version", "document_json")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    document_json: bytes
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., document_json: _Optional[bytes] = ...) -> None: ...

class Reported(_message.Message):
    __slots__ = ("name", "version", "state", "detail", "document_json", "at_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    state: str
    detail: str
    document_json: bytes
    at_ms: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., state: _Optional[str] = ..., detail: _Optional[str] = ..., document_json: _Optional[bytes] = ..., at_ms: _Optional[int] = ...) -> None: ...
