"""Frames of GB/T 20999-2017: 7E, length, header, items, CRC, 7D; raw in a datagram, escaped on TCP and RS-232.

Layout from the fact sheet (three public sources and field captures agree; no clause seen). Offsets without escapes:
0 7E | 1 length u16, from version up to and with the CRC | 3 version u16 | 5 host u8 | 6 controller u32 | 10 crossing u8
| 11 sequence u8 | 12 type u8 | 13 item count u8 | 14 items | CRC16 | 7D.

Parsed by length, never by searching for 7D: in a datagram it may stand anywhere inside. Noise holds false starts, so of
several candidates the one that is complete first wins, and a failure costs one byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

START, END, ESCAPE = 0x7E, 0x7D, 0x5C
#: Version, host, controller, crossing, sequence, type, count and CRC: the length of a frame without items.
LEAST_LENGTH = 13
#: What the length word may say. 255 full items would be four times as much; no controller was seen near it, and a false
#: start must not make us wait for 64 kB.
MOST_LENGTH = 16_384
#: Query, set, broadcast, report, heartbeat with their answers; 71 is one tool's heartbeat answer.
TYPES = frozenset((0x10, 0x20, 0x21, 0x30, 0x40, 0x41, 0x50, 0x60, 0x70, 0x71, 0x80))
#: Versions seen are 0100 and 0102; a higher first byte is no version but noise.
_MOST_MAJOR = 0x0F

Framing = Literal["stream", "datagram"]

_BODY = re.compile(rb"(?:[^\x5c\x7d\x7e]|\x5c[\x5c\x7d\x7e])*+", re.DOTALL)
_SPECIAL = re.compile(rb"[\x5c\x7d\x7e]")
_ESCAPED = re.compile(rb"\x5c(.)", re.DOTALL)


def _table() -> tuple[int, ...]:
    out = []
    for value in range(256):
        reg = value << 8
        for _ in range(8):
            reg = (reg << 1 ^ 0x1005) & 0xFFFF if reg & 0x8000 else reg << 1
        out.append(reg)
    return tuple(out)


_TABLE = _table()


def crc16(data: bytes) -> int:
    """Polynomial x16+x12+x2+1 (1005H), start 0, not reflected, no final xor; sent high byte first.

    Some kits use 1021H with start FFFFH; that is another checksum."""
    reg = 0
    for byte in data:
        reg = (reg << 8 & 0xFF00) ^ _TABLE[reg >> 8 ^ byte]
    return reg


def escape(data: bytes) -> bytes:
    """5C before every 7E, 7D and 5C: what stands between the two delimiters on TCP and RS-232."""
    return _SPECIAL.sub(lambda found: b"\x5c" + found[0], data)


def unescape(data: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: found[1], data)


@dataclass(frozen=True, slots=True)
class Raw:
    """What lies between length word and CRC: from the version (frame offset 3) to the last item. ``wire``: bytes the
    frame took on the wire."""

    payload: bytes
    wire: int = 0


def build(payload: bytes, framing: Framing) -> bytes:
    """The bytes on the wire. Raises LocalProtocolError if the length word may not say it."""
    length = len(payload) + 2
    if not LEAST_LENGTH <= length <= MOST_LENGTH:
        raise LocalProtocolError(f"GB/T 20999 frame of {length} bytes, {MOST_LENGTH} at most", reason="length")
    inner = length.to_bytes(2, "big") + payload
    inner += crc16(inner).to_bytes(2, "big")
    return bytes((START,)) + (escape(inner) if framing == "stream" else inner) + bytes((END,))


@dataclass(frozen=True, slots=True)
class _Bad:
    reason: str


class Scanner:
    """Cuts bytes into frames: a stream's (escaped) or a datagram's (raw)."""

    def __init__(self, framing: Framing) -> None:
        self._stream = framing == "stream"
        self._held = bytearray()
        self._in_noise = False

    @property
    def held(self) -> int:
        """Bytes waiting for more."""
        return len(self._held)

    def feed(self, data: bytes) -> list[Raw | RemoteProtocolError]:
        out: list[Raw | RemoteProtocolError] = []
        # In slices, so that a huge read cannot make the buffer huge.
        for at in range(0, len(data), 1024):
            self._held += data[at : at + 1024]
            out.extend(self._drain(at_rest=False))
        return out

    def idle(self) -> list[Raw | RemoteProtocolError]:
        """Nothing more comes (silence, end of a datagram): look behind false starts, then give up what is held."""
        out = list(self._drain(at_rest=True))
        self.reset()
        return out

    def reset(self) -> None:
        self._held.clear()
        self._in_noise = False

    def _drain(self, *, at_rest: bool) -> Iterator[Raw | RemoteProtocolError]:
        while self._held:
            start = self._held.find(START)
            if start:
                yield from self._report("garbage")
                del self._held[: start if start > 0 else len(self._held)]
                continue
            best: tuple[int, int, Raw] | None = None
            passed: list[_Bad | None] = []
            at = 0
            while at >= 0 and (best is None or at < best[1]):
                verdict = self._judge(at)
                if isinstance(verdict, tuple):
                    if best is None or verdict[0] < best[1]:
                        best = (at, *verdict)
                elif best is None:
                    passed.append(verdict)
                    if at == 0 and verdict is not None:
                        break  # hopeless: what is behind it is judged when it has gone
                at = self._held.find(START, at + 1)
            if best is not None:
                for bad in passed:
                    yield from self._report(bad.reason if bad else "short")
                self._in_noise = False
                del self._held[: best[1]]
                yield best[2]
                continue
            if passed[0] is None:
                if at_rest:
                    # Every start was looked at, and none of them leads to a whole frame.
                    self._held.clear()
                    yield from self._report("short")
                return
            yield from self._report(passed[0].reason)
            del self._held[:1]

    def _report(self, reason: str) -> Iterator[RemoteProtocolError]:
        # What follows a bad start belongs to the same mishap; only a frame that was whole but for its CRC is news.
        if self._in_noise and reason != "crc":
            return
        self._in_noise = True
        yield RemoteProtocolError(f"GB/T 20999 frame refused: {reason}", reason=reason)

    def _judge(self, at: int) -> tuple[int, Raw] | _Bad | None:
        return self._judge_stream(at) if self._stream else self._judge_raw(at)

    def _judge_raw(self, at: int) -> tuple[int, Raw] | _Bad | None:
        held = self._held
        if (bad := _head(bytes(held[at + 1 : at + 14]))) is not None:
            return bad
        if len(held) < at + 3:
            return None
        length = int.from_bytes(held[at + 1 : at + 3], "big")
        end = at + length + 4
        if len(held) < end:
            return None
        if held[end - 1] != END:
            return _Bad("length")
        return _checked(bytes(held[at + 1 : end - 1]), end, end - at)

    def _judge_stream(self, at: int) -> tuple[int, Raw] | _Bad | None:
        held = self._held
        body = _BODY.match(held, at + 1)
        stop = body.end() if body else at + 1
        if (bad := _head(unescape(bytes(held[at + 1 : min(stop, at + 27)])))) is not None:
            return bad
        if stop - at > 2 * MOST_LENGTH + 4:
            return _Bad("length")
        if stop >= len(held) or (held[stop] == ESCAPE and stop + 1 >= len(held)):
            return None
        if held[stop] != END:
            return _Bad("short" if held[stop] == START else "escape")
        inner = unescape(bytes(held[at + 1 : stop]))
        if len(inner) < LEAST_LENGTH + 2 or len(inner) != int.from_bytes(inner[:2], "big") + 2:
            return _Bad("length")
        return _checked(inner, stop + 1, stop + 1 - at)


def _head(start: bytes) -> _Bad | None:
    """What the first bytes behind 7E already give away: no such length, version or type."""
    if len(start) >= 2 and not LEAST_LENGTH <= int.from_bytes(start[:2], "big") <= MOST_LENGTH:
        return _Bad("length")
    if len(start) >= 3 and start[2] > _MOST_MAJOR:
        return _Bad("version")
    if len(start) >= 12 and start[11] not in TYPES:
        return _Bad("type")
    return None


def _checked(inner: bytes, end: int, wire: int) -> tuple[int, Raw] | _Bad:
    if crc16(inner[:-2]) != int.from_bytes(inner[-2:], "big"):
        return _Bad("crc")
    return end, Raw(inner[2:-2], wire)
