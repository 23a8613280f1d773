"""What stands in an SL 651 body: reports with their elements, settings, questions, pictures, notes made by hand.

Every body opens with the serial number (2 bytes) and the time of sending (6 BCD); a report goes on with ``F1 F1`` +
station + kind of station and ``F0 F0`` + observation time, which holds for the elements behind it until the next one.
Times are local (UTC+8) and kept as the digits that were sent: a clock that was never set says year 59 or zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone

from protocols.core.errors import LocalProtocolError
from protocols.sl651.elements import TIME_STEP, Element
from protocols.sl651.frame import End, Telegram

CHINA = timezone(timedelta(hours=8))

KEEP_ALIVE, TEST, EVEN, TIMED, EXTRA, HOURLY, MANUAL, PICTURE = 0x2F, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36
READ_NOW, READ_PERIOD, READ_MANUAL, READ_ELEMENTS = 0x37, 0x38, 0x39, 0x3A
SET_BASIC, READ_BASIC, SET_RUN, READ_RUN, PUMPS, VERSION, STATUS = 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46
CLEAR, RESET, SET_PASSWORD, SET_CLOCK, EVENT_LOG, READ_CLOCK = 0x47, 0x48, 0x49, 0x4A, 0x50, 0x51

#: What a station sends by itself and, in modes M2 and M3, wants confirmed.
REPORTS = frozenset({TEST, EVEN, TIMED, EXTRA, HOURLY, MANUAL, PICTURE})
#: Bodies with elements.
DATA = REPORTS | {READ_NOW, READ_PERIOD, READ_MANUAL, READ_ELEMENTS}
#: Orders to pumps, valves and gates, and the event log: neither elements nor settings.
PUMP, VALVE, GATE, VOLUME = 0x4C, 0x4D, 0x4E, 0x4F
CODED = frozenset({PUMP, VALVE, GATE, VOLUME, EVENT_LOG})
#: Bodies whose identifiers are those of the configuration tables, not of the elements.
SETTINGS = frozenset({SET_BASIC, READ_BASIC, SET_RUN, READ_RUN, CLEAR, RESET, SET_PASSWORD})

FUNCTIONS: dict[int, tuple[str, str]] = {
    KEEP_ALIVE: ("链路维持报", "keep-alive"),
    TEST: ("测试报", "test report"),
    EVEN: ("均匀时段报", "even-interval report"),
    TIMED: ("定时报", "timed report"),
    EXTRA: ("加报报", "extra report (threshold)"),
    HOURLY: ("小时报", "hourly report"),
    MANUAL: ("人工置数报", "report made by hand"),
    PICTURE: ("图片报", "picture"),
    READ_NOW: ("查询实时数据", "read now"),
    READ_PERIOD: ("查询时段数据", "read a period"),
    READ_MANUAL: ("查询人工置数", "read the note made by hand"),
    READ_ELEMENTS: ("查询指定要素", "read named elements"),
    SET_BASIC: ("修改基本配置", "set basic configuration"),
    READ_BASIC: ("读取基本配置", "read basic configuration"),
    SET_RUN: ("修改运行参数", "set operating parameters"),
    READ_RUN: ("读取运行参数", "read operating parameters"),
    PUMPS: ("查询水泵电机", "read pumps"),
    VERSION: ("查询软件版本", "read version"),
    STATUS: ("查询状态和报警", "read status and alarms"),
    CLEAR: ("初始化固态存储", "clear memory"),
    RESET: ("恢复出厂设置", "factory reset"),
    SET_PASSWORD: ("修改密码", "change password"),
    SET_CLOCK: ("设置时钟", "set clock"),
    0x4B: ("设置 IC 卡", "IC card"),
    PUMP: ("控制水泵", "pump"),
    VALVE: ("控制阀门", "valve"),
    GATE: ("控制闸门", "gate"),
    VOLUME: ("水量定值控制", "volume control"),
    EVENT_LOG: ("查询事件记录", "event log"),
    READ_CLOCK: ("查询时钟", "read clock"),
}


@dataclass(frozen=True, slots=True)
class Group:
    """Elements of one observation time (yymmddhhmm, "" if none was said)."""

    observed: str
    elements: tuple[Element, ...]
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Setting:
    """One entry of a configuration table (40..43), of 47, 48 or 49."""

    id: str
    definition: int
    raw: bytes
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Plain:
    """Serial number and time, and the station where it says itself: keep-alive, confirmation, bare question."""

    serial: int
    sent: str
    station: str = ""
    rest: bytes = b""  # what nobody can read


@dataclass(frozen=True, slots=True)
class Report:
    """Measured data. ``kind``: of station, two hex digits. ``manual``: text made by hand; ``picture``: a JPEG, or the
    beginning of one. ``rest``: bytes at the end that are no element."""

    serial: int
    sent: str
    station: str = ""
    kind: str = ""
    groups: tuple[Group, ...] = ()
    manual: bytes | None = None
    picture: bytes | None = None
    rest: bytes = b""


@dataclass(frozen=True, slots=True)
class Settings:
    serial: int
    sent: str
    items: tuple[Setting, ...]
    station: str = ""
    rest: bytes = b""


@dataclass(frozen=True, slots=True)
class Question:
    """Identifiers that are asked for, with their definition bytes; for READ_PERIOD from and to (yymmddhh) and the step
    (dd hh mm)."""

    serial: int
    sent: str
    wanted: tuple[tuple[str, int], ...]
    begin: str = ""
    end: str = ""
    step: str = ""
    rest: bytes = b""


@dataclass(frozen=True, slots=True)
class Version:
    serial: int
    sent: str
    station: str
    text: bytes
    rest: bytes = b""


@dataclass(frozen=True, slots=True)
class Continued:
    """Packet 2 and on of several: raw bytes that go on where the packet before ended."""

    data: bytes


Message = Plain | Report | Settings | Question | Version | Continued

# -- times


def _moment(digits: str) -> datetime | None:
    try:
        return datetime.strptime("20" + digits.ljust(12, "0"), "%Y%m%d%H%M%S").replace(tzinfo=CHINA)
    except ValueError:
        return None


def to_ms(digits: str) -> int | None:
    """UTC milliseconds of yymmddhhmm[ss] in UTC+8; None if it is no time. The century is 20xx: a clock that was never
    set comes out far in the future or not at all."""
    if len(digits) not in (10, 12) or not digits.isdecimal():
        return None
    moment = _moment(digits)
    return None if moment is None else round(moment.timestamp()) * 1000


def iso(digits: str) -> str | None:
    """``2024-01-09T15:30[:00]``, for yymmddhh only the hour; None if it is no time."""
    if len(digits) not in (8, 10, 12) or not digits.isdecimal() or (moment := _moment(digits)) is None:
        return None
    return moment.strftime({8: "%Y-%m-%dT%H", 10: "%Y-%m-%dT%H:%M", 12: "%Y-%m-%dT%H:%M:%S"}[len(digits)])


def stamp(time_ms: int, digits: int = 12) -> str:
    """yymmddhhmmss in UTC+8, or its first ``digits``."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).astimezone(CHINA).strftime("%y%m%d%H%M%S")[:digits]


