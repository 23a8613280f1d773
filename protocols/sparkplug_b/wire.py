"""Where each field of a protobuf message lies, which the protobuf library does not tell.

Two uses: offsets for whoever reads a capture, and a stricter look than the library's. To the library a known field of
the wrong wire type is merely unknown, so that text or somebody else's payload "parses" to nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from protocols.core.errors import RemoteProtocolError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_GROUPS = (3, 4)  # deprecated, never used by Sparkplug


@dataclass(frozen=True, slots=True)
class WireField:
    """``start``: of the tag; ``value``: of the content; ``end``: behind it. ``number`` as in the schema."""

    number: int
    kind: int
    start: int
    value: int
    end: int
    integer: int = 0  # content of a varint


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Number and the offset behind it. Raises RemoteProtocolError."""
    number = shift = 0
    for position in range(at, min(end, at + 10)):
        byte = data[position]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & (1 << 64) - 1, position + 1
        shift += 7
    if end - at < 10:
        raise RemoteProtocolError("the payload ends inside a number", reason="short", offset=at)
    raise RemoteProtocolError("a number of more than ten bytes", reason="protobuf", offset=at)


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[WireField]:
    """The fields of one message in wire order. Raises RemoteProtocolError at the first that breaks the format."""
    stop = len(data) if end is None else end
    at = start
    while at < stop:
        tag, value = varint(data, at, stop)
        number, kind = tag >> 3, tag & 7
        if number == 0 or kind in _GROUPS or kind > FIXED32:
            raise RemoteProtocolError(f"no field begins with {data[at]:02x}", reason="protobuf", offset=at)
        integer = 0
        if kind == VARINT:
            integer, behind = varint(data, value, stop)
        elif kind == LENGTH:
            length, value = varint(data, value, stop)
            behind = value + length
        else:
            behind = value + (8 if kind == FIXED64 else 4)
        if behind > stop:
            text = f"field {number} needs {behind - value} bytes, {stop - value} are left"
            raise RemoteProtocolError(text, reason="short", offset=at)
        yield WireField(number, kind, at, value, behind, integer)
        at = behind
