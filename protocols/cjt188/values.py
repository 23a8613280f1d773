"""What stands behind SER in a reply: fields by identifier and length, packed BCD lowest byte first.

The layout is picked by length, not by edition: heat meters of 2004 answer 43 bytes, one 2018 driver reads 40. "No
value" (all FF) and digits that are none become None, never a number. Sizes and decimals from field captures and
drivers; the text of the standard was not at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from protocols.cjt188.units import UNITS, USUAL
from protocols.core.errors import LocalProtocolError

Kind = Literal["quantity", "number", "time", "status", "valve", "address", "raw"]
UnitPlace = Literal["after", "before"]


@dataclass(frozen=True, slots=True)
class Item:
    """One field. A ``quantity`` is four BCD bytes and a unit byte; ``base`` is the unit it is given in."""

    name: str
    kind: Kind
    size: int
    decimals: int = 0
    base: str = ""


def _q(name: str, base: str, decimals: int = 2) -> Item:
    return Item(name, "quantity", 5, decimals, base)


def _n(name: str, size: int, decimals: int, base: str = "") -> Item:
    return Item(name, "number", size, decimals, base)


_TIME, _STATUS = Item("time", "time", 7), Item("status", "status", 2)
_HEATS = (_q("settlement_heat", "kWh"), _q("heat", "kWh"))
#: Layouts of the big readings, by name.
LAYOUTS: Mapping[str, tuple[Item, ...]] = {
    "volume": (_q("current", "m3"), _q("settlement", "m3"), _TIME, _STATUS),
    "heat_2004": (
        *_HEATS, _q("power", "kW"), _q("flow", "m3/h", 4), _q("volume", "m3"),
        _n("supply_temp", 3, 2, "degC"), _n("return_temp", 3, 2, "degC"), _n("hours", 3, 0, "h"), _TIME, _STATUS,
    ),
    # As one driver of the 2018 edition reads it; not seen on a wire.
    "heat_2018": (
        *_HEATS, _n("power", 4, 2, "kW"), _n("flow", 4, 4, "m3/h"), _q("volume", "m3"),
        _n("supply_temp", 2, 2, "degC"), _n("return_temp", 2, 2, "degC"), _n("hours", 4, 0, "h"), _TIME, _STATUS,
    ),
    "month": (_q("settlement", "m3"),),
    "month_heat": (_q("settlement", "kWh"),),
    "history_heat": (_q("heat", "kWh"), _q("cooling", "kWh"), _q("volume", "m3")),
    "freeze": (_TIME, _q("volume", "m3"), _q("flow", "m3/h", 4), _n("temperature", 3, 2, "degC"),
               Item("pressure", "raw", 3)),
    "time": (_TIME,),
    "prices": (_n("price_1", 3, 2), _n("volume_1", 3, 0, "m3"), _n("price_2", 3, 2), _n("volume_2", 3, 0, "m3"),
               _n("price_3", 3, 2)),
    "day": (_n("day", 1, 0),),
    "key_version": (Item("key_version", "raw", 1),),
    "address": (Item("new_addr", "address", 7),),
    "motor_sync": (_q("current", "m3"),),
    "valve": (Item("valve", "valve", 1),),
    "status": (_STATUS,),
}  # fmt: skip

_SINGLE = {
    "907F": "time", "A015": "time", "8102": "prices", "A010": "prices", "8103": "day", "8104": "day", "A011": "day",
    "A012": "day", "8106": "key_version", "810A": "address", "A018": "address", "A016": "motor_sync", "A017": "valve",
}  # fmt: skip
KNOWN_DI = frozenset({"901F", "911F", "8105", "A013", "A014", "A019", *(f"A10{n}" for n in range(1, 8)), *_SINGLE})


def known(di: str) -> bool:
    """Whether the identifier is one of the standard's, whatever its content."""
    return di in KNOWN_DI or di[:2] in ("D1", "D2", "D3", "D4")


