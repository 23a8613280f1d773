"""A captured V2X message told field by field.

Fields are bits, not bytes: the offset shown is the byte in which a field begins, the length the bytes it touches.
Where the capture does not say which set and type it is, the readings that are possible are tried and the one is told
that uses up the bytes and puts the sender into China.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from protocols.core.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, refused
from protocols.v2x import frame as frames
from protocols.v2x import scale
from protocols.v2x.labels import FIELDS, LIGHTS_ZH, TITLES
from protocols.v2x.schema import Read, Set, decode, not_carried, plain, types

NAME = "v2x"
MAX_FIELDS = 4_000
#: Bare bodies tried when nobody says what the bytes are, in order of how often they are seen.
_BODIES = ("RoadsideSafetyMessage", "SPAT", "BasicSafetyMessage", "RoadSideInformation", "MapData")
#: What a message in JSON has at its top.
_JSON_KEYS = frozenset({"participants", "intersections", "rtes", "rtss", "refPos", "msgCnt", "nodes"})
_CHINA = (73.0, 3.0, 136.0, 54.0)
_SCALARS = {"SteeringWheelAngle": scale.ANGLE, "Speed": scale.SPEED, "Heading": scale.HEADING}
_PART_TWO = {0: "VehicleSafetyExtensions", 2: "SupplementalVehicleExtensions"}


@dataclass(frozen=True, slots=True)
class _Reading:
    """One way to read the bytes: where the message starts, what it is, what was found."""

    which: Set
    type_name: str
    offset: int
    data: bytes
    read: Read
    message_id: int | None = None

    @property
    def left(self) -> bytes:
        return self.data[(self.read.bits + 7) // 8 :]

    def doubt(self) -> int:
        """How unlikely: bytes left over, positions far away or impossible."""
        doubt = 4 * (len(self.left) > 1 or any(self.left))
        places = list(_places(self.read.value))
        west, south, east, north = _CHINA
        far = [1 for lon, lat in places if not (west <= lon <= east and south <= lat <= north)]
        return doubt + (2 if far and self.which == "csae53" else 0) + (1 if not places else 0)


def explain(capture: Capture) -> Explanation:
    """Tell what is in the capture; never raises for what is in it."""
    data = capture.data
    try:
        if (told := _json(capture)) is not None:
            return told
        if not data:
            return refused(NAME, "empty", "nothing to read", capture=capture)
        schema = str(capture.extra.get("schema", ""))
        if capture.kind == "uper-wrapped" or "wrapper" in schema:
            return _wrapped(capture)
        if schema or capture.extra.get("type"):
            return _told(_named(capture, schema), capture)
        return _guessed(capture)
    except RemoteProtocolError as error:
        # A length that does not fit is a message that cannot be decoded: one word for both.
        reason = "decode" if error.reason in ("length", "short") and capture.kind == "uper" else error.reason
        return refused(NAME, reason, str(error), capture=capture, hints=_hints(data, error.reason))
    except (LocalProtocolError, ConfigError) as error:
        return refused(NAME, getattr(error, "reason", "config"), str(error), capture=capture)


def _named(capture: Capture, schema: str) -> _Reading:
    """Set and type are given."""
    type_name = str(capture.extra.get("type") or "MessageFrame")
    if "J2735" in schema.upper() or (not schema and type_name not in types("csae53")):
        if type_name == "MessageFrame":
            return _j2735(capture.data)
        return _Reading("j2735", type_name, 0, capture.data, decode("j2735", type_name, capture.data, spans=True))
    reading = _csae53(type_name, 0, capture.data)
    if type_name == "MessageFrame" and reading.doubt() >= 2 and (name := _other_set(capture.data)):
        raise RemoteProtocolError(f"a J2735 {name}: read as T/CSAE 53 it makes no sense", reason="decode")
    return reading


def _other_set(data: bytes) -> str:
    """The J2735 message whose id and length fit these bytes exactly, "" if none does."""
    try:
        found = frames.j2735(data)
    except RemoteProtocolError:
        return ""
    return found.type_name if len(found.trailing) < 2 and not any(found.trailing) else ""


def _csae53(type_name: str, offset: int, data: bytes) -> _Reading:
    if type_name == "MessageFrame" and data and data[0] & 0x80:
        raise RemoteProtocolError("a kind of message behind the extension mark (day 2 set)", reason="extension")
    return _Reading("csae53", type_name, offset, data, decode("csae53", type_name, data, spans=True))


def _j2735(data: bytes) -> _Reading:
    at, inner = frames.payload_of_radio(data)
    found = frames.j2735(inner, at)
    if not found.type_name:
        raise RemoteProtocolError(f"message id {found.message_id} is none that is read here", reason="message_id")
    read = decode("j2735", found.type_name, found.body, spans=True)
    if beyond := not_carried(read.value):
        raise RemoteProtocolError(f"has {beyond}, whose layout is not known here", reason="not_carried")
    return _Reading("j2735", found.type_name, found.offset, found.body, read, found.message_id)


def _guessed(capture: Capture) -> Explanation:
    """Nobody says what it is. A bare body is believed only if nothing speaks against it."""
    data = capture.data
    with contextlib.suppress(RemoteProtocolError):
        return _wrapped(capture)
    found: list[_Reading] = []
    refusal: RemoteProtocolError | None = None
    framed: tuple[Callable[[], _Reading], ...] = (
        lambda: _j2735(data),
        lambda: _csae53("MessageFrame", 0, data),
    )
    for attempt in framed:
        try:
            found.append(attempt())
        except RemoteProtocolError as error:
            refusal = error
    bodies: list[_Reading] = []
    if not any(one.doubt() == 0 for one in found):
        for name in _BODIES:
            with contextlib.suppress(RemoteProtocolError):
                bodies.append(_csae53(name, 0, data))
    found = [one for one in found if one.doubt() < 4] + [one for one in bodies if one.doubt() == 0]
    if not found:
        raise refusal or RemoteProtocolError("no reading uses up the bytes", reason="decode")
    return _told(min(found, key=_Reading.doubt), capture)


def _wrapped(capture: Capture) -> Explanation:
    wrapped = frames.unwrap(capture.data)
    told: list[Told] = []
    values: list[Any] = []
    head: tuple[Field, ...] = (
        Field("device_id", wrapped.device_id, 0, 8, "设备编号", "device id"),
        Field("timestamp_ms", wrapped.time_ms, 8, 8, "时间 (毫秒, 小端)", "milliseconds since 1970, little endian"),
        Field("frames", len(wrapped.frames), 16, 1 if wrapped.batch else 0, "帧数", "frames"),
    )
    for at, data in wrapped.frames:
        try:
            reading = _csae53("MessageFrame", at, data)
        except RemoteProtocolError as error:
            told.append(
                Told(at, len(data), "V2X", error=error.reason, detail=str(error), hints=_hints(data, error.reason))
            )
            continue
        one = _tell(reading)
        told.append(Told(at, len(data), one.title, head + one.fields, one.values, hints=one.hints))
        values.append(one.values["value"])
        head = ()
    good = [one for one in told if one.ok]
    whole = {
        "device_id": wrapped.device_id,
        "timestamp_ms": wrapped.time_ms,
        "frames": values,
        "frame_hex": [data.hex() for _, data in wrapped.frames],
        "batch": wrapped.batch,
        **({"scaled": good[0].values["scaled"]} if good and good[0].values.get("scaled") else {}),
    }
    return Explanation(NAME, tuple(told), whole if good else {})


def _told(reading: _Reading, capture: Capture) -> Explanation:
    told = _tell(reading)
    rest = reading.left if any(reading.left) else b""
    return Explanation(NAME, (told,), dict(told.values), rest)


def _tell(reading: _Reading) -> Told:
    shown = plain(reading.read.value, reading.which)
    values: dict[str, Any] = {"value": shown}
    scaled = _scaled(reading)
    if scaled:
        values["scaled"] = scaled
    zh, en = TITLES.get(reading.type_name, ("", reading.type_name))
    if reading.type_name == "MessageFrame":
        name = reading.read.value[0]
        zh, en = FIELDS[name]
        values["name"] = name
    if reading.message_id is not None:
        values |= {"message_id": reading.message_id, "name": reading.type_name}
        if reading.type_name == "BasicSafetyMessage":
            _part_two(shown, reading.read.value)
    fields = tuple(_fields(reading.read.value, reading.which, reading.offset, reading.read.spans))
    length = (reading.read.bits + 7) // 8
    title = f"{zh} {en}".strip() + (" (T/CSAE 53)" if reading.which == "csae53" else " (J2735)")
    return Told(reading.offset, length, title, fields, values, hints=tuple(_doubts(reading)))


def _part_two(shown: Any, value: Mapping[str, Any]) -> None:
    """BSM part II holds messages of their own: read in place where their layout is carried."""
    for one, raw in zip(shown.get("partII", ()), value.get("partII", ()), strict=True):
        name = _PART_TWO.get(raw["partII-Id"])
        if name is None:
            continue
        try:
            read = decode("j2735", name, raw["partII-Value"], spans=True)
        except RemoteProtocolError:
            continue
        if not not_carried(read.value):
            one["partII-Value"] = [name, plain(read.value, "j2735")]


# -- walking a value


def _fields(value: Any, which: Set, offset: int = 0, spans: tuple[tuple[int, int], ...] = ()) -> Iterator[Field]:
    """Leaves as ``a.b[0].c``, with unit where the field has one, and where they are."""
    for number, (path, names, leaf) in enumerate(_leaves(value)):
        if number == MAX_FIELDS:
            yield Field("...", "more fields", zh="其余字段略", en="not shown")
            return
        first, last = spans[number] if number < len(spans) else (0, 0)
        at = offset + first // 8 if last else None
        length = (last + 7) // 8 - first // 8 if last else None
        name = names[-1] if names else ""
        zh, en = FIELDS.get(name, ("", ""))
        shown = plain(leaf, which) if not isinstance(leaf, str | int | bool | type(None)) else leaf
        unit = scale.unit_of(names) if isinstance(leaf, int) and not isinstance(leaf, bool) else None
        if unit is not None:
            amount = unit.of(leaf)
            shown = "无效 / no value" if amount is None else f"{amount.normalize():f} {unit.unit}"
        elif name == "light" and isinstance(leaf, str):
            zh = f"灯色: {LIGHTS_ZH.get(leaf, leaf)}"
        yield Field(path, shown, at, length, zh, en)


def _leaves(value: Any, path: str = "", names: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    if isinstance(value, tuple) and isinstance(value[0], str):
        yield from _leaves({value[0]: value[1]}, path, names)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _leaves(one, f"{path}.{key}" if path else key, (*names, key))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _leaves(one, f"{path}[{number}]", names)
    else:
        yield path or "value", names, value


def _places(value: Any) -> Iterator[tuple[float, float]]:
    """Absolute positions (lon, lat) in it, unknown ones left out."""
    if isinstance(value, tuple) and isinstance(value[0], str):
        yield from _places(value[1])
    elif isinstance(value, Mapping):
        lat, lon = value.get("lat"), value.get("long")
        if isinstance(lat, int) and isinstance(lon, int) and "vert" not in value:
            if lat not in scale.LAT.none and lon not in scale.LONG.none:
                yield lon * 1e-7, lat * 1e-7
        else:
            for one in value.values():
                yield from _places(one)
    elif isinstance(value, list):
        for one in value:
            yield from _places(one)


def _scaled(reading: _Reading) -> dict[str, Any]:
    """The physical values that matter, under short names with units."""
    value = reading.read.value
    if isinstance(value, int) and not isinstance(value, bool):
        unit = {"SteeringWheelAngle": scale.ANGLE, "Speed": scale.SPEED, "Heading": scale.HEADING}.get(
            reading.type_name
        )
        return {} if unit is None else {"value": _number(unit.of(value)), "unit": unit.unit}
    body = value[1] if isinstance(value, tuple) and isinstance(value[0], str) else value
    if not isinstance(body, Mapping):
        return {}
    if "participants" in body:
        return _motion(body["participants"][0])
    if "phases" in (body.get("intersections") or [{}])[0]:
        return {"phases": [_phase(one, number) for one in body["intersections"] for number in one["phases"]]}
    return _motion(body.get("coreData", body))


def _phase(crossing: Mapping[str, Any], phase: Mapping[str, Any]) -> dict[str, Any]:
    state = phase["phaseStates"][0]
    form, timing = _timing(state)
    left = scale.TIME_MARK.of(timing["likelyEndTime"]) if form == "counting" else None
    number = crossing["intersectionId"]["id"]
    return {"intersection": number, "id": phase["id"], "light": state["light"], "left_s": _number(left)}


def _timing(state: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return state.get("timing") or ("", {})


def _motion(body: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    place = body.get("pos", body.get("position", body))
    if isinstance(place, Mapping) and "lat" in place and "vert" not in place:
        out["lat"] = _number(scale.LAT.of(place["lat"]))
        out["lon"] = _number(scale.LONG.of(place.get("long", place.get("lon", scale.LONG.none[0]))))
        high = place.get("elevation", place.get("elev"))
        if high is not None:
            out["elevation_m"] = _number(scale.ELEVATION.of(high))
    if isinstance(body.get("speed"), int):
        out["speed_mps"] = _number(scale.SPEED.of(body["speed"]))
    if isinstance(body.get("heading"), int):
        out["heading_deg"] = _number(scale.HEADING.of(body["heading"]))
    return out


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


# -- doubts


def _doubts(reading: _Reading) -> Iterator[str]:
    if len(reading.left) > 1 or any(reading.left):
        yield (
            f"{len(reading.left)} bytes follow the message: wrong type or set? "
            f"消息后还有 {len(reading.left)} 字节: 类型或消息集可能不对"
        )
    west, south, east, north = _CHINA
    if reading.which == "csae53" and any(
        not (west <= lon <= east and south <= lat <= north) for lon, lat in _places(reading.read.value)
    ):
        yield "a position is outside China: is this a J2735 frame, or a body without its frame? 位置不在中国境内"
    body = reading.read.value[1] if isinstance(reading.read.value, tuple) else reading.read.value
    if isinstance(body, Mapping) and "participants" in body and isinstance(body["refPos"].get("lat"), int):
        reference = body["refPos"]
        for one in body["participants"]:
            form, pair = one["pos"]["offsetLL"]
            if form == "position-LatLon" and abs(pair["lat"] - reference["lat"]) > 1_000_000:
                yield "a road user is more than 10 km from its roadside unit 参与者距路侧单元超过 10 km"
                return


def _hints(data: bytes, reason: str) -> tuple[str, ...]:
    hints: list[str] = []
    if len(data) > 3 and data[0] == 0 and data[1] in frames.J2735_NAMES:
        hints.append(f"starts like a J2735 {frames.J2735_NAMES[data[1]]} (id {data[1]}) 像是 J2735 消息")
    if reason == "decode":
        hints.append(
            "cut short, a body without its frame, or the other message set? 报文被截断, 缺外层帧, 或消息集不对?"
        )
    if reason == "extension":
        hints.append("T/CSAE 157 (day 2) messages stand behind the mark; their bytes are kept 第二阶段消息, 仅保留字节")
    if reason in ("time", "length") and data:
        hints.append("try it without the vendor's wrapper 试试不带厂商封装")
    return tuple(hints)


# -- JSON of OpenV2X


def _json(capture: Capture) -> Explanation | None:
    """Units that hand on JSON (topics ``V2X/RSU/{id}/RSM/UP`` ...): shown as it is; the integers are wire units. None
    for what is no such thing."""
    if capture.data[:1] not in (b"{", b"["):
        return None
    try:
        value = json.loads(capture.data)
    except (ValueError, RecursionError):
        return None
    keys = set(value) if isinstance(value, dict) else set()
    if not capture.topic.startswith("V2X/") and not keys & _JSON_KEYS:
        return None
    parts = capture.topic.split("/")
    title = f"OpenV2X {parts[-2]}" if len(parts) > 2 else "OpenV2X JSON"
    fields = tuple(_fields(value, "csae53"))
    return Explanation(NAME, (Told(0, len(capture.data), title, fields, {"value": value, "topic": capture.topic}),))
