"""Stops guessing: an address that was refused too often waits, whoever succeeds is never slowed.

A thousand honest gateways behind one address enrol in a minute; a stranger gets ten wrong answers, then one each half a
minute (by IPv6: whoever has his /64). With 100 bits in a code even the ten are no danger: what is limited is the load
and the audit log.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloud.auth.throttle import household

_BURST, _EVERY_S = 10.0, 30.0
_MOST_ADDRESSES = 10_000


@dataclass(slots=True)
class _Bucket:
    left: float
    at_s: float
    silent: int = 0  # refused since the last audit entry


class Refusals:
    """One a process. ``now_s``: monotonic seconds."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self.counts: dict[str, int] = {}

    def wait_s(self, address: str, now_s: float) -> float:
        """How long this address must wait before it is listened to; 0: not at all."""
        bucket = self._buckets.get(household(address))
        if bucket is None:
            return 0.0
        self._refill(bucket, now_s)
        if bucket.left < 1.0:
            bucket.silent += 1
            self.counts["busy"] = self.counts.get("busy", 0) + 1
            return (1.0 - bucket.left) * _EVERY_S
        return 0.0

    def refused(self, address: str, reason: str, now_s: float) -> int:
        """Count one; returns how many refusals its audit entry stands for."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        address = household(address)
        if address not in self._buckets and len(self._buckets) >= _MOST_ADDRESSES:
            self._forget_full(now_s)
        bucket = self._buckets.setdefault(address, _Bucket(_BURST, now_s))
        self._refill(bucket, now_s)
        bucket.left -= 1.0
        times, bucket.silent = bucket.silent + 1, 0
        return times

    @staticmethod
    def _refill(bucket: _Bucket, now_s: float) -> None:
        bucket.left = min(_BURST, bucket.left + max(0.0, now_s - bucket.at_s) / _EVERY_S)
        bucket.at_s = now_s

    def _forget_full(self, now_s: float) -> None:
        """Addresses that have been quiet long enough are as good as new; if there are none, the oldest goes."""
        for address, bucket in list(self._buckets.items()):
            self._refill(bucket, now_s)
            if bucket.left >= _BURST:
                del self._buckets[address]
        if len(self._buckets) >= _MOST_ADDRESSES:
            del self._buckets[next(iter(self._buckets))]
