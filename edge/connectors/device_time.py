"""The time a device gives for a single value: believed within reason, else the gateway's own.

Devices that report by exception rightly give old times: a value that has not changed since yesterday is of yesterday.
So only the future, and what is older than any memory, tells a clock that is wrong or was never set.
"""

from __future__ import annotations

#: 2020-01-01: a clock before it has not been set since it was switched on.
SET_MS = 1_577_836_800_000
#: The catalogue's limit of a device clock.
TOLERANCE_MS = 120_000
#: The outbox writes a reading's lag as 32 bits of milliseconds (24.8 days); no device keeps data for longer.
OLDEST_MS = 20 * 86_400_000


def judge(told_ms: int | None, seen_ms: int) -> tuple[int, bool]:
    """The time to use, and whether the device's was wrong."""
    if told_ms is None:
        return seen_ms, False
    if seen_ms < SET_MS <= told_ms:  # the gateway has no time itself
        return told_ms, False
    if -TOLERANCE_MS <= seen_ms - told_ms <= OLDEST_MS:
        return told_ms, False
    return seen_ms, True
