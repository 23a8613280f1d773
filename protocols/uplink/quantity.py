"""Values at a series' resolution: floats to integers and back."""

from __future__ import annotations

import numpy as np

from protocols.core.model import Float64s, Int64s, Quality, UInt8s
from protocols.uplink.columns import FLOAT_BITS


def quantise(values: Float64s, quality: UInt8s, decimals: int) -> tuple[Int64s, UInt8s]:
    """Floats to integers at the series' resolution; NaN, infinite or too large become MISSING.

    Returns (int64 (n,), uint8 (n,)); the quality array is a copy where it had to change.
    """
    if decimals == FLOAT_BITS:
        bad = np.isnan(values)
        if bad.any():
            quality = np.where(bad, np.uint8(Quality.MISSING), quality)
        return np.where(bad, 0.0, values).view(np.int64), quality
    return scale(values, quality, 10.0**decimals)


def scale(values: Float64s, quality: UInt8s, factor: float | Float64s) -> tuple[Int64s, UInt8s]:
    """As :func:`quantise`, with the power of ten given, one for all or one for each value."""
    scaled = values * factor
    bad = ~(np.abs(scaled) < 2.0**53)
    if bad.any():
        quality = np.where(bad, np.uint8(Quality.MISSING), quality)
        scaled = np.where(bad, 0.0, scaled)
    return np.rint(scaled).astype(np.int64), quality


def to_float(integer: Int64s, quality: UInt8s, decimals: int) -> Float64s:
    """Integers at the series' resolution back to floats; MISSING becomes NaN."""
    values = integer.view(np.float64).copy() if decimals == FLOAT_BITS else integer / 10.0**decimals
    values[quality == Quality.MISSING] = np.nan
    return values
