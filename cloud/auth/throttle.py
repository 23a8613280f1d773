"""Brakes in bounded memory: on guessing (failures by address, and by names that do not exist) and on asking too often.

Names that do exist are counted in the database, over all processes and restarts; what is here holds for one process. An
address that is used by a whole office may fail more often than a name before it has to wait.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from cloud.auth.errors import Locked

MAX_FAILURES = 5
LOCK_S = 300
#: Whoever is given an IPv6 address is given at least so much of it: the rest he can change with each packet.
_IPV6_HOUSEHOLD_BITS = 64


def household(address: str) -> str:
    """What a caller is counted by: an IPv4 address, the /64 of an IPv6 address; anything else as it stands, cut."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((found, _IPV6_HOUSEHOLD_BITS), strict=False))
    return str(found)


class Buckets:
    """A bucket of ``burst`` for each key, one more every ``refill_s``. Keys used longest ago are forgotten first."""

    def __init__(self, burst: int, refill_s: float, size: int = 10_000) -> None:
        self.burst = burst
        self.refill_s = refill_s
        self._size = size
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()  # spent and not yet refilled, since when

    def _left(self, key: str, now_s: float) -> float:
        spent, at_s = self._spent.get(key, (0.0, now_s))
        return self.burst - max(0.0, spent - max(0.0, now_s - at_s) / self.refill_s)

    def wait_s(self, key: str, now_s: float) -> float:
        """How long until there is one to spend; 0: there is one now."""
        left = self._left(key, now_s)
        return 0.0 if left >= 1 else (1 - left) * self.refill_s

    def spend(self, key: str, now_s: float) -> None:
        """One less, but never below nothing: whoever goes on knocking does not wait the longer for it."""
        spent = self.burst - self._left(key, now_s) + 1
        self._spent.pop(key, None)
        self._spent[key] = (min(spent, float(self.burst)), now_s)
        while len(self._spent) > self._size:
            self._spent.popitem(last=False)

    def take(self, key: str, now_s: float) -> float:
        """Spend one if there is one: 0. Otherwise nothing is spent, and the answer is how long to wait."""
        wait_s = self.wait_s(key, now_s)
        if not wait_s:
            self.spend(key, now_s)
        return wait_s

    def __len__(self) -> int:
        return len(self._spent)


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
        self._failures = Buckets(burst, refill_s, size)

    def check(self, address: str, now_s: float) -> None:
        """Raises Locked while the address has failed too often."""
        wait_s = self._failures.wait_s(household(address), now_s)
        if wait_s:
            raise Locked(int(wait_s) + 1, "too many failures from this address")

    def failed(self, address: str, now_s: float) -> None:
        self._failures.spend(household(address), now_s)

    def __len__(self) -> int:
        return len(self._failures)
