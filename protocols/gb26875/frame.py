"""Frames of GB/T 26875.3: 40 40, header, data unit, sum, 23 23. Little endian throughout.

Both marks occur inside data, so frames go by their length; start mark, length, sum and end mark together make a
false one unlikely, and a wrong length never hides the good frame behind it (see ``core/cutter.py``).

| offset | bytes | |
| --- | --- | --- |
| 0 | 2 | 40 40 |
| 2 | 2 | serial number; an answer repeats the request's |
| 4 | 1 + 1 | main version, the maker's version |
| 6 | 6 | second, minute, hour, day, month, year - 2000, plain binary |
| 12 | 6 | source, low byte first |
| 18 | 6 | destination, low byte first |
| 24 | 2 | length n of the data unit |
| 26 | 1 | command |
| 27 | n | data unit |
| 27 + n | 1 | sum of bytes 2 .. 26 + n |
| 28 + n | 2 | 23 23 |
"""

from __future__ import annotations

from protocols.core.cutter import Cut, Cutter, Shape
from protocols.core.errors import RemoteProtocolError

START = b"\x40\x40"
END = b"\x23\x23"
#: The standard's limit for a data unit.
MAX_DATA = 1024
HEADER = 27
OVERHEAD = 30


def checksum(frame: bytes) -> int:
    """The sum over a whole frame: everything between start mark and sum itself."""
    return sum(frame[2:-3]) & 0xFF


class _Shape(Shape):
    name = "GB/T 26875.3"
    marks = (START,)
    head = HEADER

    def size(self, head: bytes) -> int:
        length = int.from_bytes(head[24:26], "little")
        return OVERHEAD + length if length <= MAX_DATA else 0

    def fault(self, frame: bytes) -> str:
        if frame[-2:] != END:
            return "end"
        return "" if checksum(frame) == frame[-3] else "checksum"


class Scanner:
    """Cuts a byte stream into whole frames; holds less than 1054 bytes."""

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
