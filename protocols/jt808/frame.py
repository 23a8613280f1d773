"""Frames of JT/T 808: 7E, header, body, BCC, 7E, with 7E and 7D escaped between the two ends.

One 7E may end a frame and start the next; two may stand together. So a stream is cut at every 7E, and each piece is
judged alone: noise costs the piece it is in. One family of trackers uses E7 and E6/3E instead (from field captures);
which of the two a connection speaks shows with its first good frame.

Header (offsets 2011 and 2013 / 2019): 0 message id u16; 2 attributes u16 (bits 0-9 body length, 10-12 encryption,
13 sub-package, 14 version flag, 15 reserved); -/4 protocol version u8; 4/5 terminal number, 6/10 bytes BCD;
10/15 serial u16; with bit 13: 12/17 package total u16, 14/19 package index u16 from 1 (JT/T 808-2019, 4.4; as the
fact sheet gives it).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import Literal

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

Version = Literal["2013", "2019"]

DELIMITER = 0x7E
#: Longest body that the attributes can say.
MAX_BODY = 1023
SHORTEST = 13
#: Header of 2019 with package words, longest body, BCC; each byte may be escaped.
MAX_ESCAPED = 2 * (21 + MAX_BODY + 1)

_HEAD_2013 = struct.Struct(">HH6sH")
_HEAD_2019 = struct.Struct(">HHB10sH")
_PACKAGE = struct.Struct(">HH")
_SUB, _FLAG, _RESERVED = 0x2000, 0x4000, 0x8000


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. ``phone``: the terminal number as its hex digits stand (12, or 20 in 2019): not every device keeps to
    BCD. ``total`` 0: not a sub-package. ``flag_wrong``: bit 14 says the layout that does not fit."""

    msg_id: int
    phone: str
    serial: int
    body: bytes = b""
    version: Version = "2013"
    protocol_version: int = 1
    encryption: int = 0
    total: int = 0
    index: int = 0
    reserved: bool = False
    flag_wrong: bool = False


@dataclass(frozen=True, slots=True)
class Framing:
    """What parts frames, and how it is written inside one."""

    delimiter: int
    escapes: tuple[tuple[bytes, bytes], ...]  # written, meant

    @property
    def mark(self) -> bytes:
        return bytes((self.delimiter,))


STANDARD = Framing(DELIMITER, ((b"\x7d\x01", b"\x7d"), (b"\x7d\x02", b"\x7e")))
#: One family of trackers, from field captures.
ALTERNATIVE = Framing(
    0xE7, ((b"\xe6\x01", b"\xe6"), (b"\xe6\x02", b"\xe7"), (b"\x3e\x01", b"\x3e"), (b"\x3e\x02", b"\x3d"))
)
_ESCAPED = {
    STANDARD.delimiter: re.compile(rb"\x7d(.?)", re.DOTALL),
    ALTERNATIVE.delimiter: re.compile(rb"[\xe6\x3e](.?)", re.DOTALL),
}
_MEANT = {framing.delimiter: dict(framing.escapes) for framing in (STANDARD, ALTERNATIVE)}
_ANY_MARK = re.compile(rb"[\x7e\xe7]")


class EscapeError(ValueError):
    """An escape byte followed by nothing or by what it cannot stand before."""


def escape(data: bytes) -> bytes:
    """7D first, then 7E: the other way round would escape the escapes."""
    return data.replace(b"\x7d", b"\x7d\x01").replace(b"\x7e", b"\x7d\x02")


def unescape(piece: bytes, framing: Framing = STANDARD) -> bytes:
    """Raises EscapeError."""
    if framing is STANDARD and 0x7D not in piece:
        return piece
    meant = _MEANT[framing.delimiter]

    def put_back(match: re.Match[bytes]) -> bytes:
        try:
            return meant[match[0]]
        except KeyError:
            raise EscapeError(f"escape {match[0].hex()} at {match.start()}") from None

    return _ESCAPED[framing.delimiter].sub(put_back, piece)


def bcc(data: bytes) -> int:
    """XOR of every byte. A whole frame with its BCC gives 0."""
    # As one number folded in halves: five times as quick as byte by byte.
    size = 1
    while size < len(data):
        size *= 2
    number = int.from_bytes(data, "big")
    while size > 1:
        size //= 2
        number = number >> (8 * size) ^ number & ((1 << 8 * size) - 1)
    return number


