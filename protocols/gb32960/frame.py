"""Frames of GB/T 32960.3: start mark, header, data, XOR. Big endian, no escaping, no end mark.

Start marks occur inside data and platforms put bytes of their own in front, so a header counts only if command, answer
flag, encryption and vehicle number are plausible; see ``core/cutter.py`` for which of several candidates wins.

| offset | bytes | |
| --- | --- | --- |
| 0 | 2 | 23 23 (2016) or 24 24 (2025) |
| 2 | 1 | command |
| 3 | 1 | answer flag, FE = this is a command |
| 4 | 17 | VIN, filled with NUL; a platform's name on a platform link |
| 21 | 1 | encryption |
| 22 | 2 | length n of the data, at most 65531 |
| 24 | n | data |
| 24 + n | 1 | XOR of bytes 2 .. 23 + n |
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from functools import reduce
from operator import xor

from protocols.core.cutter import Cut, Cutter, Shape
from protocols.core.errors import RemoteProtocolError

#: Start mark -> issue of the standard.
MARKS = {b"##": "2016", b"$$": "2025"}
MAX_DATA = 65531
HEADER = 24
OVERHEAD = 25

#: 09 to 0B are of 2025; C0 to FE are a platform's own.
COMMANDS = frozenset((*range(0x01, 0x0C), 0x80, 0x81, 0x82, *range(0xC0, 0xFF)))
ANSWERS = frozenset((*range(0x01, 0x08), 0xFE))
#: 00 is none of the standard's; terminals in the field send it with data in clear.
ENCRYPTIONS = frozenset((*range(0x06), 0xFE, 0xFF))


def checksum(frame: bytes) -> int:
    """XOR over a whole frame: everything between start mark and checksum."""
    return reduce(xor, frame[2:-1], 0)


def plausible_vin(raw: bytes) -> bool:
    """Printable or NUL, or the GB 18030 name of a platform; the 17th byte may cut its last character in two."""
    text = raw.strip(b"\0")
    if all(0x20 <= byte < 0x7F or byte == 0 for byte in text):
        return True
    try:
        return getincrementaldecoder("gb18030")().decode(text).isprintable()
    except UnicodeDecodeError:
        return False


class _Shape(Shape):
    name = "GB/T 32960"
    marks = tuple(MARKS)
    head = HEADER

    def size(self, head: bytes) -> int:
        if head[2] not in COMMANDS or head[3] not in ANSWERS or head[21] not in ENCRYPTIONS:
            return 0
        length = int.from_bytes(head[22:24], "big")
        if length > MAX_DATA or not plausible_vin(head[4:21]):
            return 0
        return OVERHEAD + length

    def fault(self, frame: bytes) -> str:
        return "" if checksum(frame) == frame[-1] else "checksum"


class Scanner:
    """Cuts a byte stream into whole frames; holds less than 65556 bytes."""

    def __init__(self) -> None:
        self._cutter = Cutter(_Shape())

    @property
    def held(self) -> int:
        return self._cutter.held

    @property
    def rest(self) -> bytes:
        return self._cutter.rest

    def feed(self, data: bytes) -> list[Cut | RemoteProtocolError]:
        return self._cutter.feed(data)

    def idle(self) -> list[Cut | RemoteProtocolError]:
        return self._cutter.idle()

    def reset(self) -> None:
        self._cutter.reset()
