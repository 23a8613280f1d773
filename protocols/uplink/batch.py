"""A batch: bytes on the wire <-> columns, events, evidence.

Decoding a batch needs the declarations made before it in the same epoch; they are passed in as ``known``. Nothing here
touches a socket, a clock or a disk.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
from backports import zstd
from google.protobuf.message import DecodeError

from protocols.core.errors import ContractError, LocalProtocolError
from protocols.core.model import LEVEL_RANK, LEVELS, Event, EvidenceRef, Float64s, Int64s, Quality, UInt8s
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.columns import FLOAT_BITS, Readings, SeriesCode, decode_blocks, empty, encode_blocks

WIRE_VERSION = 1
MAX_BATCH_BYTES = 1 << 20  # what a gateway may send in one message; brokers are configured to it
MAX_BODY_BYTES = 16 << 20  # after decompression
_WINDOW_LOG_MAX = 24  # 16 MiB, what a body may have
_ZSTD_FROM_BYTES = 96  # below this a zstd frame only adds bytes

#: The gateway's clock while a batch was made: set, or not known to be set since the gateway was switched on.
CLOCK_SET, CLOCK_UNKNOWN = 0, 1
MOST_RUN = 32_767  # the highest number of a run of the clock
_LATEST_MS = 4_102_444_800_000  # 2100-01-01: beyond it is no clock error any more but garbage
MAX_DOCUMENT_BYTES = 256 << 10  # of a twin document, either way
OUTCOME_STATES = ("received", "done", "refused", "failed", "expired", "unknown")
REPORTED_STATES = ("received", "applying", "applied", "refused", "failed", "rolled_back")

_MOST = 1e308  # compared, not converted: an integer of JSON may have thousands of digits
_STATES: tuple[Literal["", "raise", "update", "clear"], ...] = ("", "raise", "update", "clear")
_QUALITIES: tuple[Literal["good", "suspect", "manual"], ...] = ("good", "suspect", "manual")


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


@dataclass(frozen=True, slots=True)
class Envelope:
    """What can be known of a batch without the declarations: enough to place it, repeat it or set it aside."""

    message: pb.Batch
    epoch: int
    seq: int
    version: int


def quantise(values: Float64s, quality: UInt8s, decimals: int) -> tuple[Int64s, UInt8s]:
    """Floats to integers at the series' resolution; NaN, infinite or too large become MISSING.

    Returns (int64 (n,), uint8 (n,)); the quality array is a copy where it had to change.
    """
    if decimals == FLOAT_BITS:
        bad = np.isnan(values)
        if bad.any():
            quality = np.where(bad, np.uint8(Quality.MISSING), quality)
        return np.where(bad, 0.0, values).view(np.int64), quality
    return scale(values, quality, 10.0**decimals)


def scale(values: Float64s, quality: UInt8s, factor: float | Float64s) -> tuple[Int64s, UInt8s]:
    """As :func:`quantise`, with the power of ten given, one for all or one for each value."""
    scaled = values * factor
    bad = ~(np.abs(scaled) < 2.0**53)
    if bad.any():
        quality = np.where(bad, np.uint8(Quality.MISSING), quality)
        scaled = np.where(bad, 0.0, scaled)
    return np.rint(scaled).astype(np.int64), quality


def to_float(integer: Int64s, quality: UInt8s, decimals: int) -> Float64s:
    """Integers at the series' resolution back to floats; MISSING becomes NaN."""
    values = integer.view(np.float64).copy() if decimals == FLOAT_BITS else integer / 10.0**decimals
    values[quality == Quality.MISSING] = np.nan
    return values


def _ref_to_pb(ref: EvidenceRef) -> pb.EvidenceRef:
    return pb.EvidenceRef(sha256=bytes.fromhex(ref.sha256), kind=ref.kind, masked=ref.masked, mime=ref.mime)


def _ref_from_pb(ref: pb.EvidenceRef) -> EvidenceRef:
    if len(ref.sha256) != 32 or ref.kind not in ("still", "clip"):
        raise ContractError("an evidence reference without a SHA-256 or of unknown kind", reason="evidence")
    return EvidenceRef(ref.sha256.hex(), cast(Literal["still", "clip"], ref.kind), ref.masked, ref.mime)


