"""The old fixed telegram (CI 73): two counters behind a header of eight bytes."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from protocols.mbus.records import read_bcd

#: Status bit 7: the counters are binary, else BCD; bit 6: they are values of a stored date.
_BINARY, _STORED = 0x80, 0x40

_RUNS = (
    (0x02, ("Wh", "kWh", "MWh")),
    (0x0B, ("kJ", "MJ", "GJ")),
    (0x14, ("W", "kW", "MW")),
    (0x1D, ("kJ/h", "MJ/h", "GJ/h")),
    (0x26, ("ml", "l", "m^3")),
    (0x2F, ("ml/h", "l/h", "m^3/h")),
)
#: Medium code of the fixed telegram; it is not that of the variable one.
MEDIA = (
    "Other", "Oil", "Electricity", "Gas", "Heat", "Steam", "Hot Water", "Water", "H.C.A.", "Reserved", "Gas Mode 2",
    "Heat Mode 2", "Hot Water Mode 2", "Water Mode 2", "H.C.A. Mode 2", "Reserved",
)  # fmt: skip


def _units() -> dict[int, str]:
    out = {0x00: "h,m,s", 0x01: "D,M,Y", 0x38: "°C * 10^-3", 0x39: "units for HCA", 0x3E: "reserved but historic"}
    out[0x3F] = "without units"
    for first, symbols in _RUNS:
        for n in range(9):
            out[first + n] = symbols[n // 3] + ("", " * 10", " * 100")[n % 3]
    return out


UNITS = _units()


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter. ``number`` None: digits that are none."""

    unit: str
    number: Decimal | None
    stored: bool


@dataclass(frozen=True, slots=True)
class Fixed:
    """id 0..3 (BCD, low first), access number 4, status 5, medium and units 6..7, counters 8..11 and 12..15."""

    id: str
    access: int
    status: int
    medium: str
    counters: tuple[Counter, Counter]


def read_fixed(data: bytes) -> Fixed | None:
    """The content of a reply with CI 73; None unless it has its 16 bytes."""
    if len(data) != 16:
        return None
    status, first, second = data[5:8]

    def counter(unit: int, raw: bytes) -> Counter:
        number = Decimal(int.from_bytes(raw, "little", signed=True)) if status & _BINARY else read_bcd(raw)
        return Counter(UNITS.get(unit & 0x3F, "reserved"), number, bool(status & _STORED))

    medium = MEDIA[first >> 6 | second >> 6 << 2]
    counters = counter(first, data[8:12]), counter(second, data[12:16])
    return Fixed(data[3::-1].hex().upper(), data[4], status, medium, counters)
