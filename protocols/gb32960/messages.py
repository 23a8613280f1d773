"""What vehicle and platform say to each other: messages with their data as on the wire, and what the data mean.

A message keeps its bytes, so that what was captured goes back out unchanged; ``bodies.py`` has the typed view of them.
Times are six plain binary bytes (year - 2000, month, day, hour, minute, second) in UTC+8.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

from protocols.core.errors import LocalProtocolError
from protocols.gb32960.frame import HEADER, MARKS, MAX_DATA, checksum
from protocols.gb32960.items import Edition

LOGIN, REALTIME, RESENT, LOGOUT = 0x01, 0x02, 0x03, 0x04
PLATFORM_LOGIN, PLATFORM_LOGOUT, HEARTBEAT, CLOCK = 0x05, 0x06, 0x07, 0x08
ACTIVATE, ACTIVATED, KEY = 0x09, 0x0A, 0x0B
QUERY, SET, CONTROL = 0x80, 0x81, 0x82
COMMAND_NAMES: dict[int, tuple[str, str]] = {
    LOGIN: ("车辆登入", "vehicle_login"), REALTIME: ("实时信息上报", "realtime"),
    RESENT: ("补发信息上报", "reissue"), LOGOUT: ("车辆登出", "vehicle_logout"),
    PLATFORM_LOGIN: ("平台登入", "platform_login"), PLATFORM_LOGOUT: ("平台登出", "platform_logout"),
    HEARTBEAT: ("心跳", "heartbeat"), CLOCK: ("终端校时", "time_sync"), ACTIVATE: ("激活", "activation"),
    ACTIVATED: ("激活应答", "activation_result"), KEY: ("密钥交换", "key_exchange"), QUERY: ("查询命令", "query"),
    SET: ("设置命令", "set"), CONTROL: ("车载终端控制命令", "control"),
}  # fmt: skip

#: Answer flags. 5 to 7 are of 2025.
OK, ERROR, VIN_REPEATED, VIN_UNKNOWN, BAD_SIGNATURE, BAD_STRUCTURE, CANNOT_DECRYPT = range(1, 8)
IS_COMMAND = 0xFE
ANSWER_NAMES = {
    OK: "ok", ERROR: "error", VIN_REPEATED: "VIN repeated", VIN_UNKNOWN: "VIN unknown", BAD_SIGNATURE: "bad signature",
    BAD_STRUCTURE: "bad structure", CANNOT_DECRYPT: "cannot decrypt", IS_COMMAND: "a command, no answer",
}  # fmt: skip
PLAIN, UNSAID = 1, 0
ENCRYPTION_NAMES = {
    0: "not said, read as none", 1: "none", 2: "RSA", 3: "AES-128", 4: "SM2", 5: "SM4", 0xFE: "abnormal",
    0xFF: "invalid",
}  # fmt: skip

ZONE = timezone(timedelta(hours=8))
VIN_BYTES = 17


def parse_time(stamp: bytes) -> datetime | None:
    """Local time; None where the six bytes are none (FF, month 13)."""
    if len(stamp) != 6:
        return None
    year, month, day, hour, minute, second = stamp
    try:
        return datetime(2000 + year, month, day, hour, minute, second)
    except ValueError:
        return None


def format_time(local: datetime) -> bytes:
    """Raises LocalProtocolError for a year the byte cannot say."""
    if not 2000 <= local.year <= 2255:
        raise LocalProtocolError(f"GB/T 32960 time {local}: years 2000 to 2255", reason="time")
    return bytes((local.year - 2000, local.month, local.day, local.hour, local.minute, local.second))


def time_ms(stamp: bytes) -> int | None:
    """Milliseconds since 1970 UTC, None where there is no time."""
    local = parse_time(stamp)
    return None if local is None else round(local.replace(tzinfo=ZONE).timestamp() * 1000)


def stamp_at(now_ms: int) -> bytes:
    """The six bytes of a moment."""
    return format_time(datetime.fromtimestamp(now_ms / 1000, ZONE).replace(tzinfo=None))


def filled(text: str, size: int, what: str) -> bytes:
    """The text as a field of that size. Raises LocalProtocolError if it does not fit."""
    raw = text.encode("gb18030")
    if len(raw) > size:
        raise LocalProtocolError(f"GB/T 32960 {what} {text!r}: at most {size} bytes", reason="length")
    return raw.ljust(size, b"\0")


def text_of(raw: bytes) -> str:
    """ASCII or GB 18030 without the filling."""
    return raw.strip(b"\0").decode("gb18030", "replace").strip()


def vin_bytes(vin: str) -> bytes:
    """The VIN field of a number or a platform's name."""
    return filled(vin, VIN_BYTES, "VIN")


@dataclass(frozen=True, slots=True)
class Message:
    """One message. ``raw_vin``: the 17 bytes, see :attr:`vin`; ``answer``: IS_COMMAND or an answer flag."""

    command: int
    raw_vin: bytes
    data: bytes = b""
    answer: int = IS_COMMAND
    edition: Edition = "2016"
    encryption: int = PLAIN

    @property
    def vin(self) -> str:
        return text_of(self.raw_vin)

    @property
    def is_command(self) -> bool:
        return self.answer == IS_COMMAND

    @property
    def is_plain(self) -> bool:
        """In clear; a terminal that says nothing about it sends in clear too."""
        return self.encryption in (PLAIN, UNSAID)

    @property
    def stamp(self) -> bytes:
        """The time that opens the data of most commands; empty where there is none that can be read."""
        return self.data[:6] if self.is_plain and len(self.data) >= 6 else b""


def parse(frame: bytes) -> Message:
    """The message in a whole, checked frame."""
    edition: Edition = "2016" if MARKS[frame[:2]] == "2016" else "2025"
    return Message(frame[2], frame[4:21], frame[HEADER:-1], frame[3], edition, frame[21])


def encode(message: Message) -> bytes:
    """The bytes on the wire. Raises LocalProtocolError for what the frame cannot say."""
    if len(message.data) > MAX_DATA or len(message.raw_vin) != VIN_BYTES:
        raise LocalProtocolError("GB/T 32960: data up to 65531 bytes, VIN field 17", reason="length")
    try:
        head = bytes((message.command, message.answer)) + message.raw_vin + bytes((message.encryption,))
    except ValueError as exc:
        raise LocalProtocolError("GB/T 32960: command, answer and encryption are bytes", reason="range") from exc
    mark = b"##" if message.edition == "2016" else b"$$"
    frame = mark + head + len(message.data).to_bytes(2, "big") + message.data + b"\0"
    return frame[:-1] + bytes((checksum(frame),))


def reply(message: Message, flag: int = OK, *, now_ms: int | None = None) -> Message:
    """The answer to a command: same command, VIN and encryption; of the data only the time. A heartbeat's answer is
    empty; a time request is answered with ``now_ms``."""
    if message.command == CLOCK:
        if now_ms is None:
            raise LocalProtocolError("GB/T 32960: a time request is answered with a time", reason="time")
        return replace(
            message, answer=flag, data=stamp_at(now_ms), encryption=message.encryption if message.is_plain else PLAIN
        )
    if not message.is_plain and message.data:
        # The request's time is sealed: an error in clear, with our own time.
        data = b"" if now_ms is None else stamp_at(now_ms)
        return replace(message, answer=flag, data=data, encryption=PLAIN)
    return replace(message, answer=flag, data=message.data[:6] if len(message.data) >= 6 else b"")


def request_answer(message: Message) -> Message:
    """What a terminal says to a platform's order it has carried out."""
    return reply(message, OK)
