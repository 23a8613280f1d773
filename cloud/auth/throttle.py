"""Brakes on guessing, in bounded memory: failures by address, and by names that do not exist.

Names that do exist are counted in the database, over all processes and restarts. An address that is used by a whole
office may fail more often than a name before it has to wait.
"""

from __future__ import annotations

from collections import OrderedDict

from cloud.auth.errors import Locked

MAX_FAILURES = 5
LOCK_S = 300


class Strangers:
    """Failure counts of names that do not exist, so that they lock like real ones. Bounded; the oldest is forgotten."""

    def __init__(self, size: int = 10_000) -> None:
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._size = size

    def count(self, name: str, now_s: float) -> None:
        failed, until_s = self._seen.pop(name, (0, 0.0))
        if until_s > now_s:
            self._seen[name] = (failed, until_s)
            raise Locked(int(until_s - now_s) + 1)
        failed = 1 if until_s else failed + 1
        self._seen[name] = (failed, now_s + LOCK_S if failed >= MAX_FAILURES else 0.0)
        while len(self._seen) > self._size:
            self._seen.popitem(last=False)


class Addresses:
    """A bucket of failures an address may spend; it fills again over time, and a log-in that works costs nothing."""

    def __init__(self, burst: int, refill_s: float, size: int = 10_000) -> None:
        self._burst = burst
        self._refill_s = refill_s
        self._size = size
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()  # failures still counted, since when

    def _left(self, address: str, now_s: float) -> float:
        spent, at_s = self._spent.get(address, (0.0, now_s))
        return self._burst - max(0.0, spent - (now_s - at_s) / self._refill_s)

    def check(self, address: str, now_s: float) -> None:
        """Raises Locked while the address has failed too often."""
        left = self._left(address, now_s)
        if left < 1:
            raise Locked(int((1 - left) * self._refill_s) + 1, "too many failures from this address")

    def failed(self, address: str, now_s: float) -> None:
        spent = self._burst - self._left(address, now_s) + 1
        self._spent.pop(address, None)
        self._spent[address] = (min(spent, float(self._burst)), now_s)
        while len(self._spent) > self._size:
            self._spent.popitem(last=False)

    def __len__(self) -> int:
        return len(self._spent)
