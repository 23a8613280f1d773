"""A digest of readings that does not depend on their order or on how they were batched.

Each reading is mixed to 64 bits from the name of its series, its time and its value; the digest is the sum modulo 2^64.
Gateway and database each keep count and digest of what they hold: equal on both sides means that the same readings are
there, each exactly once. The mixer is the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from protocols.core.model import Int64s, Quality, UInt8s
from protocols.uplink.varint import UInt64s

_MISSING = np.uint64(0x9E3779B97F4A7C15)


def series_hash(device: str, point: str) -> int:
    """64 bits that stand for a series on both sides."""
    return int.from_bytes(blake2b(f"{device}/{point}".encode(), digest_size=8).digest(), "little")


def _mix(x: UInt64s) -> UInt64s:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def digest(series: UInt64s, ts_ms: Int64s, integer: Int64s, quality: UInt8s) -> int:
    """Sum over the readings, 0 <= result < 2^64. All arguments are equally long columns."""
    if not len(series):
        return 0
    value = np.where(quality == Quality.MISSING, _MISSING, integer.view(np.uint64))
    mixed = _mix(series ^ _mix(ts_ms.view(np.uint64) ^ _mix(value)))
    return int(mixed.sum(dtype=np.uint64))


def add(a: int, b: int) -> int:
    return (a + b) & 0xFFFF_FFFF_FFFF_FFFF


def to_signed(digest_value: int) -> int:
    """As a signed 64-bit number, for database columns."""
    return digest_value - (1 << 64) if digest_value >= 1 << 63 else digest_value
