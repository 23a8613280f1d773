"""Areas and routes that a terminal watches by itself: circles, rectangles, polygons, routes (8600 to 8606).

Common: attribute u16 with bit 0 = times follow, bit 1 = speed limit follows; 2019 adds a night speed and a name
(length u16, GBK).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from protocols.core.errors import LocalProtocolError
from protocols.jt808.body import Body
from protocols.jt808.fields import Reader, Writer, gbk
from protocols.jt808.frame import Version

_TIMES, _SPEED = 1, 2


@dataclass(frozen=True, slots=True)
class Rules:
    """When an area holds and how fast one may be in it. ``name`` and ``night_speed``: 2019."""

    attribute: int = 0
    start: bytes = b""
    end: bytes = b""
    max_speed: int = 0
    overspeed_s: int = 0
    night_speed: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Area:
    """``points``: latitude and longitude in 1e-6 degree; the centre, two corners (north-west, south-east) or all."""

    area_id: int
    points: tuple[tuple[int, int], ...]
    radius_m: int = 0
    rules: Rules = Rules()


def _read_times(reader: Reader, attribute: int) -> tuple[bytes, bytes]:
    if not attribute & _TIMES:
        return b"", b""
    return reader.time6("start"), reader.time6("end")


def _read_speed(reader: Reader, attribute: int, *, night: bool) -> tuple[int, int, int]:
    if not attribute & _SPEED:
        return 0, 0, 0
    return reader.u16("max_speed"), reader.u8("overspeed_s"), reader.u16("night_speed") if night else 0


def _read_name(reader: Reader, version: Version) -> str:
    return reader.text("name", reader.u16("name_length")) if version == "2019" else ""


def _read_point(reader: Reader, suffix: str = "") -> tuple[int, int]:
    return reader.u32(f"lat_raw{suffix}"), reader.u32(f"lon_raw{suffix}")


def _write_times(writer: Writer, rules: Rules) -> None:
    if rules.attribute & _TIMES:
        writer.blob(rules.start, 6).blob(rules.end, 6)


def _write_speed(writer: Writer, rules: Rules) -> None:
    if rules.attribute & _SPEED:
        writer.u16(rules.max_speed, "max_speed").u8(rules.overspeed_s, "overspeed_s")


def _write_name(writer: Writer, rules: Rules, version: Version) -> None:
    if version == "2019":
        name = gbk(rules.name)
        writer.u16(len(name), "length of a name").blob(name)


def _write_points(writer: Writer, points: tuple[tuple[int, int], ...]) -> None:
    for lat, lon in points:
        writer.u32(lat, "latitude").u32(lon, "longitude")


@dataclass(frozen=True, slots=True)
class SetCircles(Body):
    """8600: setting u8 (0 update, 1 append, 2 change), count u8, areas: id u32, attribute u16, centre, radius u32 m,
    times, speed, name."""

    setting: int
    areas: tuple[Area, ...]
    MSG_ID: ClassVar[int] = 0x8600
    CORNERS: ClassVar[int] = 1

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        setting, count = reader.u8("setting"), reader.u8("count")
        out: list[Area] = []
        for _ in range(count):
            with reader.item("items"):
                number, attribute = reader.u32("area_id"), reader.u16("attribute")
                if cls.CORNERS == 1:
                    points: tuple[tuple[int, int], ...] = (_read_point(reader),)
                    radius = reader.u32("radius")
                else:
                    points, radius = (_read_point(reader, "_1"), _read_point(reader, "_2")), 0
                times = _read_times(reader, attribute)
                speed = _read_speed(reader, attribute, night=version == "2019")
                rules = Rules(attribute, *times, *speed, _read_name(reader, version))
                out.append(Area(number, points, radius, rules))
        return cls(setting, tuple(out))

    def write(self, writer: Writer, version: Version) -> None:
        writer.u8(self.setting, "setting").u8(len(self.areas), "count")
        for area in self.areas:
            if len(area.points) != self.CORNERS:
                raise LocalProtocolError(f"JT/T 808 area of {len(area.points)} points", reason="range")
            writer.u32(area.area_id, "area_id").u16(area.rules.attribute, "attribute")
            _write_points(writer, area.points)
            if self.CORNERS == 1:
                writer.u32(area.radius_m, "radius")
            _write_times(writer, area.rules)
            _write_speed(writer, area.rules)
            if area.rules.attribute & _SPEED and version == "2019":
                writer.u16(area.rules.night_speed, "night_speed")
            _write_name(writer, area.rules, version)


@dataclass(frozen=True, slots=True)
class SetRectangles(SetCircles):
    """8602: as 8600 with two corners and no radius."""

    MSG_ID: ClassVar[int] = 0x8602
    CORNERS: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class SetPolygon(Body):
    """8604: id u32, attribute u16, times, speed u16 and duration u8, count u16, corners; 2019: night speed, name."""

    area: Area
    MSG_ID: ClassVar[int] = 0x8604

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        number, attribute = reader.u32("area_id"), reader.u16("attribute")
        times = _read_times(reader, attribute)
        fast, for_s, _ = _read_speed(reader, attribute, night=False)
        count = reader.u16("count")
        points: list[tuple[int, int]] = []
        for _ in range(count):
            with reader.item("points"):
                points.append(_read_point(reader))
        night = reader.u16("night_speed") if version == "2019" and attribute & _SPEED else 0
        rules = Rules(attribute, *times, fast, for_s, night, _read_name(reader, version))
        return cls(Area(number, tuple(points), 0, rules))

    def write(self, writer: Writer, version: Version) -> None:
        area = self.area
        writer.u32(area.area_id, "area_id").u16(area.rules.attribute, "attribute")
        _write_times(writer, area.rules)
        _write_speed(writer, area.rules)
        writer.u16(len(area.points), "count")
        _write_points(writer, area.points)
        if area.rules.attribute & _SPEED and version == "2019":
            writer.u16(area.rules.night_speed, "night_speed")
        _write_name(writer, area.rules, version)


@dataclass(frozen=True, slots=True)
class Turn:
    """One corner of a route. ``attribute`` bit 0: times on the segment follow, bit 1: a speed limit."""

    turn_id: int
    segment_id: int
    point: tuple[int, int]
    width_m: int
    attribute: int = 0
    too_long_s: int = 0
    too_short_s: int = 0
    max_speed: int = 0
    overspeed_s: int = 0
    night_speed: int = 0


@dataclass(frozen=True, slots=True)
class SetRoute(Body):
    """8606: id u32, attribute u16, times, count u16, turns: id u32, segment u32, point, width u8, attribute u8, limits
    u16 u16, speed u16, duration u8; 2019: night speed u16, name of the route."""

    route_id: int
    turns: tuple[Turn, ...]
    rules: Rules = Rules()
    MSG_ID: ClassVar[int] = 0x8606

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        number, attribute = reader.u32("route_id"), reader.u16("attribute")
        times = _read_times(reader, attribute)
        count = reader.u16("count")
        turns: list[Turn] = []
        for _ in range(count):
            with reader.item("points"):
                turn, segment, point = reader.u32("turn_id"), reader.u32("segment_id"), _read_point(reader)
                width, marks = reader.u8("width"), reader.u8("attribute")
                limits = (reader.u16("too_long_s"), reader.u16("too_short_s")) if marks & _TIMES else (0, 0)
                speed = _read_speed(reader, marks, night=version == "2019")
                turns.append(Turn(turn, segment, point, width, marks, *limits, *speed))
        return cls(number, tuple(turns), Rules(attribute, *times, name=_read_name(reader, version)))

    def write(self, writer: Writer, version: Version) -> None:
        writer.u32(self.route_id, "route_id").u16(self.rules.attribute, "attribute")
        _write_times(writer, self.rules)
        writer.u16(len(self.turns), "count")
        for turn in self.turns:
            writer.u32(turn.turn_id, "turn").u32(turn.segment_id, "segment")
            _write_points(writer, (turn.point,))
            writer.u8(turn.width_m, "width").u8(turn.attribute, "attribute")
            if turn.attribute & _TIMES:
                writer.u16(turn.too_long_s, "too_long_s").u16(turn.too_short_s, "too_short_s")
            if turn.attribute & _SPEED:
                writer.u16(turn.max_speed, "max_speed").u8(turn.overspeed_s, "overspeed_s")
                if version == "2019":
                    writer.u16(turn.night_speed, "night_speed")
        _write_name(writer, self.rules, version)
