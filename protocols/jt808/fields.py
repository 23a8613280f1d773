"""Reading and writing the fields of a body, and keeping track of where each was.

The same code that makes typed messages tells `citybrain decode` what stands where: a body is described once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

#: All times of JT/T 808 are UTC+8 (JT/T 808-2019, table 23); only 8004 is UTC by the text.
CHINA = timezone(timedelta(hours=8))
_EPOCH_DAY = date(1970, 1, 1).toordinal()

_U16, _U32, _U64 = struct.Struct(">H"), struct.Struct(">I"), struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Mark:
    """One field: its path (``items.0.alarm``), bytes and value."""

    name: str
    at: int
    size: int
    value: Any


class Reader:
    """``marks``: collect what was read; left None it costs nothing."""

    __slots__ = ("_path", "_scope", "at", "data", "marks", "values")

    def __init__(self, data: bytes, *, tell: bool = False) -> None:
        self.data = data
        self.at = 0
        self.marks: list[Mark] | None = [] if tell else None
        self.values: dict[str, Any] = {}
        self._scope = self.values
        self._path = ""

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, size: int, name: str = "") -> bytes:
        """Bytes without a mark. Raises RemoteProtocolError where the body ends early."""
        if size > self.left:
            text = f"JT/T 808 body ends in {self._path}{name}: {size} bytes wanted, {self.left} there"
            raise RemoteProtocolError(text, reason="short", offset=self.at)
        piece = self.data[self.at : self.at + size]
        self.at += size
        return piece

    def mark(self, name: str, at: int, value: Any) -> None:
        """Tell a field that was read from ``at`` up to here."""
        if self.marks is not None:
            self.marks.append(Mark(self._path + name, at, self.at - at, value))
            self._scope[name] = value

    def say(self, name: str, value: Any) -> None:
        """Tell something that has no bytes of its own."""
        if self.marks is not None:
            self.marks.append(Mark(self._path + name, self.at, 0, value))
            self._scope[name] = value

    @contextmanager
    def item(self, group: str) -> Iterator[None]:
        """Fields of one entry of a list."""
        if self.marks is None:
            yield
            return
        entries = self._scope.setdefault(group, [])
        outer = self._scope, self._path
        self._scope, self._path = {}, f"{self._path}{group}.{len(entries)}."
        entries.append(self._scope)
        try:
            yield
        finally:
            self._scope, self._path = outer

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Fields of one part with a name of its own."""
        outer = self._scope, self._path
        self._scope, self._path = self._scope.setdefault(name, {}), f"{self._path}{name}."
        try:
            yield
        finally:
            self._scope, self._path = outer

    def u8(self, name: str) -> int:
        at = self.at
        value = self.take(1, name)[0]
        self.mark(name, at, value)
        return value

    def _number(self, name: str, kind: struct.Struct) -> int:
        at = self.at
        value: int = kind.unpack(self.take(kind.size, name))[0]
        self.mark(name, at, value)
        return value

    def u16(self, name: str) -> int:
        return self._number(name, _U16)

    def u32(self, name: str) -> int:
        return self._number(name, _U32)

    def u64(self, name: str) -> int:
        return self._number(name, _U64)

    def id16(self, name: str) -> int:
        """A message id: told as 0x0200."""
        at = self.at
        value: int = _U16.unpack(self.take(2, name))[0]
        self.mark(name, at, f"0x{value:04X}")
        return value

    def blob(self, name: str, size: int | None = None) -> bytes:
        """Bytes told as hex; None: all that is left."""
        at = self.at
        value = self.take(self.left if size is None else size, name)
        self.mark(name, at, value.hex())
        return value

    def text(self, name: str, size: int | None = None) -> str:
        """GBK text in a field; what fills it up is not told."""
        at = self.at
        value = clean(self.take(self.left if size is None else size, name))
        self.mark(name, at, value)
        return value

    def counted(self, name: str) -> str:
        """GBK text behind its length in one byte."""
        size = self.take(1, name)[0]
        return self.text(name, size)

    def bcd(self, name: str, size: int) -> str:
        """Digits as they stand."""
        at = self.at
        value = self.take(size, name).hex()
        self.mark(name, at, value)
        return value

    def time6(self, name: str) -> bytes:
        """BCD YYMMDDhhmmss; told as text, or None where the clock is not set."""
        at = self.at
        value = self.take(6, name)
        if self.marks is not None:
            self.mark(name, at, time_text(value))
        return value