def bcc_slowly(data: bytes) -> int:
    """The same by its definition; the tests hold the quick one against it."""
    return reduce(xor, data, 0)


def raw(frame: Frame) -> bytes:
    """Header, body and BCC before escaping. Raises LocalProtocolError for what the header cannot say."""
    digits = 20 if frame.version == "2019" else 12
    try:
        number = bytes.fromhex(frame.phone)
    except ValueError as exc:
        raise LocalProtocolError(f"JT/T 808 terminal number {frame.phone!r} is not hex", reason="phone") from exc
    if len(frame.phone) != digits:
        text = f"JT/T 808-{frame.version} terminal number {frame.phone!r}: {digits} digits, with leading zeros"
        raise LocalProtocolError(text, reason="phone")
    if len(frame.body) > MAX_BODY:
        raise LocalProtocolError(f"JT/T 808 body of {len(frame.body)} bytes, at most 1023 in a frame", reason="length")
    if not 0 <= frame.total <= 0xFFFF or (frame.total and not 1 <= frame.index <= frame.total):
        raise LocalProtocolError(f"JT/T 808 package {frame.index} of {frame.total}", reason="split")
    if not (0 <= frame.msg_id <= 0xFFFF and 0 <= frame.serial <= 0xFFFF and 0 <= frame.encryption <= 7):
        raise LocalProtocolError("JT/T 808 header field out of range", reason="header")
    attributes = len(frame.body) | frame.encryption << 10 | (_RESERVED if frame.reserved else 0)
    attributes |= (_SUB if frame.total else 0) | (_FLAG if (frame.version == "2019") != frame.flag_wrong else 0)
    if frame.version == "2019":
        if not 0 <= frame.protocol_version <= 0xFF:
            raise LocalProtocolError("JT/T 808 protocol version is one byte", reason="header")
        head = _HEAD_2019.pack(frame.msg_id, attributes, frame.protocol_version, number, frame.serial)
    else:
        head = _HEAD_2013.pack(frame.msg_id, attributes, number, frame.serial)
    if frame.total:
        head += _PACKAGE.pack(frame.total, frame.index)
    plain = head + frame.body
    return plain + bytes((bcc(plain),))


def build(frame: Frame) -> bytes:
    """The bytes on the wire. Raises LocalProtocolError."""
    return b"\x7e" + escape(raw(frame)) + b"\x7e"


def header_size(version: Version, *, split: bool) -> int:
    return (17 if version == "2019" else 12) + (4 if split else 0)


def read(plain: bytes) -> Frame | RemoteProtocolError:
    """One un-escaped piece (header, body, BCC) as a frame, or why it is none."""
    size = len(plain)
    if size < SHORTEST:
        return RemoteProtocolError(f"JT/T 808 frame of {size} bytes, the shortest has 13", reason="short")
    if bcc(plain):
        text = f"JT/T 808 BCC {plain[-1]:02x}, computed {bcc(plain[:-1]):02x}"
        return RemoteProtocolError(text, reason="checksum")
    msg_id, attributes = plain[0] << 8 | plain[1], plain[2] << 8 | plain[3]
    length, split = attributes & MAX_BODY, bool(attributes & _SUB)
    told: Version = "2019" if attributes & _FLAG else "2013"
    other: Version = "2013" if told == "2019" else "2019"
    version = told
    # The flag is wrong in both directions in the field: the length decides between the layouts.
    if size != header_size(told, split=split) + length + 1:
        version = other
        if size != header_size(other, split=split) + length + 1:
            there = size - header_size(told, split=split) - 1
            text = f"JT/T 808 header says {length} body bytes, {max(there, 0)} are there"
            return RemoteProtocolError(text, reason="length")
    if version == "2019":
        _, _, protocol_version, number, serial = _HEAD_2019.unpack_from(plain)
        start = 17
    else:
        _, _, number, serial = _HEAD_2013.unpack_from(plain)
        protocol_version, start = 1, 12
    total = index = 0
    if split:
        total, index = _PACKAGE.unpack_from(plain, start)
        start += 4
        if not 1 <= index <= total:
            return RemoteProtocolError(f"JT/T 808 package {index} of {total}", reason="split")
    encryption, reserved = attributes >> 10 & 7, bool(attributes & _RESERVED)
    return Frame(
        msg_id, number.hex(), serial, plain[start:-1], version, protocol_version, encryption, total, index,
        reserved, version != told,
    )  # fmt: skip


