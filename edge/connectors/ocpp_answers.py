"""What the central system answers to a station's call, in either version's words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.connectors.ocpp_link import entries
from edge.connectors.road_config import OcppServerConfig
from protocols.core.errors import ConfigError
from protocols.ocpp import times
from protocols.ocpp.frame import Call, CallError, CallResult, Version

#: Calls that want nothing but to be told that they were heard.
_HEARD = frozenset(
    {
        *("StatusNotification", "MeterValues", "DiagnosticsStatusNotification", "FirmwareStatusNotification"),
        *("LogStatusNotification", "SecurityEventNotification", "SignedFirmwareStatusNotification"),
        *("NotifyReport", "NotifyEvent", "NotifyMonitoringReport", "NotifyChargingLimit", "ClearedChargingLimit"),
        *("NotifyCustomerInformation", "NotifyDisplayMessages", "PublishFirmwareStatusNotification"),
        *("ReportChargingProfiles", "ReservationStatusUpdate"),
    }
)


def answer(
    call: Call,
    version: Version,
    now_ms: int,
    *,
    interval_s: int,
    known: bool = False,
    accepted: bool = True,
    transaction: str = "",
) -> CallResult | CallError:
    """``known``: the station is configured; another one hears Rejected, and SecurityError for all else."""
    now = times.write(now_ms)
    if call.action == "BootNotification":
        status = "Accepted" if known else "Rejected"
        return _result(call, {"currentTime": now, "interval": interval_s, "status": status})
    if not known:
        return CallError(call.id, "SecurityError", "this station is not configured here")
    card = {"status": "Accepted" if accepted else "Invalid"}
    match call.action:
        case "Heartbeat":
            return _result(call, {"currentTime": now})
        case "Authorize":
            return _result(call, {"idTagInfo" if version == "1.6" else "idTokenInfo": card})
        case "StartTransaction":
            return _result(call, {"transactionId": int(transaction or 1), "idTagInfo": card})
        case "StopTransaction":
            return _result(call, {})
        case "TransactionEvent":
            shown = isinstance(call.payload, dict) and "idToken" in call.payload
            return _result(call, {"idTokenInfo": card} if shown else {})
        case "DataTransfer":
            return _result(call, {"status": "UnknownVendorId"})
        case "NotifyEVChargingNeeds":
            return _result(call, {"status": "Rejected"})
        case "NotifyEVChargingSchedule" | "SignCertificate":
            return _result(call, {"status": "Rejected"})
        case "GetCertificateStatus":
            return _result(call, {"status": "Failed"})
        case "Get15118EVCertificate":
            return _result(call, {"status": "Failed", "exiResponse": ""})
        case action if action in _HEARD:
            return _result(call, {})
        case action:
            return CallError(call.id, "NotSupported", f"{action} is not offered here")


def _result(call: Call, payload: dict[str, Any]) -> CallResult:
    return CallResult(call.id, payload, call.action)


def cards(config: OcppServerConfig, base: Path) -> Callable[[], frozenset[str]] | None:
    """What gives the cards that may charge, read again when the file has changed; None: every card."""
    if not config.cards_file:
        return None
    file = base / config.cards_file
    state: dict[str, Any] = {"seen": None, "cards": frozenset()}

    def read() -> frozenset[str]:
        try:
            seen = file.stat().st_mtime_ns
            if seen != state["seen"]:
                state["cards"], state["seen"] = frozenset(entries(file)), seen
        except (OSError, ConfigError):
            # Unreadable: whoever was let in stays let in, nobody new is.
            state["seen"] = None
        found: frozenset[str] = state["cards"]
        return found

    return read
