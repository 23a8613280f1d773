"""Does anything move? Decides which frames deserve the detector; a hundred times cheaper than asking it.

The picture at about 178x100 grey against the one 0.4 s before, the common change of exposure taken out. A short
difference, not a slow average: an average keeps a ghost of what has left and reads auto-exposure as motion everywhere.
What stands still is the tracker's to remember, and a full scan every few seconds finds what came in unseen.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.vision.frame import Grey, Mask

WIDTH_PX, HEIGHT_PX = 178, 100
_AGO_MS = 400
_THRESHOLD = 16  # grey levels; sensor noise by day is 2-3
_MIN_AREA_PX = 12  # of 17 800: a person 40 m away at 640x360
_LIGHTS_SHARE = 0.6  # more of the picture than this at once is light, not motion


@dataclass(frozen=True, slots=True)
class Gate:
    """``moving``: look closer; ``lights``: the change was light (exposure, infrared switch, lightning)."""

    moving: bool
    full_scan: bool
    lights: bool
    share: float  # of the picture that changed

    @property
    def open(self) -> bool:
        return self.moving or self.full_scan


class MotionGate:
    """State: half a second of small grey pictures."""

    def __init__(self, full_scan_s: float = 4.0, ignore: Mask | None = None) -> None:
        self._full_scan_ms = round(full_scan_s * 1000)
        self._keep: Grey | None = None if ignore is None else np.where(ignore, 0, 255).astype(np.uint8)
        self._past: deque[tuple[int, Grey]] = deque(maxlen=32)
        self._scanned_ms: int | None = None
        self.frames = 0
        self.opened = 0

    def step(self, grey: Grey, ts_ms: int) -> Gate:
        """``grey``: 100 x 178. Time must not run backwards."""
        blurred = cv2.blur(grey, (3, 3))
        while len(self._past) > 1 and self._past[1][0] <= ts_ms - _AGO_MS:
            self._past.popleft()
        gate = self._compare(blurred, ts_ms)
        self._past.append((ts_ms, blurred))
        self.frames += 1
        self.opened += gate.open
        return gate

    def _compare(self, blurred: Grey, ts_ms: int) -> Gate:
        scan = self._scanned_ms is None or ts_ms - self._scanned_ms >= self._full_scan_ms
        if scan:
            self._scanned_ms = ts_ms
        if not self._past:
            return Gate(moving=True, full_scan=scan, lights=False, share=0.0)
        change = blurred.astype(np.float32) - _relit(self._past[0][1], blurred)
        moved = (np.abs(change) > _THRESHOLD).astype(np.uint8) * 255
        if self._keep is not None:
            moved &= self._keep
        share = float(np.count_nonzero(moved)) / moved.size
        if share > _LIGHTS_SHARE:
            return Gate(moving=True, full_scan=scan, lights=True, share=share)
        if share == 0.0:
            return Gate(moving=False, full_scan=scan, lights=False, share=0.0)
        count, _, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(moved, None), connectivity=8)
        largest = int(stats[1:, cv2.CC_STAT_AREA].max()) if count > 1 else 0
        return Gate(moving=largest >= _MIN_AREA_PX * 2, full_scan=scan, lights=False, share=share)


def _relit(before: Grey, now: Grey) -> NDArray[np.float32]:
    """The older picture in today's exposure: the line through the medians of its dark and its bright half. Things in
    motion cover little of either, so they do not disturb it."""
    then, today = before[::3, ::3], now[::3, ::3]  # medians of 2000 pixels are as good as of 18 000
    bright = then > np.median(then)
    dark = ~bright
    if not bright.any() or not dark.any():
        return before + np.float32(np.median(today) - np.median(then))
    low, high = float(np.median(then[dark])), float(np.median(then[bright]))
    low_now, high_now = float(np.median(today[dark])), float(np.median(today[bright]))
    gain = min(max((high_now - low_now) / (high - low), 0.5), 2.0) if high - low >= 8 else 1.0
    return before * np.float32(gain) + np.float32((low_now + high_now) / 2 - gain * (low + high) / 2)
