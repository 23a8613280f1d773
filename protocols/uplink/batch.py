"""A batch: bytes on the wire <-> columns, events, evidence.

Decoding a batch needs the declarations made before it in the same epoch; they are passed in as ``known``. Nothing here
touches a socket, a clock or a disk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from backports import zstd
from google.protobuf.message import DecodeError

from protocols.core.errors import ContractError, LocalProtocolError
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.columns import FLOAT_BITS, SeriesCode, decode_blocks, encode_blocks
from protocols.uplink.convert import (
    clock_run,
    correction_from_pb,
    event_from_pb,
    event_to_pb,
    flat_json,
    outcome_from_pb,
    ref_from_pb,
    ref_to_pb,
    reported_from_pb,
)
from protocols.uplink.parts import (
    CLOCK_SET,
    CLOCK_UNKNOWN,
    MAX_DOCUMENT_BYTES,
    MOST_RUN,
    OUTCOME_STATES,
    REPORTED_STATES,
    Batch,
    ClockCorrection,
    CommandOutcome,
    Declaration,
    DeviceState,
    EvidenceChunk,
    Reported,
    Thinned,
    ThinnedSeries,
)
from protocols.uplink.quantity import quantise, scale, to_float

__all__ = [
    "CLOCK_SET",
    "CLOCK_UNKNOWN",
    "MAX_BATCH_BYTES",
    "MAX_BODY_BYTES",
    "MAX_DOCUMENT_BYTES",
    "MOST_RUN",
    "OUTCOME_STATES",
    "REPORTED_STATES",
    "WIRE_VERSION",
    "Batch",
    "ClockCorrection",
    "CommandOutcome",
    "Declaration",
    "DeviceState",
    "Envelope",
    "EvidenceChunk",
    "Reported",
    "Thinned",
    "ThinnedSeries",
    "declarations_of",
    "decode",
    "device_of",
    "encode",
    "open_envelope",
    "quantise",
    "refuse_newer",
    "scale",
    "to_float",
]

WIRE_VERSION = 1
MAX_BATCH_BYTES = 1 << 20  # what a gateway may send in one message; brokers are configured to it
MAX_BODY_BYTES = 16 << 20  # after decompression
_WINDOW_LOG_MAX = 24  # 16 MiB, what a body may have
_ZSTD_FROM_BYTES = 96  # below this a zstd frame only adds bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """What can be known of a batch without the declarations: enough to place it, repeat it or set it aside."""

    message: pb.Batch
    epoch: int
    seq: int
    version: int


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
                ref=ref_to_pb(c.ref),
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
                read_back_json=flat_json(o.read_back),
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
    for event in batch.events:
        event_to_pb(event, message.events.add())
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
        events=tuple(event_from_pb(e) for e in message.events),
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
            EvidenceChunk(ref_from_pb(c.ref), c.device, c.ts_ms, c.total_bytes, c.offset_bytes, c.content)
            for c in message.evidence
        ),
        clock=CLOCK_UNKNOWN if message.clock else CLOCK_SET,
        corrections=tuple(correction_from_pb(c) for c in message.corrections),
        historical=message.historical,
        clock_run=clock_run(message.clock_run),
        outcomes=tuple(outcome_from_pb(o) for o in message.outcomes),
        reported=tuple(reported_from_pb(r) for r in message.reported),
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
