"""Files to and from a charging station: new firmware from an address, diagnostics to one, and what it says of them.

The station fetches or brings the file by itself and tells how it goes; an update takes minutes and ends in a restart.
So an order waits a while for the end, and says "under way" if that has not come; what comes later is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from edge.connectors.base import Outcome
from protocols.ocpp.frame import Call

#: What a notification is about.
_ABOUT: Mapping[str, str] = {
    "FirmwareStatusNotification": "firmware",
    "DiagnosticsStatusNotification": "log",
    "LogStatusNotification": "log",
}
DONE = frozenset({"Installed", "Uploaded"})
FAILED = frozenset(
    {
        *("DownloadFailed", "InstallationFailed", "InstallVerificationFailed", "InvalidSignature"),  # firmware
        *("UploadFailed", "UploadFailure", "BadMessage", "NotSupportedOperation", "PermissionDenied"),  # log
    }
)
_SCHEMES = ("https", "http", "ftp", "ftps", "sftp")
MAX_URL = 512  # OCPP 2.0.1, FirmwareType.location


def progress(call: Call) -> tuple[str, str] | None:
    """(firmware or log, status) of a notification; None if it is none, or tells of nothing (``Idle``)."""
    about = _ABOUT.get(call.action)
    status = call.payload.get("status") if isinstance(call.payload, Mapping) else None
    return (about, status) if about and isinstance(status, str) and status != "Idle" else None


def wrong_address(url: str) -> str:
    """What is wrong with an address, "" if nothing. A password in it would stand in journals and the audit log."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return "no address"
    if parts.scheme not in _SCHEMES or not host or len(url) > MAX_URL or not url.isascii() or not url.isprintable():
        return f"an address of {', '.join(_SCHEMES)}, {MAX_URL} characters at most"
    if parts.password is not None:
        return "an address with a password in it would be kept in logs; give one that needs none"
    return ""


def outcome(status: str) -> Outcome:
    """What is known once the time for an answer is over. ``status``: the last one told, "" if none."""
    shown = {"status": status} if status else {}
    if status in DONE:
        return Outcome("done", status, "", shown)
    if status in FAILED:
        return Outcome("failed", status, "the station said so", shown)
    return Outcome("unknown", "under_way", "it agreed; its end is reported when the station tells it", shown)
