"""What master and meter say to each other, as values.

Identifiers are text, high byte first as the standard prints them ("02010100"); four digits mean the 1997 edition.
Addresses are text as printed on the meter: leading zeros matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.dlt645.frame import Frame

ANYBODY = "AAAAAAAAAAAA"  # whoever is there answers: one meter on the line
BROADCAST = "999999999999"  # nobody answers

#: D4..D0 of the control byte.
READ, READ_MORE, READ_ADDRESS, WRITE, WRITE_ADDRESS, FREEZE = 0x11, 0x12, 0x13, 0x14, 0x15, 0x16
BROADCAST_TIME, CHANGE_BAUD, CHANGE_PASSWORD = 0x08, 0x17, 0x18
CLEAR_DEMAND, CLEAR_METER, CLEAR_EVENTS, RELAY = 0x19, 0x1A, 0x1B, 0x1C
READ_1997, READ_MORE_1997, READ_AGAIN_1997, WRITE_1997 = 0x01, 0x02, 0x03, 0x04

_FROM_METER, _ERROR, _MORE, _FUNCTION = 0x80, 0x40, 0x20, 0x1F
_READS = {READ, READ_MORE, READ_1997, READ_MORE_1997}
_COMMANDS = {
    WRITE, WRITE_ADDRESS, FREEZE, CHANGE_BAUD, CHANGE_PASSWORD, CLEAR_DEMAND, CLEAR_METER, CLEAR_EVENTS, RELAY,
    READ_AGAIN_1997, WRITE_1997,
}  # fmt: skip

#: Bits of the error byte.
ERROR_BITS = ("other", "no_data", "no_right", "no_baud", "too_many_zones", "too_many_periods", "too_many_tariffs")


@dataclass(frozen=True, slots=True)
class Read:
    """Ask for one data identifier. ``extra``: N, or N mm hh DD MM YY, for load records."""

    addr: str
    di: str
    extra: bytes = b""


@dataclass(frozen=True, slots=True)
class ReadMore:
    """Ask for what did not fit. ``seq`` from 1 (the 1997 edition has none: 0)."""

    addr: str
    di: str
    seq: int = 1


@dataclass(frozen=True, slots=True)
class ReadAddress:
    addr: str = ANYBODY


@dataclass(frozen=True, slots=True)
class BroadcastTime:
    """Set all clocks. ``time`` is the meter's local time."""

    time: datetime
    addr: str = BROADCAST


@dataclass(frozen=True, slots=True)
class Command:
    """Anything else that is asked: write, freeze, baud rate, relay ... ``data`` as in the frame, without +33H."""

    addr: str
    function: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class ReadReply:
    """Data of one identifier. ``more``: ask again with ReadMore; ``seq`` is set in answers to ReadMore."""

    addr: str
    di: str
    data: bytes
    more: bool = False
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class AddressReply:
    addr: str
    meter: str


@dataclass(frozen=True, slots=True)
class Done:
    """A command was executed."""

    addr: str
    function: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """The meter refused. Some meters send the byte without +33H, so both readings are kept and neither is trusted."""

    addr: str
    function: int
    word: int
    rest: bytes = b""  # bytes after the first one, if any

    @property
    def unshifted(self) -> int:
        """The byte as it was on the wire."""
        return (self.word + 0x33) & 0xFF

    @property
    def bits(self) -> tuple[str, ...]:
        return tuple(name for bit, name in enumerate(ERROR_BITS) if self.word >> bit & 1)

    @property
    def no_data(self) -> bool:
        """The identifier does not exist there, in whichever of the two readings names known bits only."""
        return self.word == 0x02 or self.unshifted == 0x02


Message = Read | ReadMore | ReadAddress | BroadcastTime | Command | ReadReply | AddressReply | Done | ErrorReply
Request = Read | ReadMore | ReadAddress | BroadcastTime | Command
Reply = ReadReply | AddressReply | Done | ErrorReply


def di_bytes(di: str) -> bytes:
    """An identifier as it travels: lowest byte first."""
    try:
        raw = bytes.fromhex(di)
    except ValueError as exc:
        raise LocalProtocolError(f"DL/T 645 identifier {di!r} is not hex", reason="di") from exc
    if len(raw) not in (2, 4) or len(di) not in (4, 8):
        raise LocalProtocolError(f"DL/T 645 identifier {di!r}: 8 digits, 1997 edition 4", reason="di")
    return raw[::-1]


def di_text(raw: bytes) -> str:
    """An identifier as it is printed."""
    return raw[::-1].hex().upper()


def _bcd(value: int) -> int:
    return value // 10 << 4 | value % 10