def judge(piece: bytes, framing: Framing = STANDARD) -> Frame | RemoteProtocolError:
    """What stands between two delimiters as a frame, or why it is none."""
    if piece[:1] == b"(":
        return RemoteProtocolError("a line of text, not JT/T 808", reason="garbage")
    try:
        return read(unescape(piece, framing))
    except EscapeError as exc:
        return RemoteProtocolError(f"JT/T 808 {exc}", reason="escape")


class _Cutter:
    """Pieces between delimiters of one kind."""

    def __init__(self, framing: Framing) -> None:
        self.framing = framing
        self.held = bytearray()
        self.open = False  # a delimiter came before what is held
        self._in_noise = False

    def feed(self, data: bytes) -> Iterator[Frame | RemoteProtocolError]:
        *pieces, rest = data.split(self.framing.mark)
        for piece in pieces:
            yield from self._grow(piece)
            if self.held:
                yield judge(bytes(self.held), self.framing)
                self.held.clear()
            self.open, self._in_noise = True, False
        yield from self._grow(rest)

    def _grow(self, piece: bytes) -> Iterator[RemoteProtocolError]:
        if not piece:
            return
        if not self.open:
            if not self._in_noise:
                self._in_noise = True
                yield RemoteProtocolError("bytes before the first delimiter", reason="garbage")
            return
        if len(self.held) + len(piece) > MAX_ESCAPED:
            self.held.clear()
            self.open, self._in_noise = False, True
            yield RemoteProtocolError(f"JT/T 808 frame longer than {MAX_ESCAPED} bytes", reason="length")
            return
        self.held += piece

    def reset(self) -> None:
        self.held.clear()
        self.open = self._in_noise = False


class Scanner:
    """Cuts a byte stream into frames; finds out which delimiters it has."""

    def __init__(self) -> None:
        self._cutter = _Cutter(STANDARD)
        self._rival: _Cutter | None = _Cutter(ALTERNATIVE)

    @property
    def framing(self) -> Framing:
        return self._cutter.framing

    @property
    def held(self) -> int:
        """Bytes waiting for more."""
        return len(self._cutter.held) + (len(self._rival.held) if self._rival else 0)

    def feed(self, data: bytes) -> list[Frame | RemoteProtocolError]:
        out: list[Frame | RemoteProtocolError] = []
        at = 0
        while self._rival is not None and at < len(data):
            # Delimiter by delimiter, so that the outcome does not depend on how the stream was cut.
            mark = _ANY_MARK.search(data, at)
            end = mark.end() if mark else len(data)
            out += self._both(data[at:end], self._rival)
            at = end
        if at < len(data):
            out += self._cutter.feed(data[at:])
        return out

    def _both(self, data: bytes, rival: _Cutter) -> list[Frame | RemoteProtocolError]:
        found = list(self._cutter.feed(data))
        if any(isinstance(one, Frame) for one in found):
            self._rival = None
            return found
        frames: list[Frame | RemoteProtocolError] = [one for one in rival.feed(data) if isinstance(one, Frame)]
        if frames:
            self._cutter, self._rival = rival, None
            return frames  # what was wrong with it as the standard's framing is no news
        if rival.open:
            # To the standard's framing all of the other one is noise; it is none before that is settled.
            return [one for one in found if isinstance(one, RemoteProtocolError) and one.reason != "garbage"]
        return found

    def idle(self) -> list[Frame | RemoteProtocolError]:
        """Nothing more comes: what is held is given up."""
        held = self.held
        self.reset()
        return [RemoteProtocolError(f"JT/T 808 frame cut off after {held} bytes", reason="short")] if held else []

    def reset(self) -> None:
        self._cutter.reset()
        if self._rival is not None:
            self._rival.reset()
