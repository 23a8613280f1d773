"""Fields of a GB/T 32960 item as data: read bytes into named values, write named values back to bytes.

The rule for every number: all bits one is "invalid", one less is "abnormal". They stay words here and never become a
number: 255 - 40 degrees would be a burning battery. FEFE is an ordinary, absurd value, not a code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from protocols.core.errors import LocalProtocolError

INVALID, ABNORMAL = "invalid", "abnormal"
Values = dict[str, Any]


class Overrun(Exception):
    """The bytes end before the item does."""


class Reader:
    """Bytes from a position on."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise Overrun
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")


class Form(Protocol):
    """One field or a group of them."""

    def read(self, source: Reader, into: Values) -> None: ...

    def write(self, values: Mapping[str, Any]) -> bytes: ...


def _bytes(name: str, raw: int, size: int) -> bytes:
    try:
        return raw.to_bytes(size, "big")
    except OverflowError as exc:
        raise LocalProtocolError(f"GB/T 32960 {name}: {raw} does not fit {size} bytes", reason="range") from exc


@dataclass(frozen=True, slots=True)
class Num:
    """value = raw * factor + offset. ``plain``: a number without codes for invalid and abnormal."""

    name: str
    size: int = 1
    factor: float = 1
    offset: int = 0
    plain: bool = False

    def value(self, raw: int) -> float | int | str:
        top = (1 << 8 * self.size) - 1
        if not self.plain and raw >= top - 1:
            return INVALID if raw == top else ABNORMAL
        if self.factor == 1:
            return raw + self.offset
        return round(raw * self.factor + self.offset, 6)

    def raw(self, value: Any) -> bytes:
        top = (1 << 8 * self.size) - 1
        if value is None or value in (INVALID, ABNORMAL):
            return _bytes(self.name, top - 1 if value == ABNORMAL else top, self.size)
        return _bytes(self.name, round((value - self.offset) / self.factor), self.size)

    def read(self, source: Reader, into: Values) -> None:
        into[self.name] = self.value(source.number(self.size))

    def write(self, values: Mapping[str, Any]) -> bytes:
        return self.raw(values.get(self.name))


@dataclass(frozen=True, slots=True)
class Word:
    """One byte that stands for a word; a byte without a word stays a number."""

    name: str
    words: Mapping[int, str]

    def read(self, source: Reader, into: Values) -> None:
        raw = source.number(1)
        into[self.name] = self.words.get(raw, {0xFF: INVALID, 0xFE: ABNORMAL}.get(raw, raw))

    def write(self, values: Mapping[str, Any]) -> bytes:
        value = values.get(self.name)
        codes = {word: raw for raw, word in self.words.items()} | {INVALID: 0xFF, ABNORMAL: 0xFE}
        raw = 0xFF if value is None else codes.get(value, value)
        if not isinstance(raw, int):
            raise LocalProtocolError(f"GB/T 32960 {self.name}: {value!r} is none of {', '.join(codes)}", reason="word")
        return _bytes(self.name, raw, 1)


@dataclass(frozen=True, slots=True)
class Gear:
    """Bits 0-3 the gear, 4 braking force, 5 driving force; in the 2025 issue bit 7 set: position invalid."""

    name: str = "gear_raw"
    positions: bool = False

    def read(self, source: Reader, into: Values) -> None:
        raw = source.number(1)
        into |= {
            "gear_raw": raw,
            "gear": {0: "N", 13: "R", 14: "D", 15: "P"}.get(raw & 0x0F, str(raw & 0x0F)),
            "braking": bool(raw & 0x10),
            "driving": bool(raw & 0x20),
        }
        if self.positions:
            into["position_valid"] = not raw & 0x80

    def write(self, values: Mapping[str, Any]) -> bytes:
        return _bytes(self.name, values.get("gear_raw", 0), 1)


@dataclass(frozen=True, slots=True)
class Degrees:
    """Longitude, then latitude, millionths of a degree; the state byte before them says south and west."""

    name: str = "lon"

    def read(self, source: Reader, into: Values) -> None:
        status = into.get("status", 0)
        into |= {"valid": not status & 1, "south": bool(status & 2), "west": bool(status & 4)}
        for name, negative in (("lon", into["west"]), ("lat", into["south"])):
            value = Num(name, 4, 1e-6).value(source.number(4))
            into[name] = -value if negative and not isinstance(value, str) else value

    def write(self, values: Mapping[str, Any]) -> bytes:
        out = b""
        for name in ("lon", "lat"):
            value = values.get(name)
            out += Num(name, 4, 1e-6).raw(value if value is None or isinstance(value, str) else abs(value))
        return out


