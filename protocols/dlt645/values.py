"""Values of data identifiers: packed BCD, lowest byte first, to exact decimals and back.

"No value" (all bytes FF) and a damaged value (a nibble above 9) both become None: neither may ever become a number.
What the identifiers mean stands in ``identifiers.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from decimal import Decimal

from protocols.core.errors import LocalProtocolError
from protocols.dlt645.identifiers import Format, is_block, lookup

__all__ = [
    "Format",
    "Value",
    "decode",
    "encode",
    "encode_demand",
    "encode_moment",
    "encode_text",
    "is_block",
    "lookup",
    "status_word",
]


@dataclass(frozen=True, slots=True)
class Value:
    """``number`` None: no value; ``damaged`` says that there were bytes, but not BCD."""

    number: Decimal | None = None
    unit: str = ""
    damaged: bool = False
    when: str = ""  # ISO local time of a demand, a date, a time
    weekday: int | None = None  # 0 = Sunday
    text: str = ""


def decode(di: str, data: bytes) -> list[Value] | None:
    """The values of an identifier, as many as the data hold (meters answer blocks with fewer). None: unknown."""
    form = lookup(di)
    if form is None:
        return None
    return [value for _, _, value in located(di, form, data)] or [Value(unit=form.unit, damaged=True)]


def located(di: str, form: Format, data: bytes) -> Iterator[tuple[int, int, Value]]:
    """Offset within the data, length and value of each item."""
    if form.items:
        at = 0
        for item in form.items:
            if at < len(data):
                yield at, min(item.size, len(data) - at), _one(item, data[at : at + item.size])
            at += item.size
        return
    many = form.repeats or is_block(di)
    at = 0
    while at < len(data):
        if many and data[at] == 0xAA:
            at += 1  # blocks may part their items by AA; it cannot begin a BCD value
            continue
        yield at, min(form.size, len(data) - at), _one(form, data[at : at + form.size])
        at += form.size
        if not many:
            return


def _digits(raw: bytes) -> str | None:
    """Digits of packed BCD, highest first; None if a nibble is no digit."""
    text = raw[::-1].hex()
    return text if text.isdecimal() else None


def _number(form: Format, raw: bytes) -> Value:
    if raw == b"\xff" * len(raw):
        return Value(unit=form.unit)
    negative = form.signed and bool(raw[-1] & 0x80)
    if negative:
        raw = raw[:-1] + bytes((raw[-1] & 0x7F,))
    digits = _digits(raw)
    if digits is None:
        return Value(unit=form.unit, damaged=True)
    number = Decimal(int(digits)).scaleb(-form.decimals)
    return Value(-number if negative and number else number, form.unit)


def _one(form: Format, raw: bytes) -> Value:
    if len(raw) < form.size:
        return Value(unit=form.unit, damaged=True)
    if form.kind == "number":
        return _number(form, raw)
    if form.kind == "demand":
        value = _number(form, raw[:3])
        return Value(value.number, form.unit, value.damaged, when=_moment(raw[3:]))
    if form.kind == "text" and raw != b"\xff" * len(raw):
        # Last character first on the wire; makers pad with blanks or zeros.
        return Value(text=raw[::-1].decode("ascii", "replace").strip(" \0"), damaged=not raw.isascii())
    if form.kind == "bits":
        # Bits are a number too, so that a point may pick one; the text is what the sheets print.
        return Value(Decimal(int.from_bytes(raw, "little")), text=raw[::-1].hex().upper())
    digits = _digits(raw)
    if raw == b"\xff" * len(raw) or digits is None:
        return Value(damaged=raw != b"\xff" * len(raw))
    parts = [f"{byte:02x}" for byte in raw]
    match form.kind:
        case "date":
            return _clock(raw, f"20{parts[3]}-{parts[2]}-{parts[1]}", int(parts[0]))
        case "time":
            return _clock(raw, f"{parts[2]}:{parts[1]}:{parts[0]}")
        case "datetime":
            date, clock = f"20{parts[6]}-{parts[5]}-{parts[4]}", f"{parts[2]}:{parts[1]}:{parts[0]}"
            return _clock(raw, f"{date}T{clock}", int(parts[3]))
        case "stamp":
            return Value(when=f"{_moment(raw[1:])}:{parts[0]}" if _moment(raw[1:]) else "")
        case "moment":
            return Value(when=_moment(raw))
        case _:
            return Value(text=digits)


def _clock(raw: bytes, text: str, weekday: int | None = None) -> Value:
    """What a meter's clock says, if there is such a day and hour; all zero is a clock that was never set."""
    try:
        (time if "-" not in text else datetime).fromisoformat(text)
    except ValueError:
        return Value(damaged=any(raw))
    return Value(when=text, weekday=weekday)