class Writer:
    """Fields of a body into bytes. Raises LocalProtocolError for what a field cannot hold."""

    __slots__ = ("out",)

    def __init__(self) -> None:
        self.out = bytearray()

    def number(self, value: int, size: int, name: str = "number") -> Writer:
        try:
            self.out += value.to_bytes(size, "big")
        except (OverflowError, AttributeError) as exc:
            raise LocalProtocolError(f"JT/T 808 {name} {value!r} does not fit {size} bytes", reason="range") from exc
        return self

    def u8(self, value: int, name: str = "number") -> Writer:
        return self.number(value, 1, name)

    def u16(self, value: int, name: str = "number") -> Writer:
        return self.number(value, 2, name)

    def u32(self, value: int, name: str = "number") -> Writer:
        return self.number(value, 4, name)

    def u64(self, value: int, name: str = "number") -> Writer:
        return self.number(value, 8, name)

    def blob(self, value: bytes, size: int | None = None) -> Writer:
        if size is not None and len(value) != size:
            raise LocalProtocolError(f"JT/T 808 field of {size} bytes, {len(value)} given", reason="length")
        self.out += value
        return self

    def text(self, value: str, size: int | None = None) -> Writer:
        """GBK, filled up with NUL on the right where the field has a width."""
        data = gbk(value)
        if size is not None:
            if len(data) > size:
                raise LocalProtocolError(f"JT/T 808 text of {len(data)} bytes, the field has {size}", reason="length")
            data = data.ljust(size, b"\0")
        self.out += data
        return self

    def counted(self, value: str) -> Writer:
        data = gbk(value)
        return self.u8(len(data), "length of a text").blob(data)

    def bcd(self, digits: str, size: int) -> Writer:
        try:
            return self.blob(bytes.fromhex(digits), size)
        except ValueError as exc:
            raise LocalProtocolError(f"JT/T 808 digits {digits!r}", reason="range") from exc

    def done(self) -> bytes:
        return bytes(self.out)


def gbk(text: str) -> bytes:
    """GB 18030 is GBK with everything else reachable; terminals that know GBK alone read all that GBK has."""
    try:
        return text.encode("gb18030")
    except UnicodeEncodeError as exc:
        raise LocalProtocolError(f"text {text[:20]!r} cannot be said in GBK", reason="text") from exc


def clean(data: bytes) -> str:
    """Text of a field: NUL or spaces fill it on the right, some devices fill with NUL on the left."""
    return data.strip(b"\0").rstrip(b" \0").decode("gb18030", errors="replace")


def time_ms(bcd: bytes) -> int | None:
    """BCD YYMMDDhhmmss (UTC+8) as UTC milliseconds; None for what is no time (FF.., 00.., month 13, plain binary)."""
    digits = bcd.hex()
    if not digits.isdecimal():
        return None
    hours, minutes, seconds = int(digits[6:8]), int(digits[8:10]), int(digits[10:12])
    if hours > 23 or minutes > 59 or seconds > 59:
        return None
    try:
        day = date(2000 + int(digits[0:2]), int(digits[2:4]), int(digits[4:6])).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    return (((day * 24 + hours - 8) * 60 + minutes) * 60 + seconds) * 1000


def time_text(bcd: bytes) -> str | None:
    """As the terminal's own (UTC+8) wall time; None for what is no time."""
    moment_ms = time_ms(bcd)
    return None if moment_ms is None else datetime.fromtimestamp(moment_ms / 1000, CHINA).strftime("%Y-%m-%d %H:%M:%S")


def time_bcd(moment_ms: int) -> bytes:
    """UTC milliseconds as the six bytes. Raises LocalProtocolError outside 2000..2099."""
    moment = datetime.fromtimestamp(moment_ms / 1000, UTC).astimezone(CHINA)
    if not 2000 <= moment.year <= 2099:
        raise LocalProtocolError(f"JT/T 808 has no year {moment.year}", reason="range")
    return bytes.fromhex(moment.strftime("%y%m%d%H%M%S"))
