"""A byte budget for a metered link: what it may cost a day and an hour, and which lanes wait when it runs short.

Alarms and device states always go; a fifth of the budget is kept for them. Readings go while the rest lasts. A backlog
and pictures take only what the day has left over so far: their part of the budget becomes free evenly over the day.
What was spent is written down (`state` of the outbox), so a restart does not begin a new day.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from protocols.uplink.topics import Lane

_DAY_MS, _HOUR_MS = 86_400_000, 3_600_000
#: Providers in China bill by the day of UTC+8; there is one zone.
_ZONE_MS = 8 * _HOUR_MS
_FOR_ALARMS = 0.2
_SAVE_EVERY_BYTES = 64 << 10


@dataclass(slots=True)
class _Span:
    """One day or hour: its number since 1970 and what was spent in it."""

    length_ms: int
    limit_bytes: int
    number: int = 0
    spent: int = 0

    def turn(self, now_ms: int) -> None:
        """A new span begins when its time has come; a clock set back does not give a second budget for the same day,
        one that had been far ahead does not stop the next."""
        number = (now_ms + _ZONE_MS) // self.length_ms
        if number > self.number or number < self.number - 1:
            self.number, self.spent = number, 0

    def held_back(self, now_ms: int) -> set[Lane]:
        if not self.limit_bytes:
            return set()
        free = self.limit_bytes * (1 - _FOR_ALARMS)
        if self.spent >= free:
            return {"data", "backfill", "evidence"}
        passed = (now_ms + _ZONE_MS) % self.length_ms / self.length_ms
        return {"backfill", "evidence"} if self.spent >= free * passed else set()


class Budget:
    """``saved`` is what :meth:`save` gave before the restart. Times are UTC milliseconds."""

    def __init__(self, day_mb: float, hour_mb: float, saved: bytes | None) -> None:
        self._spans = {
            "day": _Span(_DAY_MS, round(day_mb * 1_000_000)),
            "hour": _Span(_HOUR_MS, round(hour_mb * 1_000_000)),
        }
        self._unsaved = 0
        if saved is not None:
            self._read(saved)

    def _read(self, saved: bytes) -> None:
        """A saved state that makes no sense counts as none."""
        try:
            for name, (number, spent) in json.loads(saved).items():
                if name in self._spans:
                    self._spans[name].number, self._spans[name].spent = int(number), int(spent)
        except (ValueError, TypeError, AttributeError):
            self._unsaved = _SAVE_EVERY_BYTES

    @property
    def metered(self) -> bool:
        return any(span.limit_bytes for span in self._spans.values())

    def spent_bytes(self, span: str = "day") -> int:
        return self._spans[span].spent

    def spend(self, count: int, now_ms: int) -> None:
        for span in self._spans.values():
            span.turn(now_ms)
            span.spent += count
        self._unsaved += count

    def held_back(self, now_ms: int) -> set[Lane]:
        """Lanes that have to wait now."""
        held: set[Lane] = set()
        for span in self._spans.values():
            span.turn(now_ms)
            held |= span.held_back(now_ms)
        return held

    def save(self, *, anyway: bool = False) -> bytes | None:
        """What to write down now; None while it is too little to be worth a disk's write."""
        if not self.metered or (self._unsaved < _SAVE_EVERY_BYTES and not anyway):
            return None
        self._unsaved = 0
        return json.dumps({name: [span.number, span.spent] for name, span in self._spans.items()}).encode()
