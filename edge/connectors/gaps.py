"""Which period data of a station never came, so that they can be asked for.

A station keeps what was not answered and sends it again by itself, so a hole is looked at only after it has had time
for that. What is asked for is bounded: a station that was away for a month is not made to send a month.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median_low

HOUR_MS = 3_600_000
#: Time for the station's own repeats (10 s, three times, then with the next period) before we ask.
SETTLE_MS = 180_000
#: Longest stretch that is asked for; what is older stays a hole.
LONGEST_MS = 24 * HOUR_MS
#: Times a hole is asked for before it stays one.
TRIES = 3
RETRY_MS = 600_000
#: Holes a station may have open; the oldest goes.
ROOM = 16
_REMEMBERED = 2_048
#: Period of data that say nothing else about it.
STEPS_MS = {"2061": HOUR_MS, "2031": 24 * HOUR_MS}
_LEARNT_FROM = 3


@dataclass(frozen=True, slots=True)
class Hole:
    """Periods from ``begin_ms`` to ``end_ms`` (both starts, both missing) of the data of one command."""

    cn: str
    begin_ms: int
    end_ms: int
    due_ms: int
    tries: int = 0


class _Series:
    def __init__(self, step_ms: int | None) -> None:
        self.step_ms = step_ms
        self.newest_ms: int | None = None
        self.seen: dict[int, None] = {}
        self.steps: deque[int] = deque(maxlen=9)

    def add(self, data_ms: int) -> tuple[int, int] | None:
        """Take the start of a period; the hole it leaves behind itself, if any."""
        self.seen[data_ms] = None
        while len(self.seen) > _REMEMBERED:
            del self.seen[next(iter(self.seen))]
        newest_ms = self.newest_ms
        if newest_ms is None or data_ms <= newest_ms:
            self.newest_ms = data_ms if newest_ms is None else newest_ms
            return None
        self.newest_ms = data_ms
        step_ms = self._step_ms()
        if step_ms is not None and data_ms - newest_ms > step_ms * 3 // 2:
            return newest_ms + step_ms, data_ms - step_ms
        self.steps.append(data_ms - newest_ms)
        return None

    def _step_ms(self) -> int | None:
        if self.step_ms is not None:
            return self.step_ms
        return median_low(self.steps) if len(self.steps) >= _LEARNT_FROM else None

    def missing(self, hole: Hole) -> tuple[int, int] | None:
        """What of the hole is still missing: from its first to its last period that has not come."""
        step_ms = self._step_ms()
        if step_ms is None:
            return None
        left = [at for at in range(hole.begin_ms, hole.end_ms + 1, step_ms) if at not in self.seen]
        return (left[0], left[-1]) if left else None


class Gaps:
    """One station's period data (2051, 2061, 2031)."""

    def __init__(self, settle_ms: int = SETTLE_MS) -> None:
        self._settle_ms = settle_ms
        self._series: dict[str, _Series] = {}
        self._holes: deque[Hole] = deque()
        self.given_up = 0  # holes that stayed, by number of tries or for want of room

    def seen(self, cn: str, data_ms: int, now_ms: int) -> None:
        """Period data that began at ``data_ms`` have come."""
        series = self._series.setdefault(cn, _Series(STEPS_MS.get(cn)))
        found = series.add(data_ms)
        if found is None:
            return
        begin_ms, end_ms = max(found[0], found[1] - LONGEST_MS), found[1]
        self._put(Hole(cn, begin_ms, end_ms, now_ms + self._settle_ms))

    def due(self, now_ms: int) -> Iterator[Hole]:
        """Holes to ask for now, cut to what is still missing; each comes again until :data:`TRIES` are used up or its
        data have come."""
        for _ in range(len(self._holes)):
            hole = self._holes.popleft()
            left = self._series[hole.cn].missing(hole)
            if left is None:
                continue
            if hole.due_ms > now_ms:
                self._holes.append(hole)
                continue
            if hole.tries >= TRIES:
                self.given_up += 1
                continue
            self._holes.append(replace(hole, due_ms=now_ms + RETRY_MS, tries=hole.tries + 1))
            yield replace(hole, begin_ms=left[0], end_ms=left[1])

    def next_ms(self) -> int | None:
        return min((hole.due_ms for hole in self._holes), default=None)

    def _put(self, hole: Hole) -> None:
        self._holes.append(hole)
        if len(self._holes) > ROOM:
            self._holes.popleft()
            self.given_up += 1
