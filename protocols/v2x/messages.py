"""Roadside messages as our own types, in physical units: what a connector and the simulator handle.

Identities stay outside: a participant's or vehicle's temporary id is read for the moment (to count each once) and is
in no reading, report or log (the design's privacy line).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from protocols.v2x import scale
from protocols.v2x.schema import bits_of

#: Light of a phase (T/CSAE 53 LightState); the position in the list is the number in a reading.
LIGHTS = (
    *("unavailable", "dark", "flashing-red", "red", "flashing-green", "permissive-green", "protected-green"),
    *("yellow", "flashing-yellow"),
)
#: J2735 movement states in the same words.
MOVEMENTS: Mapping[str, str] = {
    "unavailable": "unavailable",
    "dark": "dark",
    "stop-Then-Proceed": "flashing-red",
    "stop-And-Remain": "red",
    "pre-Movement": "red",
    "permissive-Movement-Allowed": "permissive-green",
    "protected-Movement-Allowed": "protected-green",
    "permissive-clearance": "yellow",
    "protected-clearance": "yellow",
    "caution-Conflicting-Traffic": "flashing-yellow",
}


@dataclass(frozen=True, slots=True)
class Place:
    lon: float
    lat: float


@dataclass(frozen=True, slots=True)
class Participant:
    """A road user a roadside unit has detected. ``mark``: its number for as long as it is seen."""

    kind: str  # motor, non-motor, pedestrian, rsu, unknown
    mark: int
    source: str
    place: Place | None
    speed_mps: float | None
    heading_deg: float | None


@dataclass(frozen=True, slots=True)
class RoadUsers:
    """RSM: the road users around a roadside unit. ``rsu``: its id, hex."""

    count: int
    rsu: str
    place: Place | None
    participants: tuple[Participant, ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """The light of a phase now and how long it stays. ``left_s``: likely, None if the message does not say."""

    number: int
    light: str
    left_s: float | None = None
    least_s: float | None = None
    most_s: float | None = None


@dataclass(frozen=True, slots=True)
class Crossing:
    """``status``: numbers of the status bits that are set (2 failure flash, 8 failure, 9 off ...)."""

    region: int | None
    number: int
    phases: tuple[Phase, ...]
    status: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Signals:
    """SPAT. ``moy``: minute of the UTC year, ``second_ms``: of that minute."""

    count: int
    crossings: tuple[Crossing, ...]
    moy: int | None = None
    second_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """An event or a sign of an RSI. ``code``: event by GB/T 29100, sign by GB 5768.2; ``priority`` 0 to 7."""

    kind: str  # event, sign
    number: int
    code: int
    source: str = ""
    place: Place | None = None
    priority: int | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Notices:
    """RSI: events and signs that a roadside unit announces."""

    count: int
    rsu: str
    place: Place | None
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class Vehicle:
    """BSM: a vehicle tells of itself. ``mark``: its temporary id, for counting it once and nothing else."""

    count: int
    mark: bytes = field(repr=False)
    place: Place | None = None
    speed_mps: float | None = None
    heading_deg: float | None = None


@dataclass(frozen=True, slots=True)
class RoadMap:
    """MAP: which crossings (region, number) the unit describes."""

    count: int
    nodes: tuple[tuple[int | None, int], ...]


Message = RoadUsers | Signals | Notices | Vehicle | RoadMap


def made_ms(message: Signals, now_ms: int) -> int | None:
    """When the message was made (UTC ms), as far as it says: minute of the year and millisecond of the minute, in the
    year that is nearest to ``now_ms``."""
    if message.moy is None or message.moy >= 527_040 or message.second_ms is None or message.second_ms > 60_999:
        return None
    year = datetime.fromtimestamp(now_ms / 1000, UTC).year
    into_year_ms = message.moy * 60_000 + message.second_ms
    starts = (round(datetime(one, 1, 1, tzinfo=UTC).timestamp() * 1000) for one in (year - 1, year, year + 1))
    return min((start + into_year_ms for start in starts), key=lambda ms: abs(ms - now_ms))


def place_of(position: Mapping[str, Any]) -> Place | None:
    lat = scale.number(position.get("lat"), scale.LAT)
    lon = scale.number(position.get("long", position.get("lon")), scale.LONG)
    return None if lat is None or lon is None else Place(round(lon, 7), round(lat, 7))


def offset_place(offset: Mapping[str, Any], reference: Place | None) -> Place | None:
    """Place of a PositionOffsetLLV: absolute, or so far from the reference."""
    form, pair = offset["offsetLL"]
    if form == "position-LatLon":
        return place_of(pair)
    if reference is None:
        return None
    return Place(round(reference.lon + pair["lon"] * 1e-7, 7), round(reference.lat + pair["lat"] * 1e-7, 7))


def from_csae53(frame: tuple[str, Any]) -> Message:
    """A decoded MessageFrame of T/CSAE 53."""
    name, body = frame
    match name:
        case "bsmFrame":
            return Vehicle(
                body["msgCnt"],
                body["id"],
                place_of(body["pos"]),
                scale.number(body["speed"], scale.SPEED),
                scale.number(body["heading"], scale.HEADING),
            )
        case "rsmFrame":
            return _road_users(body)
        case "spatFrame":
            moy, second_ms = body.get("moy"), body.get("timeStamp")
            crossings = tuple(_crossing(one, moy, second_ms) for one in body["intersections"])
            return Signals(body["msgCnt"], crossings, moy, second_ms)
        case "rsiFrame":
            return _notices(body)
        case _:
            nodes = tuple((node["id"].get("region"), node["id"]["id"]) for node in body["nodes"])
            return RoadMap(body["msgCnt"], nodes)


def _road_users(body: Mapping[str, Any]) -> RoadUsers:
    reference = place_of(body["refPos"])
    return RoadUsers(
        body["msgCnt"],
        body["id"].hex(),
        reference,
        tuple(
            Participant(
                one["ptcType"],
                one["ptcId"],
                one["source"],
                offset_place(one["pos"], reference),
                scale.number(one["speed"], scale.SPEED),
                scale.number(one["heading"], scale.HEADING),
            )
            for one in body["participants"]
        ),
    )


def _crossing(body: Mapping[str, Any], moy: int | None, second_ms: int | None) -> Crossing:
    number = body["intersectionId"]
    moy, second_ms = body.get("moy", moy), body.get("timeStamp", second_ms)
    return Crossing(
        number.get("region"),
        number["id"],
        tuple(_phase(one["id"], one["phaseStates"], moy, second_ms) for one in body["phases"]),
        bits_of(body["status"]),
    )


def _phase(number: int, states: list[Mapping[str, Any]], moy: int | None, second_ms: int | None) -> Phase:
    """Of several states only the one that has begun (start 0) is trusted; without counts the first one is now."""
    for state in states:
        form, timing = _timing(state)
        if form == "counting" and timing["startTime"] != 0:
            continue
        if form == "counting":
            ends = (timing.get(key) for key in ("likelyEndTime", "minEndTime", "maxEndTime"))
            likely, least, most = (scale.number(end, scale.TIME_MARK) for end in ends)
        else:
            ends = (timing.get(key) for key in ("likelyEndUTCTime", "minEndUTCTime", "maxEndUTCTime"))
            likely, least, most = (_left_s(end, moy, second_ms) for end in ends)
        return Phase(number, state["light"], likely, least, most)
    return Phase(number, "unavailable")


def _timing(state: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return state.get("timing") or ("", {})


def _notices(body: Mapping[str, Any]) -> Notices:
    reference = place_of(body["refPos"])
    found = [_notice("event", one, "rteId", "eventType", "eventPos", reference) for one in body.get("rtes", ())]
    found += [_notice("sign", one, "rtsId", "signType", "signPos", reference) for one in body.get("rtss", ())]
    return Notices(body["msgCnt"], body["id"].hex(), reference, tuple(found))


def _notice(kind: str, one: Mapping[str, Any], number: str, code: str, place: str, reference: Place | None) -> Notice:
    priority = one.get("priority")
    return Notice(
        kind,
        one[number],
        one[code],
        one.get("eventSource", ""),
        offset_place(one[place], reference) if place in one else None,
        priority[0] >> 5 if priority else None,
        _text(one.get("description")),
    )


def _text(description: tuple[str, Any] | None) -> str:
    if description is None:
        return ""
    form, text = description
    return text if form == "textString" else bytes(text).decode("gb18030", "replace")


def from_j2735(name: str, body: Mapping[str, Any]) -> Message | None:
    """A decoded J2735 message; None for those that say nothing about the street as a whole (SRM, SSM, TIM, PSM)."""
    match name:
        case "SPAT":
            crossings = tuple(_movements(one) for one in body["intersections"])
            first = body["intersections"][0]
            return Signals(
                first["revision"], crossings, body.get("timeStamp", first.get("moy")), first.get("timeStamp")
            )
        case "BasicSafetyMessage":
            core = body["coreData"]
            return Vehicle(
                core["msgCnt"],
                core["id"],
                place_of(core),
                scale.number(core["speed"], scale.SPEED),
                scale.number(core["heading"], scale.HEADING),
            )
        case "MapData":
            nodes = tuple((one["id"].get("region"), one["id"]["id"]) for one in body.get("intersections", ()))
            return RoadMap(body["msgIssueRevision"], nodes)
        case _:
            return None


def _movements(body: Mapping[str, Any]) -> Crossing:
    number = body["id"]
    second_ms = body.get("timeStamp")
    moy = body.get("moy")
    phases = []
    for state in body["states"]:
        now = state["state-time-speed"][0]
        timing = now.get("timing", {})
        ends = (timing.get(key) for key in ("likelyTime", "minEndTime", "maxEndTime"))
        likely, least, most = (_left_s(end, moy, second_ms) for end in ends)
        light = MOVEMENTS[now["eventState"]]
        phases.append(Phase(state["signalGroup"], light, least if likely is None else likely, least, most))
    return Crossing(number.get("region"), number["id"], tuple(phases), bits_of(body["status"]))


def _left_s(mark: int | None, moy: int | None, second_ms: int | None) -> float | None:
    """Seconds until a TimeMark (tenths in the current or next hour), as far as the message says when it was made."""
    if mark is None or mark >= 36_000 or moy is None or second_ms is None or second_ms > 60_999:
        return None
    now = moy % 60 * 600 + second_ms / 100
    left = (mark - now) % 36_000
    # A mark a little before now has just passed; it is not an hour away.
    return round((left if left < 35_000 else 0.0) / 10, 1)
