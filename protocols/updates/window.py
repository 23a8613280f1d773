"""Maintenance windows: when a gateway may change over to another version, in its own local time.

Local time is an offset from UTC: China has one zone without daylight saving (GB/T 7408), and a gateway then needs no
table of zones. A window that crosses midnight belongs to the day on which it begins.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from protocols.core.errors import ContractError

_DAY_MS = 86_400_000
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``start`` included, ``end`` excluded, hh:mm; equal ones: all day. ``days``: 1 Monday to 7 Sunday."""

    start: str
    end: str
    utc_offset_min: Annotated[int, msgspec.Meta(ge=-840, le=840)] = 480  # China Standard Time
    days: tuple[Annotated[int, msgspec.Meta(ge=1, le=7)], ...] = (1, 2, 3, 4, 5, 6, 7)

    def check(self) -> None:
        """Raises ContractError ``window``."""
        if not self.days:
            raise ContractError("window: days: at least one", reason="window")
        for name, text in (("start", self.start), ("end", self.end)):
            if not _CLOCK.fullmatch(text):
                raise ContractError(f"window: {name} {text[:20]!r} is not hh:mm", reason="window")

    def open(self, now_ms: int) -> bool:
        """Whether it is open at that time (UTC milliseconds)."""
        return self.wait_ms(now_ms) == 0

    def wait_ms(self, now_ms: int) -> int:
        """Milliseconds until it opens next; 0 while it is open."""
        local_ms = now_ms + self.utc_offset_min * 60_000
        day, of_day_ms = divmod(local_ms, _DAY_MS)
        start_ms, length_ms = _of_day_ms(self.start), self._length_ms()
        for offset in range(-1, 8):
            if self._on(day + offset):
                begins_ms = offset * _DAY_MS + start_ms
                if begins_ms <= of_day_ms < begins_ms + length_ms:
                    return 0
                if begins_ms > of_day_ms:
                    return begins_ms - of_day_ms
        raise AssertionError("a window has at least one day a week")

    def _length_ms(self) -> int:
        length_ms = (_of_day_ms(self.end) - _of_day_ms(self.start)) % _DAY_MS
        return length_ms or _DAY_MS

    def _on(self, day: int) -> bool:
        """``day``: days since 1970-01-01, a Thursday."""
        return (day + 3) % 7 + 1 in self.days


def _of_day_ms(text: str) -> int:
    hours, minutes = text.split(":")
    return (int(hours) * 60 + int(minutes)) * 60_000
