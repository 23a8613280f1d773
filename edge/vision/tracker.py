"""Gives the boxes of successive frames a number each, so that one thing is counted once.

Overlap plus the distance of centres (at a few frames a second things move more than their own length), strong boxes
first and weak ones only to keep what is already known, constant velocity between frames. A track counts once the
median of its scores is high enough: one lucky box is no object. The number means nothing outside this view.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from edge.vision.frame import OBJECT, Detections, Float32s, Mask, iou_matrix

_SCORES = 10  # over so many of its last boxes the median is taken
HITS = 3  # boxes before a track can count
_STRONG = 0.35  # opens a track
_WEAK = 0.15  # keeps one
_REACH = 0.9  # of its own mean size a thing may be away from where it was expected
_YOUNG = 1.6  # times that for a track without a velocity yet
_STATIC_IOU = 0.5  # box overlap between samples of a static object (scenario catalogue, rule_conventions.vision)
_STATIC_BREAKS = 3  # so many samples in a row must disagree: somebody walking past does not restart the clock


@dataclass(slots=True)
class Track:
    """One thing in view. Boxes are pixels of the frame."""

    id: int
    box: Float32s
    first_ms: int
    seen_ms: int  # last time a box agreed
    scores: deque[float] = field(default_factory=lambda: deque(maxlen=_SCORES))
    groups: Counter[int] = field(default_factory=Counter)
    velocity: Float32s = field(default_factory=lambda: np.zeros(2, np.float32))  # px/s of the centre
    hits: int = 0
    counts: bool = False
    misses: int = 0
    still_since_ms: int = 0
    still_box: Float32s = field(default_factory=lambda: np.zeros(4, np.float32))
    breaks: int = 0

    @property
    def group(self) -> int:
        """What it was called most; "object" only if it was never called anything better."""
        named = [(count, -group) for group, count in self.groups.items() if group != OBJECT]
        return -max(named)[1] if named else OBJECT

    @property
    def score(self) -> float:
        return float(np.median(self.scores))

    @property
    def foot(self) -> tuple[float, float]:
        """Bottom centre of the box: where it stands."""
        return float(self.box[0] + self.box[2]) / 2, float(self.box[3])

    def still_s(self) -> float:
        return (self.seen_ms - self.still_since_ms) / 1000


class Tracker:
    """``update`` takes the boxes of one frame and returns the tracks that count, seen or awaited."""

    def __init__(self, confirm: float = 0.4, patience_s: float = 2.0, patience_still_s: float = 12.0) -> None:
        self._confirm = confirm
        self._patience_s = patience_s
        self._patience_still_s = patience_still_s  # something parked is hidden by a bus for longer than a walker
        self._next = 1
        self.tracks: list[Track] = []

    def update(self, found: Detections, ts_ms: int) -> list[Track]:
        """The frame was looked at."""
        expected = np.array([self._expected(track, ts_ms) for track in self.tracks], np.float32).reshape(-1, 4)
        strong, weak = found.scores >= _STRONG, (found.scores >= _WEAK) & (found.scores < _STRONG)
        free = np.ones(len(self.tracks), bool)
        used = np.zeros(len(found), bool)
        for among, reach in ((strong, _REACH), (weak, 0.0)):
            for row, column in self._match(expected, free, found, among & ~used, reach):
                free[row], used[column] = False, True
                self._feed(self.tracks[row], found, column, ts_ms)
        for lost in np.flatnonzero(free):
            self.tracks[int(lost)].misses += 1
        self.tracks = [track for track in self.tracks if not self._gone(track, ts_ms)]
        for new in np.flatnonzero(strong & ~used):
            self._open(found, int(new), ts_ms)
        return self.counting()

    def hold(self, ts_ms: int) -> list[Track]:
        """Nothing moved and nobody looked: everything known is where it was."""
        for track in self.tracks:
            if track.misses == 0:
                track.seen_ms = ts_ms
        self.tracks = [track for track in self.tracks if not self._gone(track, ts_ms)]
        return self.counting()

    def counting(self) -> list[Track]:
        return [track for track in self.tracks if track.counts]

    def clear(self) -> None:
        self.tracks = []

    def _expected(self, track: Track, ts_ms: int) -> Float32s:
        ahead = min((ts_ms - track.seen_ms) / 1000, 1.5)  # a longer guess is no better than none
        shift = np.tile(track.velocity * np.float32(ahead), 2)
        out: Float32s = track.box + shift
        return out

    def _match(
        self, expected: Float32s, free: Mask, found: Detections, among: Mask, reach: float
    ) -> list[tuple[int, int]]:
        rows, columns = np.flatnonzero(free), np.flatnonzero(among)
        if not len(rows) or not len(columns):
            return []
        ours, theirs = expected[rows], found.boxes[columns]
        overlap = iou_matrix(ours, theirs)
        centre_a, centre_b = (ours[:, :2] + ours[:, 2:]) / 2, (theirs[:, :2] + theirs[:, 2:]) / 2
        size_a, size_b = ours[:, 2:] - ours[:, :2], theirs[:, 2:] - theirs[:, :2]
        scale = (size_a.mean(axis=1)[:, None] + size_b.mean(axis=1)[None, :]) / 2
        away = np.linalg.norm(centre_a[:, None] - centre_b[None], axis=2) / np.maximum(scale, 1.0)
        ratio = np.maximum(size_a.mean(axis=1), 1)[:, None] / np.maximum(size_b.mean(axis=1), 1)[None, :]
        unlike = np.array([[not _may_be(self.tracks[r], int(found.groups[c])) for c in columns] for r in rows])
        # A young track has no velocity yet and may have gone further than a settled one. Weak boxes must overlap: they
        # lie about at random on things that already have a strong one.
        reaches = np.array([reach * _YOUNG if self.tracks[r].hits < HITS else reach for r in rows])
        cost = (1 - overlap) + 0.5 * away
        cost[((overlap < 0.3) & (away > reaches[:, None])) | (ratio > 2.2) | (ratio < 1 / 2.2) | unlike] = np.inf
        pairs: list[tuple[int, int]] = []
        for flat in np.argsort(cost, axis=None, kind="stable"):
            row, column = divmod(int(flat), len(columns))
            if not np.isfinite(cost[row, column]):
                continue  # impossible, or one of the two has gone to a better match
            pairs.append((int(rows[row]), int(columns[column])))
            cost[row, :] = np.inf
            cost[:, column] = np.inf
        return pairs

    def _open(self, found: Detections, column: int, ts_ms: int) -> None:
        box = found.boxes[column]
        track = Track(self._next, box.copy(), ts_ms, ts_ms, still_since_ms=ts_ms, still_box=box.copy())
        track.scores.append(float(found.scores[column]))
        track.groups[int(found.groups[column])] += 1
        track.hits = 1
        self._next += 1
        self.tracks.append(track)

    def _feed(self, track: Track, found: Detections, column: int, ts_ms: int) -> None:
        box = found.boxes[column]
        elapsed = (ts_ms - track.seen_ms) / 1000
        if elapsed > 0:
            moved = ((box[:2] + box[2:]) - (track.box[:2] + track.box[2:])) / 2 / elapsed
            keep = 0.5 if track.hits > 1 else 0.0
            track.velocity = (keep * track.velocity + (1 - keep) * moved).astype(np.float32)
        track.box = box.copy()
        track.seen_ms = ts_ms
        track.misses = 0
        track.hits += 1
        track.scores.append(float(found.scores[column]))
        track.groups[int(found.groups[column])] += 1
        track.counts = track.counts or (track.hits >= HITS and track.score >= self._confirm)
        if iou_matrix(track.still_box[None], box[None])[0, 0] >= _STATIC_IOU:
            track.breaks = 0
        else:
            track.breaks += 1
            if track.breaks >= _STATIC_BREAKS or track.still_s() < 2:
                track.still_since_ms, track.still_box, track.breaks = ts_ms, box.copy(), 0

    def _gone(self, track: Track, ts_ms: int) -> bool:
        if not track.counts:
            return track.misses >= 2 or ts_ms - track.seen_ms > self._patience_s * 1000
        still = track.still_s() >= 10
        patience_s = self._patience_still_s if still else self._patience_s
        # At one frame every few seconds a single missed look must not end a track.
        return track.misses >= 3 and ts_ms - track.seen_ms > patience_s * 1000


def _may_be(track: Track, group: int) -> bool:
    """A thing first seen as a mere object may turn out to be a vehicle; a vehicle does not turn into a person."""
    return group == OBJECT or track.group in (OBJECT, group) or group in track.groups
