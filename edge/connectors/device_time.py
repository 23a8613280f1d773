"""The time a device gives for a single value: believed within reason, else the gateway's own.

Devices that report by exception rightly give old times: a value that has not changed since yesterday is of yesterday.
So only the future, and what is older than any memory, tells a clock that is wrong or was never set.
"""

from __future__ import annotations

#: The catalogue's limit of a device clock.
TOLERANCE_MS = 120_000
#: The outbox writes a reading's lag as 32 bits of milliseconds (24.8 days); no device keeps data for longer.
OLDEST_MS = 20 * 86_400_000


def judge(told_ms: int | None, seen_ms: int) -> tuple[int, bool]:
    """The time to use, and whether the device's was wrong."""
    if told_ms is None:
        return seen_ms, False
    if -TOLERANCE_MS <= seen_ms - told_ms <= OLDEST_MS:
        return told_ms, False
    return seen_ms, True
