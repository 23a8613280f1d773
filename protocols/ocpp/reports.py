"""What a station reports, in one form for both versions, read with tolerance.

A server that refuses a report over a text that is too long loses the status change, and the station sends the same
report for ever. So what can be understood is taken, and each liberty is written down as a note; what we send ourselves
stays strict. Deviations: fact sheet "Deviations seen" (idTag and info too long, values outside an enumeration, objects
where arrays belong, transaction ids -1 and 2**63-1, kWh for Wh, odd times).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from protocols.ocpp import times
from protocols.ocpp.frame import Call, Version
from protocols.ocpp.samples import Metered, Sample, decimal, normalized, sample
from protocols.ocpp.schema import Violation, check
from protocols.ocpp.times import Instant

#: Characters of a message id (OCPP-J 4.1.4, 36 for a UUID).
MAX_ID = 36
#: Larger lists in one report are cut: no station samples that much between two messages.
MAX_SAMPLES = 2_000
STATUS_16 = (
    *("Available", "Preparing", "Charging", "SuspendedEVSE", "SuspendedEV", "Finishing", "Reserved"),
    *("Unavailable", "Faulted"),
)
STATUS_201 = ("Available", "Occupied", "Reserved", "Unavailable", "Faulted")


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
        found = decimal(value)
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
                found = sample(raw, self.notes)
                if found is not None:
                    samples.append(found)
            out.append(Metered(self.instant(of=one), tuple(samples)))
        return tuple(out)

    def transaction(self, value: Any) -> str:
        """1.6: a positive 31-bit number that the server gave; what stations send for "none" is none."""
        found = decimal(value)
        if found is not None and 0 < found < 2**31 and found == found.to_integral_value():
            return str(int(found))
        if value is not None:
            self.notes["transaction_id"] = None
        return ""


def understand(call: Call, version: Version) -> Understood:
    """Read a station's report. The action must be one of the version's."""
    violations = tuple(check(call.action, call.payload, version))
    if not isinstance(call.payload, Mapping):
        return Understood(None, violations, {"accept": False})
    reader = _Reader(call.payload, violations)
    if not isinstance(call.id, str) or not call.id:
        reader.notes["reply_id"] = call.id
    elif len(call.id) > MAX_ID:
        reader.notes["long_id"] = len(call.id)
    report = _v16(call.action, reader) if version == "1.6" else _v201(call.action, reader)
    if violations and isinstance(report, Other):
        report = None  # nothing of it is kept, so nothing is gained by forgiving it
    accepted = report is not None and not reader.lost
    notes = {"accept": accepted, **reader.notes}
    if isinstance(report, Meter) or (isinstance(report, Transaction) and report.metered):
        notes["values"] = normalized(report.metered)
    return Understood(report if accepted else None, violations, notes)


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
                meter_wh=decimal(read.payload.get("meterStart")),
                tag=read.text("idTag"),
            )
        case "StopTransaction":
            return Transaction(
                "Ended",
                None,
                read.transaction(read.payload.get("transactionId")),
                read.instant(),
                decimal(read.payload.get("meterStop")),
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
