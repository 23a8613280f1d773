"""What a station reports, in one form for both versions, read with tolerance.

A server that refuses a report over a text that is too long loses the status change, and the station sends the same
report for ever. So what can be understood is taken, and each liberty is written down as a note; what we send ourselves
stays strict. Deviations: fact sheet "Deviations seen" (idTag and info too long, values outside an enumeration, objects
where arrays belong, transaction ids -1 and 2**63-1, kWh for Wh, odd times).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from protocols.ocpp import times
from protocols.ocpp.frame import Call, Version
from protocols.ocpp.schema import Violation, check
from protocols.ocpp.times import Instant

ENERGY = "Energy.Active.Import.Register"
#: Larger lists in one report are cut: no station samples that much between two messages.
MAX_SAMPLES = 2_000

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
STATUS_16 = (
    *("Available", "Preparing", "Charging", "SuspendedEVSE", "SuspendedEV", "Finishing", "Reserved"),
    *("Unavailable", "Faulted"),
)
STATUS_201 = ("Available", "Occupied", "Reserved", "Unavailable", "Faulted")


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


@dataclass(frozen=True, slots=True)
class Boot:
    vendor: str
    model: str
    firmware: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """``place``: connector (1.6) or EVSE (2.0.1); 0 the whole station."""

    place: int
    status: str
    error: str = ""
    info: str = ""
    time: Instant | None = None


@dataclass(frozen=True, slots=True)
class Meter:
    place: int
    metered: tuple[Metered, ...]
    transaction: str = ""


@dataclass(frozen=True, slots=True)
class Transaction:
    """``phase`` Started, Updated, Ended. ``key`` names it for the station's life: in 1.6 the server's id, "" at the
    start. ``meter_wh``: register at start or end. ``state``: charging state (2.0.1). ``tag``: read for the decision
    only, stored nowhere."""

    phase: str
    place: int | None
    key: str = ""
    time: Instant | None = None
    meter_wh: Decimal | None = None
    metered: tuple[Metered, ...] = ()
    reason: str = ""
    state: str = ""
    sequence: int | None = None
    offline: bool = False
    tag: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Authorize:
    tag: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Other:
    """An action whose content is not kept."""

    action: str


Report = Boot | Status | Meter | Transaction | Authorize | Other


@dataclass(frozen=True, slots=True)
class Understood:
    """``report`` None: nothing can be made of it (it must be refused). ``violations``: of the schema; ``notes``: the
    liberties taken, as ``expect.tolerant`` of the vectors names them."""

    report: Report | None
    violations: tuple[Violation, ...]
    notes: Mapping[str, Any]


class _Reader:
    """Reads fields out of a payload and remembers what it had to forgive."""

    def __init__(self, payload: Mapping[str, Any], violations: Iterable[Violation]) -> None:
        self.payload = payload
        self.notes: dict[str, Any] = {}
        self.lost = False
        for one in violations:
            name = one.path.rpartition(".")[2]
            if one.rule == "maxLength" and name:
                self.notes.setdefault("truncate", {})[name] = one.limit
            elif one.rule == "enum" and name:
                value = self._at(one.path)
                self.notes.setdefault("unknown", {})[name] = value if isinstance(value, str) else str(value)[:50]

    def _at(self, path: str) -> Any:
        value: Any = self.payload
        for part in path.split("."):
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
        return value

    def text(self, name: str, *, of: Mapping[str, Any] | None = None) -> str:
        value = (self.payload if of is None else of).get(name)
        if value is None:
            return ""
        return value if isinstance(value, str) else str(value)[:255]

    def whole(self, name: str, *, of: Mapping[str, Any] | None = None, needed: bool = False) -> int | None:
        value = (self.payload if of is None else of).get(name)
        found = _decimal(value)
        if found is not None and found == found.to_integral_value() and abs(found) < 10**18:
            return int(found)
        self.lost |= needed
        return None

    def instant(self, name: str = "timestamp", *, of: Mapping[str, Any] | None = None) -> Instant | None:
        value = (self.payload if of is None else of).get(name)
        found = times.read(value)
        if found is not None:
            self.notes.setdefault("timestamp_utc", times.short(found.ms))
            if found.zone_missing:
                self.notes["time_zone_missing"] = True
            if found.unset:
                self.notes["time_unset"] = True
        elif value is not None:
            self.notes["time_unreadable"] = str(value)[:40]
        return found

    def items(self, value: Any, name: str) -> list[Mapping[str, Any]]:
        """A list of objects; a lone object is taken as a list of one."""
        if isinstance(value, Mapping):
            self.notes.setdefault("wrapped", []).append(name)
            return [value]
        return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []

    def metered(self, value: Any, name: str) -> tuple[Metered, ...]:
        out: list[Metered] = []
        left = MAX_SAMPLES
        for one in self.items(value, name):
            samples: list[Sample] = []
            for raw in self.items(one.get("sampledValue"), "sampledValue"):
                if left == 0:
                    break
                left -= 1
                sample = _sample(raw, self.notes)
                if sample is not None:
                    samples.append(sample)
            out.append(Metered(self.instant(of=one), tuple(samples)))
        return tuple(out)

    def transaction(self, value: Any) -> str:
        """1.6: a positive 31-bit number that the server gave; what stations send for "none" is none."""
        found = _decimal(value)
        if found is not None and 0 < found < 2**31 and found == found.to_integral_value():
            return str(int(found))
        if value is not None:
            self.notes["transaction_id"] = None
        return ""


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        found = Decimal(value) if isinstance(value, int | Decimal) else Decimal(str(value).strip())
    except (InvalidOperation, ValueError):
        return None
    return found if found.is_finite() and abs(found) < Decimal(10) ** 24 else None


def _sample(raw: Mapping[str, Any], notes: dict[str, Any]) -> Sample | None:
    value = _decimal(raw.get("value"))
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


def understand(call: Call, version: Version) -> Understood:
    """Read a station's report. The action must be one of the version's."""
    violations = tuple(check(call.action, call.payload, version))
    if not isinstance(call.payload, Mapping):
        return Understood(None, violations, {"accept": False})
    reader = _Reader(call.payload, violations)
    if not isinstance(call.id, str):
        reader.notes["reply_id"] = call.id
    report = _v16(call.action, reader) if version == "1.6" else _v201(call.action, reader)
    if violations and isinstance(report, Other):
        report = None  # nothing of it is kept, so nothing is gained by forgiving it
    accepted = report is not None and not reader.lost
    notes = {"accept": accepted, **reader.notes}
    if isinstance(report, Meter) or (isinstance(report, Transaction) and report.metered):
        notes["values"] = normalized(report.metered)
    return Understood(report if accepted else None, violations, notes)


def normalized(metered: Iterable[Metered]) -> list[dict[str, Any]]:
    """Samples as plain JSON."""
    out = []
    for one in metered:
        for sample in one.samples:
            row: dict[str, Any] = {
                "measurand": sample.measurand,
                "value": f"{sample.value.normalize():f}",
                "unit": sample.unit,
                "context": sample.context,
            }
            if sample.phase:
                row["phase"] = sample.phase
            if sample.location != "Outlet":
                row["location"] = sample.location
            out.append(row)
    return out


def _known(status: str, known: tuple[str, ...]) -> str:
    """In the standard's spelling whatever the case."""
    return next((one for one in known if one.lower() == status.strip().lower()), status[:40])


