"""Frames of M-Bus (EN 13757-2, after open implementations): E5, ``10 C A CS 16`` and ``68 L L 68 C A CI data CS 16``.

A long frame announces itself by four bytes, so a false start is known at once; E5 is a frame of its own and may stand
in any noise: whoever asked decides whether it is an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

ACK = 0xE5
SHORT_START, LONG_START, END = 0x10, 0x68, 0x16
#: L counts C, A, CI and data.
MAX_LENGTH = 255
_SHORT_BYTES = 5
#: 68 L L 68 in front, CS 16 behind.
LONG_OVERHEAD = 6


@dataclass(frozen=True, slots=True)
class Ack:
    """The single character E5."""


@dataclass(frozen=True, slots=True)
class Short:
    """``c`` at offset 1, ``a`` at offset 2."""

    c: int
    a: int


@dataclass(frozen=True, slots=True)
class Long:
    """``c`` at offset 4, ``a`` 5, ``ci`` 6, ``data`` from 7. Without data it is a control frame (L = 3)."""

    c: int
    a: int
    ci: int
    data: bytes = b""


Frame = Ack | Short | Long


@dataclass(frozen=True, slots=True)
class Found:
    """A frame and where it stood in the stream."""

    frame: Frame
    offset: int
    length: int


def build(frame: Frame) -> bytes:
    """The bytes on the wire. Raises LocalProtocolError for what cannot be said."""
    match frame:
        case Ack():
            return bytes((ACK,))
        case Short(c, a):
            _check_bytes(c, a)
            return bytes((SHORT_START, c, a, (c + a) & 0xFF, END))
        case Long(c, a, ci, data):
            _check_bytes(c, a, ci)
            length = 3 + len(data)
            if length > MAX_LENGTH:
                raise LocalProtocolError(f"M-Bus data of {len(data)} bytes, at most 252", reason="length")
            body = bytes((c, a, ci)) + data
            return bytes((LONG_START, length, length, LONG_START)) + body + bytes((sum(body) & 0xFF, END))


def _check_bytes(*values: int) -> None:
    for value in values:
        if not 0 <= value <= 0xFF:
            raise LocalProtocolError(f"M-Bus field {value} is no byte", reason="field")


class Scanner:
    """Cuts a byte stream into frames; errors carry the offset of what they speak of in the whole stream."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._gone = 0  # bytes of the stream before what is held
        self._in_noise = False

    @property
    def held(self) -> bytes:
        """The frame that waits for more bytes (at most 260)."""
        return bytes(self._held)

    def feed(self, data: bytes) -> list[Found | RemoteProtocolError]:
        out: list[Found | RemoteProtocolError] = []
        for at in range(0, len(data), 256):
            self._held += data[at : at + 256]
            out.extend(self._drain(at_rest=False))
        return out

    def idle(self) -> list[Found | RemoteProtocolError]:
        """Silence on the line: what is held will not be completed; look behind its start, then give up."""
        out = list(self._drain(at_rest=True))
        self.reset()
        return out

    def reset(self) -> None:
        self._drop(len(self._held))
        self._in_noise = False

    def _drop(self, count: int) -> None:
        del self._held[:count]
        self._gone += count

    def _drain(self, *, at_rest: bool) -> Iterator[Found | RemoteProtocolError]:
        while self._held:
            verdict = self._judge()
            if isinstance(verdict, tuple):
                frame, length = verdict
                found = Found(frame, self._gone, length)
                self._in_noise = False
                self._drop(length)
                yield found
            elif verdict or at_rest:
                yield from self._report(verdict or "short")
                self._drop(1)
            else:
                return

    def _report(self, reason: str) -> Iterator[RemoteProtocolError]:
        if reason in ("garbage", "start", "short") and self._in_noise:
            return  # noise rather than a frame: told once for a whole run
        self._in_noise = True
        yield RemoteProtocolError(f"M-Bus frame refused: {reason}", reason=reason, offset=self._gone)

    def _judge(self) -> tuple[Frame, int] | str:
        """A frame and its length; a reason; or "" for more bytes please."""
        held = self._held
        match held[0]:
            case 0xE5:
                return Ack(), 1
            case 0x10:
                if len(held) < _SHORT_BYTES:
                    return ""
                if held[4] != END:
                    return "start"  # 10 stands in any noise
                if (held[1] + held[2]) & 0xFF != held[3]:
                    return "checksum"
                return Short(held[1], held[2]), _SHORT_BYTES
            case 0x68:
                return self._judge_long()
        return "garbage"

    def _judge_long(self) -> tuple[Frame, int] | str:
        held = self._held
        if len(held) > 1 and held[1] < 3:
            return "start"
        if len(held) < 4:
            return ""
        if held[3] != LONG_START:
            return "start"
        if held[1] != held[2]:
            return "length"
        if len(held) < held[1] + LONG_OVERHEAD:
            return ""
        end = held[1] + LONG_OVERHEAD
        if held[end - 1] != END:
            return "end"
        if sum(held[4 : end - 2]) & 0xFF != held[end - 2]:
            return "checksum"
        return Long(held[4], held[5], held[6], bytes(held[7 : end - 2])), end
