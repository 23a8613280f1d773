"""Frames of DL/T 645: 68, address, 68, control, length, data + 33H, checksum, 16.

Parsed by length, never by searching for 16H: checksum and data may be 16, 68 or FE. Noise holds false starts, so of
several candidates the one that is complete first wins, and a failure costs one byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

START = 0x68
END = 0x16
WAKE_UP = 0xFE
#: Replies carry up to 200 data bytes, writes up to 50.
MAX_DATA = 200
_OVERHEAD = 12
#: Reasons that name noise rather than a frame: reported once for a whole run.
_NOISE = ("garbage", "start")


@dataclass(frozen=True, slots=True)
class Frame:
    """``addr`` in printed order (12 hex digits; not every device keeps to BCD), ``data`` without the +33H.

    ``preamble``: wake-up bytes FE in front, outside the checksum.
    """

    addr: str
    ctrl: int
    data: bytes = b""
    preamble: int = 0


def build(frame: Frame) -> bytes:
    """The bytes on the wire. Raises LocalProtocolError for an address or data that cannot be said."""
    try:
        addr = bytes.fromhex(frame.addr)
    except ValueError as exc:
        raise LocalProtocolError(f"DL/T 645 address {frame.addr!r} is not hex", reason="address") from exc
    if len(addr) != 6 or len(frame.addr) != 12:
        raise LocalProtocolError(f"DL/T 645 address {frame.addr!r}: 12 digits, with leading zeros", reason="address")
    if len(frame.data) > MAX_DATA:
        raise LocalProtocolError(f"DL/T 645 data of {len(frame.data)} bytes, at most 200", reason="length")
    if not 0 <= frame.ctrl <= 0xFF:
        raise LocalProtocolError(f"DL/T 645 control {frame.ctrl:#x}", reason="control")
    shifted = bytes((byte + 0x33) & 0xFF for byte in frame.data)
    core = bytes((START, *reversed(addr), START, frame.ctrl, len(shifted))) + shifted
    return bytes((WAKE_UP,)) * frame.preamble + core + bytes((sum(core) & 0xFF, END))


@dataclass(frozen=True, slots=True)
class _Bad:
    reason: str


class Scanner:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._preamble = 0
        self._in_noise = False

    @property
    def held(self) -> bytes:
        """The candidate that waits for more bytes (at most 212)."""
        return bytes(self._held)

    def feed(self, data: bytes) -> list[Frame | RemoteProtocolError]:
        out: list[Frame | RemoteProtocolError] = []
        for at in range(0, len(data), 256):
            self._held += data[at : at + 256]
            out.extend(self._drain(at_rest=False))
        return out

    def idle(self) -> list[Frame | RemoteProtocolError]:
        """Silence on the line: what is held will not be completed; look behind false starts, then give up."""
        out = list(self._drain(at_rest=True))
        self.reset()
        return out

    def reset(self) -> None:
        self._held.clear()
        self._preamble = 0
        self._in_noise = False

    def _drain(self, *, at_rest: bool) -> Iterator[Frame | RemoteProtocolError]:
        while self._held:
            yield from self._skip_to_start()
            best: tuple[int, int, Frame] | None = None
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
                start, end, frame = best
                if start:
                    for bad in passed:
                        yield from self._report(bad.reason if bad else "short")
                    self._preamble = _trailing_wake_ups(self._held, start)
                found = Frame(frame.addr, frame.ctrl, frame.data, self._preamble)
                self._preamble, self._in_noise = 0, False
                del self._held[:end]
                yield found
                continue
            if not self._held:
                return
            head = passed[0]
            if head is None and not at_rest:
                return
            yield from self._report(head.reason if head else "short")
            self._preamble = 0
            del self._held[:1]

    def _skip_to_start(self) -> Iterator[RemoteProtocolError]:
        start = self._held.find(START)
        start = len(self._held) if start < 0 else start
        wake_ups = _trailing_wake_ups(self._held, start)
        if wake_ups < start:
            self._preamble = 0
            yield from self._report("garbage")
        self._preamble += wake_ups
        del self._held[:start]

    def _report(self, reason: str) -> Iterator[RemoteProtocolError]:
        if reason in _NOISE and self._in_noise:
            return
        self._in_noise = True
        yield RemoteProtocolError(f"DL/T 645 frame refused: {reason}", reason=reason)

    def _judge(self, at: int) -> tuple[int, Frame] | _Bad | None:
        held = self._held
        size = len(held) - at
        if size <= 0:
            return None
        if size > 7 and held[at + 7] != START:
            return _Bad("start")
        if size <= 9:
            return None
        length = held[at + 9]
        if length > MAX_DATA:
            return _Bad("length")
        end = at + _OVERHEAD + length
        if len(held) < end:
            return None
        if held[end - 1] != END:
            return _Bad("end")
        if sum(held[at : end - 2]) & 0xFF != held[end - 2]:
            return _Bad("checksum")
        addr = bytes(reversed(held[at + 1 : at + 7])).hex().upper()
        data = bytes((byte - 0x33) & 0xFF for byte in held[at + 10 : end - 2])
        return end, Frame(addr, held[at + 8], data)


def _trailing_wake_ups(held: bytearray, end: int) -> int:
    count = 0
    while count < end and held[end - 1 - count] == WAKE_UP:
        count += 1
    return count
