"""Events of a ChirpStack server as typed values, version 4 and the third generation alike.

The kind of an event comes from its topic and from nothing else: a missing number is 0, so keys tell nothing.
Documented at chirpstack.io (integrations, events); ``application/{application}/device/{devEui}/event/{kind}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from protocols.core.errors import RemoteProtocolError
from protocols.lorawan_chirpstack import said, times

Kind = Literal["up", "join", "ack", "txack", "status", "log", "location", "integration"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: Words of the third generation; before 3.11 the level ``event`` was missing, too.
_OLD_KINDS: dict[str, Kind] = {"rx": "up", "error": "log"}


@dataclass(frozen=True, slots=True)
class Address:
    """What a topic says."""

    application: str
    dev_eui: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Head:
    """What all events carry. ``deduplication_id`` "": this kind has none. ``generation`` 3 or 4."""

    kind: Kind
    application: str
    dev_eui: str
    deduplication_id: str
    time: datetime | None
    device_name: str = ""
    profile: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    generation: int = 4


@dataclass(frozen=True, slots=True)
class Reception:
    """How one gateway heard an uplink. ``position`` (lon, lat) only where it is on Earth; ``misplaced``: it is not."""

    gateway: str
    rssi: float = 0
    snr: float = 0.0
    gateway_time: datetime | None = None
    server_time: datetime | None = None
    position: tuple[float, float] | None = None
    misplaced: bool = False


@dataclass(frozen=True, slots=True)
class Uplink:
    """``f_port`` 0 (or missing): MAC commands only, no payload. ``object``: what the server's own codec made of it."""

    head: Head
    dev_addr: str
    f_cnt: int
    f_port: int
    dr: int
    adr: bool
    confirmed: bool
    payload: bytes
    object: Mapping[str, Any]
    receptions: tuple[Reception, ...]
    frequency_hz: int
    spreading_factor: int
    bandwidth_hz: int

    @property
    def best(self) -> Reception | None:
        """The gateway that heard it best: highest SNR, then highest RSSI."""
        return max(self.receptions, key=lambda one: (one.snr, one.rssi), default=None)


@dataclass(frozen=True, slots=True)
class Join:
    head: Head
    dev_addr: str


@dataclass(frozen=True, slots=True)
class Ack:
    """Of a confirmed downlink; ``acknowledged`` false: the device did not answer."""

    head: Head
    queue_item_id: str
    acknowledged: bool
    f_cnt_down: int


@dataclass(frozen=True, slots=True)
class TxAck:
    """A gateway has sent a downlink. Nothing more: whether the device heard it nobody knows."""

    head: Head
    queue_item_id: str
    f_cnt_down: int
    gateway: str


@dataclass(frozen=True, slots=True)
class Status:
    """``battery_percent`` None: mains, or the device cannot measure it."""

    head: Head
    margin: int
    battery_percent: float | None
    external_power: bool


@dataclass(frozen=True, slots=True)
class Log:
    head: Head
    level: str
    code: str
    description: str
    context: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Location:
    """``misplaced``: outside of -90..90, -180..180; such a place is none."""

    head: Head
    latitude: float
    longitude: float
    altitude: float
    misplaced: bool


@dataclass(frozen=True, slots=True)
class Integration:
    head: Head
    name: str
    event_type: str
    object: Mapping[str, Any]


Event = Uplink | Join | Ack | TxAck | Status | Log | Location | Integration


def parse_topic(topic: str) -> Address:
    """Raises RemoteProtocolError (``topic``, ``event``, ``dev_eui``). A prefix before ``application`` is allowed."""
    parts = topic.split("/")
    at = next((n for n in range(len(parts) - 3) if parts[n] == "application" and parts[n + 2] == "device"), None)
    if at is None:
        raise RemoteProtocolError(f"{topic!r} is no topic of an application's device", reason="topic")
    dev_eui = said.identity(parts[at + 3], 8)
    if not dev_eui:
        raise RemoteProtocolError(f"{parts[at + 3]!r} is no DevEUI", reason="dev_eui")
    rest = parts[at + 4 :]
    word = rest[1] if len(rest) == 2 and rest[0] == "event" else rest[0] if len(rest) == 1 else ""
    kind = _OLD_KINDS.get(word, word)
    if kind not in KINDS:
        raise RemoteProtocolError(f"{'/'.join(rest)!r} names no event", reason="event")
    return Address(parts[at + 1], dev_eui, kind)


def parse(topic: str, data: bytes) -> Event:
    """One event. Raises RemoteProtocolError (``topic``, ``event``, ``dev_eui``, ``not_json``, ``base64``)."""
    return read(parse_topic(topic), said.table(data))


