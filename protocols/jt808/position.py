"""Where a vehicle is (0200) and many of that (0704): 28 fixed bytes, then extra items.

Offsets: 0 alarm u32; 4 status u32; 8 latitude u32 and 12 longitude u32 in 1e-6 degree, unsigned, the sign in status
bits 2 and 3; 16 altitude u16 m, signed in practice; 18 speed u16 0.1 km/h; 20 direction u16; 22 time BCD6 UTC+8;
28 items of id u8, length u8, value (JT/T 808-2019, 8.18; as the fact sheet gives it).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from zlib import crc32

from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.jt808.extras import MEANINGS, meaning
from protocols.jt808.fields import Reader, Writer, time_bcd, time_ms

_FIXED = struct.Struct(">IIIIhHH6s")
FIXED_SIZE = 28

ACC, POSITIONED, SOUTH, WEST = 0, 1, 2, 3

#: Status bits that are a yes or a no, by their names in device types.
STATUS_BITS: dict[str, int] = {
    "acc": 0, "positioned": 1, "out_of_service": 4, "coordinates_encrypted": 5, "collision_warning": 6,
    "lane_departure": 7, "fuel_cut": 10, "circuit_cut": 11, "doors_locked": 12, "door_front": 13, "door_middle": 14,
    "door_rear": 15, "door_driver": 16, "door_other": 17, "gps": 18, "beidou": 19, "glonass": 20, "galileo": 21,
    "moving": 22,
}  # fmt: skip

#: Alarm bits; those in CONFIRMED last until the platform confirms them (8203), the others until their cause goes.
ALARM_BITS: dict[str, int] = {
    "sos": 0, "overspeed": 1, "fatigue": 2, "danger": 3, "gnss_fault": 4, "antenna_open": 5, "antenna_short": 6,
    "supply_low": 7, "supply_lost": 8, "display_fault": 9, "tts_fault": 10, "camera_fault": 11, "card_fault": 12,
    "overspeed_soon": 13, "fatigue_soon": 14, "illegal_time": 15, "tyre_pressure": 16, "blind_spot": 17,
    "day_driving": 18, "parking_long": 19, "area": 20, "route": 21, "segment_time": 22, "route_left": 23,
    "speed_sensor": 24, "fuel_abnormal": 25, "theft": 26, "illegal_ignition": 27, "illegal_movement": 28,
    "collision": 29, "rollover": 30, "door_opened": 31,
}  # fmt: skip
CONFIRMED = frozenset({0, 3, 20, 21, 22, 27, 28, 31})

_ALTITUDE_UNKNOWN = -1  # FFFF, from field captures


@dataclass(frozen=True, slots=True)
class Position:
    """``extras``: (id, value) in the order they came; ``tail``: what followed the last whole item.

    Coordinates are believed only where ``positioned``: terminals repeat the last fix without it.
    """

    alarm: int = 0
    status: int = 0
    lat_raw: int = 0
    lon_raw: int = 0
    altitude_m: int = 0
    speed_raw: int = 0
    direction: int = 0
    time: bytes = b"\0" * 6
    extras: tuple[tuple[int, bytes], ...] = ()
    tail: bytes = b""

    @property
    def lat(self) -> float:
        """WGS 84 degrees, south negative (GCJ-02 where the terminal's maker says so)."""
        return _degrees(self.lat_raw, bool(self.status >> SOUTH & 1), 90_000_000)

    @property
    def lon(self) -> float:
        return _degrees(self.lon_raw, bool(self.status >> WEST & 1), 180_000_000)

    @property
    def positioned(self) -> bool:
        """There is a fix and it can be one: inside the globe, not 0/0, not encrypted."""
        fixed = self.status & 0b10_0010 == 0b10
        return fixed and (self.lat_raw != 0 or self.lon_raw != 0) and abs(self.lat) <= 90 and abs(self.lon) <= 180

    @property
    def altitude(self) -> int | None:
        return None if self.altitude_m == _ALTITUDE_UNKNOWN else self.altitude_m

    @property
    def speed_kmh(self) -> float:
        return self.speed_raw / 10

    @property
    def time_ms(self) -> int | None:
        """UTC; None where the terminal's clock is not set."""
        return time_ms(self.time)

    @property
    def digest(self) -> int:
        """CRC-32 of all it says: the same for a repeat, also after a restart."""
        fixed = _FIXED.pack(
            self.alarm, self.status, self.lat_raw, self.lon_raw, self.altitude_m, self.speed_raw, self.direction,
            self.time,
        )  # fmt: skip
        value = crc32(fixed)
        for item, data in self.extras:
            value = crc32(data, value ^ item)
        return crc32(self.tail, value)

    def alarms(self) -> list[str]:
        return [name for name, bit in ALARM_BITS.items() if self.alarm >> bit & 1]

    def extra(self, item: int) -> bytes | None:
        """The value of the first item of that id."""
        return next((value for found, value in self.extras if found == item), None)


def _degrees(raw: int, negative: bool, most: int) -> float:
    if raw > most and raw >= 1 << 31 and (1 << 32) - raw <= most:
        return (raw - (1 << 32)) / 1e6  # one library writes the sign as two's complement
    return (-raw if negative else raw) / 1e6


def make(
    *, lat: float, lon: float, time_ms: int, speed_kmh: float = 0.0, direction: int = 0, altitude_m: int = 0,
    status: int = 0b11, alarm: int = 0, extras: tuple[tuple[int, bytes], ...] = (),
) -> Position:  # fmt: skip
    """A position from degrees. Raises LocalProtocolError outside the globe."""
    if not (abs(lat) <= 90 and abs(lon) <= 180):
        raise LocalProtocolError(f"no place on Earth: {lat}, {lon}", reason="range")
    status = status & ~(1 << SOUTH | 1 << WEST) | (lat < 0) << SOUTH | (lon < 0) << WEST
    return Position(
        alarm, status, round(abs(lat) * 1e6), round(abs(lon) * 1e6), altitude_m, round(speed_kmh * 10), direction,
        time_bcd(time_ms), extras,
    )  # fmt: skip


def parse(data: bytes) -> Position:
    """A 0200 body. Raises RemoteProtocolError where the fixed part is not whole."""
    if len(data) < FIXED_SIZE:
        text = f"JT/T 808 position of {len(data)} bytes, the fixed part has 28"
        raise RemoteProtocolError(text, reason="short")
    extras: list[tuple[int, bytes]] = []
    at, size = FIXED_SIZE, len(data)
    while at + 2 <= size:
        end = at + 2 + data[at + 1]
        if end > size:
            break
        extras.append((data[at], data[at + 2 : end]))
        at = end
    alarm, status, lat, lon, altitude, speed, direction, time = _FIXED.unpack_from(data)
    return Position(alarm, status, lat, lon, altitude, speed, direction, time, tuple(extras), data[at:])


def encode(position: Position) -> bytes:
    """The bytes of a 0200 body. Raises LocalProtocolError."""
    p = position
    try:
        fixed = _FIXED.pack(p.alarm, p.status, p.lat_raw, p.lon_raw, p.altitude_m, p.speed_raw, p.direction, p.time)
    except struct.error as exc:
        raise LocalProtocolError(f"JT/T 808 position: {exc}", reason="range") from exc
    if len(p.time) != 6:
        raise LocalProtocolError("JT/T 808 position: the time has six bytes", reason="range")
    writer = Writer().blob(fixed)
    for item, value in p.extras:
        writer.u8(item, "item").u8(len(value), "length of an item").blob(value)
    return writer.blob(p.tail).done()


def tell(reader: Reader, size: int | None = None) -> Position:
    """The next ``size`` bytes as a position, field by field. Raises RemoteProtocolError."""
    start = reader.at
    found = parse(reader.take(reader.left if size is None else size, "position"))
    if reader.marks is None:
        return found
    end, reader.at = reader.at, start
    reader.u32("alarm")
    reader.u32("status")
    reader.u32("lat_raw")
    reader.u32("lon_raw")
    _tell_i16(reader, "altitude", found.altitude_m)
    reader.u16("speed_raw")
    reader.u16("direction")
    reader.time6("time")
    reader.say("lat", found.lat)
    reader.say("lon", found.lon)
    if abs(found.lat) > 90 or abs(found.lon) > 180:
        reader.say("place", "outside the globe")
    reader.say("speed_kmh", found.speed_kmh)
    reader.say("acc_on", bool(found.status >> ACC & 1))
    reader.say("positioned", bool(found.status >> POSITIONED & 1))
    reader.say("alarms", found.alarms())
    reader.say("states", [name for name, bit in STATUS_BITS.items() if found.status >> bit & 1])
    reader.say("load", ("empty", "half", "reserved", "full")[found.status >> 8 & 3])
    for item, value in found.extras:
        with reader.item("extras"):
            _tell_extra(reader, item, value)
    if found.tail:
        reader.blob("tail_hex", len(found.tail))
    reader.at = end
    return found


def _tell_i16(reader: Reader, name: str, value: int) -> None:
    at = reader.at
    reader.take(2, name)
    reader.mark(name, at, value)


def _tell_extra(reader: Reader, item: int, value: bytes) -> None:
    at = reader.at
    reader.take(1)
    reader.mark("id", at, f"0x{item:02X}")
    reader.take(1)
    reader.blob("hex", len(value))
    if item in MEANINGS:
        reader.say("name", MEANINGS[item].name)
    for name, said in meaning(item, value).items():
        reader.say(name, said)


@dataclass(frozen=True, slots=True)
class Batch:
    """0704: count u16, type u8, items of length u16 and a 0200 body. ``blind``: type 1, refilled after a gap in
    coverage: times run backwards against live ones."""

    items: tuple[Position, ...]
    kind: int = 0

    @property
    def blind(self) -> bool:
        return self.kind == 1


def parse_batch(reader: Reader) -> Batch:
    """Raises RemoteProtocolError where it ends early or an item is no position."""
    count = reader.u16("count")
    kind = reader.u8("type")
    items: list[Position] = []
    for _ in range(count):
        size = int.from_bytes(reader.take(2, "length"), "big")
        with reader.item("items"):
            items.append(tell(reader, size))
    return Batch(tuple(items), kind)


def encode_batch(batch: Batch) -> bytes:
    writer = Writer().u16(len(batch.items), "count").u8(batch.kind, "type")
    for item in batch.items:
        data = encode(item)
        writer.u16(len(data), "length").blob(data)
    return writer.done()
