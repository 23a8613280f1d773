"""Frames of CJ/T 188: 68, meter type, seven address bytes, control, length, data, checksum, 16.

There is no second start byte as in DL/T 645, so noise has many false starts: of several candidates the one that is
complete first wins, and a failure costs one byte. 16, 68 and FE may all stand inside the data: frames are cut by
length. Offsets from field captures and drivers; the text of the standard was not at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

START = 0x68
END = 0x16
WAKE_UP = 0xFE
#: What the length byte can say; no edition at hand states less.
MAX_DATA = 255
#: 68, T, A0..A6, C, L in front of the data; CS and 16 behind.
HEADER_BYTES = 11
OVERHEAD_BYTES = 13


@dataclass(frozen=True, slots=True)
class Frame:
    """``type``: two hex digits (offset 1); ``addr``: 14 hex digits as printed, maker code first (offsets 2..8 on the
    wire, lowest byte first; some makers fill it with FF, so it is no number); ``ctrl`` offset 9; ``data`` from
    offset 11.

    ``preamble``: wake-up bytes FE in front, outside the checksum.
    """

    type: str
    addr: str
    ctrl: int
    data: bytes = b""
    preamble: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """A frame and where it stood: ``offset`` of its 68 in the stream, ``length`` from there to 16."""

    frame: Frame
    offset: int
    length: int


def build(frame: Frame) -> bytes:
    """The bytes on the wire. Raises LocalProtocolError for a type, address or data that cannot be said."""
    try:
        head = bytes.fromhex(frame.type), bytes.fromhex(frame.addr)
    except ValueError as exc:
        text = f"CJ/T 188 type {frame.type!r} or address {frame.addr!r} is not hex"
        raise LocalProtocolError(text, reason="address") from exc
    if len(head[0]) != 1 or len(frame.type) != 2:
        raise LocalProtocolError(f"CJ/T 188 type {frame.type!r}: 2 hex digits", reason="type")
    if len(head[1]) != 7 or len(frame.addr) != 14:
        raise LocalProtocolError(f"CJ/T 188 address {frame.addr!r}: 14 digits, with leading zeros", reason="address")
    if len(frame.data) > MAX_DATA:
        raise LocalProtocolError(f"CJ/T 188 data of {len(frame.data)} bytes, at most {MAX_DATA}", reason="length")
    if not 0 <= frame.ctrl <= 0xFF:
        raise LocalProtocolError(f"CJ/T 188 control {frame.ctrl:#x}", reason="control")
    core = bytes((START, head[0][0], *reversed(head[1]), frame.ctrl, len(frame.data))) + frame.data
    return bytes((WAKE_UP,)) * frame.preamble + core + bytes((sum(core) & 0xFF, END))


@dataclass(frozen=True, slots=True)
class _Bad:
    reason: str


class Scanner:
    """Cuts a byte stream into frames; errors carry the offset of what they speak of in the whole stream."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._gone = 0  # bytes of the stream before what is held
        self._preamble = 0
        self._in_noise = False

    @property
    def held(self) -> bytes:
        """The candidate that waits for more bytes (at most 268)."""
        return bytes(self._held)

    def feed(self, data: bytes) -> list[Found | RemoteProtocolError]:
        out: list[Found | RemoteProtocolError] = []
        for at in range(0, len(data), 256):
            self._held += data[at : at + 256]
            out.extend(self._drain(at_rest=False))
        return out

    def idle(self) -> list[Found | RemoteProtocolError]:
        """Silence on the line: what is held will not be completed; look behind false starts, then give up."""
        out = list(self._drain(at_rest=True))
        self.reset()
        return out

    def reset(self) -> None:
        self._drop(len(self._held))
        self._preamble = 0
        self._in_noise = False

    def _drop(self, count: int) -> None:
        del self._held[:count]
        self._gone += count

    def _drain(self, *, at_rest: bool) -> Iterator[Found | RemoteProtocolError]:
        while self._held:
            yield from self._skip_to_start()
            best: tuple[int, int, Frame] | None = None
            passed: list[tuple[int, _Bad | None]] = []
            at = 0
            while 0 <= at < len(self._held) and (best is None or at < best[1]):
                verdict = self._judge(at)
                if isinstance(verdict, tuple):
                    if best is None or verdict[0] < best[1]:
                        best = (at, *verdict)
                elif best is None:
                    passed.append((at, verdict))
                    if at == 0 and verdict is not None:
                        break  # hopeless: what is behind it is judged when it has gone
                at = self._held.find(START, at + 1)
            if best is not None:
                start, end, frame = best
                if start:
                    for where, bad in passed:
                        yield from self._report(bad.reason if bad else "short", where)
                    self._preamble = _trailing_wake_ups(self._held, start)
                found = Found(replace(frame, preamble=self._preamble), self._gone + start, end - start)
                self._preamble, self._in_noise = 0, False
                self._drop(end)
                yield found
                continue
            if not self._held:
                return
            head = passed[0][1]
            if head is None and not at_rest:
                return
            yield from self._report(head.reason if head else "short", 0)
            self._preamble = 0
            self._drop(1)

    def _skip_to_start(self) -> Iterator[RemoteProtocolError]:
        start = self._held.find(START)
        start = len(self._held) if start < 0 else start
        wake_ups = _trailing_wake_ups(self._held, start)
        if wake_ups < start:
            self._preamble = 0
            yield from self._report("garbage", 0)
        self._preamble += wake_ups
        self._drop(start)

    def _report(self, reason: str, at: int) -> Iterator[RemoteProtocolError]:
        if reason == "garbage" and self._in_noise:
            return  # noise rather than a frame: told once for a whole run
        self._in_noise = True
        yield RemoteProtocolError(f"CJ/T 188 frame refused: {reason}", reason=reason, offset=self._gone + at)

    def _judge(self, at: int) -> tuple[int, Frame] | _Bad | None:
        held = self._held
        if len(held) - at < HEADER_BYTES:
            return None
        end = at + OVERHEAD_BYTES + held[at + 10]
        if len(held) < end:
            return None
        if held[end - 1] != END:
            return _Bad("end")
        if sum(held[at : end - 2]) & 0xFF != held[end - 2]:
            return _Bad("checksum")
        return end, read(bytes(held[at:end]))


def read(raw: bytes) -> Frame:
    """The parts of a whole frame that starts with 68, whatever its checksum says."""
    addr = raw[8:1:-1].hex().upper()
    return Frame(f"{raw[1]:02X}", addr, raw[9], raw[HEADER_BYTES : HEADER_BYTES + raw[10]])


def _trailing_wake_ups(held: bytearray, end: int) -> int:
    count = 0
    while count < end and held[end - 1 - count] == WAKE_UP:
        count += 1
    return count
