"""The records of a telegram (EN 13757-3, after open implementations): DIF, DIFE, VIF, VIFE, data.

Boundaries are walked here, so that a record that ends in the middle stops the reading instead of moving it: what was
read before is kept and the telegram is marked. All offsets count from the first byte behind CI.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from protocols.mbus.messages import CI_FIXED, CI_LONG_HEADER, CI_NO_HEADER, CI_SHORT_HEADER, secondary_text
from protocols.mbus.vif import BASE, Meaning, meaning

MOST_EXTENSIONS = 10
Kind = Literal["value", "manufacturer", "more"]
FUNCTIONS = ("instantaneous", "maximum", "minimum", "error")
#: DIF bits 0-3 -> bytes of data; D is told by its first byte.
_SIZES = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 4, 6: 6, 7: 8, 8: 0, 9: 1, 10: 2, 11: 3, 12: 4, 14: 6}


@dataclass(frozen=True, slots=True)
class Header:
    """Long header, 12 bytes: id 0..3 (BCD, low first), maker 4..5 (three letters), version 6, medium 7, access number
    8, status 9, signature 10..11. The short header has the last four bytes only: ``id`` is "" then."""

    access: int
    status: int
    signature: str = ""
    id: str = ""
    manufacturer: str = ""
    version: int = 0
    medium: int = 0
    secondary: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """``number`` in the unit of ``meaning``; None: none, ``damaged`` if the bytes should have been one. ``time``: in
    ISO form as the meter says it ("2000-00-00": it never happened), "" none. ``vifes``: extensions behind the code;
    they change what the number means unless they only scale it."""

    kind: Kind
    offset: int
    length: int
    raw: bytes
    function: int = 0
    storage: int = 0
    tariff: int | None = None
    device: int | None = None
    meaning: Meaning = Meaning(0x7F, "")  # noqa: RUF009 - frozen
    vifes: tuple[int, ...] = ()
    number: Decimal | None = None
    text: str | None = None
    time: str = ""
    damaged: bool = False

    @property
    def plain(self) -> bool:
        """Nothing but scale is added to the quantity."""
        return all(0x70 <= vife & 0x7F <= 0x77 or vife & 0x7F == 0x7D for vife in self.vifes)

    @property
    def based(self) -> Decimal | None:
        """The number in Wh, W, m3/h ... also where the meter counts in J."""
        if self.number is None:
            return None
        return self.number * BASE[self.meaning.unit][1] if self.meaning.unit in BASE else self.number


@dataclass(frozen=True, slots=True)
class Telegram:
    """``problem`` "": read to the end. ``more``: further telegrams follow (toggle the frame count bit)."""

    header: Header | None
    records: tuple[Record, ...]
    more: bool = False
    problem: str = ""


class _Cut(Exception):
    """The telegram ends, or goes wrong, in the middle of a record."""


def read_telegram(ci: int, data: bytes) -> Telegram:
    """The content of a reply with variable data (CI 72, 7A, 78) or of data sent to a meter (51). Never raises for what
    is in it."""
    header: Header | None = None
    at = 0
    if ci == CI_LONG_HEADER:
        if len(data) < 12:
            return Telegram(None, (), problem="the header ends early")
        header, at = _long_header(data), 12
    elif ci == CI_SHORT_HEADER:
        if len(data) < 4:
            return Telegram(None, (), problem="the header ends early")
        header, at = Header(data[0], data[1], data[3:1:-1].hex().upper()), 4
    records: list[Record] = []
    try:
        while at < len(data):
            if data[at] == 0x2F:  # filler
                at += 1
                continue
            record = _record(data, at)
            records.append(record)
            at += record.length
    except _Cut as cut:
        return Telegram(header, tuple(records), problem=str(cut))
    return Telegram(header, tuple(records), more=bool(records) and records[-1].kind == "more")


def readable(ci: int) -> bool:
    return ci in (CI_LONG_HEADER, CI_SHORT_HEADER, CI_NO_HEADER, CI_FIXED)


def maker_text(raw: bytes) -> str:
    """Three letters of five bits each."""
    number = int.from_bytes(raw, "little")
    return "".join(chr((number >> shift & 0x1F) + 64) for shift in (10, 5, 0))


def maker_bytes(letters: str) -> bytes:
    number = 0
    for letter in letters:
        number = number << 5 | (ord(letter) - 64) & 0x1F
    return number.to_bytes(2, "little")


def _long_header(data: bytes) -> Header:
    return Header(
        access=data[8],
        status=data[9],
        signature=data[11:9:-1].hex().upper(),
        id=data[3::-1].hex().upper(),
        manufacturer=maker_text(data[4:6]),
        version=data[6],
        medium=data[7],
        secondary=secondary_text(data[:8]),
    )


def _byte(data: bytes, at: int, what: str) -> int:
    if at >= len(data):
        raise _Cut(f"the data end in {what}")
    return data[at]


def _extensions(data: bytes, at: int, first: int, what: str) -> tuple[list[int], int]:
    """Bytes that follow while bit 7 of the one before is set."""
    out: list[int] = []
    last = first
    while last & 0x80:
        if len(out) == MOST_EXTENSIONS:
            raise _Cut(f"more than {MOST_EXTENSIONS} {what}")
        last = _byte(data, at, f"a {what}")
        out.append(last)
        at += 1
    return out, at


def _record(data: bytes, start: int) -> Record:
    dif = data[start]
    if dif in (0x0F, 0x1F):
        raw = data[start + 1 :]
        return Record("manufacturer" if dif == 0x0F else "more", start, 1 + len(raw), raw)
    if dif & 0x0F == 0x0F:
        raise _Cut(f"DIF {dif:02X} is reserved")
    difes, at = _extensions(data, start + 1, dif, "DIFE")
    storage, tariff, device = dif >> 6 & 1, 0, 0
    for n, dife in enumerate(difes):
        storage |= (dife & 0x0F) << (1 + 4 * n)
        tariff |= (dife >> 4 & 3) << (2 * n)
        device |= (dife >> 6 & 1) << n
    vif = _byte(data, at, "a VIF")
    at += 1
    custom, vifes, at = _text_unit(data, at, vif) if vif & 0x7F == 0x7C else (None, *_extensions(data, at, vif, "VIFE"))
    what, rest = _meaning(vif, vifes, custom)
    raw, text, number, at, damaged = _data(data, at, dif & 0x0F)
    when = ""
    if number is not None and dif & 0x0F in what.date_sizes:
        when, number = read_time(raw), None
    elif number is not None:
        number = number * what.factor * _scale(rest)
    return Record(
        "value", start, at - start, raw, dif >> 4 & 3, storage, tariff if difes else None, device if difes else None,
        what, tuple(rest), number, text, when, damaged,
    )  # fmt: skip


def _text_unit(data: bytes, at: int, vif: int) -> tuple[str, list[int], int]:
    """A unit in words. Half of the makers put it right behind the VIF, half behind the extensions (the standard was
    read both ways): where the first reading gives no text, the second one is tried."""
    try:
        custom, then = _characters(data, at)
        if not vif & 0x80 or custom.isprintable():
            return custom, *_extensions(data, then, vif, "VIFE")
    except _Cut:
        if not vif & 0x80:
            raise
    vifes, at = _extensions(data, at, vif, "VIFE")
    custom, at = _characters(data, at)
    if not custom.isprintable():
        raise _Cut("a VIF text that is none")
    return custom, vifes, at


def _characters(data: bytes, at: int) -> tuple[str, int]:
    size = _byte(data, at, "a VIF text")
    at += 1
    if at + size > len(data):
        raise _Cut("the data end in a VIF text")
    return data[at : at + size][::-1].decode("latin-1"), at + size


def _meaning(vif: int, vifes: list[int], custom: str | None) -> tuple[Meaning, list[int]]:
    if custom is not None:
        return Meaning(-1, custom, "-"), vifes
    if vif in (0xFD, 0xFB) and vifes:
        return meaning(vifes[0] & 0x7F | (0x100 if vif == 0xFD else 0x200)), vifes[1:]
    return meaning(vif & 0x7F), vifes


def _scale(vifes: list[int]) -> Decimal:
    """VIFE 70..77: 10^(n-6); 7D: 1000. What stands behind FF is the maker's own."""
    factor = Decimal(1)
    for vife in vifes:
        code = vife & 0x7F
        if code == 0x7F:
            break
        if 0x70 <= code <= 0x77:
            factor = factor.scaleb(code - 0x76)
        elif code == 0x7D:
            factor *= 1000
    return factor


