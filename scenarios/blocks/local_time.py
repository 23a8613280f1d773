"""Day and night as the noise law means them, without a time zone database: China is UTC+8 all year, everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocols.core.model import Int64s

OFFSET_MS = 8 * 3_600_000
DAY_MS = 86_400_000
DAY_FROM_MS = 6 * 3_600_000  # day 06:00-22:00, night 22:00-06:00 (catalogue, noise rule; GB 12523)
NIGHT_FROM_MS = 22 * 3_600_000


def is_night(ts_ms: int) -> bool:
    of_day = (ts_ms + OFFSET_MS) % DAY_MS
    return of_day < DAY_FROM_MS or of_day >= NIGHT_FROM_MS


def are_night(ts_ms: Int64s) -> NDArray[np.bool_]:
    of_day = (ts_ms + OFFSET_MS) % DAY_MS
    return (of_day < DAY_FROM_MS) | (of_day >= NIGHT_FROM_MS)


def hour_of_day(ts_ms: int) -> float:
    """Local hour with fraction, 0 <= hour < 24."""
    return (ts_ms + OFFSET_MS) % DAY_MS / 3_600_000


def weekday(ts_ms: int) -> int:
    """Monday 0 ... Sunday 6 (1970-01-01 was a Thursday)."""
    return int((ts_ms + OFFSET_MS) // DAY_MS + 3) % 7
