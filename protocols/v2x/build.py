"""Our types to T/CSAE 53 bytes: what the simulator sends, and the other direction for whoever needs it.

Values go out at the wire's resolution; what is None goes out as the format's "unknown".
"""

from __future__ import annotations

from typing import Any

from protocols.core.errors import LocalProtocolError
from protocols.v2x.messages import (
    Message,
    Notice,
    Notices,
    Participant,
    Phase,
    Place,
    RoadMap,
    RoadUsers,
    Signals,
    Vehicle,
)
from protocols.v2x.scale import HEADING, LAT, LONG, SPEED, TIME_MARK, Unit
from protocols.v2x.schema import encode

#: Offsets in 1e-7 degree of each form of PositionOffsetLL, smallest first.
_OFFSETS = ((2048, "1"), (8192, "2"), (32_768, "3"), (131_072, "4"), (2_097_152, "5"), (8_388_608, "6"))


def frame_of(message: Message) -> bytes:
    """The MessageFrame. Raises LocalProtocolError (a list too long, a number outside its range)."""
    match message:
        case RoadUsers():
            value: tuple[str, Any] = ("rsmFrame", _road_users(message))
        case Signals():
            value = ("spatFrame", _signals(message))
        case Notices():
            value = ("rsiFrame", _notices(message))
        case Vehicle():
            value = ("bsmFrame", _vehicle(message))
        case RoadMap():
            value = ("mapFrame", _road_map(message))
    return encode("csae53", "MessageFrame", value)


def _raw(value: float | None, unit: Unit) -> int:
    if value is None:
        return unit.none[0]
    return round(value / float(unit.factor))


def _place(place: Place | None) -> dict[str, int]:
    if place is None:
        return {"lat": LAT.none[0], "long": LONG.none[0]}
    return {"lat": round(place.lat * 1e7), "long": round(place.lon * 1e7)}


def _offset(place: Place | None, reference: Place | None) -> dict[str, Any]:
    if place is None:
        return {"offsetLL": ("position-LatLon", {"lon": LONG.none[0], "lat": LAT.none[0]})}
    if reference is not None:
        pair = {
            "lon": round(place.lon * 1e7) - round(reference.lon * 1e7),
            "lat": round(place.lat * 1e7) - round(reference.lat * 1e7),
        }
        for limit, form in _OFFSETS:
            if all(-limit <= part < limit for part in pair.values()):
                return {"offsetLL": (f"position-LL{form}", pair)}
    return {"offsetLL": ("position-LatLon", {"lon": round(place.lon * 1e7), "lat": round(place.lat * 1e7)})}


def _id(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError as error:
        raise LocalProtocolError(f"id {text!r} is not hex", reason="encode") from error
    if len(found) != 8:
        raise LocalProtocolError(f"id {text!r}: 8 bytes", reason="encode")
    return found


def _road_users(message: RoadUsers) -> dict[str, Any]:
    return {
        "msgCnt": message.count,
        "id": _id(message.rsu),
        "refPos": _place(message.place),
        "participants": [_participant(one, message.place) for one in message.participants],
    }


def _participant(one: Participant, reference: Place | None) -> dict[str, Any]:
    return {
        "ptcType": one.kind,
        "ptcId": one.mark,
        "source": one.source,
        "secMark": 65_535,
        "pos": _offset(one.place, reference),
        "posConfidence": {"pos": "unavailable"},
        "speed": _raw(one.speed_mps, SPEED),
        "heading": _raw(one.heading_deg, HEADING),
        "size": {"width": 0, "length": 0},
    }


def _signals(message: Signals) -> dict[str, Any]:
    body: dict[str, Any] = {"msgCnt": message.count}
    if message.moy is not None:
        body["moy"] = message.moy
    if message.second_ms is not None:
        body["timeStamp"] = message.second_ms
    body["intersections"] = [
        {
            "intersectionId": {"id": one.number} if one.region is None else {"region": one.region, "id": one.number},
            "status": (sum(1 << (15 - bit) for bit in one.status).to_bytes(2, "big"), 16),
            "phases": [{"id": phase.number, "phaseStates": [_phase(phase)]} for phase in one.phases],
        }
        for one in message.crossings
    ]
    return body


def _phase(phase: Phase) -> dict[str, Any]:
    if phase.left_s is None:
        return {"light": phase.light}
    timing = {"startTime": 0, "likelyEndTime": _raw(phase.left_s, TIME_MARK)}
    if phase.least_s is not None:
        timing["minEndTime"] = _raw(phase.least_s, TIME_MARK)
    if phase.most_s is not None:
        timing["maxEndTime"] = _raw(phase.most_s, TIME_MARK)
    return {"light": phase.light, "timing": ("counting", timing)}


def _notices(message: Notices) -> dict[str, Any]:
    body: dict[str, Any] = {"msgCnt": message.count, "id": _id(message.rsu), "refPos": _place(message.place)}
    events = [_notice(one, message.place, "rteId", "eventType") for one in message.notices if one.kind == "event"]
    signs = [_notice(one, message.place, "rtsId", "signType") for one in message.notices if one.kind == "sign"]
    if events:
        body["rtes"] = events
    if signs:
        body["rtss"] = signs
    return body


def _notice(one: Notice, reference: Place | None, number: str, code: str) -> dict[str, Any]:
    body: dict[str, Any] = {number: one.number, code: one.code}
    if one.kind == "event":
        body["eventSource"] = one.source or "unknown"
    if one.place is not None:
        body["eventPos" if one.kind == "event" else "signPos"] = _offset(one.place, reference)
    if one.text:
        form = "textString" if one.text.isascii() else "textGB2312"
        body["description"] = (form, one.text if one.text.isascii() else one.text.encode("gb18030"))
    if one.priority is not None:
        body["priority"] = bytes((one.priority << 5,)) if 0 <= one.priority < 8 else b""
    return body


def _vehicle(message: Vehicle) -> dict[str, Any]:
    return {
        "msgCnt": message.count,
        "id": message.mark,
        "secMark": 65_535,
        "pos": _place(message.place),
        "transmission": "unavailable",
        "speed": _raw(message.speed_mps, SPEED),
        "heading": _raw(message.heading_deg, HEADING),
        "accelSet": {"long": 2001, "lat": 2001, "vert": -127, "yaw": 0},
        "brakes": {},
        "size": {"width": 0, "length": 0},
        "vehicleClass": {"classification": 0},
    }


def _road_map(message: RoadMap) -> dict[str, Any]:
    unknown = _place(None)
    nodes = [
        {"id": {"id": number} if region is None else {"region": region, "id": number}, "refPos": unknown}
        for region, number in message.nodes
    ]
    return {"msgCnt": message.count, "nodes": nodes}