def _data(data: bytes, at: int, coding: int) -> tuple[bytes, str | None, Decimal | None, int, bool]:
    """Bytes, text, number, where the next record begins, and whether a number was meant that is none."""
    if coding == 0x0D:
        return _variable(data, at)
    size = _SIZES[coding]
    if at + size > len(data):
        raise _Cut(f"the data end {at + size - len(data)} bytes before a value does")
    raw = data[at : at + size]
    at += size
    if coding in (0, 8):
        return raw, None, None, at, False
    if coding >= 9:
        number = read_bcd(raw)
        return raw, None, number, at, number is None and raw != b"\xff" * size
    if coding == 5:
        value = float(struct.unpack("<f", raw)[0])
        finite = value == value and abs(value) != float("inf")
        return raw, None, Decimal(repr(value)) if finite else None, at, not finite
    return raw, None, Decimal(int.from_bytes(raw, "little", signed=True)), at, False


def _variable(data: bytes, at: int) -> tuple[bytes, str | None, Decimal | None, int, bool]:
    """First byte 00-BF: so many characters; C0-CF and D0-DF: BCD of (n) bytes, positive and negative; E0-EF: binary;
    F0-FA: a float."""
    lvar = _byte(data, at, "a length byte")
    at += 1
    if lvar > 0xFA:
        raise _Cut(f"length byte {lvar:02X} is reserved")
    size = lvar if lvar < 0xC0 else lvar & 0x0F
    if at + size > len(data):
        raise _Cut(f"the data end {at + size - len(data)} bytes before a text does")
    raw = data[at : at + size]
    at += size
    if lvar < 0xC0:
        return raw, raw[::-1].decode("latin-1"), None, at, False
    if lvar < 0xE0:
        number = read_bcd(raw) if raw else None
        negative = lvar >= 0xD0 and number is not None
        return raw, None, -number if negative and number is not None else number, at, number is None
    if lvar < 0xF0 or size not in (4, 8):
        return raw, raw.hex(" ").upper(), None, at, False
    value = float(struct.unpack("<f" if size == 4 else "<d", raw)[0])
    finite = value == value and abs(value) != float("inf")
    return raw, None, Decimal(repr(value)) if finite else None, at, not finite


