"""The unit byte of CJ/T 188: what a number counts, and what it is in the unit a city's data are kept in.

Codes after field captures and drivers; those between two named steps are the steps of ten. They are the unit codes of
the old fixed M-Bus telegram.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Unit:
    """number * ``factor`` is in ``base``."""

    code: int
    symbol: str
    base: str
    factor: Decimal


_KWH_PER_J = Decimal(1) / Decimal(3_600_000)
#: First code, last code, symbol of the first, base unit, factor of the first; each next code is ten times more.
_RUNS = (
    (0x01, 0x01, ("J",), "kWh", _KWH_PER_J),
    (0x02, 0x0A, ("Wh", "kWh", "MWh"), "kWh", Decimal("0.001")),
    (0x0B, 0x13, ("kJ", "MJ", "GJ"), "kWh", _KWH_PER_J * 1000),
    (0x14, 0x1C, ("W", "kW", "MW"), "kW", Decimal("0.001")),
    (0x29, 0x2E, ("L", "m3"), "m3", Decimal("0.001")),
    (0x32, 0x37, ("L/h", "m3/h"), "m3/h", Decimal("0.001")),
)


def _table() -> dict[int, Unit]:
    out: dict[int, Unit] = {}
    for first, last, symbols, base, factor in _RUNS:
        for n, code in enumerate(range(first, last + 1)):
            tens = 10 ** (n % 3)
            symbol = symbols[n // 3] if tens == 1 else f"{symbols[n // 3]} x{tens}"
            out[code] = Unit(code, symbol, base, factor * 10**n)
    return out


UNITS: dict[int, Unit] = _table()

#: What leaves a factory for each base unit.
USUAL = {"kWh": 0x05, "kW": 0x17, "m3": 0x2C, "m3/h": 0x35}
