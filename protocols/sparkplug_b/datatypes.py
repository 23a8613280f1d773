"""Sparkplug's data types and what each value is on the wire (Sparkplug 3.0, 6.4.16 and 6.4.17).

Signed integers up to 32 bits travel in an unsigned field as two's complement, and encoders differ: some sign-extend an
Int8 to 32 bits, some send the bare byte, and 32-bit unsigned numbers come in the 64-bit field as well. What is
unambiguous is read. Arrays are little endian in a bytes field, as the reference encoder writes them; the printed
examples of FloatArray and DoubleArray in the standard are not.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from protocols.core.errors import LocalProtocolError, RemoteProtocolError


class DataType(IntEnum):
    UNKNOWN = 0
    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATE_TIME = 13
    TEXT = 14
    UUID = 15
    DATA_SET = 16
    BYTES = 17
    FILE = 18
    TEMPLATE = 19
    PROPERTY_SET = 20
    PROPERTY_SET_LIST = 21
    INT8_ARRAY = 22
    INT16_ARRAY = 23
    INT32_ARRAY = 24
    INT64_ARRAY = 25
    UINT8_ARRAY = 26
    UINT16_ARRAY = 27
    UINT32_ARRAY = 28
    UINT64_ARRAY = 29
    FLOAT_ARRAY = 30
    DOUBLE_ARRAY = 31
    BOOLEAN_ARRAY = 32
    STRING_ARRAY = 33
    DATE_TIME_ARRAY = 34


#: The standard's own spelling.
NAMES: dict[int, str] = {
    kind: kind.name.title().replace("_", "").replace("Uint", "UInt").replace("Uuid", "UUID") for kind in DataType
}

#: Bits and sign of the integers.
INTEGERS: dict[int, tuple[int, bool]] = {
    DataType.INT8: (8, True),
    DataType.INT16: (16, True),
    DataType.INT32: (32, True),
    DataType.INT64: (64, True),
    DataType.UINT8: (8, False),
    DataType.UINT16: (16, False),
    DataType.UINT32: (32, False),
    DataType.UINT64: (64, False),
    DataType.DATE_TIME: (64, False),
}
FLOATS = (DataType.FLOAT, DataType.DOUBLE)
TEXTS = (DataType.STRING, DataType.TEXT, DataType.UUID)
#: Types that a reading can be made of.
NUMERIC = frozenset({*INTEGERS, *FLOATS, DataType.BOOLEAN})

_ARRAYS: dict[int, str] = {
    DataType.INT8_ARRAY: "b",
    DataType.INT16_ARRAY: "h",
    DataType.INT32_ARRAY: "i",
    DataType.INT64_ARRAY: "q",
    DataType.UINT8_ARRAY: "B",
    DataType.UINT16_ARRAY: "H",
    DataType.UINT32_ARRAY: "I",
    DataType.UINT64_ARRAY: "Q",
    DataType.FLOAT_ARRAY: "f",
    DataType.DOUBLE_ARRAY: "d",
    DataType.DATE_TIME_ARRAY: "Q",
}


def name_of(datatype: int) -> str:
    return NAMES.get(datatype, f"type {datatype}")


def is_array(datatype: int) -> bool:
    return DataType.INT8_ARRAY <= datatype <= DataType.DATE_TIME_ARRAY


def integer_from_wire(raw: int, datatype: int) -> int:
    """The number a field of that type means. Raises RemoteProtocolError (``range``)."""
    bits, signed = INTEGERS[datatype]
    if not signed:
        if raw >= 1 << bits:
            raise RemoteProtocolError(f"{raw} is no {name_of(datatype)}", reason="range")
        return raw
    for width in (bits, 32, 64):
        # The bare number, or the same sign-extended to the whole field.
        extended = raw - (1 << width) if raw >> (width - 1) & 1 else raw
        if raw < 1 << width and -(1 << bits - 1) <= extended < 1 << bits - 1:
            return extended
    raise RemoteProtocolError(f"{raw} is no {name_of(datatype)}", reason="range")


def integer_to_wire(value: int, datatype: int) -> tuple[str, int]:
    """Field (``int_value`` or ``long_value``) and its content. Raises LocalProtocolError."""
    bits, signed = INTEGERS[datatype]
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= value <= high:
        raise LocalProtocolError(f"{value} is no {name_of(datatype)}", reason="range")
    if bits <= 32:
        return "int_value", value & 0xFFFFFFFF
    return "long_value", value & (1 << 64) - 1


def array_from_wire(data: bytes, datatype: int) -> tuple[Any, ...]:
    """The items of an array. Raises RemoteProtocolError (``array``)."""
    if datatype == DataType.BOOLEAN_ARRAY:
        return _booleans(data)
    if datatype == DataType.STRING_ARRAY:
        if data and data[-1]:
            raise RemoteProtocolError("the last string of the array has no end", reason="array", offset=len(data))
        return tuple(text_of(part) for part in data.split(b"\0")[:-1])
    code = _ARRAYS.get(datatype)
    if code is None:
        raise RemoteProtocolError(f"{name_of(datatype)} is no array", reason="array")
    size = struct.calcsize(f"<{code}")
    if len(data) % size:
        text = f"{len(data)} bytes are no whole number of {size}-byte items"
        raise RemoteProtocolError(text, reason="array", offset=len(data) // size * size)
    items = struct.unpack(f"<{len(data) // size}{code}", data)
    return tuple(short_float(item) for item in items) if code == "f" else items


def array_to_wire(items: Sequence[Any], datatype: int) -> bytes:
    """Raises LocalProtocolError."""
    try:
        if datatype == DataType.BOOLEAN_ARRAY:
            bits = "".join("1" if item else "0" for item in items)
            padded = bits.ljust((len(bits) + 7) // 8 * 8, "0")
            packed = int(padded, 2).to_bytes(len(padded) // 8, "big") if padded else b""
            return struct.pack("<I", len(items)) + packed
        if datatype == DataType.STRING_ARRAY:
            if any("\0" in item for item in items):
                raise LocalProtocolError("a string of an array holds no NUL", reason="array")
            return b"".join(item.encode() + b"\0" for item in items)
        return struct.pack(f"<{len(items)}{_ARRAYS[datatype]}", *items)
    except (struct.error, KeyError, OverflowError, TypeError, AttributeError) as error:
        raise LocalProtocolError(f"{name_of(datatype)}: {error}", reason="array") from error


def _booleans(data: bytes) -> tuple[bool, ...]:
    if len(data) < 4:
        raise RemoteProtocolError("a BooleanArray begins with four bytes of count", reason="array", offset=len(data))
    count = int.from_bytes(data[:4], "little")
    if (count + 7) // 8 != len(data) - 4:
        text = f"{count} booleans take {(count + 7) // 8} bytes, {len(data) - 4} follow"
        raise RemoteProtocolError(text, reason="array", offset=4)
    return tuple(bool(data[4 + n // 8] >> (7 - n % 8) & 1) for n in range(count))


def short_float(value: float) -> float:
    """A 32-bit float as the shortest decimal that names it: 12.1, not 12.100000381469727."""
    if value != value or value in (float("inf"), float("-inf")):
        return value
    for digits in range(6, 10):
        short = float(f"{value:.{digits}g}")
        try:
            if struct.pack("<f", short) == struct.pack("<f", value):
                return short
        except OverflowError:
            continue
    return value


def text_of(data: bytes | str) -> str:
    """Text that should be UTF-8; what Chinese gateways send instead is GB 18030."""
    if isinstance(data, str):
        return data
    for encoding in ("utf-8", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("utf-8", "replace")
