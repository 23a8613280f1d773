"""Parts of a batch to protobuf and back, with every check that needs no database. Raises ContractError."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import msgspec

from protocols.core.errors import ContractError
from protocols.core.model import LEVEL_RANK, LEVELS, Event, EvidenceRef
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.parts import (
    MAX_DOCUMENT_BYTES,
    MOST_RUN,
    OUTCOME_STATES,
    REPORTED_STATES,
    ClockCorrection,
    CommandOutcome,
    Reported,
)

_LATEST_MS = 4_102_444_800_000  # 2100-01-01: beyond it is no clock error any more but garbage
_MOST = 1e308  # compared, not converted: an integer of JSON may have thousands of digits
_STATES: tuple[Literal["", "raise", "update", "clear"], ...] = ("", "raise", "update", "clear")
_QUALITIES: tuple[Literal["good", "suspect", "manual"], ...] = ("good", "suspect", "manual")
_STATE_NUMBER = {state: number for number, state in enumerate(_STATES)}
_QUALITY_NUMBER = {quality: number for number, quality in enumerate(_QUALITIES)}
_JSON = msgspec.json.Encoder()


def ref_to_pb(ref: EvidenceRef) -> pb.EvidenceRef:
    return pb.EvidenceRef(sha256=bytes.fromhex(ref.sha256), kind=ref.kind, masked=ref.masked, mime=ref.mime)


def ref_from_pb(ref: pb.EvidenceRef) -> EvidenceRef:
    if len(ref.sha256) != 32 or ref.kind not in ("still", "clip"):
        raise ContractError("an evidence reference without a SHA-256 or of unknown kind", reason="evidence")
    return EvidenceRef(ref.sha256.hex(), cast(Literal["still", "clip"], ref.kind), ref.masked, ref.mime)


def _finite(values: Mapping[str, object]) -> dict[str, object]:
    """JSON has no NaN and no infinity; an alarm must not be refused because one of its figures is none."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def flat_json(values: Mapping[str, object]) -> str:
    """msgspec writes what is no number as null, and quickly; what it does not know goes the slow way."""
    if not values:
        return ""
    try:
        return _JSON.encode(values).decode()
    except (TypeError, OverflowError, ValueError):
        return json.dumps(_finite(values), ensure_ascii=False, separators=(",", ":"))


def event_to_pb(event: Event, into: pb.Event | None = None) -> pb.Event:
    """``into``: an empty event of a batch, so that nothing is copied. Fields that are at their default are left out."""
    message = into if into is not None else pb.Event()
    message.id, message.type, message.source = event.id, event.type, event.source
    message.ts_ms, message.seen_ms = event.ts_ms, event.seen_ms
    if event.scenario:
        message.scenario = event.scenario
    if event.key:
        message.key = event.key
    if event.values:
        message.values_json = flat_json(event.values)
    message.level = LEVEL_RANK[event.level]
    message.state = _STATE_NUMBER[event.state]
    message.quality = _QUALITY_NUMBER[event.quality]
    if event.location is not None:
        message.lon, message.lat = event.location
    if event.evidence:
        message.evidence.extend(ref_to_pb(ref) for ref in event.evidence)
    if event.drill:
        message.drill = True
    return message


def event_from_pb(event: pb.Event) -> Event:
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
        evidence=tuple(ref_from_pb(ref) for ref in event.evidence),
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


def clock_run(number: int) -> int:
    if number > MOST_RUN:
        raise ContractError(f"clock run {number}; at most {MOST_RUN}", reason="time")
    return number


def correction_from_pb(c: pb.ClockCorrection) -> ClockCorrection:
    if not 0 <= c.from_ms < c.to_ms or c.uncertainty_ms < 0 or c.from_ms + c.offset_ms < 0:
        raise ContractError("a clock correction that corrects nothing or to before 1970", reason="time")
    if c.to_ms > _LATEST_MS or c.to_ms + c.offset_ms > _LATEST_MS or c.uncertainty_ms > _LATEST_MS or c.run > MOST_RUN:
        raise ContractError("a clock correction to beyond 2100, or of an impossible run", reason="time")
    return ClockCorrection(c.from_ms, c.to_ms, c.offset_ms, c.uncertainty_ms, c.reason[:64], c.run)


def outcome_from_pb(o: pb.CommandOutcome) -> CommandOutcome:
    if not o.id or len(o.id) > 128 or o.state not in OUTCOME_STATES:
        raise ContractError(f"outcome {o.id[:40]!r} in no known state {o.state[:20]!r}", reason="outcome")
    read_back = _flat(o.read_back_json, f"outcome {o.id[:40]}", "outcome")
    return CommandOutcome(o.id, o.state, o.code, o.detail, read_back, o.at_ms)


def reported_from_pb(r: pb.Reported) -> Reported:
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