def _moment(raw: bytes) -> str:
    """mm hh DD MM YY as an ISO minute; "" where nothing happened yet (day 00) or the digits are none."""
    minute, hour, day, month, year = (f"{byte:02x}" for byte in raw)
    return f"20{year}-{month}-{day}T{hour}:{minute}" if _digits(raw) and day != "00" else ""


def encode(di: str, numbers: Sequence[Decimal | None]) -> bytes:
    """The data of numeric items, for a meter that answers. None: no value (FF). Raises LocalProtocolError."""
    form = lookup(di)
    if form is None or form.kind != "number" or form.items:
        raise LocalProtocolError(f"DL/T 645 identifier {di}: no numeric format known", reason="di")
    out = bytearray()
    for number in numbers:
        if number is None:
            out += b"\xff" * form.size
            continue
        scaled = int(abs(number).scaleb(form.decimals).to_integral_value())
        negative = number < 0
        limit = (8 if form.signed else 10) * 10 ** (2 * form.size - 1)
        if scaled >= limit or (negative and not form.signed):
            raise LocalProtocolError(f"DL/T 645 {di}: {number} does not fit", reason="range")
        raw = bytearray(bytes.fromhex(f"{scaled:0{2 * form.size}d}")[::-1])
        if negative:
            raw[-1] |= 0x80
        out += raw
    return bytes(out)


def encode_moment(di: str, when: datetime) -> bytes:
    """The data of a date, a time or both, as a meter's clock says them. Raises LocalProtocolError."""
    form = lookup(di)
    week = f"{when.isoweekday() % 7:02d}"
    clock, date = when.strftime("%S%M%H"), when.strftime("%d%m%y")
    match form.kind if form is not None else "":
        case "date":
            return bytes.fromhex(week + date)
        case "time":
            return bytes.fromhex(clock)
        case "datetime":
            return bytes.fromhex(clock + week + date)
        case "stamp":
            return bytes.fromhex(clock + date)
        case "moment":
            return bytes.fromhex(clock[2:] + date)
    raise LocalProtocolError(f"DL/T 645 identifier {di} is no time", reason="di")


def encode_demand(di: str, number: Decimal, when: datetime) -> bytes:
    """The data of a maximum demand with its time, for a meter that answers. Raises LocalProtocolError."""
    form = lookup(di)
    scaled = int(abs(number).scaleb(4).to_integral_value())
    if form is None or form.kind != "demand" or scaled >= 800_000:
        raise LocalProtocolError(f"DL/T 645 {di}: {number} is no demand", reason="range")
    raw = bytearray(bytes.fromhex(f"{scaled:06d}")[::-1])
    raw[-1] |= 0x80 * (number < 0)
    return bytes(raw) + bytes.fromhex(when.strftime("%M%H%d%m%y"))


def encode_text(di: str, text: str) -> bytes:
    """The data of a text or of digits (numbers of meters, addresses). Raises LocalProtocolError."""
    form = lookup(di)
    if form is not None and form.kind == "digits" and text.isdecimal() and len(text) <= 2 * form.size:
        return bytes.fromhex(text.rjust(2 * form.size, "0"))[::-1]
    if form is not None and form.kind == "text" and text.isascii() and len(text) <= form.size:
        return text.encode("ascii").ljust(form.size, b"\0")[::-1]
    raise LocalProtocolError(f"DL/T 645 identifier {di} cannot say {text!r}", reason="range")


def status_word(bits: int) -> bytes:
    """The data of one status word."""
    return bits.to_bytes(2, "little")