def layout_of(di: str, size: int, *, heat: bool) -> str:
    """The name of the layout of ``size`` bytes behind SER; "" if nobody knows it (keep the bytes raw)."""
    if di in ("901F", "911F"):
        by_size = {43: "heat_2004", 40: "heat_2018"}
        return by_size.get(size, "volume" if size >= 5 and di == "901F" and not (heat and size > 19) else "")
    if di[:2] in ("D1", "D2"):
        return "history_heat" if size == 15 else ("month_heat" if heat else "month") if size == 5 else ""
    if di[:2] in ("D3", "D4"):
        return "freeze" if size == 23 else ""
    name = _SINGLE.get(di, "")
    return name if name and size == sum(item.size for item in LAYOUTS[name]) else ""


@dataclass(frozen=True, slots=True)
class Value:
    """One field as it was read. ``number`` None: no value (``damaged``: there were bytes, but no digits); ``unit`` the
    unit byte, None where the field has none; ``text``: a time in ISO form ("" none), an address, hex of the rest."""

    item: Item
    offset: int  # from the first byte behind SER
    number: Decimal | None = None
    unit: int | None = None
    text: str = ""
    damaged: bool = False

    @property
    def based(self) -> Decimal | None:
        """The number in the item's base unit; None where the unit byte says something else altogether."""
        if self.number is None or self.unit is None:
            return self.number
        unit = UNITS.get(self.unit)
        return self.number * unit.factor if unit is not None and unit.base == self.item.base else None


@dataclass(frozen=True, slots=True)
class Reading:
    """All that a reply says. ``layout`` "": unknown, all in ``rest``."""

    layout: str
    place: UnitPlace
    values: tuple[Value, ...]
    rest: bytes = b""

    def get(self, name: str) -> Value | None:
        return next((value for value in self.values if value.item.name == name), None)


def decode(di: str, data: bytes, *, heat: bool = False) -> Reading:
    """The fields of a reply (or of a write) to ``di``; ``data`` behind SER. Never raises."""
    layout = layout_of(di, len(data), heat=heat)
    return read_layout(layout, data)


def read_layout(layout: str, data: bytes) -> Reading:
    items = LAYOUTS.get(layout, ())
    spans: list[tuple[Item, int, bytes]] = []
    at = 0
    for item in items:
        if at + item.size > len(data):
            break
        spans.append((item, at, data[at : at + item.size]))
        at += item.size
    place = _unit_place([(item, raw) for item, _, raw in spans if item.kind == "quantity"])
    values = tuple(_value(item, offset, raw, place) for item, offset, raw in spans)
    return Reading(layout if values else "", place, values, data[at:])


def _unit_place(fields: list[tuple[Item, bytes]]) -> UnitPlace:
    """Some makers put the unit in front of the digits. Where it stands is a matter of the whole reply: one field alone
    misleads (54060.00 kWh ends in 05, the code of kWh), so each place is judged by all of them."""
    after = sum(_fit(item, raw[4], raw[:4]) for item, raw in fields)
    before = sum(_fit(item, raw[0], raw[1:]) for item, raw in fields)
    return "before" if before > after else "after"


def _fit(item: Item, code: int, digits: bytes) -> int:
    """How well a unit byte and the digits beside it would fit the field."""
    unit = UNITS.get(code)
    known = 0 if unit is None else 2 if unit.base == item.base else 1
    return known if digits == b"\xff" * 4 or _digits(digits) is not None else known - 4


def _digits(raw: bytes) -> int | None:
    text = raw[::-1].hex()
    return int(text) if text.isdecimal() else None


