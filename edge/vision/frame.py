"""The small types the stages of a camera hand to one another. NumPy only, so that tables and tests stay light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (h, w, 3) BGR
Grey = NDArray[np.uint8]  # (h, w)
Mask = NDArray[np.bool_]
Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Int64s = NDArray[np.int64]

#: Classes are reported by group: what a rule needs, and all that a small detector can be trusted with.
GROUPS = ("vehicle", "person", "two_wheeler", "object")
VEHICLE, PERSON, TWO_WHEELER, OBJECT = range(4)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture and when it was taken (UTC milliseconds)."""

    ts_ms: int
    bgr: Image


@dataclass(frozen=True, slots=True)
class Detections:
    """What is in one frame. ``boxes``: float32 (n, 4) x1, y1, x2, y2 in pixels; ``groups``: index into GROUPS."""

    boxes: Float32s
    scores: Float32s
    groups: Int64s

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, keep: NDArray[np.bool_] | Int64s) -> Detections:
        return Detections(self.boxes[keep], self.scores[keep], self.groups[keep])

    @classmethod
    def none(cls) -> Detections:
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    @classmethod
    def join(cls, first: Detections, second: Detections) -> Detections:
        return cls(
            np.concatenate([first.boxes, second.boxes]),
            np.concatenate([first.scores, second.scores]),
            np.concatenate([first.groups, second.groups]),
        )


def iou_matrix(first: Float32s, second: Float32s) -> Float32s:
    """Intersection over union of every box of ``first`` with every box of ``second``."""
    left_top = np.maximum(first[:, None, :2], second[None, :, :2])
    right_bottom = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(right_bottom - left_top, 0, None), axis=2)
    area = box_areas(first)[:, None] + box_areas(second)[None, :] - shared
    out: Float32s = (shared / np.maximum(area, 1e-6)).astype(np.float32)
    return out


def box_areas(boxes: Float32s) -> Float32s:
    out: Float32s = np.clip(boxes[:, 2] - boxes[:, 0], 0, None) * np.clip(boxes[:, 3] - boxes[:, 1], 0, None)
    return out


def suppress(boxes: Float32s, scores: Float32s, groups: Int64s, limit: float) -> Int64s:
    """Indices kept by greedy suppression within each group, best first.

    Across the classes of a group, not per class: a car that is also called a truck must count once.
    """
    order = np.argsort(-scores, kind="stable")
    overlaps = iou_matrix(boxes, boxes) > limit
    overlaps &= groups[:, None] == groups[None, :]
    alive = np.ones(len(scores), bool)
    kept: list[int] = []
    for index in order:
        if alive[index]:
            kept.append(int(index))
            alive &= ~overlaps[index]
    return np.array(kept, np.int64)
