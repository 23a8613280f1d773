"""Times as ChirpStack writes them: RFC 3339 with up to nine decimals, more than Python keeps."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_TIME = re.compile(r"^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,12}))?(Z|[+-]\d\d:\d\d)?$")


def parse(text: object) -> datetime | None:
    """The moment, cut to microseconds; None for what is no time. No zone means UTC."""
    found = _TIME.match(text) if isinstance(text, str) else None
    if found is None:
        return None
    day, clock, fraction, zone = found.groups()
    micros = (fraction or "")[:6].ljust(6, "0")
    offset = "+00:00" if zone in (None, "Z") else zone
    try:
        return datetime.fromisoformat(f"{day}T{clock}.{micros}{offset}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def to_ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def text_of(moment: datetime | None) -> str | None:
    """2022-07-18T09:34:15.775023Z"""
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