def _value(item: Item, offset: int, raw: bytes, place: UnitPlace) -> Value:
    match item.kind:
        case "quantity":
            unit, digits = (raw[4], raw[:4]) if place == "after" else (raw[0], raw[1:])
            return _number(item, offset, digits, unit)
        case "number":
            return _number(item, offset, raw, None)
        case "time":
            return _time(item, offset, raw)
        case "valve":
            text = {0x55: "open", 0x99: "close"}.get(raw[0], raw.hex().upper())
            return Value(item, offset, number=Decimal(raw[0]), text=text)
        case "address":
            return Value(item, offset, text=raw[::-1].hex().upper())
        case "status" | "raw":
            return Value(item, offset, text=raw.hex().upper())


def _number(item: Item, offset: int, digits: bytes, unit: int | None) -> Value:
    if digits == b"\xff" * len(digits):
        return Value(item, offset, unit=unit)
    number = _digits(digits)
    if number is None:
        return Value(item, offset, unit=unit, damaged=True)
    return Value(item, offset, Decimal(number).scaleb(-item.decimals), unit)


def _time(item: Item, offset: int, raw: bytes) -> Value:
    """ss mm hh DD MM YY CC. All FF or all 00: no clock; second 60, day 00, another century: no time either."""
    if raw in (b"\xff" * 7, bytes(7)):
        return Value(item, offset)
    parts = [_digits(raw[n : n + 1]) for n in range(7)]
    if any(part is None for part in parts):
        return Value(item, offset, damaged=True)
    second, minute, hour, day, month, year, century = (part or 0 for part in parts)
    if not 19 <= century <= 21:
        return Value(item, offset, damaged=True)
    try:
        when = datetime(century * 100 + year, month, day, hour, minute, second)
    except ValueError:
        return Value(item, offset, damaged=True)
    return Value(item, offset, text=when.isoformat())


@dataclass(frozen=True, slots=True)
class Status:
    """The two status bytes. Only three bits are the standard's; the rest is the maker's."""

    raw: bytes

    @property
    def valve(self) -> str:
        """``open``, ``closed`` or ``faulty``; "" for bits that mean none of these."""
        return ("open", "closed", "", "faulty")[self.raw[0] & 0b11] if self.raw else ""

    @property
    def battery_low(self) -> bool:
        return bool(self.raw and self.raw[0] & 0b100)


def encode(
    layout: str,
    numbers: Mapping[str, Decimal | None],
    *,
    time: datetime | None = None,
    status: bytes = b"\0\0",
    place: UnitPlace = "after",
    units: Mapping[str, int] | None = None,
) -> bytes:
    """The data of a layout, for a meter that answers: ``numbers`` in base units. Raises LocalProtocolError."""
    out = bytearray()
    for item in LAYOUTS[layout]:
        match item.kind:
            case "time":
                out += clock_bytes(time) if time is not None else bytes(7)
            case "status":
                out += status
            case "quantity":
                unit = (units or {}).get(item.name, USUAL[item.base])
                number = numbers.get(item.name)
                shown = None if number is None else number / UNITS[unit].factor
                digits = _bcd(shown, 4, item.decimals)
                out += digits + bytes((unit,)) if place == "after" else bytes((unit,)) + digits
            case "number":
                out += _bcd(numbers.get(item.name), item.size, item.decimals)
            case _:
                raise LocalProtocolError(f"CJ/T 188 layout {layout}: {item.name} is no number", reason="layout")
    return bytes(out)


def _bcd(number: Decimal | None, size: int, decimals: int) -> bytes:
    if number is None:
        return b"\xff" * size
    scaled = int(number.scaleb(decimals).to_integral_value())
    if not 0 <= scaled < 100**size:
        raise LocalProtocolError(f"CJ/T 188: {number} does not fit {2 * size} digits", reason="range")
    return bytes.fromhex(f"{scaled:0{2 * size}d}")[::-1]


def clock_bytes(time: datetime) -> bytes:
    """ss mm hh DD MM YY CC of a meter's local time (A015, 907F)."""
    parts = (time.second, time.minute, time.hour, time.day, time.month, time.year % 100, time.year // 100)
    return bytes.fromhex("".join(f"{part:02d}" for part in parts))
