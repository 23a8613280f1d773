"""Sentences of NMEA 0183: $ or !, address, fields, *, two hex digits, line end.

The checksum is the XOR of everything between the first character and the star. `$` is reserved (it stands for itself
in no field), so a `$` inside a line starts a new sentence: a line that was cut off costs itself only. Sentences are
longer than the standard's 82 characters in the field; BeiDou short messages carry up to 1000 bytes as hex.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import xor

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

#: A BDS-3 message of 1000 bytes in hex, and its other fields.
MAX_LENGTH = 2_200
_ADDRESS = re.compile(r"[A-Z0-9]{3,10}", re.ASCII)
_CHECKSUM = re.compile(rb"\*([0-9A-Fa-f]{2})")
_BREAK = re.compile(rb"[$\r\n]")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence. ``talker`` P: proprietary, ``type`` is then all the rest. ``fields``: as they stand, bytes as
    Latin-1 characters so that nothing is lost (Chinese text is GBK: see :func:`text_of`)."""

    talker: str
    type: str
    fields: tuple[str, ...] = ()
    start: str = "$"
    checked: bool = True  # it had a checksum

    def field(self, number: int) -> str:
        """Counted from 1 as the standard does; "" where there is none."""
        return self.fields[number - 1] if 0 < number <= len(self.fields) else ""


def checksum(body: bytes) -> int:
    return reduce(xor, body, 0)


def text_of(field: str) -> str:
    """A field that holds Chinese."""
    return field.encode("latin-1").decode("gb18030", "replace")


def build(sentence: Sentence) -> bytes:
    """The bytes of the line. Raises LocalProtocolError for characters that a field cannot hold."""
    address = sentence.talker + sentence.type
    if not _ADDRESS.fullmatch(address):
        raise LocalProtocolError(f"NMEA address {address!r}", reason="address")
    try:
        body = ",".join((address, *sentence.fields)).encode("latin-1")
    except UnicodeEncodeError as exc:
        raise LocalProtocolError("NMEA field: bytes as Latin-1, Chinese encoded as GBK first", reason="text") from exc
    if any(char in field for field in sentence.fields for char in ",*$!\r\n"):
        raise LocalProtocolError("NMEA field holds a reserved character", reason="text")
    if len(body) > MAX_LENGTH - 10:
        raise LocalProtocolError(f"NMEA sentence of {len(body)} characters", reason="length")
    return b"%b%b*%02X\r\n" % (sentence.start.encode(), body, checksum(body))


def judge(line: bytes, *, bare: bool = False) -> Sentence | RemoteProtocolError:
    """One line (from its $ on, without line end) as a sentence. ``bare``: take it without a checksum."""
    star = line.rfind(b"*")
    if star < 0:
        if not bare:
            return RemoteProtocolError("NMEA sentence without a checksum", reason="no_checksum")
        return _split(line, line[1:], checked=False)
    body, tail = line[1:star], line[star:]
    found = _CHECKSUM.match(tail)
    if found is None:
        return RemoteProtocolError("NMEA checksum is not two hex digits", reason="short")
    computed = checksum(body)
    if int(found[1], 16) != computed:
        text = f"NMEA checksum {found[1].decode()}, computed {computed:02X}"
        return RemoteProtocolError(text, reason="checksum")
    if tail[3:].strip():
        text = f"{len(tail) - 3} characters behind the checksum"
        return RemoteProtocolError(text, reason="trailing_garbage")
    return _split(line, body, checked=True)


def _split(line: bytes, body: bytes, *, checked: bool) -> Sentence | RemoteProtocolError:
    address, *fields = body.decode("latin-1").rstrip("\r\n").split(",")
    if not _ADDRESS.fullmatch(address):
        return RemoteProtocolError(f"NMEA address {address[:20]!r}", reason="address")
    size = 1 if address[0] == "P" else 2
    return Sentence(address[:size], address[size:], tuple(fields), chr(line[0]), checked)


class Scanner:
    """Cuts a byte stream into sentences. ``bare``: sentences without a checksum are taken."""

    def __init__(self, *, bare: bool = False) -> None:
        self._bare = bare
        self._held = bytearray()
        self._in_noise = False

    @property
    def held(self) -> int:
        """Bytes waiting for more."""
        return len(self._held)

    def feed(self, data: bytes) -> list[Sentence | RemoteProtocolError]:
        return list(self._cut(data))

    def _cut(self, data: bytes) -> Iterator[Sentence | RemoteProtocolError]:
        at = 0
        for mark in _BREAK.finditer(data):
            yield from self._grow(data[at : mark.start()])
            yield from self._close()
            at = mark.end()
            if mark[0] == b"$":
                self._held += b"$"
                self._in_noise = False
        yield from self._grow(data[at:])

    def _grow(self, piece: bytes) -> Iterator[RemoteProtocolError]:
        if piece and not self._held:
            # "!" starts a sentence only where a line does: elsewhere it is text.
            if piece[:1] == b"!" and not self._in_noise:
                self._held += piece[:1]
                piece = piece[1:]
            elif piece.strip():
                if not self._in_noise:
                    self._in_noise = True
                    yield RemoteProtocolError("bytes that are no NMEA sentence", reason="garbage")
                return
            else:
                return
        if len(self._held) + len(piece) > MAX_LENGTH:
            self._held.clear()
            self._in_noise = True
            yield RemoteProtocolError(f"NMEA sentence longer than {MAX_LENGTH} characters", reason="length")
            return
        self._held += piece

    def _close(self) -> Iterator[Sentence | RemoteProtocolError]:
        """A line end, or the next start: what is held is whole."""
        line = bytes(self._held)
        self._held.clear()
        self._in_noise = False
        if line:
            yield judge(line, bare=self._bare)

    def idle(self) -> list[Sentence | RemoteProtocolError]:
        """Nothing more comes: a sentence with its checksum is whole without a line end, others were cut off."""
        line = bytes(self._held)
        self.reset()
        if not line:
            return []
        if not _CHECKSUM.search(line):
            return [RemoteProtocolError("NMEA sentence cut off", reason="short")]
        return [judge(line)]

    def reset(self) -> None:
        self._held.clear()
        self._in_noise = False
