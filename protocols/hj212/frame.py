"""Frames of HJ 212: ``##`` + length (4 digits) + data + CRC (4 hex digits) + CR LF, as stations really send them.

The field has four checksum rules and several ways to count the length, so a frame is accepted by its length when the
checksum fits there, else by the checksum before a line end (lenient mode only). Of several candidates the one that is
complete first wins: a wrong length field never hides the good frame behind it. On failure ONE byte is dropped.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

Variant = Literal["hj212", "modbus", "modbus-swapped", "arc"]
#: In the order in which they are tried: the standard's own rule first.
VARIANTS: tuple[Variant, ...] = ("hj212", "modbus", "modbus-swapped", "arc")

#: The standard says 1024; 1623 has been seen. Four digits are what the field can say.
MAX_DATA = 9999
_MAX_HELD = 6 + MAX_DATA + 6
#: A stream that is nothing but frame starts must not cost quadratic time.
_MAX_STARTS = 16
_MAX_REFUSED = 1024

_START = re.compile(rb"##")
#: Four hex digits that may be a checksum: before a line end (a forwarder has been seen to lose the closing &&), or
#: between && and the next frame or the end of what there is.
_TAIL = re.compile(rb"[0-9A-Fa-f]{4}(?=[\r\n])|(?<=&&)[0-9A-Fa-f]{4}(?=##)")
_TAIL_AT_REST = re.compile(rb"[0-9A-Fa-f]{4}(?=[\r\n])|(?<=&&)[0-9A-Fa-f]{4}(?=##|\Z)")
_END = re.compile(rb"[\r\n]|##")
_BETWEEN = b"\r\n \t\0"


def _table() -> tuple[int, ...]:
    out = []
    for value in range(256):
        reg = value
        for _ in range(8):
            reg = (reg >> 1) ^ 0xA001 if reg & 1 else reg >> 1
        out.append(reg)
    return tuple(out)


_TABLE = _table()


def _crc_standard(data: bytes) -> int:
    # Annex A throws the low byte of the register away at every step, so it is no CRC-16/MODBUS: 256 results only.
    reg = 0xFFFF
    for byte in data:
        reg = _TABLE[(reg >> 8) ^ byte]
    return reg


def _crc16(data: bytes, start: int) -> int:
    reg = start
    for byte in data:
        reg = (reg >> 8) ^ _TABLE[(reg ^ byte) & 0xFF]
    return reg


def checksum(data: bytes, variant: Variant = "hj212") -> str:
    """The four hex digits of ``data`` (from Q of QN to the last ``&&``) by one of the rules in the field."""
    match variant:
        case "hj212":
            return f"{_crc_standard(data):04X}"
        case "modbus":
            return f"{_crc16(data, 0xFFFF):04X}"
        case "modbus-swapped":
            reg = _crc16(data, 0xFFFF)
            return f"{(reg & 0xFF) << 8 | reg >> 8:04X}"
        case "arc":
            return f"{_crc16(data, 0):04X}"


@dataclass(frozen=True, slots=True)
class RawFrame:
    """The data part of one frame, and by which rules it was accepted."""

    data: bytes
    variant: Variant = "hj212"
    length_ok: bool = True


def build(data: bytes, variant: Variant = "hj212") -> bytes:
    """The bytes on the wire. Raises LocalProtocolError if the length field cannot say it."""
    if len(data) > MAX_DATA:
        raise LocalProtocolError(f"HJ 212 data of {len(data)} bytes, the length field ends at 9999", reason="length")
    return b"##%04d%b%b\r\n" % (len(data), data, checksum(data, variant).encode())


@dataclass(frozen=True, slots=True)
class Found:
    """A frame, or why there is none, with its place in the stream."""

    at: int
    size: int
    result: RawFrame | RemoteProtocolError


@dataclass(frozen=True, slots=True)
class _Hit:
    end: int
    frame: RawFrame


@dataclass(frozen=True, slots=True)
class _Bad:
    reason: str


class Scanner:
    """Cuts a byte stream into frames. ``strict``: the standard's checksum and a right length field, nothing else."""

    def __init__(self, *, variants: Sequence[Variant] = VARIANTS, strict: bool = False) -> None:
        self._variants: tuple[Variant, ...] = ("hj212",) if strict else tuple(variants)
        self._strict = strict
        self._held = bytearray()
        self._in_noise = False
        self._dropped = 0  # bytes of the stream before what is held
        self._refused: set[tuple[int, int]] = set()  # spans of the stream whose checksum is known not to fit

    @property
    def held(self) -> int:
        """Bytes waiting for more."""
        return len(self._held)

    def feed(self, data: bytes) -> list[RawFrame | RemoteProtocolError]:
        return [found.result for found in self.find(data)]

    def find(self, data: bytes) -> list[Found]:
        """The same with places (for a capture)."""
        out: list[Found] = []
        # In slices, so that a huge read cannot make the buffer huge.
        for at in range(0, len(data), 4096):
            self._held += data[at : at + 4096]
            out.extend(self._drain(at_rest=False))
        return out

    def idle(self) -> list[RawFrame | RemoteProtocolError]:
        """Nothing more comes: judge what is held, and give it up."""
        return [found.result for found in self.finish()]

    def finish(self) -> list[Found]:
        out = list(self._drain(at_rest=True))
        if self._held:
            error = RemoteProtocolError("HJ 212 frame cut off", reason="short")
            out.append(Found(self._dropped, len(self._held), error))
        self.reset()
        return out

    def reset(self) -> None:
        self._drop(len(self._held))
        self._in_noise = False

    def _drain(self, *, at_rest: bool) -> Iterator[Found]:
        while self._held:
            yield from self._skip_to_start()
            if (whole := self._whole()) is not None:
                self._in_noise = False
                begin = self._dropped
                self._drop(whole.end)
                yield Found(begin, whole.end, whole.frame)
                continue
            if self._held.startswith(b"##") and self._no_length(0):
                # Seen from its first bytes, without a look at all that is held: a line that says nothing but "#" must
                # not cost a gateway the square of its length.
                yield from self._report("garbage", 0, len(self._held))
                self._drop(1)
                continue
            starts = [m.start() for m in islice(_START.finditer(self._held), _MAX_STARTS + 1)]
            if not starts:
                return
            tails = [m.start() for m in (_TAIL_AT_REST if at_rest else _TAIL).finditer(self._held)]
            verdicts: dict[int, _Bad | None] = {}
            best: tuple[int, _Hit] | None = None
            for start in starts[:_MAX_STARTS]:
                if best is not None and start >= best[1].end:
                    break
                verdict = self._judge(start, tails, at_rest=at_rest)
                if isinstance(verdict, _Hit):
                    if best is None or verdict.end < best[1].end:
                        best = (start, verdict)
                    continue
                verdicts[start] = verdict
                if start == 0 and verdict is not None:
                    break  # hopeless: what is behind it is judged when it has gone
            if best is not None:
                for start, bad in verdicts.items():
                    if start < best[0]:
                        yield from self._report(bad.reason if bad else "short", start, best[0] - start)
                self._in_noise = False
                begin = self._dropped + best[0]
                self._drop(best[1].end)
                yield Found(begin, best[1].end - best[0], best[1].frame)
                continue
            head = verdicts.get(0)
            if head is None and len(self._held) < _MAX_HELD and len(starts) <= _MAX_STARTS:
                return
            yield from self._report(head.reason if head else "length", 0, len(self._held))
            self._drop(1)

    def _whole(self) -> _Hit | None:
        """The ordinary case, without looking at all that is held: a frame by its length whose checksum fits, with
        nothing in it that could be the end or the start of another."""
        digits = bytes(self._held[2:6])
        if len(digits) < 4 or not digits.isdigit():
            return None
        length = int(digits)
        end = 6 + length
        if len(self._held) < end + 4 or _END.search(self._held, 6, end) is not None:
            return None
        frame = self._read(6, end, length)
        return None if frame is None else _Hit(end + 4, frame)

    def _drop(self, count: int) -> None:
        del self._held[:count]
        self._dropped += count
        if not self._held:
            self._refused.clear()

    def _skip_to_start(self) -> Iterator[Found]:
        start = self._held.find(b"##")
        if start < 0:
            start = len(self._held) - (1 if self._held.endswith(b"#") else 0)
        if self._held[:start].strip(_BETWEEN):
            yield from self._report("garbage", 0, start)
        self._drop(start)

    def _report(self, reason: str, start: int, size: int) -> Iterator[Found]:
        # What follows a bad start belongs to the same mishap: one report, until a good frame or a new bad start.
        if reason == "garbage" and self._in_noise:
            return
        self._in_noise = True
        error = RemoteProtocolError(f"HJ 212 frame refused: {reason}", reason=reason)
        yield Found(self._dropped + start, size, error)

    def _no_length(self, start: int) -> bool:
        """Whether no length stands behind a start, whatever may still come."""
        digits = bytes(self._held[start + 2 : start + 6])
        said = len(digits) - len(digits.lstrip(b"0123456789"))
        return said < len(digits) and (self._strict or said < 2 or not digits[said : said + 1].isalpha())

    def _judge(self, start: int, tails: Sequence[int], *, at_rest: bool) -> _Hit | _Bad | None:
        held = self._held
        if self._no_length(start):
            return _Bad("garbage")
        digits = bytes(held[start + 2 : start + 6])
        said = len(digits) - len(digits.lstrip(b"0123456789"))
        if len(digits) < 4 and said == len(digits):
            return None
        # Senders that print the length without leading zeros go straight on with QN or ST.
        body, length = start + 2 + said, int(digits[:said])
        if len(held) >= body + length + 4 and (frame := self._read(body, body + length, length)) is not None:
            return _Hit(body + length + 4, frame)
        # The standard's checksum has 256 values only: a guess must not reach over a line end or the next start.
        limit = _END.search(held, body)
        for tail in tails[bisect_left(tails, body) :]:
            if limit is not None and tail > limit.start():
                break
            over = bytes(held[tail + 4 : tail + 5]) in (b"\r", b"\n", b"")
            if self._strict:
                if over:
                    return _Bad("crc" if tail - body == length else "length")
            elif (frame := self._read(body, tail, length)) is not None:
                return _Hit(tail + 4, frame)
            elif over:
                return _Bad("crc")
        if at_rest and limit is None and len(held) - 4 > body:
            # The closing && and the line end are both gone: what stands last may still be the checksum.
            tail = len(held) - 4
            if (frame := self._read(body, tail, length)) is not None:
                return _Bad("length") if self._strict else _Hit(tail + 4, frame)
        end = body + length + 4
        if len(held) < end or (limit is None and not at_rest):
            return None
        # All of it is here and nothing fits: behind the end of the line the length was wrong, else the checksum is.
        return _Bad("length" if limit is not None and limit.start() < end else "crc")

    def _read(self, body: int, tail: int, length: int) -> RawFrame | None:
        """The frame whose data end at ``tail``, if the checksum there fits. Each span is computed once."""
        span = (self._dropped + body, self._dropped + tail)
        if span in self._refused:
            return None
        data, printed = bytes(self._held[body:tail]), bytes(self._held[tail : tail + 4])
        if printed.isalnum() and b"\n##" not in data:
            wanted = printed.decode("ascii").upper()
            for variant in self._variants:
                if checksum(data, variant) == wanted:
                    return RawFrame(data, variant, length_ok=len(data) == length)
        if len(self._refused) > _MAX_REFUSED:
            self._refused.clear()
        self._refused.add(span)
        return None
