"""Can the time a station gives be believed? Old data are not a wrong clock: stations keep what was not answered.

The catalogue's rule is 120 s. What says "wrong clock" rather than "sent late":
- a time in the future, or older than any station keeps data;
- an exchange known by its name that now carries other data: the clock was put back;
- three packets in a row whose lag stays the same although time passes: a flush of old data catches up, a wrong clock
  does not.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

TOLERANCE_MS = 120_000
#: Loggers keep data for some weeks, and the outbox writes a reading's lag as 32 bits of milliseconds (24.8 days).
OLDEST_MS = 20 * 86_400_000
#: 2020-01-01: a clock before it has not been set since it was switched on.
SET_MS = 1_577_836_800_000
_SAME_LAG_MS = 2_500
_STREAK = 3
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Upload:
    """What a clock is judged by. ``name``: the same for a repeat of the same upload, and only then; ``digest``: of what
    it says; ``data_ms``: the time of the data; ``told_ms``: what the station's clock said when it sent, None if only
    data that are old by nature (period data) tell a time."""

    name: str
    digest: int
    data_ms: int | None
    told_ms: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """``source_ms`` None: use the gateway's time. ``lag_ms``: how far the station's clock is behind (negative: ahead).

    ``exchange`` names the upload; a repeat of it gets the same name.
    """

    source_ms: int | None
    lag_ms: int
    exchange: str
    skewed: bool


class StationClock:
    """One per station. ``remembered``: names of uploads it knows again."""

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self._remembered = remembered
        self._known: OrderedDict[str, int] = OrderedDict()  # exchange -> checksum of its data
        self._last_lag_ms: int | None = None
        self._last_seen_ms = 0
        self._streak = 0

    def judge(self, upload: Upload, seen_ms: int) -> Verdict:
        """Judge an upload that arrived at ``seen_ms``."""
        data_ms, told_ms, name, digest = upload.data_ms, upload.told_ms, upload.name, upload.digest
        if seen_ms < SET_MS <= (data_ms or 0):
            # The gateway has no time itself: whose clock is wrong is plain, and nothing is learnt of the station's.
            self._remember(name, digest)
            return Verdict(data_ms, 0, name, skewed=False)
        lag_ms = seen_ms - told_ms if told_ms is not None else 0
        skewed = self._clock_is_wrong(lag_ms, name, digest, seen_ms)
        if not skewed and data_ms is not None and not -TOLERANCE_MS <= seen_ms - data_ms <= OLDEST_MS:
            skewed, lag_ms = True, seen_ms - data_ms  # it sent in time, the data's own time is wrong: two clocks
        if skewed:
            # A clock that starts at 1970 with every power-up says the same names for other data.
            name = f"{name}/{digest:08x}"
        self._remember(name, digest)
        return Verdict(None if skewed else data_ms, lag_ms, name, skewed)

    def _clock_is_wrong(self, lag_ms: int, name: str, digest: int, seen_ms: int) -> bool:
        if abs(lag_ms) <= TOLERANCE_MS:
            self._streak, self._last_lag_ms = 0, None
            return False
        if lag_ms < 0 or lag_ms > OLDEST_MS or self._known.get(name, digest) != digest:
            return True
        if f"{name}/{digest:08x}" in self._known:
            return True  # a repeat of one that was judged so
        last_ms = self._last_lag_ms
        passed_ms = seen_ms - self._last_seen_ms
        if name not in self._known and passed_ms > 0:
            steady = last_ms is not None and abs(lag_ms - last_ms) < min(_SAME_LAG_MS, max(passed_ms // 2, 1))
            self._streak = self._streak + 1 if steady else 0
            self._last_lag_ms, self._last_seen_ms = lag_ms, seen_ms
        return self._streak >= _STREAK

    def _remember(self, name: str, digest: int) -> None:
        self._known[name] = digest
        self._known.move_to_end(name)
        while len(self._known) > self._remembered:
            self._known.popitem(last=False)
