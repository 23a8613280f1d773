"""Telegrams of SL 651-2014 cut out of a byte stream, in both encodings the standard has.

HEX/BCD (nearly everything in the field): ``7E 7E``, 12 bytes of header, body, end byte, CRC. ASCII: ``01``, the same
header as hex digits, body as text, end byte, CRC as four hex digits. ``7E`` may stand anywhere inside, so a telegram is
what has a header, the length it says and a checksum that fits; on failure ONE byte is dropped. Of several candidates
the one that is complete first wins: a wrong length never hides the good telegram behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import islice

from protocols.core.errors import LocalProtocolError, RemoteProtocolError


class End(IntEnum):
    """The byte after the body. Up: ETX, ETB. Down: the others."""

    ETX = 0x03  # last
    EOT = 0x04  # got it, hang up
    ENQ = 0x05  # a question
    ACK = 0x06  # got it, send on
    NAK = 0x15  # send that packet again
    ETB = 0x17  # more follows
    ESC = 0x1B  # got it, stay on line (10 minutes)


STX, SYN = 0x02, 0x16
#: Twelve bits of length.
MAX_BODY = 0xFFF
#: Longest telegram: header with start byte, body, end byte, CRC; in ASCII every header byte takes two digits.
HEX_HEAD, HEX_TAIL = 14, 3
ASCII_HEAD, ASCII_TAIL = 24, 5
MAX_HELD = ASCII_HEAD + MAX_BODY + ASCII_TAIL
#: A stream that is nothing but headers must not cost quadratic time.
_MAX_STARTS = 32

_HEX = rb"\x7e\x7e.{9}[\x00-\x0f\x80-\x8f].[\x02\x16]"
_ASCII = rb"\x01[0-9A-Fa-f]{18}[08][0-9A-Fa-f]{3}[\x02\x16]"
#: Whole headers, also where they overlap.
_HEADER = re.compile(rb"(?=" + _HEX + rb"|" + _ASCII + rb")", re.DOTALL)
_TEXT = b"\r\n \t\0"
_HEX_DIGITS = frozenset(b"0123456789ABCDEFabcdef")


def _table() -> tuple[int, ...]:
    out = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1
        out.append(value)
    return tuple(out)


_TABLE = _table()


def crc(data: bytes) -> int:
    """CRC-16/MODBUS (start FFFF, reflected A001) over all from the start byte to the end byte. It travels HIGH byte
    first: the other way round than in Modbus."""
    reg = 0xFFFF
    for byte in data:
        reg = (reg >> 8) ^ _TABLE[(reg ^ byte) & 0xFF]
    return reg


@dataclass(frozen=True, slots=True)
class Telegram:
    """One telegram, or a whole message whose packets were put together (``total`` packets, ``seq`` 0).

    ``body``: what stands between the start byte and the end byte, without packet numbers. ``station``: ten hex digits,
    ``password``: four. ``total`` 0: sent in one piece (STX).
    """

    func: int
    body: bytes
    station: str
    center: int = 1
    password: str = "0000"  # noqa: S105 - the protocol's field, the factory's value
    down: bool = False
    end: End = End.ETX
    total: int = 0
    seq: int = 0
    ascii: bool = False

    @property
    def is_part(self) -> bool:
        """One of several packets."""
        return self.total > 1 and self.seq > 0

    @property
    def swapped_station(self) -> str:
        """The station if the two addresses of the header stand in the other order: some stations send the down-link
        order with the direction bits of an up-link."""
        raw = _address_bytes(self)
        return (raw[1:] if self.down else raw[:5]).hex().upper()


def _address_bytes(telegram: Telegram) -> bytes:
    station, center = bytes.fromhex(telegram.station), bytes((telegram.center,))
    return station + center if telegram.down else center + station


def _legal(telegram: Telegram) -> None:
    def hexadecimal(text: str, digits: int) -> bool:
        return len(text) == digits and all(char in "0123456789ABCDEF" for char in text)

    if not hexadecimal(telegram.station, 10) or not hexadecimal(telegram.password, 4):
        raise LocalProtocolError(
            f"SL 651 station {telegram.station!r}: ten digits; its password: four", reason="address"
        )
    if not (0 <= telegram.center <= 0xFF and 0 <= telegram.func <= 0xFF):
        raise LocalProtocolError("SL 651 centre and function are one byte each", reason="header")
    if telegram.seq and not 1 <= telegram.seq <= telegram.total <= MAX_BODY:
        raise LocalProtocolError(f"SL 651 packet {telegram.seq} of {telegram.total}", reason="split")


def build(telegram: Telegram) -> bytes:
    """The bytes of one telegram. Raises LocalProtocolError if the header cannot say it."""
    _legal(telegram)
    body = telegram.body
    counted = telegram.seq > 0
    extra = (6 if telegram.ascii else 3) if counted else 0
    if len(body) + extra > MAX_BODY:
        raise LocalProtocolError(f"SL 651 body of {len(body)} bytes: send it in packets", reason="length")
    size = (0x8000 if telegram.down else 0) | (len(body) + extra)
    head = (
        _address_bytes(telegram) + bytes.fromhex(telegram.password) + bytes((telegram.func,)) + size.to_bytes(2, "big")
    )
    numbers = (telegram.total << 12 | telegram.seq).to_bytes(3, "big") if counted else b""
    start = bytes((SYN if counted else STX,))
    if telegram.ascii:
        data = b"\x01" + head.hex().upper().encode() + start + numbers.hex().upper().encode() + body
        data += bytes((telegram.end,))
        return data + b"%04X" % crc(data)
    data = b"\x7e\x7e" + head + start + numbers + body + bytes((telegram.end,))
    return data + crc(data).to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of a candidate say. ``size``: bytes of the whole telegram."""

    telegram: Telegram  # with an empty body
    length: int
    size: int
    body_at: int