@dataclass(frozen=True, slots=True)
class Flags:
    """Alarm bits, 32: the raw word and the numbers of the set bits."""

    name: str = "flags_raw"

    def read(self, source: Reader, into: Values) -> None:
        raw = source.number(4)
        into |= {"flags_raw": raw, "flags": [n for n in range(32) if raw >> n & 1]}

    def write(self, values: Mapping[str, Any]) -> bytes:
        bits: Sequence[int] = values.get("flags", ())
        return _bytes(self.name, values.get("flags_raw", sum(1 << n for n in bits)), 4)


def _count(source: Reader, size: int, least: int) -> int:
    """A count; FE and FF ("abnormal", "invalid") stand for none unless so many entries are there."""
    raw = source.number(size)
    if size == 1 and raw >= 0xFE and raw * least > source.left:
        return 0
    if raw * least > source.left:
        raise Overrun
    return raw


@dataclass(frozen=True, slots=True)
class Codes:
    """Count, then codes of four bytes, shown in hex: a maker's own fault codes."""

    name: str

    def read(self, source: Reader, into: Values) -> None:
        into[self.name] = [source.take(4).hex() for _ in range(_count(source, 1, 4))]

    def write(self, values: Mapping[str, Any]) -> bytes:
        codes = values.get(self.name, ())
        return _bytes(self.name, len(codes), 1) + b"".join(bytes.fromhex(code) for code in codes)


@dataclass(frozen=True, slots=True)
class Array:
    """Count, then so many equal numbers. ``counted``: name under which the count is told, "" not at all."""

    name: str
    count_size: int
    each: Num
    counted: str = ""

    def read(self, source: Reader, into: Values) -> None:
        count = _count(source, self.count_size, self.each.size)
        if self.counted:
            into[self.counted] = count
        raw, size = source.take(count * self.each.size), self.each.size
        into[self.name] = [
            self.each.value(int.from_bytes(raw[at : at + size], "big")) for at in range(0, len(raw), size)
        ]

    def write(self, values: Mapping[str, Any]) -> bytes:
        each = values.get(self.name, ())
        return _bytes(self.name, len(each), self.count_size) + b"".join(self.each.raw(value) for value in each)


@dataclass(frozen=True, slots=True)
class Group:
    """Count of one byte, then so many groups of fields."""

    name: str
    forms: tuple[Form, ...]
    least: int  # bytes of the shortest group

    def read(self, source: Reader, into: Values) -> None:
        into[self.name] = [read_all(self.forms, source) for _ in range(_count(source, 1, self.least))]

    def write(self, values: Mapping[str, Any]) -> bytes:
        groups = values.get(self.name, ())
        return _bytes(self.name, len(groups), 1) + b"".join(write_all(self.forms, group) for group in groups)


@dataclass(frozen=True, slots=True)
class Unscaled:
    """Fields whose scaling is not confirmed: told as raw numbers under ``raw``."""

    forms: tuple[Form, ...]
    name: str = "raw"

    def read(self, source: Reader, into: Values) -> None:
        into[self.name] = read_all(self.forms, source)

    def write(self, values: Mapping[str, Any]) -> bytes:
        return write_all(self.forms, values.get(self.name, {}))


@dataclass(frozen=True, slots=True)
class Block:
    """A length of two bytes, then so many bytes, shown in hex. ``length``: name under which the length is told."""

    name: str
    length: str

    def read(self, source: Reader, into: Values) -> None:
        raw = source.take(source.number(2))
        into |= {self.length: len(raw), self.name: raw.hex()}

    def write(self, values: Mapping[str, Any]) -> bytes:
        raw = bytes.fromhex(values.get(self.name, ""))
        return _bytes(self.name, len(raw), 2) + raw


def read_all(forms: Sequence[Form], source: Reader) -> Values:
    """Raises Overrun if the bytes end first."""
    out: Values = {}
    for form in forms:
        form.read(source, out)
    return out


def write_all(forms: Sequence[Form], values: Mapping[str, Any]) -> bytes:
    """Raises LocalProtocolError for a value that cannot be said; what is not given is sent as invalid."""
    return b"".join(form.write(values) for form in forms)