def read(address: Address, found: Mapping[str, Any]) -> Event:
    """The event of that address. ``dev_eui`` is refused if the content names another device than the topic."""
    head = _head(address, found)
    match address.kind:
        case "up":
            return _uplink(head, found)
        case "join":
            return Join(head, said.identity(said.text(found, "devAddr"), 4))
        case "ack":
            queue_item = said.text(found, "queueItemId", "queueItemID")
            return Ack(head, queue_item, said.flag(found, "acknowledged"), said.integer(found, "fCntDown", "fCnt"))
        case "txack":
            return TxAck(
                head,
                said.text(found, "queueItemId", "queueItemID"),
                said.integer(found, "fCntDown", "fCnt"),
                said.identity(said.text(found, "gatewayId", "gatewayID"), 8),
            )
        case "status":
            return _status(head, found)
        case "log":
            level = said.text(found, "level") or ("ERROR" if head.generation == 3 else "INFO")
            code, words = said.text(found, "code", "type"), said.text(found, "description", "error")
            return Log(head, level, code, words, said.inner(found, "context"))
        case "location":
            return _location(head, said.inner(found, "location"))
        case "integration":
            names = said.text(found, "integrationName"), said.text(found, "eventType")
            return Integration(head, *names, said.inner(found, "object"))


def _head(address: Address, found: Mapping[str, Any]) -> Head:
    info = said.inner(found, "deviceInfo")
    old = not info and bool(said.text(found, "devEUI", "applicationID"))
    about = found if old else info
    named = said.text(about, "devEUI", "devEui")
    if named and said.identity(named, 8) != address.dev_eui:
        text = f"the topic is of {address.dev_eui}, the content of {named}"
        raise RemoteProtocolError(text, reason="dev_eui")
    moment = times.parse(found.get("time")) or times.parse(found.get("publishedAt"))
    if moment is None and old:
        moment = next((t for t in (times.parse(one.get("time")) for one in said.items(found, "rxInfo")) if t), None)
    return Head(
        kind=address.kind,
        application=said.text(about, "applicationId", "applicationID") or address.application,
        dev_eui=address.dev_eui,
        deduplication_id=said.text(found, "deduplicationId"),
        time=moment,
        device_name=said.text(about, "deviceName"),
        profile=said.text(about, "deviceProfileName"),
        tags={str(key): str(value) for key, value in said.inner(about, "tags").items()},
        generation=3 if old else 4,
    )


def _uplink(head: Head, found: Mapping[str, Any]) -> Uplink:
    sent = said.inner(found, "txInfo")
    lora = said.inner(said.inner(sent, "modulation"), "lora") or said.inner(sent, "loRaModulationInfo")
    bandwidth = said.integer(lora, "bandwidth")
    decoded = said.inner(found, "object")
    if not decoded and isinstance(found.get("objectJSON"), str) and found["objectJSON"]:
        decoded = said.table(found["objectJSON"].encode())
    return Uplink(
        head=head,
        dev_addr=said.identity(said.text(found, "devAddr"), 4),
        f_cnt=said.integer(found, "fCnt"),
        f_port=said.integer(found, "fPort"),
        dr=said.integer(found if "dr" in found else sent, "dr"),
        adr=said.flag(found, "adr"),
        confirmed=said.flag(found, "confirmed", "confirmedUplink"),
        payload=said.base64_bytes(found.get("data")),
        object=decoded,
        receptions=tuple(_reception(one) for one in said.items(found, "rxInfo")),
        frequency_hz=said.integer(sent, "frequency"),
        spreading_factor=said.integer(lora, "spreadingFactor"),
        bandwidth_hz=bandwidth * 1000 if 0 < bandwidth < 2000 else bandwidth,  # the third generation says kHz
    )


def _reception(found: Mapping[str, Any]) -> Reception:
    place = said.inner(found, "location")
    lat, lon = said.number(place, "latitude"), said.number(place, "longitude")
    position: tuple[float, float] | None = None
    misplaced = False
    if lat is not None and lon is not None and (lat, lon) != (0, 0):  # 0, 0 is how servers say "not known"
        misplaced = not on_earth(lat, lon)
        position = None if misplaced else (lon, lat)
    return Reception(
        gateway=said.identity(said.text(found, "gatewayId", "gatewayID"), 8)
        or said.text(found, "gatewayId", "gatewayID"),
        rssi=said.number(found, "rssi") or 0,
        snr=said.number(found, "snr", "loRaSNR") or 0.0,
        gateway_time=times.parse(found.get("gwTime")) or times.parse(found.get("time")),
        server_time=times.parse(found.get("nsTime")),
        position=position,
        misplaced=misplaced,
    )


def _status(head: Head, found: Mapping[str, Any]) -> Status:
    external = said.flag(found, "externalPowerSource")
    blind = external or said.flag(found, "batteryLevelUnavailable")
    level = said.number(found, "batteryLevel") or 0.0
    return Status(head, said.integer(found, "margin"), None if blind else level, external)


def _location(head: Head, place: Mapping[str, Any]) -> Location:
    lat, lon = said.number(place, "latitude") or 0.0, said.number(place, "longitude") or 0.0
    return Location(head, lat, lon, said.number(place, "altitude") or 0.0, not on_earth(lat, lon))


def on_earth(lat: float, lon: float) -> bool:
    return -90 <= lat <= 90 and -180 <= lon <= 180
