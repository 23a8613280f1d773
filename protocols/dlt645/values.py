"""Data identifiers and their values: packed BCD, lowest byte first, to exact decimals and back.

"No value" (all bytes FF) and a damaged value (a nibble above 9) both become None: neither may ever become a number.
The table holds what independent implementations and captures agree on; other identifiers stay raw bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from protocols.core.errors import LocalProtocolError

Kind = Literal["number", "demand", "date", "time", "datetime", "digits", "text", "bits"]


@dataclass(frozen=True, slots=True)
class Format:
    """How one item of an identifier looks. ``signed``: the top bit of the highest byte is sign or direction."""

    size: int
    decimals: int = 0
    unit: str = ""
    signed: bool = False
    kind: Kind = "number"


@dataclass(frozen=True, slots=True)
class Value:
    """``number`` None: no value; ``damaged`` says that there were bytes, but not BCD."""

    number: Decimal | None = None
    unit: str = ""
    damaged: bool = False
    when: str = ""  # ISO local time of a demand, a date, a time
    weekday: int | None = None  # 0 = Sunday
    text: str = ""


#: ZZ of 00ZZTTSS / 01ZZTTSS: energy and demand unit, signed. 15, 29, 3D: phases A, B, C forward; 16, 2A, 3E reverse.
_ZZ: dict[str, tuple[str, str, bool]] = {
    "00": ("kWh", "kW", True),
    **dict.fromkeys(("01", "02", "15", "16", "29", "2A", "3D", "3E"), ("kWh", "kW", False)),
    **dict.fromkeys(("03", "04"), ("kvarh", "kvar", True)),
    **dict.fromkeys(("05", "06", "07", "08"), ("kvarh", "kvar", False)),
    **dict.fromkeys(("09", "0A"), ("kVAh", "kVA", False)),
}

_INSTANT: dict[str, Format] = {
    "0201": Format(2, 1, "V"),
    "0202": Format(3, 3, "A", signed=True),
    "0203": Format(3, 4, "kW", signed=True),
    "0204": Format(3, 4, "kvar", signed=True),
    "0205": Format(3, 4, "kVA", signed=True),
    "0206": Format(2, 3, "", signed=True),
    "0207": Format(2, 1, "deg"),
    "0208": Format(2, 2, "%"),
    "0209": Format(2, 2, "%"),
}

_EXACT: dict[str, Format] = {
    "02800001": Format(3, 3, "A", signed=True),
    "02800002": Format(2, 2, "Hz"),
    "02800003": Format(3, 4, "kW", signed=True),
    "02800004": Format(3, 4, "kW", signed=True),
    "02800005": Format(3, 4, "kvar", signed=True),
    "02800006": Format(3, 4, "kVA", signed=True),
    "02800007": Format(2, 1, "degC", signed=True),
    "02800008": Format(2, 2, "V"),
    "02800009": Format(2, 2, "V"),
    "04000101": Format(4, kind="date"),
    "04000102": Format(3, kind="time"),
    "0400010C": Format(7, kind="datetime"),
    "04000306": Format(3),
    "04000307": Format(3),
    "04000401": Format(6, kind="digits"),
    "04000402": Format(6, kind="digits"),
    "04000403": Format(32, kind="text"),
    "04000404": Format(6, kind="text"),
    "04000405": Format(6, kind="text"),
    "04000406": Format(6, kind="text"),
    "04000407": Format(4, kind="text"),
    "04000408": Format(4, kind="text"),
    "04000409": Format(3),
    "0400040A": Format(3),
    "0400040B": Format(10, kind="text"),
    **{f"0400050{n}": Format(2, kind="bits") for n in range(1, 8)},
    "040005FF": Format(2, kind="bits"),
    "00900100": Format(4, 2, "kWh"),
    "00900200": Format(4, 2, "CNY"),
    # 1997 edition
    "C010": Format(4, kind="date"),
    "C011": Format(3, kind="time"),
    "C032": Format(6, kind="digits"),
}

_1997: dict[str, Format] = {
    "900": Format(4, 2, "kWh"),
    "901": Format(4, 2, "kWh"),
    "902": Format(4, 2, "kWh"),
    "B61": Format(2, 0, "V"),
    "B62": Format(2, 2, "A"),
    "B63": Format(3, 4, "kW"),
}


def lookup(di: str) -> Format | None:
    """The format of an identifier, None if it is unknown (keep its bytes raw)."""
    if (exact := _EXACT.get(di)) is not None:
        return exact
    if len(di) == 4:
        return _1997.get(di[:3])
    head, zz, pp = di[:2], di[2:4], di[4:6]
    if head == "00" and zz in _ZZ and _tariff_and_period(di):
        return Format(4, 2, _ZZ[zz][0], signed=_ZZ[zz][2])
    if head == "01" and zz in _ZZ and _tariff_and_period(di):
        return Format(8, 4, _ZZ[zz][1], signed=True, kind="demand")
    if di[6:] == "00" and pp in ("00", "01", "02", "03", "FF"):
        return _INSTANT.get(di[:4])
    return None


def _tariff_and_period(di: str) -> bool:
    tariff, period = int(di[4:6], 16), int(di[6:], 16)
    return (tariff <= 0x3F or tariff == 0xFF) and (period <= 0x0C or period == 0xFF)


def is_block(di: str) -> bool:
    """Whether a reply to it holds several values."""
    if len(di) == 4:
        return di.endswith("F")
    return di.endswith("FF") or di[4:6] == "FF"


def decode(di: str, data: bytes) -> list[Value] | None:
    """The values of an identifier, as many as the data hold (meters answer blocks with fewer). None: unknown."""
    form = lookup(di)
    if form is None:
        return None
    limit = len(data) if is_block(di) else 1
    out: list[Value] = []
    at = 0
    while len(out) < limit and at < len(data):
        if len(di) == 4 and data[at] == 0xAA and is_block(di):
            at += 1  # separator of 1997 blocks; AA cannot begin a BCD value
            continue
        out.append(_one(form, data[at : at + form.size]))
        at += form.size
    return out or [Value(unit=form.unit, damaged=True)]


def _digits(raw: bytes) -> str | None:
    """Digits of packed BCD, highest first; None if a nibble is no digit."""
    text = raw[::-1].hex()
    return text if text.isdigit() else None


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
        minute, hour, day, month, year = (f"{byte:02x}" for byte in raw[3:])
        when = f"20{year}-{month}-{day}T{hour}:{minute}"
        return Value(value.number, form.unit, value.damaged, when=when if _digits(raw[3:]) and day != "00" else "")
    if form.kind == "text":
        # Last character first on the wire; makers pad with blanks or zeros.
        return Value(text=raw[::-1].decode("ascii", "replace").strip(" \0"), damaged=not raw.isascii())
    if form.kind == "bits":
        return Value(text=raw[::-1].hex().upper())
    digits = _digits(raw)
    if raw == b"\xff" * len(raw) or digits is None:
        return Value(damaged=raw != b"\xff" * len(raw))
    parts = [f"{byte:02x}" for byte in raw]
    match form.kind:
        case "date":
            return Value(when=f"20{parts[3]}-{parts[2]}-{parts[1]}", weekday=int(parts[0]))
        case "time":
            return Value(when=f"{parts[2]}:{parts[1]}:{parts[0]}")
        case "datetime":
            date, time = f"20{parts[6]}-{parts[5]}-{parts[4]}", f"{parts[2]}:{parts[1]}:{parts[0]}"
            return Value(when=f"{date}T{time}", weekday=int(parts[3]))
        case _:
            return Value(text=digits)


def encode(di: str, numbers: Sequence[Decimal | None]) -> bytes:
    """The data of numeric items, for a meter that answers. None: no value (FF). Raises LocalProtocolError."""
    form = lookup(di)
    if form is None or form.kind != "number":
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
