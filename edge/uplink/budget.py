"""A byte budget for a metered link: what it may cost a day and an hour, and which lanes wait when it runs short.

Alarms and device states always go; a fifth of the budget is kept for them. Readings go while the rest lasts. A backlog
and pictures take only what the day has left over so far: their part of the budget becomes free evenly over the day.
What was spent is written down (`state` of the outbox), so a restart does not begin a new day; nor does a clock that is
set: a day has one budget however often the clock comes by it, and what was spent before the clock was known counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from protocols.uplink.topics import Lane

_DAY_MS, _HOUR_MS = 86_400_000, 3_600_000
#: Providers in China bill by the day of UTC+8; there is one zone.
_ZONE_MS = 8 * _HOUR_MS
_FOR_ALARMS = 0.2
#: Written down after so many bytes, or a hundredth of the budget if that is less: what a power cut may forget.
_SAVE_EVERY_BYTES = 64 << 10
#: 2020-01-01: a clock before it has not been set since the gateway was switched on.
_CLOCK_SET_MS = 1_577_836_800_000
#: Days and hours that the clock may come back to and find what was spent in them.
_REMEMBERED = 4
_NO_BOUND = 1 << 60


@dataclass(slots=True)
class _Span:
    """One day or hour: its number since 1970 and what counts against it. ``brought``: the part of that which was spent
    under a later number, before the clock was set back. ``earlier``: by number, what was spent in spans left since."""

    length_ms: int
    limit_bytes: int
    number: int = 0
    spent: int = 0
    brought: int = 0
    earlier: dict[int, int] = field(default_factory=dict)

    def turn(self, now_ms: int) -> None:
        """A new span begins when its time has come. A clock set back brings along what was spent; one that comes to be
        known does too, and then the names that the spans had before mean nothing any more."""
        number = (now_ms + _ZONE_MS) // self.length_ms
        if number == self.number:
            return
        own, back = self.spent - self.brought, number < self.number
        first_known = (_CLOCK_SET_MS + _ZONE_MS) // self.length_ms
        self.earlier[self.number] = own
        found = self.number < first_known <= number
        if found:
            self.earlier = {name: spent for name, spent in self.earlier.items() if name >= first_known}
        self.spent = self.earlier.pop(number, 0) + (own if back or found else 0)
        self.number, self.brought = number, own if back else 0
        for name in list(self.earlier)[:-_REMEMBERED]:
            del self.earlier[name]

    @property
    def _free(self) -> float:
        """What is not kept for alarms."""
        return self.limit_bytes * (1 - _FOR_ALARMS)

    def room_bytes(self) -> int:
        return math.ceil(self._free - self.spent) if self.limit_bytes else _NO_BOUND

    def held_back(self, now_ms: int) -> set[Lane]:
        if not self.limit_bytes:
            return set()
        free = self._free
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
        limits = [span.limit_bytes for span in self._spans.values() if span.limit_bytes]
        least = min([_SAVE_EVERY_BYTES, *(limit // 100 for limit in limits)])
        self._save_every_bytes = max(1, least)
        self._unsaved = 0
        if saved is not None:
            self._read(saved)

    def _read(self, saved: bytes) -> None:
        """A saved state that makes no sense counts as none."""
        try:
            found = {name: (int(number), int(spent)) for name, (number, spent) in json.loads(saved).items()}
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            self._unsaved = self._save_every_bytes
            return
        for name, (number, spent) in found.items():
            span = self._spans.get(name.partition(" ")[0])
            if span is None or spent < 0:
                continue
            match name.partition(" ")[2]:
                case "":
                    span.number, span.spent = number, spent
                case "brought":
                    span.brought = spent
                case _:
                    span.earlier[number] = spent
        for span in self._spans.values():
            span.brought = min(span.brought, span.spent)

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

    def room_bytes(self, now_ms: int) -> int:
        """What all but alarms may still cost, with what is on its way; less than nothing if alarms have taken more."""
        for span in self._spans.values():
            span.turn(now_ms)
        return min(span.room_bytes() for span in self._spans.values())

    def save(self, *, anyway: bool = False) -> bytes | None:
        """What to write down now; None while it is too little to be worth a disk's write."""
        if not self.metered or (self._unsaved < self._save_every_bytes and not anyway):
            return None
        self._unsaved = 0
        return json.dumps(dict(self._books())).encode()

    def _books(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Pairs (number, spent) throughout: an agent from before the other names reads what it knows."""
        for name, span in self._spans.items():
            yield name, (span.number, span.spent)
            yield f"{name} brought", (span.number, span.brought)
            for number, (earlier, spent) in enumerate(span.earlier.items()):
                yield f"{name} earlier {number}", (earlier, spent)