def read_bcd(raw: bytes) -> Decimal | None:
    """Lowest byte first; F as the highest digit is a minus; other digits above 9 are no number."""
    text = raw[::-1].hex()
    negative = text.startswith("f")
    digits = text[1:] if negative else text
    if not digits.isdecimal():
        return None
    return Decimal(-int(digits) if negative else int(digits))


def read_time(raw: bytes) -> str:
    """Types G (2 bytes, date), J (3, time), F (4, date and minute) and I (6, to the second); "" for one that the meter
    marks as invalid or that is no day at all (all ones)."""
    if len(raw) == 3:
        return f"{raw[2] & 0x1F:02d}:{raw[1] & 0x3F:02d}:{raw[0] & 0x3F:02d}"
    if len(raw) == 2:
        return _date(raw[0], raw[1])
    second, minute, hour, day, month = raw[:5] if len(raw) == 6 else bytes(1) + raw
    if minute & 0x80:
        return ""
    date = _date(day, month, hour >> 5 & 3 if len(raw) == 4 else 0)
    return date and f"{date}T{hour & 0x1F:02d}:{minute & 0x3F:02d}:{second & 0x3F:02d}"


def year_of(day: int, month: int, century: int = 0) -> int:
    """Seven bits in two bytes. Type F has two bits for the century above its hour; old meters leave them at 0 and the
    other types have none: 2000 up to 80, 1900 above."""
    year = day >> 5 | month >> 4 << 3
    return 1900 + year + 100 * (1 if not century and year <= 80 else century)


def _date(day: int, month: int, century: int = 0) -> str:
    if month & 0x0F > 12:
        return ""
    return f"{year_of(day, month, century):04d}-{month & 0x0F:02d}-{day & 0x1F:02d}"
