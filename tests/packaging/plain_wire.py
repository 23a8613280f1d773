"""A second reading of protocols/uplink/SPEC.md, written as one would in firmware: plain integers, no array, no protobuf
library, nothing of the project. If it and the real code agree on bytes, the page says enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

_U64 = (1 << 64) - 1

Reading = tuple[int, int, int, int, int]  # alias, time, lag, integer, quality


@dataclass
class Series:
    alias: int = 0
    device: str = ""
    point: str = ""
    decimals: int = 0
    reference: int = 0


def hex_blocks(page: str) -> dict[str, bytes]:
    """The page's ```hex fences by name; what stands behind ``;`` is remark."""
    found = re.findall(r"^```hex ?(\w*)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return {
        name: bytes.fromhex("".join(line.partition(";")[0] for line in text.splitlines()).replace(" ", ""))
        for name, text in found
    }


def leb128(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value & _U64
            value = shift = 0


def unzigzag(n: int) -> int:
    return n // 2 if n % 2 == 0 else -(n // 2) - 1


def zigzag(n: int) -> int:
    return 2 * n if n >= 0 else -2 * n - 1


def signed64(n: int) -> int:
    n &= _U64
    return n - (1 << 64) if n >= 1 << 63 else n


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Protobuf's outer form: (field number, number or bytes)."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
        elif kind == 2:
            length = number()
            yield key >> 3, data[at : at + length]
            at += length
        else:
            width = {1: 8, 5: 4}[kind]
            yield key >> 3, int.from_bytes(data[at : at + width], "little")
            at += width


def declaration(data: bytes) -> Series:
    series = Series()
    for number, value in fields(data):
        if number == 1:
            series.alias = int(value)
        elif number == 2 and isinstance(value, bytes):
            series.device = value.decode()
        elif number == 3 and isinstance(value, bytes):
            series.point = value.decode()
        elif number == 5:
            series.decimals = int(value)
        elif number == 6:
            series.reference = unzigzag(int(value))
    return series


def blocks(body: bytes, series: dict[int, Series], origin_ms: int) -> list[Reading]:
    numbers = leb128(body)
    out: list[Reading] = []
    for head in numbers:
        rows, flags, aliases, last = next(numbers), head & 7, [], -1
        for _ in range(head >> 3):
            first = last + 1 + next(numbers)
            last = first + next(numbers) - 1
            aliases += range(first, last + 1)
        times: list[int] = []
        step = 0
        for row in range(rows):
            n = unzigzag(next(numbers))
            if row == 0:
                times.append(origin_ms + n)
            else:
                step = n if row == 1 else step + n
                times.append(times[-1] + step)
        origin_ms = times[0]
        lags = [0] * rows
        if flags & 2:
            lags = [unzigzag(next(numbers)) for _ in range(rows)]
        elif flags & 1:
            lags = [unzigzag(next(numbers))] * rows
        quality = [0] * (rows * len(aliases))
        if flags & 4:
            quality = []
            for _ in range(next(numbers)):
                length = next(numbers)
                quality += [next(numbers)] * length
        for column, alias in enumerate(aliases):
            value = series[alias].reference
            for row in range(rows):
                value = signed64(value + unzigzag(next(numbers)))
                integer = value
                if series[alias].decimals == 255:
                    integer = signed64(int.from_bytes((value & _U64).to_bytes(8, "little"), "big"))
                out.append((alias, times[row], lags[row], integer, quality[column * rows + row]))
    return out


def mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _U64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _U64
    return x ^ (x >> 31)


def series_number(device: str, point: str) -> int:
    return int.from_bytes(blake2b(f"{device}/{point}".encode(), digest_size=8).digest(), "little")


def reading_digest(series: int, time_ms: int, integer: int, quality: int) -> int:
    value = 0x9E3779B97F4A7C15 if quality == 5 else integer & _U64
    return mix(series ^ mix(time_ms & _U64 ^ mix(value)))
