"""What a simulated charging station is made of, and how it carries out orders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firmware_sim.devices.ocpp_station import OcppStation


_INSTALLING = ("Downloading", "Downloaded", "Installing", "Installed")


@dataclass(slots=True)
class Outgoing:
    """``kept``: of a transaction; it waits for its answer whatever happens. ``slot``: whose start it is."""

    action: str
    payload: dict[str, Any]
    kept: bool = False
    slot: int = 0
    attempts: int = 0


@dataclass(slots=True)
class Slot:
    """One connector."""

    number: int
    status: str = "Available"
    charging_since_s: float | None = None
    stops_s: float = 0.0  # when the car leaves; 0: when told
    energy_wh: float = 0.0
    started_wh: float = 0.0
    number_16: int | None = None  # the server's transaction number
    name_201: str = ""
    sequence: int = 0
    limit_w: float | None = None
    in_service: bool = True
    waiting: list[Outgoing] = field(default_factory=list)  # want the number before they can go


def _slot_of(station: OcppStation, told: dict[str, Any]) -> Slot | None:
    evse = told.get("evse")
    number = told.get("connectorId") if station.version == "1.6" else told.get("evseId", (evse or {}).get("id"))
    return station.slots.get(number if isinstance(number, int) else 0)


def obey(station: OcppStation, action: str, told: dict[str, Any], t_s: float, now_ms: int) -> dict[str, Any] | None:
    """Carry out an order; its answer, None for what the station does not offer."""
    slot = _slot_of(station, told)
    match action:
        case "Reset":
            for one in station.slots.values():
                if one.charging_since_s is not None:
                    station.stop(one, t_s, now_ms, "SoftReset" if station.version == "1.6" else "ImmediateReset")
            station.boot_again()
            return {"status": "Accepted"}
        case "RemoteStartTransaction" | "RequestStartTransaction":
            if slot is None or slot.charging_since_s is not None or not slot.in_service:
                return {"status": "Rejected"}
            token = told.get("idTag") or told.get("idToken", {}).get("idToken", "")
            station.start(slot, t_s, now_ms, str(token), 0.0)
            return {"status": "Accepted"}
        case "RemoteStopTransaction" | "RequestStopTransaction":
            wanted = told.get("transactionId")
            running = (one for one in station.slots.values() if one.charging_since_s is not None)
            found = next((one for one in running if wanted in (one.number_16, one.name_201)), None)
            if found is None:
                return {"status": "Rejected"}
            station.stop(found, t_s, now_ms, "Remote")
            return {"status": "Accepted"}
        case "ChangeAvailability":
            return _availability(station, told, slot, now_ms)
        case "UnlockConnector":
            return {"status": "Unlocked" if slot is not None else "UnlockFailed"}
        case "SetChargingProfile":
            return _limit(station, told, slot)
        case "GetCompositeSchedule":
            return _composite(station, slot, now_ms)
        case "TriggerMessage":
            if told.get("requestedMessage") == "BootNotification":
                station.boot_again()
            else:
                station.tell_states(now_ms)
            return {"status": "Accepted"}
        case "UpdateFirmware":
            url = str(told.get("location") or told.get("firmware", {}).get("location", ""))
            missing = "missing" in url
            for status in ("Downloading", "DownloadFailed") if missing else _INSTALLING:
                station.tell("FirmwareStatusNotification", _progress(station, told, status))
            return {} if station.version == "1.6" else {"status": "Accepted"}
        case "GetDiagnostics" | "GetLog":
            word = "Diagnostics" if station.version == "1.6" else "Log"
            for status in ("Uploading", "Uploaded"):
                station.tell(f"{word}StatusNotification", _progress(station, told, status))
            name = {"fileName" if station.version == "1.6" else "filename": "diagnostics.zip"}
            return name if station.version == "1.6" else {"status": "Accepted", **name}
        case _:
            return None


def _progress(station: OcppStation, told: dict[str, Any], status: str) -> dict[str, Any]:
    return {"status": status} if station.version == "1.6" else {"status": status, "requestId": told.get("requestId")}


def _availability(station: OcppStation, told: dict[str, Any], slot: Slot | None, now_ms: int) -> dict[str, Any]:
    word = told.get("type") or told.get("operationalStatus")
    scheduled = False
    for one in [slot] if slot is not None else list(station.slots.values()):
        one.in_service = word == "Operative"
        if one.charging_since_s is not None:
            scheduled = True
        else:
            station.state(one, "Available" if one.in_service else "Unavailable", now_ms)
    return {"status": "Scheduled" if scheduled else "Accepted"}


def _limit(station: OcppStation, told: dict[str, Any], slot: Slot | None) -> dict[str, Any]:
    profile = told.get("csChargingProfiles") or told.get("chargingProfile") or {}
    schedule = profile.get("chargingSchedule")
    schedule = schedule[0] if isinstance(schedule, list) else schedule or {}
    if schedule.get("chargingRateUnit") != "W":
        return {"status": "Rejected"}
    limit_w = float(schedule["chargingSchedulePeriod"][0]["limit"])
    for one in [slot] if slot is not None else list(station.slots.values()):
        one.limit_w = limit_w
    return {"status": "Accepted"}


def _composite(station: OcppStation, slot: Slot | None, now_ms: int) -> dict[str, Any]:
    if slot is None or slot.limit_w is None:
        return {"status": "Rejected"}
    schedule: dict[str, Any] = {
        "chargingRateUnit": "W",
        "chargingSchedulePeriod": [{"startPeriod": 0, "limit": slot.limit_w}],
    }
    if station.version == "1.6":
        return {"status": "Accepted", "connectorId": slot.number, "chargingSchedule": {"duration": 60, **schedule}}
    start = {"evseId": slot.number, "duration": 60, "scheduleStart": station.time_text(now_ms)}
    return {"status": "Accepted", "schedule": {**start, **schedule}}
