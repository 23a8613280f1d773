"""Makes a picture fit to leave the gateway: faces, plates and private windows gone, the matter still to be seen.

Privacy block P2 of the scenario catalogue. No face detector is used (P1). A person's head part is masked, and the
whole person where the detector was not sure (its idea of where the head is cannot be trusted either). A vehicle is
masked whole, in cells so coarse that a plate is unreadable whatever its place while shape and colour remain; plate-like
marks elsewhere are masked too. Without a detector nobody knows what a thing is: then everything that is not plain
background is masked, and all that lies outside the zones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import cv2
import numpy as np

from edge.vision.config import Point
from edge.vision.frame import OBJECT, PERSON, TWO_WHEELER, VEHICLE, Detections, Float32s, Image, Mask
from edge.vision.tracker import Track

_SURE = 0.5  # below it a person is masked whole
_HEAD_SHARE = 0.38  # of a person's box from the top: head, and shoulders for a box that sits low
_MARGIN = 0.12  # of the box, on every side
_JPEG_QUALITY = 80
#: A plate is about a quarter of a vehicle's width and has seven or eight signs: 20 cells a vehicle leave it five.
_VEHICLE_CELLS = 20
_PERSON_CELLS = 4  # across a head or a person
_MIN_CELL_PX = 6


def still(
    bgr: Image,
    detections: Detections,
    tracks: Sequence[Track] = (),
    *,
    private: Sequence[Sequence[Point]] = (),
    keep: Mask | None = None,
    named: bool = True,
) -> tuple[bytes, str]:
    """A masked JPEG and its SHA-256 (hex). ``keep``: if given, everything outside it is blurred. ``named``: False if
    no detector has said what things are; then each is masked whole."""
    ok, data = cv2.imencode(
        ".jpg",
        masked(bgr, detections, tracks, private=private, keep=keep, named=named),
        [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY],
    )
    if not ok:
        raise ValueError("the picture cannot be written as JPEG")
    jpeg = bytes(data)
    return jpeg, hashlib.sha256(jpeg).hexdigest()


def masked(
    bgr: Image,
    detections: Detections,
    tracks: Sequence[Track] = (),
    *,
    private: Sequence[Sequence[Point]] = (),
    keep: Mask | None = None,
    named: bool = True,
) -> Image:
    """The picture with everything hidden that must not leave. The input is not changed."""
    out = bgr.copy()
    rows, columns = bgr.shape[:2]
    for box in plate_like(bgr):
        _cells(out, box, max(_MIN_CELL_PX, int(box[2] - box[0]) // 3))
    for box, score, group in _subjects(detections, tracks):
        _hide(out, box, score if named else 0.0, group)
    if keep is not None:
        _blur(out, ~keep)
    for window in private:
        points = np.round(np.array(window, np.float64) * (columns, rows)).astype(np.int32)
        area = np.zeros((rows, columns), np.uint8)
        cv2.fillPoly(area, [points], 1)
        _blur(out, area > 0)
    return out


def plate_like(bgr: Image) -> list[Float32s]:
    """Blue, green or yellow strips full of upright strokes, two to six times as wide as high: likely number plates."""
    hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
    hue, saturation, value = cv2.split(hsv)
    coloured = (saturation > 70) & (value > 40) & (((hue > 95) & (hue < 130)) | ((hue > 15) & (hue < 85)))
    strokes = np.abs(cv2.Sobel(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), cv2.CV_32F, 1, 0))
    dense = cv2.blur((strokes > 90).astype(np.float32), (17, 9)) > 0.22
    near_colour = cv2.blur(coloured.astype(np.float32), (17, 9)) > 0.30
    found = cv2.morphologyEx((dense & near_colour).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 17), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(found)
    boxes: list[Float32s] = []
    for x, y, w, h, area in stats[1:count].tolist():
        if w >= 18 and h >= 6 and 1.5 <= w / h <= 8 and area >= 0.45 * w * h:
            boxes.append(np.array([x - 0.1 * w, y - 0.2 * h, x + 1.1 * w, y + 1.2 * h], np.float32))
    return boxes


def _subjects(detections: Detections, tracks: Sequence[Track]) -> list[tuple[Float32s, float, int]]:
    """Everything the detector named at all, and what the tracker remembers of things it missed in this frame."""
    found = [
        (box, float(score), int(group))
        for box, score, group in zip(detections.boxes, detections.scores, detections.groups, strict=True)
    ]
    found += [(track.box, track.score, track.group) for track in tracks]
    return found


def _hide(out: Image, box: Float32s, score: float, group: int) -> None:
    x1, y1, x2, y2 = (float(v) for v in box)
    width, height = x2 - x1, y2 - y1
    if group == PERSON and score >= _SURE and height >= width:
        y2 = y1 + _HEAD_SHARE * height
    cells = _PERSON_CELLS if group in (PERSON, TWO_WHEELER, OBJECT) else _VEHICLE_CELLS
    grown = np.array(
        [
            x1 - _MARGIN * width,
            y1 - _MARGIN * height,
            x2 + _MARGIN * width,
            y2 + (0 if group == VEHICLE else 0.02) * height,
        ],
        np.float32,
    )
    smaller = min(grown[2] - grown[0], grown[3] - grown[1]) if group != VEHICLE else grown[2] - grown[0]
    _cells(out, grown, max(_MIN_CELL_PX, int(smaller / cells)))


def _cells(out: Image, box: Float32s, cell_px: int) -> None:
    """Mosaic, then smoothed: a mosaic alone keeps sharp edges that tempt the eye (and attacks on plain mosaics)."""
    rows, columns = out.shape[:2]
    x1, y1 = max(0, int(box[0])), max(0, int(box[1]))
    x2, y2 = min(columns, int(np.ceil(box[2]))), min(rows, int(np.ceil(box[3])))
    if x2 - x1 < 1 or y2 - y1 < 1:
        return
    part = out[y1:y2, x1:x2]
    small = cv2.resize(part, (max(1, (x2 - x1) // cell_px), max(1, (y2 - y1) // cell_px)), interpolation=cv2.INTER_AREA)
    out[y1:y2, x1:x2] = cv2.resize(small, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR)


def _blur(out: Image, area: Mask) -> None:
    """Blur everything under ``area`` beyond recognition: 24 cells across the whole picture."""
    rows, columns = out.shape[:2]
    small = cv2.resize(out, (24, max(1, round(24 * rows / columns))), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(small, (columns, rows), interpolation=cv2.INTER_LINEAR)
    out[area] = coarse[area]
