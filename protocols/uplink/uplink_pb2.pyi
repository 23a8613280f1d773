from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Batch(_message.Message):
    __slots__ = ("epoch", "seq", "declare", "readings", "readings_zstd", "events", "devices", "thinned", "evidence", "version")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DECLARE_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    READINGS_ZSTD_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    THINNED_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    seq: int
    declare: _containers.RepeatedCompositeFieldContainer[SeriesDecl]
    readings: bytes
    readings_zstd: bytes
    events: _containers.RepeatedCompositeFieldContainer[Event]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceState]
    thinned: _containers.RepeatedCompositeFieldContainer[Thinned]
    evidence: _containers.RepeatedCompositeFieldContainer[EvidenceChunk]
    version: int
    def __init__(self, epoch: _Optional[int] = ..., seq: _Optional[int] = ..., declare: _Optional[_Iterable[_Union[SeriesDecl, _Mapping]]] = ..., readings: _Optional[bytes] = ..., readings_zstd: _Optional[bytes] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[DeviceState, _Mapping]]] = ..., thinned: _Optional[_Iterable[_Union[Thinned, _Mapping]]] = ..., evidence: _Optional[_Iterable[_Union[EvidenceChunk, _Mapping]]] = ..., version: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("readings", "reason", "first_ms", "last_ms", "digest")
    READINGS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIRST_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_MS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    readings: int
    reason: str
    first_ms: int
    last_ms: int
    digest: int
    def __init__(self, readings: _Optional[int] = ..., reason: _Optional[str] = ..., first_ms: _Optional[int] = ..., last_ms: _Optional[int] = ..., digest: _Optional[int] = ...) -> None: ...

class State(_message.Message):
    __slots__ = ("online", "epoch", "at_ms", "agent_version", "wire_version", "farewell")
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    WIRE_VERSION_FIELD_NUMBER: _ClassVar[int]
    FAREWELL_FIELD_NUMBER: _ClassVar[int]
    online: bool
    epoch: int
    at_ms: int
    agent_version: str
    wire_version: int
    farewell: bool
    def __init__(self, online: _Optional[bool] = ..., epoch: _Optional[int] = ..., at_ms: _Optional[int] = ..., agent_version: _Optional[str] = ..., wire_version: _Optional[int] = ..., farewell: _Optional[bool] = ...) -> None: ...

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
    __slots__ = ("epoch", "lane", "committed", "resend", "rejected_seq", "reason")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    RESEND_FIELD_NUMBER: _ClassVar[int]
    REJECTED_SEQ_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    lane: str
    committed: int
    resend: bool
    rejected_seq: int
    reason: str
    def __init__(self, epoch: _Optional[int] = ..., lane: _Optional[str] = ..., committed: _Optional[int] = ..., resend: _Optional[bool] = ..., rejected_seq: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...
