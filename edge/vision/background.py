"""Finds what stands where nothing should, without weights: a slow background, and what differs from it for good.

Works on a small colour picture (about 320 wide). The background follows by at most a fixed step a second (an
approximate median), so what passes leaves no trace, and does not follow at all under a thing that stands. Before the
comparison the picture's overall light is taken out. A change counts as a thing only if the surface itself has gone:
where the old grain still shows through, it is a shadow, a patch of sun or a headlight. Small short-lived specks are
counted apart: many of them are rain, snow or insects and mean that the picture should not be believed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

from edge.vision.frame import Float32s, Image, Mask

WIDTH_PX = 320

_WARM_FRAMES = 5
_WARM_MAX_GAP_MS = 3000
_STEP_PER_S = 0.6  # grey levels: a building's shadow (60 levels) becomes background in two minutes
_STEP_UNDER_S = 0.004  # under a standing thing: absorbed after some four hours
_FLOOR = 20.0  # grey levels at full light; falls with the light
_MIN_BLOB_PX = 40
_SPECK_PX = 200
_WINDOW = 9


@dataclass(frozen=True, slots=True)
class Blob:
    """One standing or passing thing, in pixels of the small picture. ``contact``: (n, 2) lowest point a column."""

    box: tuple[int, int, int, int]  # x1, y1, x2, y2
    area_px: int
    contact: Float32s
    conf: float


@dataclass(frozen=True, slots=True)
class Residual:
    """What differs from the background. Shares are of the watched area."""

    ready: bool
    blobs: tuple[Blob, ...]
    light_share: float  # changed light on an unchanged surface
    specks: float  # small specks for each 1000 watched pixels
    gain: float  # overall light against the background


class BackgroundModel:
    """``step`` once a frame. ``ignore``: pixels that mean nothing (trees, printed clock); ``watch``: the zones."""

    def __init__(self, ignore: Mask | None = None, watch: Mask | None = None) -> None:
        self._ignore = ignore
        self._watch = watch
        self._warm: deque[Float32s] = deque(maxlen=_WARM_FRAMES)
        self._level: Float32s | None = None
        self._noise = 3.0
        self._thing: Mask | None = None
        self._changed: Mask | None = None
        self._followed_ms = 0

    @property
    def picture(self) -> Image | None:
        """The background as it is now; None while it is still being learnt."""
        return (
            None
            if self._level is None
            else np.ascontiguousarray(np.clip(self._level, 0, 255).astype(np.uint8).transpose(1, 2, 0))
        )

    def restore(self, picture: Image) -> None:
        """Start from a background kept over a restart, so that what stands in view now is not learnt as empty."""
        self._level = _planes(picture)
        self._thing = None

    def forget(self) -> None:
        self._level, self._thing, self._changed = None, None, None
        self._warm.clear()

    def step(self, small: Image, ts_ms: int) -> Residual:
        frame = _planes(cv2.blur(small, (3, 3)))
        if self._level is None:
            self._learn(frame, ts_ms)
            return Residual(ready=False, blobs=(), light_share=0.0, specks=0.0, gain=1.0)
        usable = np.ones(frame.shape[1:], bool) if self._ignore is None else ~self._ignore
        gain = self._gain(frame, self._level, usable)
        expected = self._level * gain[:, None, None]
        brightness = float(gain.mean())
        limit = max(8.0, _FLOOR * min(brightness, 1.2)) + self._noise
        difference = _largest(np.abs(frame - expected))
        changed = (difference > limit) & usable
        self._noise += 0.02 * (float(np.median(difference[::4, ::4])) - self._noise)
        blobs, thing, lit = self._blobs(frame, expected, changed)
        specks = self._count_specks(changed)
        self._follow(frame, gain, thing, ts_ms)
        watched = self._watch if self._watch is not None else usable
        size = max(1, int(np.count_nonzero(watched)))
        return Residual(
            ready=True,
            blobs=tuple(blobs),
            light_share=float(np.count_nonzero(lit & watched)) / size,
            specks=1000.0 * specks / size,
            gain=brightness,
        )

    def _learn(self, frame: Float32s, ts_ms: int) -> None:
        if self._warm and ts_ms - self._followed_ms > _WARM_MAX_GAP_MS:
            self._warm.clear()  # the stream was away: what was in view then may have gone
        self._followed_ms = ts_ms
        self._warm.append(frame)
        if len(self._warm) == _WARM_FRAMES:
            self._level = np.median(np.stack(self._warm), axis=0).astype(np.float32)
            self._warm.clear()

    def _gain(self, frame: Float32s, level: Float32s, usable: Mask) -> Float32s:
        """Overall light against the background, by channel, from what is not covered by things."""
        free = usable if self._thing is None else usable & ~self._thing
        coarse = np.s_[::3, ::3]
        free = free[coarse] & (level[:, ::3, ::3].min(axis=0) > 12)
        if np.count_nonzero(free) < 200:
            return np.ones(3, np.float32)
        ratio = np.median(frame[:, ::3, ::3][:, free] / level[:, ::3, ::3][:, free], axis=1)
        out: Float32s = np.clip(ratio, 0.2, 3.0).astype(np.float32)
        return out

    def _surface(self, frame: Float32s, expected: Float32s, part: Mask) -> tuple[Mask, Float32s]:
        """Where the colour says "another surface", and how much of the old grain shows: correlation of a small window
        over the patch's own pixels (what lies beside it has not changed and would agree), NaN where there is none."""
        ratio = (frame + 2) / (expected + 2)
        middle = ratio.mean(axis=0)
        spread = _largest(ratio) - ratio.min(axis=0)
        other = (middle <= 0.35) | (middle >= 2.2) | (spread >= 0.16 * np.maximum(middle, 0.6))
        inside = part.astype(np.float32)
        now, before = frame.mean(axis=0) * inside, expected.mean(axis=0) * inside
        size = (_WINDOW, _WINDOW)
        weight = np.maximum(cv2.blur(inside, size), 1e-3)
        mean_n, mean_b = cv2.blur(now, size) / weight, cv2.blur(before, size) / weight
        var_n = np.maximum(cv2.blur(now * now, size) / weight - mean_n * mean_n, 0)
        var_b = np.maximum(cv2.blur(before * before, size) / weight - mean_b * mean_b, 0)
        both = cv2.blur(now * before, size) / weight - mean_n * mean_b
        grain = both / np.sqrt(np.maximum(var_n * var_b, 1e-3))
        grain[var_b < 4.0] = np.nan  # under 2 grey levels of texture: nothing to recognise a surface by
        return other, grain

    def _blobs(self, frame: Float32s, expected: Float32s, changed: Mask) -> tuple[list[Blob], Mask, Mask]:
        """Things, the pixels they cover, and the pixels that are only lit otherwise."""
        opened = cv2.morphologyEx(changed.view(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        closed = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
        thing, lit = np.zeros(changed.shape, bool), np.zeros(changed.shape, bool)
        blobs: list[Blob] = []
        for label in range(1, count):
            x, y, w, h, area = (int(v) for v in stats[label])
            if area < _MIN_BLOB_PX:
                continue
            part = labels[y : y + h, x : x + w] == label
            # A rim around it, so that windows and edges at its border see both sides.
            top, left = max(0, y - _WINDOW), max(0, x - _WINDOW)
            rim = np.s_[top : y + h + _WINDOW, left : x + w + _WINDOW]
            core = np.zeros(changed[rim].shape, bool)
            core[y - top : y - top + h, x - left : x - left + w] = part
            now, before = frame[:, rim[0], rim[1]], expected[:, rim[0], rim[1]]
            conf = self._believe(now, before, core)
            if conf <= 0:
                lit[rim] |= core
                continue
            if self._ghost(now, before, core):
                self._level[:, rim[0], rim[1]][:, core] = now[:, core]  # type: ignore[index]
                continue
            thing[rim] |= core
            columns = np.flatnonzero(part.any(axis=0))
            lowest = h - 1 - part[::-1, columns].argmax(axis=0)
            contact = np.stack([x + columns + 0.5, y + lowest + 1.0], axis=1).astype(np.float32)
            blobs.append(Blob((x, y, x + w, y + h), int(area), contact, conf))
        return blobs, thing, lit

    def _believe(self, frame: Float32s, expected: Float32s, part: Mask) -> float:
        """How surely a changed patch is a thing and not light: 0 = light, else 0.5-0.95."""
        other, grain = self._surface(frame, expected, part)
        core = cv2.erode(part.view(np.uint8), np.ones((3, 3), np.uint8)) > 0
        core = core if core.any() else part
        share = float(np.count_nonzero(other & core)) / int(np.count_nonzero(core))
        seen = grain[core]
        seen = seen[~np.isnan(seen)]
        shows = float(np.median(seen)) if len(seen) >= 0.2 * np.count_nonzero(core) else None
        if shows is not None and shows > 0.55 and share < 0.5:
            return 0.0
        if share >= 0.25:
            return min(0.95, 0.6 + 0.5 * share)
        if shows is not None:
            return 0.5 + 0.3 * (0.55 - shows) if shows < 0.25 else 0.0
        # A smooth patch of another brightness on a smooth ground: a thing brings edges of its own, a shadow does not.
        inner = _edges(frame)[core].mean()
        return 0.5 if inner > 1.6 * _edges(expected)[core].mean() + 2 else 0.0

    def _ghost(self, frame: Float32s, expected: Float32s, part: Mask) -> bool:
        """Is it a place that something has left (learnt as background)? Then its outline is in the background only."""
        inner = cv2.erode(part.view(np.uint8), np.ones((5, 5), np.uint8), borderValue=0) > 0
        outline = part & ~inner
        return bool(_edges(expected)[outline].mean() > 1.7 * _edges(frame)[outline].mean() + 2)

    def _count_specks(self, changed: Mask) -> int:
        """Small changes that were not there a frame ago: what passes or stands is still where it was, rain is not."""
        seen = changed if self._watch is None else changed & self._watch
        before, self._changed = self._changed, changed
        if before is None:
            return 0
        count, labels, stats, _ = cv2.connectedComponentsWithStats(seen.view(np.uint8), connectivity=8)
        if count <= 1:
            return 0
        areas = stats[:, cv2.CC_STAT_AREA]
        again = np.bincount(labels[seen & before], minlength=count)
        small = (areas >= 3) & (areas <= _SPECK_PX) & (again < 0.3 * areas)
        return int(np.count_nonzero(small[1:]))

    def _follow(self, frame: Float32s, gain: Float32s, thing: Mask, ts_ms: int) -> None:
        self._thing = cv2.dilate(thing.view(np.uint8), np.ones((5, 5), np.uint8)) > 0
        elapsed_s = (ts_ms - self._followed_ms) / 1000
        if elapsed_s < 1.0 or self._level is None:
            return  # slow by design: once a second is enough
        self._followed_ms = ts_ms
        elapsed_s = min(elapsed_s, 30.0)
        step = np.where(self._thing, _STEP_UNDER_S, _STEP_PER_S).astype(np.float32) * np.float32(elapsed_s)
        towards = frame / gain[:, None, None] - self._level
        self._level += np.clip(towards, -step, step)
        # The light that all pixels share belongs to the level in the long run, else a gain of 0.2 would have to hold.
        self._level *= (1 + (gain - 1) * min(1.0, 0.01 * elapsed_s))[:, None, None]


def _planes(picture: Image) -> Float32s:
    """(h, w, 3) -> float32 (3, h, w): sums over the channels are ten times quicker this way round."""
    return np.stack(cv2.split(picture)).astype(np.float32)


def _largest(planes: Float32s) -> Float32s:
    out: Float32s = np.maximum(np.maximum(planes[0], planes[1]), planes[2])
    return out


def _edges(planes: Float32s) -> Float32s:
    grey = planes.mean(axis=0)
    out: Float32s = np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return out
