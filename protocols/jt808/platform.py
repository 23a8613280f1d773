"""What a platform says (JT/T 808-2019, chapter 8), and the few messages both sides use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

from protocols.jt808.body import Body
from protocols.jt808.fields import Reader, Writer
from protocols.jt808.frame import Version
from protocols.jt808.parameters import Parameter, read_parameters, write_parameters


@dataclass(frozen=True, slots=True)
class PlatformAnswer(Body):
    """8001: result 0 ok, 1 failed, 2 message wrong, 3 not supported, 4 alarm confirmed."""

    ack_sn: int
    ack_id: int
    result: int = 0
    MSG_ID: ClassVar[int] = 0x8001
    FIELDS: ClassVar = (("ack_sn", "u16"), ("ack_id", "id16"), ("result", "u8"))


@dataclass(frozen=True, slots=True)
class ResendRequest(Body):
    """8003, and 0005 from a terminal (2019): serial of the first part u16, count (u8; 2019 u16), indexes u16.

    ``wide``: the count has two bytes. Both widths are read under either edition: the length tells them apart.
    """

    original_sn: int
    missing: tuple[int, ...]
    wide: bool = False
    MSG_ID: ClassVar[int] = 0x8003

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        serial = reader.u16("original_sn")
        wide = reader.left >= 2 and reader.left == 2 + 2 * int.from_bytes(reader.data[reader.at : reader.at + 2], "big")
        count = reader.u16("count") if wide else reader.u8("count")
        at = reader.at
        missing = tuple(int.from_bytes(reader.take(2, "missing"), "big") for _ in range(count))
        reader.mark("missing", at, list(missing))
        reader.say("count_width", 2 if wide else 1)
        return cls(serial, missing, wide)

    def write(self, writer: Writer, version: Version) -> None:
        writer.u16(self.original_sn, "serial").number(len(self.missing), 2 if self.wide else 1, "count")
        for index in self.missing:
            writer.u16(index, "index")


@dataclass(frozen=True, slots=True)
class TerminalResendRequest(ResendRequest):
    """0005."""

    MSG_ID: ClassVar[int] = 0x0005


@dataclass(frozen=True, slots=True)
class ServerTime(Body):
    """8004: BCD6, UTC by the text."""

    time: bytes
    MSG_ID: ClassVar[int] = 0x8004
    FIELDS: ClassVar = (("time", "time6"),)


@dataclass(frozen=True, slots=True)
class RegisterAnswer(Body):
    """8100: ack serial u16, result u8 (0 ok, 1 vehicle and 3 terminal already registered, 2 no such vehicle, 4 no such
    terminal); the code only if 0."""

    ack_sn: int
    result: int
    auth_code: str = field(default="", repr=False)
    MSG_ID: ClassVar[int] = 0x8100

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        serial, result = reader.u16("ack_sn"), reader.u8("result")
        return cls(serial, result, reader.text("auth_code") if reader.left else "")

    def write(self, writer: Writer, version: Version) -> None:
        writer.u16(self.ack_sn, "ack_sn").u8(self.result, "result").text(self.auth_code)


@dataclass(frozen=True, slots=True)
class SetParameters(Body):
    """8103: count u8, items of id u32, length u8, value. Answered by 0001."""

    params: tuple[Parameter, ...]
    MSG_ID: ClassVar[int] = 0x8103

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        return cls(read_parameters(reader))

    def write(self, writer: Writer, version: Version) -> None:
        write_parameters(writer, self.params)


@dataclass(frozen=True, slots=True)
class QueryAllParameters(Body):
    """8104, answered by 0104."""

    MSG_ID: ClassVar[int] = 0x8104


@dataclass(frozen=True, slots=True)
class QueryParameters(Body):
    """8106: count u8, ids u32."""

    ids: tuple[int, ...]
    MSG_ID: ClassVar[int] = 0x8106

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        return cls(_ids(reader, 4))

    def write(self, writer: Writer, version: Version) -> None:
        writer.u8(len(self.ids), "count")
        for number in self.ids:
            writer.u32(number, "id")


def _ids(reader: Reader, digits: int) -> tuple[int, ...]:
    count, at = reader.u8("count"), reader.at
    ids = tuple(int.from_bytes(reader.take(4, "ids"), "big") for _ in range(count))
    reader.mark("ids", at, [f"0x{number:0{digits}X}" for number in ids] if digits else list(ids))
    return ids


@dataclass(frozen=True, slots=True)
class TerminalControl(Body):
    """8105: command u8 and text parameters parted by ";": 1 upgrade, 2 another server, 3 switch off, 4 reset, 5
    factory reset, 6 close the data link, 7 close all radio; F0 and the like are makers' words (engine cut)."""

    command: int
    args: str = ""
    MSG_ID: ClassVar[int] = 0x8105
    FIELDS: ClassVar = (("command", "u8"), ("args", "text"))


@dataclass(frozen=True, slots=True)
class QueryProperties(Body):
    """8107, answered by 0107."""

    MSG_ID: ClassVar[int] = 0x8107


@dataclass(frozen=True, slots=True)
class QueryPosition(Body):
    """8201, answered by 0201."""

    MSG_ID: ClassVar[int] = 0x8201


