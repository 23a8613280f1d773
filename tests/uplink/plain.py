"""LEB128 and zigzag one number at a time, as SPEC.md section 4 says it: the reference for the array code."""

from __future__ import annotations

from collections.abc import Iterable

_MASK = (1 << 64) - 1


def leb128(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def leb128_all(numbers: Iterable[int]) -> bytes:
    return b"".join(leb128(number) for number in numbers)


def read_leb128(data: bytes) -> list[int]:
    """Numbers of 64 bits; what a tenth byte holds beyond them is cut off."""
    out: list[int] = []
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            out.append(number & _MASK)
            number = shift = 0
    return out


def zigzag(number: int) -> int:
    return 2 * number if number >= 0 else -2 * number - 1


def unzigzag(number: int) -> int:
    return number // 2 if number % 2 == 0 else -(number + 1) // 2
