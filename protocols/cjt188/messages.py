"""What master and meter say to each other, as values.

Identifiers are text, high byte first ("901F"). Makers put the two bytes on the wire in either order, about half each,
so ``order`` says how they stood, or are to stand. Addresses are text as printed on the meter, maker code first:
leading zeros matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from protocols.cjt188.frame import Frame
from protocols.core.errors import LocalProtocolError, RemoteProtocolError

ANYBODY = "AAAAAAAAAAAAAA"  # whoever is there answers: one meter on the line
ANY_TYPE = "AA"

#: D4..D0 of the control byte (from field captures; D7 reply, D6 error, D5 more follows).
READ, READ_ADDRESS, WRITE, READ_KEY, WRITE_ADDRESS, MOTOR_SYNC = 0x01, 0x03, 0x04, 0x09, 0x15, 0x16
FROM_METER, ERROR, MORE, FUNCTION = 0x80, 0x40, 0x20, 0x1F
_COMMANDS = (WRITE, READ_KEY, WRITE_ADDRESS, MOTOR_SYNC)
FUNCTIONS = (READ, READ_ADDRESS, *_COMMANDS)

DI_ADDRESS, DI_KEY = "810A", "8106"
DI_VALVE, DI_NEW_ADDRESS, DI_CLOCK, DI_MOTOR_SYNC = "A017", "A018", "A015", "A016"
VALVE_OPEN, VALVE_CLOSE = 0x55, 0x99

DiOrder = Literal["901F", "1F90"]
DI_ORDERS: tuple[DiOrder, ...] = get_args(DiOrder)
#: First bytes of identifiers; they tell which of the two bytes is the high one.
_HIGH = frozenset({0x90, 0x91, 0x81, 0xA0, 0xA1, 0xD1, 0xD2, 0xD3, 0xD4})
#: Identifiers whose answer some makers send without SER: their data length.
_FIXED = {"907F": 7}


@dataclass(frozen=True, slots=True)
class Read:
    """Ask for one data identifier. ``ser``: a running number that the meter echoes; None: left out.

    ``woken``, here as in every request: wake-up bytes that were heard in front of it; a meter may want many.
    """

    type: str
    addr: str
    di: str
    ser: int | None = 0
    order: DiOrder = "901F"
    extra: bytes = b""
    woken: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ReadAddress:
    type: str = ANY_TYPE
    addr: str = ANYBODY
    ser: int | None = 0
    order: DiOrder = "901F"
    woken: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Command:
    """Write (04), read key version (09), write address (15), set the reading (16): identifier and data."""

    type: str
    addr: str
    function: int
    di: str
    data: bytes = b""
    ser: int | None = 0
    order: DiOrder = "901F"
    woken: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ReadReply:
    """Data of one identifier, behind SER."""

    type: str
    addr: str
    di: str
    data: bytes
    ser: int | None = 0
    order: DiOrder = "901F"
    more: bool = False


@dataclass(frozen=True, slots=True)
class AddressReply:
    """The address is that of the frame; ``data``: what some makers add."""

    type: str
    addr: str
    ser: int | None = 0
    order: DiOrder = "901F"
    di: str = DI_ADDRESS
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Done:
    """A command was taken. ``data``: for a valve the two status bytes."""

    type: str
    addr: str
    function: int
    di: str
    data: bytes = b""
    ser: int | None = 0
    order: DiOrder = "901F"


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """The meter refused: SER and two status bytes, no identifier (from field captures; L = 3)."""

    type: str
    addr: str
    function: int
    ser: int = 0
    status: bytes = b""


Message = Read | ReadAddress | Command | ReadReply | AddressReply | Done | ErrorReply
Request = Read | ReadAddress | Command
Reply = ReadReply | AddressReply | Done | ErrorReply


def valve(type_: str, addr: str, *, shut: bool, ser: int = 0, order: DiOrder = "901F") -> Command:
    """Open (55) or close (99) the valve (A017). It travels for up to a minute: the status tells when it has."""
    return Command(type_, addr, WRITE, DI_VALVE, bytes((VALVE_CLOSE if shut else VALVE_OPEN,)), ser, order)


def write_address(type_: str, addr: str, new: str, *, ser: int = 0, order: DiOrder = "901F") -> Command:
    """Give a meter another address (15, A018). Raises LocalProtocolError for one that is none."""
    try:
        raw = bytes.fromhex(new)
    except ValueError as exc:
        raise LocalProtocolError(f"CJ/T 188 address {new!r} is not hex", reason="address") from exc
    if len(raw) != 7:
        raise LocalProtocolError(f"CJ/T 188 address {new!r}: 14 digits", reason="address")
    return Command(type_, addr, WRITE_ADDRESS, DI_NEW_ADDRESS, raw[::-1], ser, order)


def split_di(raw: bytes) -> tuple[str, DiOrder]:
    """Identifier and order of its two bytes on the wire. What nobody knows is taken as it stands."""
    high_first = raw[0] in _HIGH or raw[1] not in _HIGH
    return (raw.hex().upper(), "901F") if high_first else (raw[::-1].hex().upper(), "1F90")


def _di_bytes(di: str, order: DiOrder) -> bytes:
    try:
        raw = bytes.fromhex(di)
    except ValueError as exc:
        raise LocalProtocolError(f"CJ/T 188 identifier {di!r} is not hex", reason="di") from exc
    if len(raw) != 2 or len(di) != 4:
        raise LocalProtocolError(f"CJ/T 188 identifier {di!r}: 4 digits", reason="di")
    if order not in DI_ORDERS:
        raise LocalProtocolError(f"CJ/T 188 order {order!r} of the identifier", reason="di")
    return raw if order == "901F" else raw[::-1]


def _body(di: str, order: DiOrder, ser: int | None, data: bytes = b"") -> bytes:
    if ser is not None and not 0 <= ser <= 0xFF:
        raise LocalProtocolError(f"CJ/T 188 SER {ser}: one byte", reason="ser")
    return _di_bytes(di, order) + (b"" if ser is None else bytes((ser,))) + data


def to_frame(message: Message, preamble: int = 0) -> Frame:
    """The frame of a message. Raises LocalProtocolError if it cannot be said."""
    kind, addr = message.type, message.addr
    match message:
        case Read():
            return Frame(kind, addr, READ, _body(message.di, message.order, message.ser, message.extra), preamble)
        case ReadAddress():
            return Frame(kind, addr, READ_ADDRESS, _body(DI_ADDRESS, message.order, message.ser), preamble)
        case Command() | Done():
            if message.function not in _COMMANDS:
                text = f"CJ/T 188 function {message.function:#x} has its own message"
                raise LocalProtocolError(text, reason="control")
            ctrl = message.function | (FROM_METER if isinstance(message, Done) else 0)
            return Frame(kind, addr, ctrl, _body(message.di, message.order, message.ser, message.data), preamble)
        case ReadReply():
            ctrl = FROM_METER | READ | (MORE if message.more else 0)
            return Frame(kind, addr, ctrl, _body(message.di, message.order, message.ser, message.data), preamble)
        case AddressReply():
            body = _body(message.di, message.order, message.ser, message.data)
            return Frame(kind, addr, FROM_METER | READ_ADDRESS, body, preamble)
        case ErrorReply():
            if not 0 <= message.ser <= 0xFF:
                raise LocalProtocolError(f"CJ/T 188 SER {message.ser}: one byte", reason="ser")
            ctrl = FROM_METER | ERROR | message.function
            return Frame(kind, addr, ctrl, bytes((message.ser,)) + message.status, preamble)


@dataclass(frozen=True, slots=True)
class Body:
    """The data of a frame that is no error reply."""

    di: str
    order: DiOrder
    ser: int | None
    data: bytes


def body_of(data: bytes) -> Body | None:
    """Identifier, SER and the rest; None if there is no identifier."""
    if len(data) < 2:
        return None
    di, order = split_di(data[:2])
    if len(data) == 2:
        return Body(di, order, None, b"")
    if len(data) == 2 + _FIXED.get(di, -1):
        return Body(di, order, None, data[2:])  # one driver's 907F: the time without SER in front
    return Body(di, order, data[2], data[3:])


def from_frame(frame: Frame) -> Message:
    """The message in a frame. Raises RemoteProtocolError if it has none we know."""
    function, kind, addr = frame.ctrl & FUNCTION, frame.type, frame.addr
    if function not in FUNCTIONS or (not frame.ctrl & FROM_METER and frame.ctrl != function):
        raise RemoteProtocolError(f"CJ/T 188 control byte {frame.ctrl:#04x}", reason="unknown_function")
    if frame.ctrl & FROM_METER and frame.ctrl & ERROR:
        if not frame.data:
            raise RemoteProtocolError("CJ/T 188 error reply without SER", reason="length")
        return ErrorReply(kind, addr, function, frame.data[0], frame.data[1:])
    body = body_of(frame.data)
    if body is None:
        raise RemoteProtocolError("CJ/T 188 frame without identifier", reason="length")
    if not frame.ctrl & FROM_METER:
        if function == READ:
            return Read(kind, addr, body.di, body.ser, body.order, body.data, frame.preamble)
        if function == READ_ADDRESS:
            return ReadAddress(kind, addr, body.ser, body.order, frame.preamble)
        return Command(kind, addr, function, body.di, body.data, body.ser, body.order, frame.preamble)
    if function == READ:
        return ReadReply(kind, addr, body.di, body.data, body.ser, body.order, bool(frame.ctrl & MORE))
    if function == READ_ADDRESS:
        return AddressReply(kind, addr, body.ser, body.order, body.di, body.data)
    return Done(kind, addr, function, body.di, body.data, body.ser, body.order)


def same_class(asked: str, answered: str) -> bool:
    """Whether a meter of one type may answer for the other: 10-19 water, 20-29 heat, 30-39 gas; AA anyone."""
    return ANY_TYPE in (asked, answered) or asked[0] == answered[0]