def header_at(data: bytes | bytearray, at: int) -> Header | None:
    """The header that begins there; None if there is none, or not all of it."""
    if data[at : at + 1] == b"\x01":
        text = data[at + 1 : at + ASCII_HEAD - 1]
        if len(data) < at + ASCII_HEAD or not all(byte in _HEX_DIGITS for byte in text):
            return None
        head, is_ascii, begin, tail = bytes.fromhex(text.decode("ascii")), True, ASCII_HEAD, ASCII_TAIL
    else:
        if len(data) < at + HEX_HEAD or data[at : at + 2] != b"\x7e\x7e":
            return None
        head, is_ascii, begin, tail = bytes(data[at + 2 : at + HEX_HEAD - 1]), False, HEX_HEAD, HEX_TAIL
    start, direction = data[at + begin - 1], head[9] >> 4
    length = (head[9] & 0x0F) << 8 | head[10]
    if start not in (STX, SYN) or direction not in (0, 8):
        return None
    if start == SYN and length < (6 if is_ascii else 3):
        return None
    down = direction == 8
    station, center = (head[:5], head[5]) if down else (head[1:6], head[0])
    telegram = Telegram(
        func=head[8],
        body=b"",
        station=station.hex().upper(),
        center=center,
        password=head[6:8].hex().upper(),
        down=down,
        total=1 if start == SYN else 0,
        ascii=is_ascii,
    )
    return Header(telegram, length, begin + length + tail, begin)


def checksum_of(data: bytes, *, is_ascii: bool) -> tuple[bytes, bytes]:
    """What the end of a whole telegram says, and what comes out; as on the wire (digits in upper case)."""
    if is_ascii:
        return bytes(data[-4:]).upper(), b"%04X" % crc(data[:-4])
    return bytes(data[-2:]), crc(data[:-2]).to_bytes(2, "big")


def read_whole(data: bytes, header: Header) -> Telegram | None:
    """The telegram in exactly these bytes, whose checksum fits; None if its packet numbers or end byte mean nothing."""
    told = header.telegram
    tail = ASCII_TAIL if told.ascii else HEX_TAIL
    body, end = bytes(data[header.body_at : -tail]), data[-tail]
    total = seq = 0
    if told.total:
        width = 6 if told.ascii else 3
        try:
            numbers = int(body[:width], 16) if told.ascii else int.from_bytes(body[:width], "big")
        except ValueError:
            return None
        total, seq, body = numbers >> 12, numbers & 0xFFF, body[width:]
        if not 1 <= seq <= total:
            return None
    if end not in set(End):
        return None
    return replace(told, body=body, end=End(end), total=total, seq=seq)


@dataclass(frozen=True, slots=True)
class Found:
    """A telegram, or why there is none, with its place in the stream."""

    at: int
    size: int
    result: Telegram | RemoteProtocolError


