"""What a terminal says (JT/T 808-2019, chapter 8; widths of 2011 and 2013 as the fact sheet gives them)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from protocols.core.errors import RemoteProtocolError
from protocols.jt808 import position as places
from protocols.jt808.body import Body
from protocols.jt808.fields import Reader, Writer, time_text
from protocols.jt808.frame import Version
from protocols.jt808.parameters import Parameter, read_parameters, write_parameters
from protocols.jt808.position import Batch, Position

OK, FAILED, WRONG, UNSUPPORTED, CONFIRMED = 0, 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class TerminalAnswer(Body):
    """0001: what became of a message of the platform."""

    ack_sn: int
    ack_id: int
    result: int
    MSG_ID: ClassVar[int] = 0x0001
    FIELDS: ClassVar = (("ack_sn", "u16"), ("ack_id", "id16"), ("result", "u8"))


@dataclass(frozen=True, slots=True)
class Heartbeat(Body):
    MSG_ID: ClassVar[int] = 0x0002


@dataclass(frozen=True, slots=True)
class Deregister(Body):
    MSG_ID: ClassVar[int] = 0x0003


@dataclass(frozen=True, slots=True)
class TimeQuery(Body):
    """0004, 2019: answered by 8004."""

    MSG_ID: ClassVar[int] = 0x0004


Layout = Literal["2011", "2013", "2019"]
#: Widths of manufacturer, model and terminal id.
_REGISTER: dict[Layout, tuple[int, int, int]] = {"2011": (5, 8, 7), "2013": (5, 20, 7), "2019": (11, 30, 30)}


@dataclass(frozen=True, slots=True)
class Register(Body):
    """0100: 0 province u16, 2 city u16, 4 manufacturer, model, terminal id, plate colour u8, plate (GBK).

    ``plate_color`` 0: no plate, the field holds the VIN. ``province`` 34 and ``city`` 100: Hefei.
    """

    province: int
    city: int
    manufacturer: str
    model: str
    terminal_id: str
    plate_color: int
    plate: str
    layout: Layout = "2013"
    MSG_ID: ClassVar[int] = 0x0100

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        # Headers and bodies of different editions go together in the field: the length has the last word.
        size = reader.left
        layout: Layout = "2019" if size >= 76 else "2013" if size >= 37 else "2011"
        maker, model, terminal = _REGISTER[layout]
        found = cls(
            reader.u16("province"), reader.u16("city"), reader.text("manufacturer", maker),
            reader.text("model", model), reader.text("terminal_id", terminal), reader.u8("plate_color"),
            reader.text("plate"), layout,
        )  # fmt: skip
        reader.say("layout", layout)
        return found

    def write(self, writer: Writer, version: Version) -> None:
        maker, model, terminal = _REGISTER[self.layout]
        writer.u16(self.province, "province").u16(self.city, "city").text(self.manufacturer, maker)
        writer.text(self.model, model).text(self.terminal_id, terminal).u8(self.plate_color, "plate_color")
        writer.text(self.plate)


@dataclass(frozen=True, slots=True)
class Authenticate(Body):
    """0102. 2011, 2013: the whole body is the code. 2019: length u8, code, IMEI 15, software version 20."""

    auth_code: str = field(repr=False)
    imei: str = ""
    software: str = ""
    MSG_ID: ClassVar[int] = 0x0102

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        if version == "2019" and reader.left and 1 + reader.data[reader.at] + 35 == reader.left:
            return cls(reader.counted("auth_code"), reader.text("imei", 15), reader.text("software", 20))
        return cls(reader.text("auth_code"))  # also what 2019 headers have been seen to carry

    def write(self, writer: Writer, version: Version) -> None:
        if version == "2019":
            writer.counted(self.auth_code).text(self.imei, 15).text(self.software, 20)
        else:
            writer.text(self.auth_code)


@dataclass(frozen=True, slots=True)
class ParameterAnswer(Body):
    """0104: ack serial u16, count u8, items of id u32, length u8, value."""

    ack_sn: int
    params: tuple[Parameter, ...]
    MSG_ID: ClassVar[int] = 0x0104

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        return cls(reader.u16("ack_sn"), read_parameters(reader))

    def write(self, writer: Writer, version: Version) -> None:
        write_parameters(writer.u16(self.ack_sn, "ack_sn"), self.params)


@dataclass(frozen=True, slots=True)
class Properties(Body):
    """0107: terminal type u16, manufacturer, model, id, ICCID BCD10, hardware and firmware version (length u8, text),
    GNSS bits u8, comms bits u8. Devices mix the widths of editions: those are taken whose total fits. Some leave the
    last two out (None)."""

    terminal_type: int
    manufacturer: str
    model: str
    terminal_id: str
    iccid: str
    hardware: str
    firmware: str
    gnss: int | None
    comms: int | None
    widths: tuple[int, int, int] = (5, 20, 7)
    MSG_ID: ClassVar[int] = 0x0107

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        widths = _fitting(reader.data[reader.at :], version)
        terminal_type = reader.u16("terminal_type")
        maker, model = reader.text("manufacturer", widths[0]), reader.text("model", widths[1])
        terminal, iccid = reader.text("terminal_id", widths[2]), reader.bcd("iccid", 10)
        hardware, firmware = reader.counted("hardware"), reader.counted("firmware")
        gnss, comms = (reader.u8("gnss"), reader.u8("comms")) if reader.left else (None, None)
        return cls(terminal_type, maker, model, terminal, iccid, hardware, firmware, gnss, comms, widths)

    def write(self, writer: Writer, version: Version) -> None:
        maker, model, terminal = self.widths
        writer.u16(self.terminal_type, "type").text(self.manufacturer, maker).text(self.model, model)
        writer.text(self.terminal_id, terminal).bcd(self.iccid, 10).counted(self.hardware).counted(self.firmware)
        if self.gnss is not None and self.comms is not None:
            writer.u8(self.gnss, "gnss").u8(self.comms, "comms")


def _fitting(data: bytes, version: Version) -> tuple[int, int, int]:
    usual = [(5, 20, 7), (5, 30, 30), (11, 30, 30)]
    if version == "2019":
        usual = [*usual[1:], usual[0]]
    for missing in (0, 2):
        for widths in [*usual, (11, 20, 7), (5, 8, 7), (5, 20, 30), (11, 30, 7)]:
            at = 2 + sum(widths) + 10
            for _ in range(2):
                at = at + 1 + data[at] if at < len(data) else len(data) + 1
            if at + 2 - missing == len(data):
                return widths
    raise RemoteProtocolError("JT/T 808 0107: no known widths fit", reason="length")


@dataclass(frozen=True, slots=True)
class UpgradeResult(Body):
    """0108."""

    type: int
    result: int
    MSG_ID: ClassVar[int] = 0x0108
    FIELDS: ClassVar = (("type", "u8"), ("result", "u8"))


@dataclass(frozen=True, slots=True)
class PositionReport(Body):
    """0200."""

    position: Position
    MSG_ID: ClassVar[int] = 0x0200

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        return cls(places.tell(reader))

    def write(self, writer: Writer, version: Version) -> None:
        writer.blob(places.encode(self.position))


@dataclass(frozen=True, slots=True)
class PositionAnswer(Body):
    """0201 (answer to 8201) and 0500 (to 8500): ack serial u16 and a position."""

    ack_sn: int
    position: Position
    id: int = 0x0201
    MSG_ID: ClassVar[int] = 0x0201

    @property
    def msg_id(self) -> int:
        return self.id

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        return cls(reader.u16("ack_sn"), places.tell(reader), cls.MSG_ID)

    def write(self, writer: Writer, version: Version) -> None:
        writer.u16(self.ack_sn, "ack_sn").blob(places.encode(self.position))


@dataclass(frozen=True, slots=True)
class ControlAnswer(PositionAnswer):
    """0500."""

    id: int = 0x0500
    MSG_ID: ClassVar[int] = 0x0500


@dataclass(frozen=True, slots=True)
class RecorderData(Body):
    """0700: a block of the tachograph (GB/T 19056)."""

    ack_sn: int
    command: int
    block: bytes
    MSG_ID: ClassVar[int] = 0x0700
    FIELDS: ClassVar = (("ack_sn", "u16"), ("command", "u8"), ("block", "blob"))


@dataclass(frozen=True, slots=True)
class Waybill(Body):
    """0701: length u32, GBK text."""

    text: str
    MSG_ID: ClassVar[int] = 0x0701

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        return cls(reader.text("text", reader.u32("length")))

    def write(self, writer: Writer, version: Version) -> None:
        inner = Writer().text(self.text).done()
        writer.u32(len(inner), "length").blob(inner)


@dataclass(frozen=True, slots=True)
class DriverCard(Body):
    """0702: 0 status u8 (1 in, 2 out), 1 time BCD6; if in: result u8; if 0: name (length u8, GBK), certificate 20,
    issuer (length u8, GBK), valid to BCD4; 2019: identity card 20."""

    status: int
    time: bytes
    result: int | None = None
    name: str = ""
    licence: str = ""
    agency: str = ""
    valid_to: str = ""
    id_card: str = ""
    MSG_ID: ClassVar[int] = 0x0702

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        status, at = reader.u8("status"), reader.at
        time = reader.take(6, "time")
        # Some devices write plain binary here.
        reader.mark("time", at, time_text(time) or time_text(_as_bcd(time)))
        reader.say("time_hex", time.hex())
        if status != 1 or not reader.left:
            return cls(status, time)
        result = reader.u8("result")
        if result != 0 or not reader.left:
            return cls(status, time, result)
        name, licence = reader.counted("name"), reader.text("licence", 20)
        agency, valid_to = reader.counted("agency"), reader.bcd("valid_to", 4)
        id_card = reader.text("id_card", 20) if reader.left >= 20 else ""
        return cls(status, time, result, name, licence, agency, valid_to, id_card)

    def write(self, writer: Writer, version: Version) -> None:
        writer.u8(self.status, "status").blob(self.time, 6)
        if self.result is None:
            return
        writer.u8(self.result, "result")
        if self.result == 0 and self.valid_to:
            writer.counted(self.name).text(self.licence, 20).counted(self.agency).bcd(self.valid_to, 4)
            if self.id_card or version == "2019":
                writer.text(self.id_card, 20)


def _as_bcd(binary: bytes) -> bytes:
    """Six plain numbers as BCD; what is above 99 stays no digit."""
    return bytes.fromhex("".join(f"{one:02d}" if one < 100 else "ff" for one in binary))


@dataclass(frozen=True, slots=True)
class BatchReport(Body):
    """0704."""

    batch: Batch
    MSG_ID: ClassVar[int] = 0x0704

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        return cls(places.parse_batch(reader))

    def write(self, writer: Writer, version: Version) -> None:
        writer.blob(places.encode_batch(self.batch))


@dataclass(frozen=True, slots=True)
class CanData(Body):
    """0705: count u16, time BCD5 hhmmssmsms, items of id u32 (31 channel, 30 extended, 29 averaged, 28-0 id) and 8
    bytes."""

    time: str
    items: tuple[tuple[int, bytes], ...]
    MSG_ID: ClassVar[int] = 0x0705

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        count = reader.u16("count")
        time = reader.bcd("time", 5)
        items: list[tuple[int, bytes]] = []
        for _ in range(count):
            with reader.item("items"):
                at = reader.at
                number = int.from_bytes(reader.take(4, "id"), "big")
                reader.mark("id", at, f"0x{number:08X}")
                items.append((number, reader.blob("hex", 8)))
        return cls(time, tuple(items))

    def write(self, writer: Writer, version: Version) -> None:
        writer.u16(len(self.items), "count").bcd(self.time, 5)
        for number, data in self.items:
            writer.u32(number, "id").blob(data, 8)


@dataclass(frozen=True, slots=True)
class Transparent(Body):
    """0900: type u8 (00 GNSS detail, 0B IC card, 41 and 42 serial ports, F0-FF the maker's) and data."""

    type: int
    data: bytes
    MSG_ID: ClassVar[int] = 0x0900

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        return cls(reader.u8("type"), reader.blob("data_hex"))

    def write(self, writer: Writer, version: Version) -> None:
        writer.u8(self.type, "type").blob(self.data)


@dataclass(frozen=True, slots=True)
class Compressed(Body):
    """0901: length u32 and gzip data, which stay packed: what comes out of them is for whoever asked for it."""

    length: int
    data: bytes
    MSG_ID: ClassVar[int] = 0x0901

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        return cls(reader.u32("length"), reader.blob("data_hex"))

    def write(self, writer: Writer, version: Version) -> None:
        writer.u32(self.length, "length").blob(self.data)
