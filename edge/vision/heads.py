"""From a network's raw numbers to boxes in its input picture, one function a family. Arrays in, arrays out.

Candidates are cut by score before anything costly is computed: of 3549 cells a street picture keeps a few dozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from edge.vision.frame import Float32s, Int64s

#: boxes (n, 4) x1 y1 x2 y2 in input pixels; scores (n,); index into the chosen class columns (n,)
Head = tuple[Float32s, Float32s, Int64s]

_NANODET_BINS = 8
_NANODET_STRIDES = (8, 16, 32)
_YOLOX_STRIDES = (8, 16, 32)


@cache
def _cells(width: int, height: int, strides: tuple[int, ...]) -> tuple[Float32s, Float32s, Float32s]:
    """Column, row and stride of every cell, row-major, fine grid first."""
    columns, rows, steps = [], [], []
    for stride in strides:
        across, down = width // stride, height // stride
        columns.append(np.tile(np.arange(across), down))
        rows.append(np.repeat(np.arange(down), across))
        steps.append(np.full(across * down, stride))
    return tuple(np.concatenate(part).astype(np.float32) for part in (columns, rows, steps))  # type: ignore[return-value]


def nanodet(outputs: Sequence[Float32s], width: int, height: int, columns: Int64s, floor: float) -> Head:
    """NanoDet: three class maps (already sigmoids), then three maps of 4 x 8 distance logits."""
    half = len(outputs) // 2
    scores = np.concatenate([part[0][:, columns] for part in outputs[:half]])
    distances = np.concatenate([part[0] for part in outputs[half:]])
    best = scores.argmax(axis=1)
    top = scores[np.arange(len(scores)), best]
    keep = np.flatnonzero(top >= floor)
    logits = distances[keep].reshape(-1, 4, _NANODET_BINS)
    weights = np.exp(logits - logits.max(axis=2, keepdims=True))
    weights /= weights.sum(axis=2, keepdims=True)
    reach = weights @ np.arange(_NANODET_BINS, dtype=np.float32)
    column, row, stride = (part[keep] for part in _cells(width, height, _NANODET_STRIDES))
    reach *= stride[:, None]
    x, y = (column + 0.5) * stride, (row + 0.5) * stride
    boxes = np.stack([x - reach[:, 0], y - reach[:, 1], x + reach[:, 2], y + reach[:, 3]], axis=1)
    return boxes.astype(np.float32), top[keep].astype(np.float32), best[keep].astype(np.int64)


def yolox(outputs: Sequence[Float32s], width: int, height: int, columns: Int64s, floor: float) -> Head:
    """YOLOX: rows of x, y, w, h (in cells, log), objectness, classes (already sigmoids)."""
    rows = outputs[0][0]
    likely = np.flatnonzero(rows[:, 4] >= floor)  # a class factor is at most 1
    rows = rows[likely]
    scores = rows[:, 4:5] * rows[:, 5:][:, columns]
    best = scores.argmax(axis=1) if len(rows) else np.zeros(0, np.int64)
    top = scores[np.arange(len(rows)), best]
    keep = np.flatnonzero(top >= floor)
    column, line, stride = (part[likely][keep] for part in _cells(width, height, _YOLOX_STRIDES))
    rows = rows[keep]
    x, y = (rows[:, 0] + column) * stride, (rows[:, 1] + line) * stride
    half_w, half_h = np.exp(rows[:, 2]) * stride / 2, np.exp(rows[:, 3]) * stride / 2
    boxes = np.stack([x - half_w, y - half_h, x + half_w, y + half_h], axis=1)
    return boxes.astype(np.float32), top[keep].astype(np.float32), best[keep].astype(np.int64)


def yolo_raw(outputs: Sequence[Float32s], width: int, height: int, columns: Int64s, floor: float) -> Head:
    """YOLO exports without suppression: (1, 4 + classes, n), centre and size in input pixels."""
    table = outputs[0][0]
    scores = table[4:][columns]
    best = scores.argmax(axis=0)
    top = scores[best, np.arange(scores.shape[1])]
    keep = np.flatnonzero(top >= floor)
    x, y, w, h = table[:4, keep]
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)
    return boxes.astype(np.float32), top[keep].astype(np.float32), best[keep].astype(np.int64)


def yolo_nms_free(outputs: Sequence[Float32s], width: int, height: int, columns: Int64s, floor: float) -> Head:
    """YOLO heads that need no suppression: (1, 300, 6) of x1, y1, x2, y2, score, class."""
    rows = outputs[0][0]
    place = np.full(int(max(columns.max(), rows[:, 5].max(initial=0))) + 1, -1, np.int64)
    place[columns] = np.arange(len(columns))
    chosen = place[np.clip(rows[:, 5], 0, len(place) - 1).astype(np.int64)]
    keep = np.flatnonzero((rows[:, 4] >= floor) & (chosen >= 0))
    return rows[keep, :4].astype(np.float32), rows[keep, 4].astype(np.float32), chosen[keep]