# -- to bytes


def _opening(serial: int, sent: str) -> bytes:
    if not 0 <= serial <= 0xFFFF or len(sent) != 12:
        raise LocalProtocolError(f"SL 651 serial number {serial}, time {sent!r}", reason="header")
    return serial.to_bytes(2, "big") + _digits(sent)


def _digits(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as exc:
        raise LocalProtocolError(f"SL 651: {text!r} are no digits", reason="address") from exc


def _definition(identifier: str, definition: int, data: bytes, *, several: bool = False) -> bytes:
    size = definition >> 3
    if len(data) != size and not (several and size and data and len(data) % size == 0):
        raise LocalProtocolError(f"SL 651 {identifier}: {len(data)} bytes under {definition:02X}", reason="definition")
    return _digits(identifier) + bytes((definition,)) + data


def write(message: Message) -> bytes:
    """The body of a HEX/BCD telegram. Raises LocalProtocolError if it cannot be said."""
    if isinstance(message, Continued):
        return message.data
    out = _opening(message.serial, message.sent)
    match message:
        case Plain():
            out += b"\xf1\xf1" + _digits(message.station) if message.station else b""
        case Report():
            if message.station:
                out += b"\xf1\xf1" + _digits(message.station + message.kind)
            for group in message.groups:
                out += b"\xf0\xf0" + _digits(group.observed) if group.observed else b""
                stepped = False  # behind a time step an element has as many values as it likes
                for one in group.elements:
                    out += _definition(one.id, one.definition, one.raw, several=stepped)
                    stepped = stepped or one.id == TIME_STEP
            out += b"" if message.manual is None else b"\xf2\xf2" + message.manual
            out += b"" if message.picture is None else b"\xf3\xf3" + message.picture
        case Settings():
            out += b"\xf1\xf1" + _digits(message.station) if message.station else b""
            out += b"".join(_definition(one.id, one.definition, one.raw) for one in message.items)
        case Question():
            if message.begin:
                out += _digits(message.begin + message.end) + b"\x04\x18" + _digits(message.step)
            out += b"".join(_digits(identifier) + bytes((definition,)) for identifier, definition in message.wanted)
        case Version():
            out += b"\xf1\xf1" + _digits(message.station) + bytes((len(message.text),)) + message.text
    return out + message.rest


def write_ascii(report: Report) -> bytes:
    """The body of an ASCII telegram. A value is printed as :attr:`Element.value` says it, a series as its hex digits;
    an element without a value is left out."""
    words = [f"{report.serial:04X}{report.sent}"]
    if report.station:
        words += ["ST", report.station, chr(int(report.kind, 16))]
    for group in report.groups:
        words += ["TT", group.observed]
        for one in group.elements:
            value = one.text or (one.raw.hex().upper() if isinstance(one.value, tuple) else one.value)
            if isinstance(value, str):
                words += [one.type.name if one.type else one.id, value]
    return (" ".join(words) + " ").encode("ascii")


# -- telegrams of either end


def confirm(telegram: Telegram, serial: int, sent: str, end: End = End.EOT) -> Telegram:
    """The centre has the report: same function, serial number and time (modes M2, M3). ``end``: EOT hang up, ESC stay
    on line for ten minutes, ACK send on."""
    body = _opening(serial, sent)
    if telegram.ascii:
        body = f"{serial:04X}{sent}".encode("ascii")
    return replace(telegram, body=body, down=True, end=end, total=0, seq=0)


def again(part: Telegram, missing: int) -> Telegram:
    """NAK: send packet ``missing`` of the message that ``part`` belongs to once more (mode M3). Only packet 1 says a
    serial number and a time; a centre that has not seen it says zeros."""
    width = 16 if part.ascii else 8
    opening = part.body[:width] if part.seq == 1 else (b"0" * width if part.ascii else bytes(width))
    return replace(part, body=opening, down=True, end=End.NAK, seq=missing)


def ask(func: int, message: Message, station: str, *, center: int = 1, password: str = "0000") -> Telegram:  # noqa: S107
    """A question or order of the centre (mode M4)."""
    return Telegram(func, write(message), station, center, password, down=True, end=End.ENQ)


def reply(request: Telegram, message: Message) -> Telegram:
    """A station's answer to :func:`ask`."""
    return replace(request, body=write(message), down=False, end=End.ETX, total=0, seq=0)


def split(telegram: Telegram, limit: int = 512) -> list[Telegram]:
    """Packets with at most ``limit`` bytes of body each. The first one carries the opening, the others raw bytes."""
    body = telegram.body
    if len(body) <= limit:
        return [replace(telegram, total=0, seq=0)]
    pieces = [body[at : at + limit] for at in range(0, len(body), limit)]
    last = len(pieces)
    return [
        replace(telegram, body=piece, total=last, seq=n, end=telegram.end if n == last else End.ETB)
        for n, piece in enumerate(pieces, 1)
    ]
