"""Measured values of a station's report, in base units whatever the station calls them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from protocols.ocpp.times import Instant

ENERGY = "Energy.Active.Import.Register"

#: Unit as sent -> (unit used here, factor). ("UnitOfMeasure" of 1.6, the standardized units of 2.0.1.)
UNITS: Mapping[str, tuple[str, Decimal]] = {
    **{
        unit: (unit, Decimal(1))
        for unit in ("Wh", "W", "A", "V", "VA", "var", "varh", "VAh", "Percent", "Hz", "Celsius")
    },
    **{f"k{unit}": (unit, Decimal(1000)) for unit in ("Wh", "W", "VA", "var", "varh", "VAh", "V")},
    "mA": ("A", Decimal("0.001")),
    "Hertz": ("Hz", Decimal(1)),
    "Celcius": ("Celsius", Decimal(1)),
    "C": ("Celsius", Decimal(1)),
    "%": ("Percent", Decimal(1)),
}
#: What a value without a measurand is, by its unit: real stations leave the measurand out for amperes too.
_BY_UNIT = {
    "A": "Current.Import",
    "V": "Voltage",
    "W": "Power.Active.Import",
    "Percent": "SoC",
    "Celsius": "Temperature",
    "Hz": "Frequency",
}
_DEFAULT_UNIT = (
    ("Energy.Reactive", "varh"),
    ("Energy.Apparent", "VAh"),
    ("Energy", "Wh"),
    ("Power.Active", "W"),
    ("Power.Offered", "W"),
    ("Power.Reactive", "var"),
    ("Power.Factor", ""),
    ("Current", "A"),
    ("Voltage", "V"),
    ("SoC", "Percent"),
    ("Temperature", "Celsius"),
    ("Frequency", "Hz"),
)
CONTEXTS = frozenset(
    {
        *("Interruption.Begin", "Interruption.End", "Other", "Sample.Clock", "Sample.Periodic"),
        *("Transaction.Begin", "Transaction.End", "Trigger"),
    }
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One value in base units. ``unit`` "" for factors; ``phase`` "" or L1, L2, L3, N ..."""

    measurand: str
    value: Decimal
    unit: str
    context: str = "Sample.Periodic"
    phase: str = ""
    location: str = "Outlet"

    @property
    def usable(self) -> bool:
        """A measurement, not a limit that a maker smuggled in under a context of its own."""
        return self.context in CONTEXTS


@dataclass(frozen=True, slots=True)
class Metered:
    """Values of one moment; ``time`` None: the station did not say a readable one."""

    time: Instant | None
    samples: tuple[Sample, ...]


def decimal(value: Any) -> Decimal | None:
    """A number however it is written; None for what is none, or out of all proportion."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        found = Decimal(value) if isinstance(value, int | Decimal) else Decimal(str(value).strip())
    except (InvalidOperation, ValueError):
        return None
    return found if found.is_finite() and abs(found) < Decimal(10) ** 24 else None


def sample(raw: Mapping[str, Any], notes: dict[str, Any]) -> Sample | None:
    """One sampledValue; None, with a note, if its value cannot be read."""
    value = decimal(raw.get("value"))
    if value is None:
        notes["unreadable_values"] = notes.get("unreadable_values", 0) + 1
        return None
    described = raw.get("unitOfMeasure")
    measure: Mapping[str, Any] = described if isinstance(described, Mapping) else {}
    measurand = raw.get("measurand")
    told = raw.get("unit", measure.get("unit"))
    measurand = measurand if isinstance(measurand, str) and measurand else ""
    told = told if isinstance(told, str) else ""
    unit, factor = UNITS.get(told, (told[:20], Decimal(1)))
    if not measurand:
        measurand = _BY_UNIT.get(unit, ENERGY)
    if not told:
        unit = next((name for start, name in _DEFAULT_UNIT if measurand.startswith(start)), "")
    power = measure.get("multiplier")
    if isinstance(power, int) and not isinstance(power, bool) and -12 <= power <= 12:
        factor *= Decimal(10) ** power

    def text(name: str, default: str) -> str:
        found = raw.get(name)
        return found[:40] if isinstance(found, str) and found else default

    phase = text("phase", "").removesuffix("-N")
    return Sample(
        measurand[:60], value * factor, unit, text("context", "Sample.Periodic"), phase, text("location", "Outlet")
    )


def normalized(metered: Iterable[Metered]) -> list[dict[str, Any]]:
    """Samples as plain JSON."""
    out = []
    for one in metered:
        for sample in one.samples:
            row: dict[str, Any] = {
                "measurand": sample.measurand,
                "value": float(sample.value),
                "unit": sample.unit,
                "context": sample.context,
            }
            if sample.phase:
                row["phase"] = sample.phase
            if sample.location != "Outlet":
                row["location"] = sample.location
            out.append(row)
    return out