class Scanner:
    """Cuts a byte stream into telegrams; holds at most one longest telegram."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._in_noise = False
        self._dropped = 0  # bytes of the stream before what is held
        self._refused: dict[int, str] = {}  # place in the stream of a start that is none -> why
        self._ends: dict[int, int] = {}  # place of a start -> place at which its telegram is complete

    @property
    def held(self) -> int:
        """Bytes waiting for more."""
        return len(self._held)

    def feed(self, data: bytes) -> list[Telegram | RemoteProtocolError]:
        return [found.result for found in self.find(data)]

    def find(self, data: bytes) -> list[Found]:
        """The same with places (for a capture)."""
        out: list[Found] = []
        # In slices, so that a huge read cannot make the buffer huge.
        for at in range(0, len(data), 2048):
            self._held += data[at : at + 2048]
            out.extend(self._drain(at_rest=False))
        return out

    def idle(self) -> list[Telegram | RemoteProtocolError]:
        """Nothing more comes: judge what is held, and give it up."""
        return [found.result for found in self.finish()]

    def finish(self) -> list[Found]:
        out = list(self._drain(at_rest=True))
        self.reset()
        return out

    def reset(self) -> None:
        self._drop(len(self._held))
        self._in_noise = False

    # -- inside

    def _drain(self, *, at_rest: bool) -> Iterator[Found]:
        while self._held:
            yield from self._skip_to_start()
            starts = [m.start() for m in islice(_HEADER.finditer(self._held), _MAX_STARTS)]
            best: tuple[int, int, Telegram] | None = None
            for start in starts:
                if best is not None and start >= best[0] + best[1]:
                    break
                judged = self._judge(start)
                if judged is not None and (best is None or start + judged[0] < best[0] + best[1]):
                    best = (start, *judged)
            if best is not None:
                start, size, telegram = best
                if start:
                    yield from self._report(self._refused.get(self._dropped, "short"), start)
                self._drop(start)
                self._in_noise = False
                yield Found(self._dropped, size, telegram)
                self._drop(size)
                continue
            if not self._held:
                return
            why = self._refused.get(self._dropped)
            full = len(self._held) >= MAX_HELD or len(starts) >= _MAX_STARTS
            if why is None and not full and not at_rest:
                return
            yield from self._report(why or "short", len(self._held))
            self._drop(1)

    def _judge(self, start: int) -> tuple[int, Telegram] | None:
        """Size and telegram, if a good one begins there and is all here. Each candidate is computed once."""
        place = self._dropped + start
        if place in self._refused or self._ends.get(place, 0) > self._dropped + len(self._held):
            return None
        header = header_at(self._held, start)
        if header is None:
            self._refused[place] = "garbage"
            return None
        if len(self._held) < start + header.size:
            self._ends[place] = place + header.size
            return None
        data = bytes(self._held[start : start + header.size])
        stored, computed = checksum_of(data, is_ascii=header.telegram.ascii)
        if stored != computed:
            self._refused[place] = "crc"
            return None
        telegram = read_whole(data, header)
        if telegram is None:
            self._refused[place] = "format"
            return None
        return header.size, telegram

    def _drop(self, count: int) -> None:
        del self._held[:count]
        self._dropped += count
        if self._refused:
            self._refused = {at: why for at, why in self._refused.items() if at >= self._dropped}
        if self._ends:
            self._ends = {at: end for at, end in self._ends.items() if at >= self._dropped}

    def _skip_to_start(self) -> Iterator[Found]:
        held = self._held
        for match in re.finditer(rb"[\x7e\x01]", held):
            start = match.start()
            if _HEADER.match(held, start) or _may_begin(held, start):
                break
        else:
            start = len(held)
        if start and bytes(held[:start]).strip(_TEXT):
            yield from self._report("garbage", start)
        self._drop(start)

    def _report(self, reason: str, size: int) -> Iterator[Found]:
        # What follows a bad start belongs to the same mishap: one report, until a good telegram.
        if self._in_noise:
            return
        self._in_noise = True
        text = {"crc": "the checksum does not fit", "short": "cut off", "garbage": "no telegram begins here"}
        error = RemoteProtocolError(f"SL 651 telegram refused: {text.get(reason, reason)}", reason=reason)
        yield Found(self._dropped, size, error)


def _may_begin(held: bytearray, start: int) -> bool:
    """Whether the bytes from there to the end may be the first ones of a header."""
    rest = bytes(held[start : start + ASCII_HEAD])
    if rest[:1] == b"\x01":
        return len(rest) < ASCII_HEAD and all(byte in _HEX_DIGITS for byte in rest[1 : ASCII_HEAD - 1])
    if len(rest) >= HEX_HEAD or not b"\x7e\x7e".startswith(rest[:2]):
        return False
    return len(rest) <= 11 or rest[11] >> 4 in (0, 8)