def _v16(action: str, read: _Reader) -> Report | None:
    match action:
        case "BootNotification":
            return Boot(read.text("chargePointVendor"), read.text("chargePointModel"), read.text("firmwareVersion"))
        case "StatusNotification":
            status = _known(read.text("status"), STATUS_16)
            place = read.whole("connectorId", needed=True)
            read.lost |= not status
            return Status(place or 0, status, read.text("errorCode"), read.text("info"), read.instant())
        case "MeterValues":
            place = read.whole("connectorId", needed=True)
            transaction = read.transaction(read.payload.get("transactionId"))
            return Meter(place or 0, read.metered(read.payload.get("meterValue"), "meterValue"), transaction)
        case "StartTransaction":
            place = read.whole("connectorId", needed=True)
            return Transaction(
                "Started",
                place,
                time=read.instant(),
                meter_wh=_decimal(read.payload.get("meterStart")),
                tag=read.text("idTag"),
            )
        case "StopTransaction":
            return Transaction(
                "Ended",
                None,
                read.transaction(read.payload.get("transactionId")),
                read.instant(),
                _decimal(read.payload.get("meterStop")),
                read.metered(read.payload.get("transactionData"), "transactionData"),
                read.text("reason") or "Local",
                tag=read.text("idTag"),
            )
        case "Authorize":
            read.lost |= not read.text("idTag")
            return Authorize(read.text("idTag"))
        case _:
            return Other(action)


def _v201(action: str, read: _Reader) -> Report | None:
    payload = read.payload

    def part(name: str, of: Mapping[str, Any] = payload) -> Mapping[str, Any]:
        found = of.get(name)
        return found if isinstance(found, Mapping) else {}

    match action:
        case "BootNotification":
            station = part("chargingStation")
            vendor, model = read.text("vendorName", of=station), read.text("model", of=station)
            return Boot(vendor, model, read.text("firmwareVersion", of=station), read.text("reason"))
        case "StatusNotification":
            status = _known(read.text("connectorStatus"), STATUS_201)
            place = read.whole("evseId", needed=True)
            read.lost |= not status
            return Status(place or 0, status, time=read.instant())
        case "MeterValues":
            place = read.whole("evseId", needed=True)
            return Meter(place or 0, read.metered(payload.get("meterValue"), "meterValue"))
        case "TransactionEvent":
            info, evse = part("transactionInfo"), part("evse")
            key = read.text("transactionId", of=info)
            phase = _known(read.text("eventType"), ("Started", "Updated", "Ended"))
            read.lost |= not key or phase not in ("Started", "Updated", "Ended")
            return Transaction(
                phase,
                read.whole("id", of=evse),
                key,
                read.instant(),
                metered=read.metered(payload.get("meterValue"), "meterValue"),
                reason=read.text("stoppedReason", of=info),
                state=read.text("chargingState", of=info),
                sequence=read.whole("seqNo"),
                offline=payload.get("offline") is True,
                tag=read.text("idToken", of=part("idToken")),
            )
        case "Authorize":
            tag = read.text("idToken", of=part("idToken"))
            read.lost |= not tag
            return Authorize(tag)
        case _:
            return Other(action)
