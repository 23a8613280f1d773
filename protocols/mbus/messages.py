"""What master and slave say to each other, as values (EN 13757-2 link layer, -3 control information).

Addresses: 1..250 one meter, 0 a new one, 253 whoever was selected by its secondary address, 254 everyone answers
(one meter on the line), 255 nobody answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.mbus import frame as f

SELECTED, ANYBODY, BROADCAST = 253, 254, 255
SND_NKE, SND_UD, REQ_UD2, RSP_UD = 0x40, 0x53, 0x5B, 0x08
#: Frame count bit: toggled to get the next telegram, kept to get the same again.
FCB = 0x20
_FROM_MASTER = 0x40
CI_SEND, CI_SELECT, CI_ERROR = 0x51, 0x52, 0x70
CI_LONG_HEADER, CI_SHORT_HEADER, CI_NO_HEADER, CI_FIXED = 0x72, 0x7A, 0x78, 0x73


@dataclass(frozen=True, slots=True)
class Reset:
    """SND_NKE: the link starts anew, the first telegram comes next. Answered by E5."""

    addr: int


@dataclass(frozen=True, slots=True)
class ReadData:
    """REQ_UD2: give data."""

    addr: int
    fcb: bool = False


@dataclass(frozen=True, slots=True)
class SendData:
    """SND_UD: data to the meter. Answered by E5."""

    addr: int
    ci: int = CI_SEND
    data: bytes = b""
    fcb: bool = False


@dataclass(frozen=True, slots=True)
class Select:
    """SND_UD to 253 with CI 52: the meter of that secondary address answers at 253 from now on, all others do not.

    ``secondary``: 16 hex digits: id (8, as printed), maker (4), version (2), medium (2); F is any digit.
    """

    secondary: str
    fcb: bool = False


@dataclass(frozen=True, slots=True)
class Ack:
    """E5. It names nobody."""


@dataclass(frozen=True, slots=True)
class Response:
    """RSP_UD. ``flags``: bits 4 and 5 of C (data flow control, access demand)."""

    addr: int
    ci: int
    data: bytes = b""
    flags: int = 0


@dataclass(frozen=True, slots=True)
class ApplicationError:
    """CI 70: the meter cannot carry it out. ``code`` None: it says no more."""

    addr: int
    code: int | None = None
    flags: int = 0


Request = Reset | ReadData | SendData | Select
Reply = Ack | Response | ApplicationError
Message = Request | Reply

#: Codes of CI 70, Chinese and English.
ERROR_TEXTS: dict[int, tuple[str, str]] = {
    0: ("未指明的错误", "unspecified error"),
    1: ("不支持的 CI", "CI field unknown"),
    2: ("缓冲区过长，已截断", "buffer too long, truncated"),
    3: ("记录过多", "too many records"),
    4: ("记录提前结束", "premature end of record"),
    5: ("DIFE 超过 10 个", "more than 10 DIFE"),
    6: ("VIFE 超过 10 个", "more than 10 VIFE"),
    8: ("应用忙", "application too busy"),
    9: ("读取次数过多", "too many readouts"),
}


def secondary_bytes(secondary: str) -> bytes:
    """The eight bytes of a secondary address on the wire. Raises LocalProtocolError."""
    try:
        raw = bytes.fromhex(secondary)
    except ValueError as exc:
        raise LocalProtocolError(f"M-Bus secondary address {secondary!r} is not hex", reason="address") from exc
    if len(raw) != 8 or len(secondary) != 16:
        text = f"M-Bus secondary address {secondary!r}: 16 digits (id 8, maker 4, version 2, medium 2)"
        raise LocalProtocolError(text, reason="address")
    return raw[3::-1] + raw[5:3:-1] + raw[6:]


def secondary_text(raw: bytes) -> str:
    """A secondary address as it is printed, from its eight bytes on the wire."""
    return (raw[3::-1] + raw[5:3:-1] + raw[6:8]).hex().upper()


def secondary_matches(asked: str, meter: str) -> bool:
    """Whether a meter is meant: an F in the asked address stands for any digit."""
    return len(asked) == len(meter) and all(a in ("F", m) for a, m in zip(asked.upper(), meter.upper(), strict=True))


def to_frame(message: Message) -> f.Frame:
    """The frame of a message. Raises LocalProtocolError if it cannot be said."""
    match message:
        case Reset(addr):
            return f.Short(SND_NKE, addr)
        case ReadData(addr, fcb):
            return f.Short(REQ_UD2 | (FCB if fcb else 0), addr)
        case SendData(addr, ci, data, fcb):
            return f.Long(SND_UD | (FCB if fcb else 0), addr, ci, data)
        case Select(secondary, fcb):
            return f.Long(SND_UD | (FCB if fcb else 0), SELECTED, CI_SELECT, secondary_bytes(secondary))
        case Ack():
            return f.Ack()
        case Response(addr, ci, data, flags):
            if flags & ~0x30:
                raise LocalProtocolError(f"M-Bus flags {flags:#x}: bits 4 and 5 only", reason="field")
            return f.Long(RSP_UD | flags, addr, ci, data)
        case ApplicationError(addr, code, flags):
            return f.Long(RSP_UD | flags, addr, CI_ERROR, b"" if code is None else bytes((code & 0xFF,)))


def from_master(frame: f.Frame) -> bool:
    """Who sent it: bit 6 of C. E5 always comes from a meter."""
    return not isinstance(frame, f.Ack) and bool(frame.c & _FROM_MASTER)


def from_frame(frame: f.Frame) -> Message:
    """The message in a frame. Raises RemoteProtocolError if it has none we know."""
    match frame:
        case f.Ack():
            return Ack()
        case f.Short(c, a) if c == SND_NKE:
            return Reset(a)
        case f.Short(c, a) if c & ~FCB == REQ_UD2:
            return ReadData(a, bool(c & FCB))
        case f.Long(c, a, ci, data) if c & ~FCB == SND_UD:
            if a == SELECTED and ci == CI_SELECT and len(data) == 8:
                return Select(secondary_text(data), bool(c & FCB))
            return SendData(a, ci, data, bool(c & FCB))
        case f.Long(c, a, ci, data) if c & ~0x30 == RSP_UD:
            if ci == CI_ERROR and len(data) <= 1:
                return ApplicationError(a, data[0] if data else None, c & 0x30)
            return Response(a, ci, data, c & 0x30)
    raise RemoteProtocolError(f"M-Bus control byte {frame.c:#04x}", reason="unknown_function")