@dataclass(frozen=True, slots=True)
class Follow(Body):
    """8202: a position each ``interval`` s for ``duration`` s; interval 0 stops it."""

    interval: int
    duration: int
    MSG_ID: ClassVar[int] = 0x8202
    FIELDS: ClassVar = (("interval", "u16"), ("duration", "u32"))

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        interval = reader.u16("interval")
        return cls(interval, reader.u32("duration") if reader.left else 0)  # a stop comes without the second


@dataclass(frozen=True, slots=True)
class ConfirmAlarm(Body):
    """8203: serial of the message with the alarm (0: all), alarm bits."""

    alarm_sn: int
    alarm: int
    MSG_ID: ClassVar[int] = 0x8203
    FIELDS: ClassVar = (("alarm_sn", "u16"), ("alarm", "u32"))


@dataclass(frozen=True, slots=True)
class LinkCheck(Body):
    """8204, 2019: answered by 0001."""

    MSG_ID: ClassVar[int] = 0x8204


@dataclass(frozen=True, slots=True)
class Text(Body):
    """8300: flags u8 (2013: 0 urgent, 2 display, 3 speech, 4 advertising screen; 2019: 0-1 kind, 2 display, 3 speech,
    5 CAN fault code); 2019: text kind u8 (1 notice, 2 service); GBK text, at most 1024 bytes."""

    flag: int
    text: str
    kind: int | None = None
    MSG_ID: ClassVar[int] = 0x8300

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        flag = reader.u8("flag")
        kind = None
        if version == "2019" and reader.left and reader.data[reader.at] in (1, 2):
            kind = reader.u8("kind")
        return cls(flag, reader.text("text"), kind)

    def write(self, writer: Writer, version: Version) -> None:
        writer.u8(self.flag, "flag")
        if version == "2019":
            writer.u8(1 if self.kind is None else self.kind, "kind")
        writer.text(self.text)


@dataclass(frozen=True, slots=True)
class CallBack(Body):
    """8400: 0 call, 1 listen; number."""

    type: int
    number: str
    MSG_ID: ClassVar[int] = 0x8400
    FIELDS: ClassVar = (("type", "u8"), ("number", "text"))


@dataclass(frozen=True, slots=True)
class VehicleControl(Body):
    """8500. 2013: one byte, bit 0: 0 unlock, 1 lock the doors. 2019: count u16, items of type u16 (1 doors) and a
    parameter, read as one byte each where that fits."""

    flag: int = 0
    items: tuple[tuple[int, bytes], ...] = ()
    MSG_ID: ClassVar[int] = 0x8500

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        if version == "2013" or reader.left == 1:
            return cls(reader.u8("flag"))
        count = reader.u16("count")
        size = max(1, (reader.left - 2 * count) // count) if count else 0
        items: list[tuple[int, bytes]] = []
        for _ in range(count):
            with reader.item("items"):
                items.append((reader.u16("type"), reader.blob("hex", size)))
        return cls(0, tuple(items))

    def write(self, writer: Writer, version: Version) -> None:
        if version == "2013":
            writer.u8(self.flag, "flag")
            return
        items = self.items or ((1, bytes((self.flag & 1,))),)
        writer.u16(len(items), "count")
        for kind, value in items:
            writer.u16(kind, "type").blob(value)


@dataclass(frozen=True, slots=True)
class DeleteAreas(Body):
    """8601 circles, 8603 rectangles, 8605 polygons, 8607 routes: count u8, ids u32; none: all."""

    ids: tuple[int, ...]
    id: int = 0x8601
    MSG_ID: ClassVar[int] = 0x8601

    @property
    def msg_id(self) -> int:
        return self.id

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        return cls(_ids(reader, 0), cls.MSG_ID)

    def write(self, writer: Writer, version: Version) -> None:
        writer.u8(len(self.ids), "count")
        for number in self.ids:
            writer.u32(number, "id")


@dataclass(frozen=True, slots=True)
class DeleteRectangles(DeleteAreas):
    id: int = 0x8603
    MSG_ID: ClassVar[int] = 0x8603


@dataclass(frozen=True, slots=True)
class DeletePolygons(DeleteAreas):
    id: int = 0x8605
    MSG_ID: ClassVar[int] = 0x8605


@dataclass(frozen=True, slots=True)
class DeleteRoutes(DeleteAreas):
    id: int = 0x8607
    MSG_ID: ClassVar[int] = 0x8607


@dataclass(frozen=True, slots=True)
class UpgradeFile(Body):
    """8108: type u8, manufacturer 5, version (length u8, text), size u32, data; nearly always sub-packaged."""

    type: int
    manufacturer: str
    version: str
    data: bytes
    MSG_ID: ClassVar[int] = 0x8108

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        kind, maker, text = reader.u8("type"), reader.text("manufacturer", 5), reader.counted("version")
        return cls(kind, maker, text, reader.blob("data_hex", reader.u32("size")))

    def write(self, writer: Writer, version: Version) -> None:
        writer.u8(self.type, "type").text(self.manufacturer, 5).counted(self.version)
        writer.u32(len(self.data), "size").blob(self.data)


@dataclass(frozen=True, slots=True)
class RsaKey(Body):
    """0A00 from the terminal, 8A00 from the platform: e u32, n 128 bytes."""

    e: int
    n: bytes
    MSG_ID: ClassVar[int] = 0x8A00
    FIELDS: ClassVar = (("e", "u32"), ("n", "blob128"))


@dataclass(frozen=True, slots=True)
class TerminalRsaKey(RsaKey):
    MSG_ID: ClassVar[int] = 0x0A00
