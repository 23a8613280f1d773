"""A telegram in the normalised form of libmbus, under whose names the vectors are published: base units, six decimals,
numbers as text.

That form writes the degree sign as it looks when UTF-8 is read as Latin-1. Comparing tools expect it so; people see the
fields of the explanation, which have the sign right.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from protocols.mbus.fixed import Fixed
from protocols.mbus.records import Header, Record, year_of

_FUNCTIONS = ("Instantaneous value", "Maximum value", "Minimum value", "Value during error state")
#: Medium of the long header (EN 13757-3).
MEDIA: dict[int, tuple[str, str]] = {
    0x00: ("其他", "Other"),
    0x01: ("油", "Oil"),
    0x02: ("电", "Electricity"),
    0x03: ("燃气", "Gas"),
    0x04: ("热（回水侧）", "Heat: Outlet"),
    0x05: ("蒸汽", "Steam"),
    0x06: ("温水", "Warm water (30-90°C)"),
    0x07: ("水", "Water"),
    0x08: ("热分配表", "Heat Cost Allocator"),
    0x09: ("压缩空气", "Compressed Air"),
    0x0A: ("冷量（出口）", "Cooling load meter: Outlet"),
    0x0B: ("冷量（入口）", "Cooling load meter: Inlet"),
    0x0C: ("热（供水侧）", "Heat: Inlet"),
    0x0D: ("冷热两用", "Heat / Cooling load meter"),
    0x0E: ("总线/系统", "Bus/System"),
    0x0F: ("未知", "Unknown Medium"),
    0x10: ("灌溉水", "Irrigation Water"),
    0x11: ("水记录仪", "Water Logger"),
    0x12: ("燃气记录仪", "Gas Logger"),
    0x13: ("燃气转换器", "Gas Converter"),
    0x14: ("热值", "Calorific value"),
    0x15: ("热水（90 度以上）", "Hot water (>90°C)"),
    0x16: ("冷水", "Cold water"),
    0x17: ("双路水", "Dual water"),
    0x18: ("压力", "Pressure"),
    0x19: ("模数转换器", "A/D Converter"),
    0x1A: ("烟感", "Smoke Detector"),
    0x1B: ("环境传感器", "Ambient Sensor"),
    0x1C: ("气体探测器", "Gas Detector"),
    0x20: ("断路器", "Breaker: Electricity"),
    0x21: ("阀门", "Valve: Gas or Water"),
    0x25: ("用户显示单元", "Customer Unit: Display Device"),
    0x28: ("污水", "Waste Water"),
    0x29: ("垃圾", "Garbage"),
    0x2B: ("挥发性有机物传感器", "VOC Sensor"),
    0x30: ("服务单元", "Service Unit"),
    0x36: ("无线转换器（系统侧）", "Radio Converter: System"),
    0x37: ("无线转换器（表侧）", "Radio Converter: Meter"),
}


def _latin(text: str) -> str:
    return text.replace("°", "Â°")


def medium_text(code: int) -> str:
    if code in MEDIA:
        return MEDIA[code][1]
    return "Reserved" if 0x22 <= code <= 0x3F else f"Unknown medium (0x{code:02x})"


def header_values(header: Header) -> dict[str, Any]:
    """The header's fields; identification without leading zeros, all as text."""
    out: dict[str, Any] = {
        "accessnumber": str(header.access),
        "status": f"{header.status:02X}",
        "signature": header.signature,
    }
    if header.id:
        out |= {
            "id": header.id.lstrip("0") or "0",
            "manufacturer": header.manufacturer,
            "version": str(header.version),
            "medium": _latin(medium_text(header.medium)),
        }
    return out


def record_values(record: Record) -> dict[str, Any]:
    if record.kind != "value":
        name = "Manufacturer specific" if record.kind == "manufacturer" else "More records follow"
        out: dict[str, Any] = {"function": name, "storageNumber": "0"}
        return out | {"value": record.raw.hex(" ").upper()} if record.raw else out
    out = {"function": _FUNCTIONS[record.function], "storageNumber": str(record.storage)}
    if record.tariff is not None:
        out |= {"tariff": str(record.tariff), "device": str(record.device)}
    if record.meaning.unit:
        out["unit"] = _latin(record.meaning.unit)
    out["quantity"] = _printed(record.meaning.quantity)
    out["value"] = _value(record)
    return out


def _value(record: Record) -> str | None:
    if len(record.raw) in record.meaning.date_sizes and (literal := _literal(record.raw)):
        return literal
    if record.time:
        return record.time + ("Z" if "T" in record.time else "")
    if record.text is not None:
        return _printed(record.text)
    if record.number is not None:
        return f"{record.number:.6f}"
    return "" if not record.raw else None


def _printed(text: str) -> str:
    """A text as that form prints it: up to the first NUL, blanks for other control characters."""
    return "".join(char if char >= " " and char != "\x7f" else " " for char in text.partition("\0")[0])


def _literal(raw: bytes) -> str:
    """A date as that form writes it, impossible ones too, and 1900-01-00 where the meter says that it is invalid. ""
    for sizes that it has no form for. Nobody should take these for days: ``Record.time`` is empty then."""
    if len(raw) == 3:
        return ""
    second, minute, hour, day, month = raw[:5] if len(raw) == 6 else (bytes(5) + raw)[-5:]
    if len(raw) > 2 and minute & 0x80:
        return "1900-01-00T00:00:00Z"
    year = year_of(day, month, hour >> 5 & 3 if len(raw) == 4 else 1)
    date = f"{year:04d}-{month & 0x0F:02d}-{day & 0x1F:02d}"
    return date if len(raw) == 2 else f"{date}T{hour & 0x1F:02d}:{minute & 0x3F:02d}:{second & 0x3F:02d}Z"


def fixed_values(fixed: Fixed) -> dict[str, Any]:
    records = [
        {
            "function": "Stored value" if one.stored else "Actual value",
            "unit": _latin(one.unit),
            "value": _whole(one.number),
        }
        for one in fixed.counters
    ]
    return {
        "id": fixed.id.lstrip("0") or "0",
        "medium": fixed.medium,
        "accessnumber": str(fixed.access),
        "status": f"{fixed.status:02X}",
        "records": records,
    }


def _whole(number: Decimal | None) -> str | None:
    return None if number is None else f"{number:f}"
