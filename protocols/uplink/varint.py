"""LEB128 integers, many at a time.

The block body of a batch is nothing but unsigned LEB128 numbers, so encoding and decoding a batch is a handful of
array operations whatever its size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocols.core.errors import ContractError
from protocols.core.model import Int64s

UInt64s = NDArray[np.uint64]

_LIMITS = [np.uint64(1 << (7 * k)) for k in range(1, 10)]
_MAX_BYTES = 10  # ceil(64 / 7)


def zigzag(values: Int64s) -> UInt64s:
    """Signed to unsigned with small magnitudes staying small: 0, -1, 1, -2 -> 0, 1, 2, 3."""
    return ((values << 1) ^ (values >> 63)).view(np.uint64)


def unzigzag(values: UInt64s) -> Int64s:
    return (values >> np.uint64(1)).view(np.int64) ^ -(values & np.uint64(1)).view(np.int64)


def encode(values: UInt64s) -> bytes:
    """Unsigned numbers to LEB128 bytes."""
    if not len(values):
        return b""
    lengths = np.ones(len(values), dtype=np.int64)
    for limit in _LIMITS:
        longer = values >= limit
        if not longer.any():
            break
        lengths += longer
    ends = np.cumsum(lengths)
    starts = ends - lengths
    out = np.empty(int(ends[-1]), dtype=np.uint8)
    for k in range(int(lengths.max())):
        has = lengths > k
        part = (values[has] >> np.uint64(7 * k)) & np.uint64(0x7F)
        more = (lengths[has] > k + 1).astype(np.uint64) << np.uint64(7)
        out[starts[has] + k] = (part | more).astype(np.uint8)
    return out.tobytes()


def decode(data: bytes) -> UInt64s:
    """LEB128 bytes to unsigned numbers. Raises ContractError if the bytes end inside a number or one is too long."""
    if not data:
        return np.empty(0, dtype=np.uint64)
    raw = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if not len(ends) or ends[-1] != len(raw) - 1:
        raise ContractError("readings end inside a number", reason="truncated")
    starts = np.empty_like(ends)
    starts[0] = 0
    starts[1:] = ends[:-1] + 1
    lengths = ends - starts + 1
    if int(lengths.max()) == 1:
        return raw.astype(np.uint64)
    if int(lengths.max()) > _MAX_BYTES:
        raise ContractError("a number of more than 64 bits", reason="number_too_long")
    shifts = (np.arange(len(raw)) - np.repeat(starts, lengths)) * 7
    parts = (raw & 0x7F).astype(np.uint64) << shifts.astype(np.uint64)
    return np.add.reduceat(parts, starts)