def _finite(values: Mapping[str, object]) -> dict[str, object]:
    """JSON has no NaN and no infinity; an alarm must not be refused because one of its figures is none."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _flat_json(values: Mapping[str, object]) -> str:
    return json.dumps(_finite(values), ensure_ascii=False, separators=(",", ":")) if values else ""


def _event_to_pb(event: Event) -> pb.Event:
    lon, lat = event.location or (0.0, 0.0)
    return pb.Event(
        id=event.id,
        type=event.type,
        ts_ms=event.ts_ms,
        seen_ms=event.seen_ms,
        source=event.source,
        scenario=event.scenario,
        level=LEVEL_RANK[event.level],
        state=_STATES.index(event.state),
        key=event.key,
        values_json=_flat_json(event.values),
        quality=_QUALITIES.index(event.quality),
        lon=lon,
        lat=lat,
        evidence=[_ref_to_pb(ref) for ref in event.evidence],
        drill=event.drill,
    )


def _event_from_pb(event: pb.Event) -> Event:
    if not event.id or not event.type or not event.source or len(event.id) > 64:
        raise ContractError("an event without id, type or source", reason="event")
    if event.level >= len(LEVELS) or event.state >= len(_STATES) or event.quality >= len(_QUALITIES):
        raise ContractError(f"event {event.id}: unknown level, state or quality", reason="event")
    if _STATES[event.state] and not event.key:
        raise ContractError(f"event {event.id}: an alarm without a key", reason="event")
    values = _flat(event.values_json, f"event {event.id}", "event")
    placed = bool(event.lon or event.lat)
    if placed and not (-180 <= event.lon <= 180 and -90 <= event.lat <= 90):
        raise ContractError(f"event {event.id}: a place that is not on Earth", reason="event")
    return Event(
        id=event.id,
        type=event.type,
        ts_ms=event.ts_ms,
        seen_ms=event.seen_ms,
        source=event.source,
        scenario=event.scenario,
        level=LEVELS[event.level],
        state=_STATES[event.state],
        key=event.key,
        values=values,
        quality=_QUALITIES[event.quality],
        location=(event.lon, event.lat) if placed else None,
        evidence=tuple(_ref_from_pb(ref) for ref in event.evidence),
        drill=event.drill,
    )


def _flat(text: str, what: str, reason: str) -> dict[str, Any]:
    try:
        values = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{what}: values are not JSON", reason=reason) from error
    if not isinstance(values, dict) or not all(_plain(value) for value in values.values()):
        raise ContractError(f"{what}: values are not one flat object", reason=reason)
    return values


def _run(number: int) -> int:
    if number > MOST_RUN:
        raise ContractError(f"clock run {number}; at most {MOST_RUN}", reason="time")
    return number


def _correction_from_pb(c: pb.ClockCorrection) -> ClockCorrection:
    if not 0 <= c.from_ms < c.to_ms or c.uncertainty_ms < 0 or c.from_ms + c.offset_ms < 0:
        raise ContractError("a clock correction that corrects nothing or to before 1970", reason="time")
    if c.to_ms > _LATEST_MS or c.to_ms + c.offset_ms > _LATEST_MS or c.uncertainty_ms > _LATEST_MS or c.run > MOST_RUN:
        raise ContractError("a clock correction to beyond 2100, or of an impossible run", reason="time")
    return ClockCorrection(c.from_ms, c.to_ms, c.offset_ms, c.uncertainty_ms, c.reason[:64], c.run)


def _outcome_from_pb(o: pb.CommandOutcome) -> CommandOutcome:
    if not o.id or len(o.id) > 128 or o.state not in OUTCOME_STATES:
        raise ContractError(f"outcome {o.id[:40]!r} in no known state {o.state[:20]!r}", reason="outcome")
    read_back = _flat(o.read_back_json, f"outcome {o.id[:40]}", "outcome")
    return CommandOutcome(o.id, o.state, o.code, o.detail, read_back, o.at_ms)


def _reported_from_pb(r: pb.Reported) -> Reported:
    if not r.name or len(r.name) > 64 or r.state not in REPORTED_STATES or r.version >= 1 << 63:
        raise ContractError(f"report {r.name[:40]!r} in no known state {r.state[:20]!r}", reason="reported")
    document: Any = None
    if r.document_json:
        try:
            document = json.loads(r.document_json) if len(r.document_json) <= MAX_DOCUMENT_BYTES else ""
        except (ValueError, RecursionError) as error:
            raise ContractError(f"report {r.name[:40]}: no JSON", reason="reported") from error
        if not isinstance(document, dict):
            raise ContractError(f"report {r.name[:40]}: no JSON object, or too long", reason="reported")
    return Reported(r.name, r.version, r.state, r.detail, document, r.at_ms)


def _plain(value: object) -> bool:
    """Text, a truth value, nothing, or a number that a double can hold."""
    if isinstance(value, int | float):
        return abs(value) <= _MOST
    return value is None or isinstance(value, str)


def encode(batch: Batch, codes: Mapping[int, SeriesCode]) -> bytes:
    """A batch to bytes. ``codes`` covers every alias used. Raises LocalProtocolError if the result is too big."""
    body = encode_blocks(batch.readings, codes, batch.epoch * 1000)
    message = pb.Batch(
        epoch=batch.epoch,
        seq=batch.seq,
        declare=[
            pb.SeriesDecl(
                alias=d.alias,
                device=d.device,
                point=d.point,
                unit=d.unit,
                decimals=d.decimals,
                reference=d.reference,
                device_type=d.device_type,
            )
            for d in batch.declarations
        ],
        events=[_event_to_pb(e) for e in batch.events],
        devices=[
            pb.DeviceState(device=d.device, online=d.online, at_ms=d.at_ms, detail=d.detail) for d in batch.devices
        ],
        thinned=[
            pb.Thinned(
                readings=t.readings,
                reason=t.reason,
                first_ms=t.first_ms,
                last_ms=t.last_ms,
                digest=t.digest,
                series=[
                    pb.ThinnedSeries(alias=one.alias, readings=one.readings, first_ms=one.first_ms, last_ms=one.last_ms)
                    for one in t.series
                ],
            )
            for t in batch.thinned
        ],
        evidence=[
            pb.EvidenceChunk(
                ref=_ref_to_pb(c.ref),
                device=c.device,
                ts_ms=c.ts_ms,
                total_bytes=c.total_bytes,
                offset_bytes=c.offset_bytes,
                content=c.content,
            )
            for c in batch.evidence
        ],
        clock=batch.clock,
        corrections=[
            pb.ClockCorrection(
                from_ms=c.from_ms,
                to_ms=c.to_ms,
                offset_ms=c.offset_ms,
                uncertainty_ms=c.uncertainty_ms,
                reason=c.reason,
                run=c.run,
            )
            for c in batch.corrections
        ],
        historical=batch.historical,
        clock_run=batch.clock_run,
        outcomes=[
            pb.CommandOutcome(
                id=o.id,
                state=o.state,
                code=o.code,
                detail=o.detail,
                read_back_json=_flat_json(o.read_back),
                at_ms=o.at_ms,
            )
            for o in batch.outcomes
        ],
        reported=[
            pb.Reported(
                name=r.name,
                version=r.version,
                state=r.state,
                detail=r.detail,
                document_json=b"" if r.document is None else json.dumps(r.document, ensure_ascii=False).encode(),
                at_ms=r.at_ms,
            )
            for r in batch.reported
        ],
    )
    packed = zstd.compress(body, 3) if len(body) >= _ZSTD_FROM_BYTES else body
    if len(packed) < len(body):
        message.readings_zstd = packed
    else:
        message.readings = body
    data = message.SerializeToString()
    if len(data) > MAX_BATCH_BYTES:
        raise LocalProtocolError(f"a batch of {len(data)} bytes; at most {MAX_BATCH_BYTES}", reason="too_big")
    return data


def open_envelope(data: bytes) -> Envelope:
    """First look at a batch. Raises ContractError: ``too_big``, ``not_protobuf``, ``no_sequence``."""
    if len(data) > MAX_BATCH_BYTES:
        raise ContractError(f"a message of {len(data)} bytes; at most {MAX_BATCH_BYTES}", reason="too_big")
    message = pb.Batch()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise ContractError("the payload is no batch", reason="not_protobuf") from error
    if not message.epoch or not message.seq or message.seq >= 1 << 63:
        raise ContractError("a batch without epoch or sequence", reason="no_sequence")
    return Envelope(message, message.epoch, message.seq, message.version or 1)


def declarations_of(envelope: Envelope) -> tuple[Declaration, ...]:
    """Raises ContractError ``declaration``."""
    found = []
    for d in envelope.message.declare:
        if not d.device or not d.point or not (d.decimals <= 12 or d.decimals == FLOAT_BITS) or d.alias >= 1 << 31:
            raise ContractError(f"series {d.alias}: an impossible declaration", reason="declaration")
        found.append(Declaration(d.alias, d.device, d.point, d.unit, d.decimals, d.reference, d.device_type))
    return tuple(found)


def refuse_newer(envelope: Envelope) -> None:
    """Raises ContractError ``newer_version``: nothing in such a batch may be believed to mean what it used to."""
    if envelope.version > WIRE_VERSION:
        raise ContractError(f"wire version {envelope.version}; this core speaks {WIRE_VERSION}", reason="newer_version")


def decode(envelope: Envelope, known: Mapping[int, SeriesCode], *, left_out: set[int] | None = None) -> Batch:
    """The whole batch. ``known``: aliases declared before; this batch's own declarations are added to it. With
    ``left_out``, ``known`` alone counts, and readings of other series are left out and named there.

    Raises ContractError: ``newer_version``, ``zstd``, ``event``, ``evidence``, ``declaration`` and those of
    :func:`~protocols.uplink.columns.decode_blocks`.
    """
    message = envelope.message
    refuse_newer(envelope)
    declarations = declarations_of(envelope)
    codes = known
    if declarations and left_out is None:
        codes = {**known, **{d.alias: d.code for d in declarations}}
    body = message.readings
    if message.readings_zstd:
        body = _decompress(message.readings_zstd)
    return Batch(
        epoch=envelope.epoch,
        seq=envelope.seq,
        readings=decode_blocks(body, codes, envelope.epoch * 1000, left_out=left_out),
        declarations=declarations,
        events=tuple(_event_from_pb(e) for e in message.events),
        devices=tuple(DeviceState(d.device, d.online, d.at_ms, d.detail) for d in message.devices),
        thinned=tuple(
            Thinned(
                t.readings,
                t.reason,
                t.first_ms,
                t.last_ms,
                t.digest,
                tuple(ThinnedSeries(o.alias, o.readings, o.first_ms, o.last_ms) for o in t.series),
            )
            for t in message.thinned
        ),
        evidence=tuple(
            EvidenceChunk(_ref_from_pb(c.ref), c.device, c.ts_ms, c.total_bytes, c.offset_bytes, c.content)
            for c in message.evidence
        ),
        clock=CLOCK_UNKNOWN if message.clock else CLOCK_SET,
        corrections=tuple(_correction_from_pb(c) for c in message.corrections),
        historical=message.historical,
        clock_run=_run(message.clock_run),
        outcomes=tuple(_outcome_from_pb(o) for o in message.outcomes),
        reported=tuple(_reported_from_pb(r) for r in message.reported),
    )


def _decompress(packed: bytes) -> bytes:
    """One whole frame, nothing behind it. Bounded whatever it claims: size, and the window it asks memory for."""
    try:
        claimed = zstd.get_frame_info(packed).decompressed_size
        if claimed is not None and claimed > MAX_BODY_BYTES:
            raise ContractError(f"readings of {claimed} bytes unpacked; at most {MAX_BODY_BYTES}", reason="too_big")
        unpacker = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX})
        body = unpacker.decompress(packed, max_length=MAX_BODY_BYTES + 1)
    except zstd.ZstdError as error:
        raise ContractError("readings do not unpack", reason="zstd") from error
    if len(body) > MAX_BODY_BYTES:
        raise ContractError(f"readings of more than {MAX_BODY_BYTES} bytes unpacked", reason="too_big")
    if not unpacker.eof or unpacker.unused_data:
        raise ContractError("readings are not one whole zstd frame", reason="zstd")
    return body


def device_of(source: str) -> tuple[str, str]:
    """``device[/point]`` to (device, point)."""
    device, _, point = source.partition("/")
    return device, point
