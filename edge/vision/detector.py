"""Runs a registered model on a picture: ONNX Runtime, one thread, no spinning, pictures prepared in NumPy and OpenCV.

One thread a session: with the runtime's default spinning two threads doubled the CPU time of a frame and gained
nothing on a loaded gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort

from edge.vision import heads
from edge.vision.frame import GROUPS, OBJECT, Detections, Float32s, Image, Int64s, suppress
from edge.vision.models import Family, Manifest, find_model
from protocols.core.errors import ConfigError

_HEADS: dict[Family, Callable[[Sequence[Float32s], int, int, Int64s, float], heads.Head]] = {
    "nanodet": heads.nanodet,
    "yolox": heads.yolox,
    "yolo-raw": heads.yolo_raw,
    "yolo-nms-free": heads.yolo_nms_free,
}
_OVERLAP = 0.5
_MOST = 300  # candidates that enter suppression


class Detector:
    """``detect`` gives every box at or above ``floor``, suppressed across the classes of each group.

    ``any_class``: every class counts, all as "object" (steep views, where detectors call a car a telephone).
    """

    def __init__(self, manifest: Manifest, path: Path, *, floor: float = 0.15, any_class: bool = False) -> None:
        self.manifest = manifest
        self._floor = floor
        names = manifest.class_names
        group_of = {name: GROUPS.index(group) for group, members in manifest.groups.items() for name in members}
        chosen = [i for i, name in enumerate(names) if any_class or name in group_of]
        if not chosen:
            raise ConfigError(f"model {manifest.id}: none of its classes belongs to a group")
        self._columns = np.array(chosen, np.int64)
        self._groups = np.array([OBJECT if any_class else group_of[names[i]] for i in chosen], np.int64)
        self._head = _HEADS[manifest.family]
        self.session = _session(path, manifest)
        self._input = str(self.session.get_inputs()[0].name)
        recipe = manifest.recipe
        self._scale = np.array([1 / deviation for deviation in recipe.std], np.float32)
        self._shift = np.array([-m / d for m, d in zip(recipe.mean, recipe.std, strict=True)], np.float32)
        self._plain = recipe.mean == (0.0, 0.0, 0.0) and recipe.std == (1.0, 1.0, 1.0)
        self._tensor = np.empty((1, 3, manifest.height, manifest.width), np.float32)
        self._tensor[:] = (recipe.pad * self._scale + self._shift)[None, :, None, None]
        self._covered: tuple[int, int, int, int] | None = None  # where the last picture lay in the tensor

    @classmethod
    def load(cls, folder: Path, model_id: str, *, floor: float = 0.15, any_class: bool = False) -> Detector:
        """From the registry; the checksum is verified."""
        manifest, path = find_model(folder, model_id)
        return cls(manifest, path, floor=floor, any_class=any_class)

    def detect(self, bgr: Image) -> Detections:
        tensor, (scale_x, scale_y), (left, top) = self.prepare(bgr)
        outputs = self.session.run(None, {self._input: tensor})
        width, height = self.manifest.width, self.manifest.height
        boxes, scores, chosen = self._head(outputs, width, height, self._columns, self._floor)
        if not len(scores):
            return Detections.none()
        if len(scores) > _MOST:
            most = np.argpartition(-scores, _MOST)[:_MOST]
            boxes, scores, chosen = boxes[most], scores[most], chosen[most]
        groups = self._groups[chosen]
        kept = suppress(boxes, scores, groups, _OVERLAP)
        boxes = boxes[kept]
        rows, columns = bgr.shape[:2]
        boxes[:, 0::2] = np.clip((boxes[:, 0::2] - left) / scale_x, 0, columns)
        boxes[:, 1::2] = np.clip((boxes[:, 1::2] - top) / scale_y, 0, rows)
        found = Detections(boxes, scores[kept], groups[kept])
        return found.take((boxes[:, 2] - boxes[:, 0] >= 2) & (boxes[:, 3] - boxes[:, 1] >= 2))

    def prepare(self, bgr: Image) -> tuple[Float32s, tuple[float, float], tuple[int, int]]:
        """The model's input, the scale from picture to input, and where the picture lies in it."""
        width, height, recipe = self.manifest.width, self.manifest.height, self.manifest.recipe
        rows, columns = bgr.shape[:2]
        if recipe.resize == "stretch":
            new_w, new_h = width, height
        else:
            fit = min(width / columns, height / rows)
            new_w, new_h = max(1, round(columns * fit)), max(1, round(rows * fit))
        left, top = (0, 0) if recipe.anchor == "top_left" else ((width - new_w) // 2, (height - new_h) // 2)
        small = cv2.resize(bgr, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
        place = (left, top, new_w, new_h)
        if self._covered not in (None, place):  # the stream changed its size: clear what the old picture left
            self._tensor[:] = (recipe.pad * self._scale + self._shift)[None, :, None, None]
        self._covered = place
        target = self._tensor[0, :, top : top + new_h, left : left + new_w]
        channels = (0, 1, 2) if recipe.order == "BGR" else (2, 1, 0)
        planes = cv2.split(small)  # whole planes convert four times as fast as strided ones
        for index, channel in enumerate(channels):
            if self._plain:
                target[index] = planes[channel]
            else:
                np.multiply(planes[channel], self._scale[index], out=target[index])
                target[index] += self._shift[index]
        return self._tensor, (new_w / columns, new_h / rows), (left, top)


def _session(path: Path, manifest: Manifest) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors share no base class; a bad file must not end the agent
        raise ConfigError(f"{path}: not a model that can be run: {error}") from error
    _check_shapes(session, manifest, path)
    return session


def _check_shapes(session: ort.InferenceSession, manifest: Manifest, path: Path) -> None:
    """The file must be what its papers say: this also keeps embedding networks (one vector out) out (P1)."""
    if len(session.get_inputs()) != 1 or len(session.get_inputs()[0].shape) != 4:
        raise ConfigError(f"{path}: a detector takes one picture, this model takes something else")
    shapes = [tuple(output.shape) for output in session.get_outputs()]
    classes = len(manifest.class_names)

    def fits(shape: tuple[object, ...], axis: int, size: int) -> bool:
        return len(shape) == 3 and (isinstance(shape[axis], str) or shape[axis] is None or shape[axis] == size)

    right = {
        "nanodet": len(shapes) == 6
        and all(fits(s, 2, classes) for s in shapes[:3])
        and all(fits(s, 2, 32) for s in shapes[3:]),
        "yolox": len(shapes) >= 1 and fits(shapes[0], 2, 5 + classes),
        "yolo-raw": len(shapes) >= 1 and fits(shapes[0], 1, 4 + classes),
        "yolo-nms-free": len(shapes) >= 1 and fits(shapes[0], 2, 6),
    }
    if not right[manifest.family]:
        raise ConfigError(f"{path}: outputs {shapes} are not those of a {manifest.family} with {classes} classes")
