"""Alarms of cameras in the words of the event catalogue (GB/T 28181-2016 annex A.2.5, notes to AlarmMethod)."""

from __future__ import annotations

from protocols.gb28181.manscdp import Body

#: (AlarmMethod, AlarmType) -> event, code. Method 2: the device itself, 5: what it saw, 6: its disks and fans.
_ALARMS: dict[tuple[str, str], tuple[str, str]] = {
    ("2", "1"): ("dev.fault", "video_lost"),
    ("2", "2"): ("dev.tamper", "opened"),
    ("2", "3"): ("dev.fault", "disk_full"),
    ("2", "4"): ("dev.fault", "too_hot"),
    ("2", "5"): ("dev.fault", "too_cold"),
    ("5", "5"): ("vision.intrusion", "line"),
    ("5", "6"): ("vision.intrusion", "zone"),
    ("5", "7"): ("vision.wrong_way", "camera"),
    ("5", "11"): ("dev.fault", "picture"),
    ("6", "1"): ("dev.fault", "disk"),
    ("6", "2"): ("dev.fault", "fan"),
}


def kind_of(body: Body) -> tuple[str, str] | None:
    """Event type and code of an alarm, None where the catalogue has no word for it (a phone alarm, motion)."""
    method = body.text("AlarmMethod")
    kind = body.text("AlarmType") or body.parts.get("Info", {}).get("AlarmType", "").strip()
    if (method, kind) in _ALARMS:
        return _ALARMS[method, kind]
    return ("dev.fault", f"alarm_{kind}") if method in ("2", "6") and kind.isdecimal() and len(kind) < 4 else None
