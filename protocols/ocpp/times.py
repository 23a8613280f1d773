"""Date-times of stations: what RFC 3339 allows, and what real stations send instead.

We write ``2024-01-31T08:00:00.000Z`` (Z, at most three decimals, as both versions ask). Read are also
no offset (taken as UTC, marked), ``+02``, ``+0200``, up to nine decimals, a blank for the T, 1970 and year 1 (marked).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_FORM = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?\s*(?:([Zz])|([+-])(\d{2}):?(\d{2})?)?",
    re.ASCII,
)
_STRICT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,3})?(Z|[+-]\d{2}:\d{2})", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: No charging station is older: an earlier time is a clock that was never set.
UNSET_BEFORE_MS = 946_684_800_000  # 2000-01-01


@dataclass(frozen=True, slots=True)
class Instant:
    """``ms`` since 1970 UTC. ``strict``: written as the standard wants it. ``unset``: before 2000."""

    ms: int
    zone_missing: bool = False
    strict: bool = True

    @property
    def unset(self) -> bool:
        return self.ms < UNSET_BEFORE_MS


def read(text: object) -> Instant | None:
    """None for what is no time."""
    if not isinstance(text, str) or len(text) > 40:
        return None
    found = _FORM.fullmatch(text.strip())
    if found is None:
        return None
    year, month, day, hour, minute, second, part, zulu, sign, zone_hour, zone_minute = found.groups()
    leap = second == "60"
    clock = (int(hour), int(minute), 59 if leap else int(second or 0))
    try:
        moment = datetime(max(int(year), 1), int(month), int(day), *clock, tzinfo=UTC)
    except ValueError:
        return None
    offset_minutes = 0
    if sign:
        offset_minutes = int(zone_hour) * 60 + int(zone_minute or 0)
        if offset_minutes > 18 * 60:
            return None
        offset_minutes *= -1 if sign == "-" else 1
    whole = (moment - _EPOCH) // timedelta(milliseconds=1) + (1_000 if leap else 0)
    ms = whole - offset_minutes * 60_000 + int((part or "0").ljust(3, "0")[:3])
    return Instant(ms, not zulu and not sign, _STRICT.fullmatch(text) is not None)


def is_rfc3339(text: object) -> bool:
    """As strictly as the standard wants it: seconds, an offset, at most three decimals, a date that exists."""
    return read(text) is not None and isinstance(text, str) and _STRICT.fullmatch(text) is not None


def write(ms: int) -> str:
    """UTC with Z and three decimals."""
    moment = _EPOCH + timedelta(milliseconds=ms)
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def short(ms: int) -> str:
    """Without decimals where there are none: for showing."""
    text = write(ms)
    return text.replace(".000Z", "Z")
