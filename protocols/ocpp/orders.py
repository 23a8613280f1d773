"""What a station can be told, in either version's words, and what its answer means.

Limits go out in watts or amperes with one decimal as Decimal (1.6: multipleOf 0.1), never as a guess of the unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from typing import Any, Literal

from protocols.core.errors import LocalProtocolError
from protocols.ocpp.frame import Call, Version

Rate = Literal["W", "A"]
#: Answers that mean "I do it"; ``Scheduled``: later, when the charging under way has ended.
AGREED = frozenset({"Accepted", "Unlocked", "Scheduled"})
#: One profile of ours a place: setting a limit again replaces it.
PROFILE_ID = 7_000


@dataclass(frozen=True, slots=True)
class Order:
    """``place``: connector (1.6) or EVSE (2.0.1), 0 the whole station."""

    kind: Literal[
        "reset", "start", "stop", "availability", "unlock", "limit", "composite", "trigger", "firmware", "log"
    ]
    place: int = 0
    hard: bool = False
    card: str = ""
    transaction: str = ""
    in_service: bool = True
    limit: Decimal = Decimal(0)
    rate: Rate = "W"
    message: str = ""
    number: int = 1  # remoteStartId, requestId
    url: str = ""
    at: str = ""  # when a download may begin, as the station reads times


def call(order: Order, version: Version, message_id: str) -> Call:
    """The CALL. Raises LocalProtocolError for what cannot be said."""
    action, payload = (_v16 if version == "1.6" else _v201)(order)
    return Call(message_id, action, payload)


def _transaction_number(text: str) -> int:
    if not text.isdecimal():
        raise LocalProtocolError(f"transaction {text!r}: OCPP 1.6 has numbers", reason="transaction")
    return int(text)


def _limit(order: Order) -> Decimal:
    """One decimal, cut: a limit must not come out higher than it was meant."""
    return order.limit.quantize(Decimal("0.1"), ROUND_DOWN)


def _v16(order: Order) -> tuple[str, dict[str, Any]]:
    match order.kind:
        case "reset":
            return "Reset", {"type": "Hard" if order.hard else "Soft"}
        case "start":
            return "RemoteStartTransaction", {"connectorId": order.place, "idTag": order.card}
        case "stop":
            return "RemoteStopTransaction", {"transactionId": _transaction_number(order.transaction)}
        case "availability":
            word = "Operative" if order.in_service else "Inoperative"
            return "ChangeAvailability", {"connectorId": order.place, "type": word}
        case "unlock":
            return "UnlockConnector", {"connectorId": order.place}
        case "limit":
            periods = [{"startPeriod": 0, "limit": _limit(order)}]
            profile = {
                "chargingProfileId": PROFILE_ID + order.place,
                "stackLevel": 0,
                "chargingProfilePurpose": "TxDefaultProfile" if order.place else "ChargePointMaxProfile",
                "chargingProfileKind": "Relative" if order.place else "Absolute",
                "chargingSchedule": {"chargingRateUnit": order.rate, "chargingSchedulePeriod": periods},
            }
            return "SetChargingProfile", {"connectorId": order.place, "csChargingProfiles": profile}
        case "composite":
            return "GetCompositeSchedule", {
                "connectorId": order.place,
                "duration": 60,
                "chargingRateUnit": order.rate,
            }
        case "trigger":
            place = {"connectorId": order.place} if order.place else {}
            return "TriggerMessage", {"requestedMessage": order.message, **place}
        case "firmware":
            return "UpdateFirmware", {"location": order.url, "retrieveDate": order.at}
        case "log":
            return "GetDiagnostics", {"location": order.url}


def _v201(order: Order) -> tuple[str, dict[str, Any]]:
    evse = {"evse": {"id": order.place}} if order.place else {}
    match order.kind:
        case "reset":
            return "Reset", {"type": "Immediate" if order.hard else "OnIdle"}
        case "start":
            return "RequestStartTransaction", {
                "evseId": order.place,
                "remoteStartId": order.number,
                "idToken": {"idToken": order.card, "type": "Central"},
            }
        case "stop":
            return "RequestStopTransaction", {"transactionId": order.transaction}
        case "availability":
            word = "Operative" if order.in_service else "Inoperative"
            return "ChangeAvailability", {"operationalStatus": word, **evse}
        case "unlock":
            return "UnlockConnector", {"evseId": order.place, "connectorId": 1}
        case "limit":
            periods = [{"startPeriod": 0, "limit": _limit(order)}]
            profile = {
                "id": PROFILE_ID + order.place,
                "stackLevel": 0,
                "chargingProfilePurpose": "TxDefaultProfile" if order.place else "ChargingStationMaxProfile",
                "chargingProfileKind": "Relative" if order.place else "Absolute",
                "chargingSchedule": [{"id": 1, "chargingRateUnit": order.rate, "chargingSchedulePeriod": periods}],
            }
            return "SetChargingProfile", {"evseId": order.place, "chargingProfile": profile}
        case "composite":
            return "GetCompositeSchedule", {"evseId": order.place, "duration": 60, "chargingRateUnit": order.rate}
        case "trigger":
            return "TriggerMessage", {"requestedMessage": order.message, **evse}
        case "firmware":
            firmware = {"location": order.url, "retrieveDateTime": order.at}
            return "UpdateFirmware", {"requestId": order.number, "firmware": firmware}
        case "log":
            log = {"remoteLocation": order.url}
            return "GetLog", {"logType": "DiagnosticsLog", "requestId": order.number, "log": log}


def status_of(payload: object) -> str:
    """The status word of an answer, "" if it has none."""
    found = payload.get("status") if isinstance(payload, Mapping) else None
    return found if isinstance(found, str) else ""


def composite_limit(payload: object) -> tuple[Decimal, str] | None:
    """The limit that holds now, with its unit, of a GetCompositeSchedule answer; None if it does not say."""
    if not isinstance(payload, Mapping):
        return None
    schedule = payload.get("chargingSchedule", payload.get("schedule"))
    if not isinstance(schedule, Mapping):
        return None
    periods = schedule.get("chargingSchedulePeriod")
    first = periods[0] if isinstance(periods, list) and periods else None
    limit = first.get("limit") if isinstance(first, Mapping) else None
    if isinstance(limit, bool) or not isinstance(limit, int | float | Decimal):
        return None
    return Decimal(str(limit)), str(schedule.get("chargingRateUnit", ""))