def to_frame(message: Message, preamble: int = 0) -> Frame:
    """The frame of a message. Raises LocalProtocolError if it cannot be said."""
    match message:
        case Read(addr, di, extra):
            return Frame(addr, READ if len(di) == 8 else READ_1997, di_bytes(di) + extra, preamble)
        case ReadMore(addr, di, seq):
            tail = bytes((seq & 0xFF,)) if len(di) == 8 else b""
            return Frame(addr, READ_MORE if len(di) == 8 else READ_MORE_1997, di_bytes(di) + tail, preamble)
        case ReadAddress(addr):
            return Frame(addr, READ_ADDRESS, b"", preamble)
        case BroadcastTime(time, addr):
            parts = (time.second, time.minute, time.hour, time.day, time.month, time.year % 100)
            return Frame(addr, BROADCAST_TIME, bytes(_bcd(part) for part in parts), preamble)
        case Command(addr, function, data):
            if function not in _COMMANDS:
                raise LocalProtocolError(f"DL/T 645 function {function:#x} has its own message", reason="control")
            return Frame(addr, function, data, preamble)
        case ReadReply(addr, di, data, more, seq):
            long = len(di) == 8
            function = (READ if long else READ_1997) if seq is None else (READ_MORE if long else READ_MORE_1997)
            tail = bytes((seq & 0xFF,)) if seq is not None and long else b""
            ctrl = _FROM_METER | function | (_MORE if more else 0)
            return Frame(addr, ctrl, di_bytes(di) + data + tail, preamble)
        case AddressReply(addr, meter):
            try:
                return Frame(addr, _FROM_METER | READ_ADDRESS, bytes.fromhex(meter)[::-1], preamble)
            except ValueError as exc:
                raise LocalProtocolError(f"DL/T 645 address {meter!r} is not hex", reason="address") from exc
        case Done(addr, function, data):
            return Frame(addr, _FROM_METER | function, data, preamble)
        case ErrorReply(addr, function, word, rest):
            return Frame(addr, _FROM_METER | _ERROR | function, bytes((word,)) + rest, preamble)


def from_frame(frame: Frame) -> Message:
    """The message in a frame. Raises RemoteProtocolError if it has none we know."""
    function, data = frame.ctrl & _FUNCTION, frame.data
    if not frame.ctrl & _FROM_METER:
        return _request(frame, function, data)
    if frame.ctrl & _ERROR:
        if not data:
            raise RemoteProtocolError("DL/T 645 error reply without error byte", reason="length")
        return ErrorReply(frame.addr, function, data[0], data[1:])
    if function == READ_ADDRESS:
        if len(data) != 6:
            raise RemoteProtocolError(f"DL/T 645 address reply of {len(data)} bytes", reason="length")
        return AddressReply(frame.addr, data[::-1].hex().upper())
    if function not in _READS:
        return Done(frame.addr, function, data)
    width = 4 if function in (READ, READ_MORE) else 2
    if len(data) < width:
        raise RemoteProtocolError("DL/T 645 read reply without identifier", reason="length")
    di, rest, more = di_text(data[:width]), data[width:], bool(frame.ctrl & _MORE)
    if function == READ_MORE:
        if not rest:
            raise RemoteProtocolError("DL/T 645 follow-up reply without SEQ", reason="length")
        return ReadReply(frame.addr, di, rest[:-1], more, rest[-1])
    if function == READ_MORE_1997:
        return ReadReply(frame.addr, di, rest, more, 0)
    return ReadReply(frame.addr, di, rest, more)


def _request(frame: Frame, function: int, data: bytes) -> Message:
    match frame.ctrl:
        case 0x11 | 0x01:
            width = 4 if function == READ else 2
            if len(data) < width:
                raise RemoteProtocolError("DL/T 645 read request without identifier", reason="length")
            return Read(frame.addr, di_text(data[:width]), data[width:])
        case 0x12:
            if len(data) != 5:
                raise RemoteProtocolError("DL/T 645 follow-up request: identifier and SEQ expected", reason="length")
            return ReadMore(frame.addr, di_text(data[:4]), data[4])
        case 0x02:
            if len(data) != 2:
                raise RemoteProtocolError("DL/T 645 follow-up request without identifier", reason="length")
            return ReadMore(frame.addr, di_text(data), 0)
        case 0x13:
            return ReadAddress(frame.addr)
        case 0x08:
            return BroadcastTime(_broadcast_time(data), frame.addr)
        case ctrl if ctrl in _COMMANDS:
            return Command(frame.addr, ctrl, data)
    raise RemoteProtocolError(f"DL/T 645 control byte {frame.ctrl:#04x}", reason="unknown_function")


def _broadcast_time(data: bytes) -> datetime:
    try:
        second, minute, hour, day, month, year = (int(f"{byte:02x}") for byte in data)
        return datetime(2000 + year, month, day, hour, minute, second)
    except ValueError as exc:
        raise RemoteProtocolError("DL/T 645 broadcast time is no time", reason="format") from exc


@dataclass(frozen=True, slots=True)
class WriteParts:
    di: str
    password: str  # level, then password, high byte first
    operator: str
    data: bytes


def write(addr: str, parts: WriteParts) -> Command:
    """A write request (14): identifier, PA P0 P1 P2, C0..C3, data."""
    password, operator = bytes.fromhex(parts.password)[::-1], bytes.fromhex(parts.operator)[::-1]
    if len(password) != 4 or len(operator) != 4:
        raise LocalProtocolError("DL/T 645 password and operator are 4 bytes each", reason="format")
    return Command(addr, WRITE, di_bytes(parts.di) + password + operator + parts.data)


def write_parts(command: Command) -> WriteParts:
    """What a write request carries. Raises RemoteProtocolError if it is too short."""
    data = command.data
    if command.function != WRITE or len(data) < 12:
        raise RemoteProtocolError("DL/T 645 write request too short", reason="length")
    return WriteParts(di_text(data[:4]), di_text(data[4:8]), di_text(data[8:12]), data[12:])


def address_matches(asked: str, meter: str) -> bool:
    """Whether a meter is meant: an A nibble in the asked address stands for any digit."""
    return len(asked) == len(meter) and all(a in ("A", m) for a, m in zip(asked, meter, strict=True))
