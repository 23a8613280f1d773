"""One camera from picture to fact: believe it?, anything moving?, what is it?, where does it stand since when?

``step`` is pure but for the state it keeps: no clock, no I/O; time is the frame's. The worker or a test feeds frames.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.vision.background import WIDTH_PX, BackgroundModel, Blob, Residual
from edge.vision.config import CameraConfig, Point
from edge.vision.facts import FactWriter
from edge.vision.frame import OBJECT, PERSON, VEHICLE, Detections, Frame, Grey, Image, Mask
from edge.vision.gate import HEIGHT_PX as GATE_H
from edge.vision.gate import WIDTH_PX as GATE_W
from edge.vision.gate import MotionGate
from edge.vision.health import CameraHealth, CamState, Code
from edge.vision.mask import still
from edge.vision.tracker import HITS, Track, Tracker
from edge.vision.zones import Footprint, Lines, Zone, touching
from protocols.core.errors import ConfigError
from protocols.core.model import Fact

_PERSON_WIDE_M, _PERSON_TALL = 1.1, 1.3  # widest person; least height to width
_VEHICLE_M2, _VEHICLE_WIDE_M = 2.8, 1.3  # smallest outline and width taken for a vehicle: a small car from in front
_COVERED = 0.3  # a residual that lies so far inside a detected box is that thing


@dataclass(slots=True)
class CameraCounters:
    """What a camera has done since it was opened; the agent adds what its source knows (skips, decode errors)."""

    frames: int = 0  # offered
    analysed: int = 0
    stale: int = 0  # older than one already seen
    gate_open: int = 0
    detector_runs: int = 0
    detector_ms: float = 0.0  # sum; divided by runs: the mean
    first_ms: int = 0
    last_ms: int = 0

    @property
    def fps(self) -> float:
        return 1000 * (self.analysed - 1) / (self.last_ms - self.first_ms) if self.last_ms > self.first_ms else 0.0

    @property
    def gate_share(self) -> float:
        return self.gate_open / self.analysed if self.analysed else 0.0


class CameraPipeline:
    """``step(frame)`` gives the facts of that frame. ``models``: folder of the model registry (needed with a model)."""

    def __init__(self, config: CameraConfig, models: Path | None = None) -> None:
        self.config = config
        self.counters = CameraCounters()
        self._detector = None
        if config.model:
            if models is None:
                raise ConfigError(f"camera {config.id}: model {config.model} is set but there is no model registry")
            from edge.vision.detector import Detector  # 50 MB of runtime that background-only cameras never load

            self._detector = Detector.load(models, config.model, any_class=config.any_class)
        self._needs_background = self._detector is None or (
            config.residual and any(zone.kind == "lane" for zone in config.zone)
        )
        self._size: tuple[int, int] | None = None
        self._background: BackgroundModel | None = None
        self._pending: Image | None = None
        self._health = CameraHealth()
        self._writer = FactWriter(config)
        self._tracker = Tracker(confirm=config.score)
        self._footprints: dict[int, tuple[Footprint | None, float]] = {}  # by track: on the ground, outline px
        self._last: Frame | None = None
        self._last_found = Detections.none()
        self._last_tracks: list[Track] = []
        self._settled = 0

    def step(self, frame: Frame) -> list[Fact]:
        """Analyse a frame if it is time for one. Frames must come in order of time; older ones are counted and left."""
        counters = self.counters
        counters.frames += 1
        if counters.analysed:
            if frame.ts_ms <= counters.last_ms:
                counters.stale += 1
                return []
            # A tenth of a frame early is on time: streams tremble.
            if frame.ts_ms - counters.last_ms < 900 / self.config.analyse_fps:
                return []
        else:
            counters.first_ms = frame.ts_ms
        counters.analysed += 1
        counters.last_ms = frame.ts_ms
        height, width = frame.bgr.shape[:2]
        if self._size != (width, height):
            self._resize(width, height)
        return self._analyse(frame)

    def source_state(self, code: Code, ts_ms: int, detail: str = "") -> list[Fact]:
        """The source has something to say: ``ended`` or ``lost``. What was known about zones is void."""
        self._reset_tracks()
        return self._writer.state(CamState(code, detail), max(ts_ms, self.counters.last_ms))

    def last_still(self) -> tuple[bytes, str] | None:
        """Masked JPEG of the last frame that was looked at, and its SHA-256; None before the first."""
        if self._last is None:
            return None
        named = self._detector is not None
        keep = None if named else self._zone_mask
        return still(
            self._last.bgr, self._last_found, self._last_tracks, private=self.config.private, keep=keep, named=named
        )

    def snapshot(self) -> bytes:
        """What must outlive a restart: the empty view (PNG), so that what stands there is not learnt as empty."""
        picture = self._background.picture if self._background is not None else None
        if picture is None:
            return b""
        ok, data = cv2.imencode(".png", picture)
        return bytes(data) if ok else b""

    def restore(self, data: bytes) -> None:
        """Take up a snapshot before the first frame; one that cannot be read is ignored, the view is learnt anew."""
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        self._pending = picture

    def accept_view(self) -> None:
        """The camera was turned on purpose: learn view and background afresh."""
        self._health.accept_view()
        self._pending = None
        if self._background is not None:
            self._background.forget()
        self._reset_tracks()

    def _resize(self, width: int, height: int) -> None:
        """First frame, or the stream has changed its size: everything measured in pixels starts afresh."""
        self._size = (width, height)
        self._small = (WIDTH_PX, max(2, round(WIDTH_PX * height / width)))
        config = self.config
        self._zones = [Zone(zone, width, height) for zone in config.zone]
        self._lines = Lines(config.line, width, height)
        self._gate = MotionGate(config.full_scan_s, _polygons(config.mask, GATE_W, GATE_H))
        self._zone_mask = _polygons(tuple(zone.polygon for zone in config.zone), width, height)
        self._background = None
        if self._needs_background:
            watch = _polygons(tuple(zone.polygon for zone in config.zone), *self._small)
            self._background = BackgroundModel(_polygons(config.mask, *self._small), watch)
            if self._pending is not None and self._pending.shape[:2] == (self._small[1], self._small[0]):
                self._background.restore(self._pending)
            self._pending = None
        self._health = CameraHealth()
        self._reset_tracks()

    def _reset_tracks(self) -> None:
        self._tracker.clear()
        self._footprints.clear()
        self._last_tracks = []
        self._settled = 0  # frames since nothing was known
        if self._size is not None:
            self._lines.clear()
            for zone in self._zones:
                zone.clear()
        self._writer.forget()

    def _analyse(self, frame: Frame) -> list[Fact]:
        small = cv2.resize(frame.bgr, self._small, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        residual = None
        if self._background is not None and self._health.state.code in ("ok", "low_conf"):
            residual = self._background.step(small, frame.ts_ms)
        before = self._health.state
        state = self._health.step(grey, frame.ts_ms, residual)
        facts = self._writer.periodic_state(state, frame.ts_ms)
        if state.code != "ok":
            if before.code == "ok":
                self._reset_tracks()
            self._last, self._last_found, self._last_tracks = frame, _hidden(frame), []
            return facts
        tracks = self._look(frame, grey, residual)
        if self._health.doubtful or (self._background is not None and not _ready(residual)):
            return facts  # no word about zones while it is open whether the view can be believed
        facts += self._writer.crossings(self._lines.update(self._tracker.tracks, frame.ts_ms))
        self._settled += 1
        for zone in self._zones:
            present = zone.update(tracks, frame.ts_ms)
            if not present and self._may_fill(zone):
                continue
            facts += self._writer.zone(zone, present, self._ground_of(zone, present), frame.ts_ms, self._size or (1, 1))
        return facts

    def _may_fill(self, zone: Zone) -> bool:
        """Is it too early to call a zone empty: just started to look, or something in it that may yet count?"""
        if self._settled < zone.config.inertia + HITS:
            return True
        return any(t.hits > 1 and not t.counts and zone.covers(t) for t in self._tracker.tracks)

    def _look(self, frame: Frame, grey: Grey, residual: Residual | None) -> list[Track]:
        gate = self._gate.step(cv2.resize(grey, (GATE_W, GATE_H), interpolation=cv2.INTER_AREA), frame.ts_ms)
        found = Detections.none()
        blobs: list[Blob | None] = []
        if residual is not None:
            found, blobs = self._things(residual)
        if self._detector is None:
            tracks = self._tracker.update(found, frame.ts_ms)
            self.counters.gate_open += gate.open
        elif gate.open or not self.config.gate:
            self.counters.gate_open += 1
            started = time.perf_counter()
            named = self._detector.detect(frame.bgr)
            self.counters.detector_ms += (time.perf_counter() - started) * 1000
            self.counters.detector_runs += 1
            spare = ~_covered(found, named)
            blobs = [blob for blob, free in zip(blobs, spare, strict=True) if free]
            rest = found.take(spare)
            # What has no class is believed only as long as it is not simply a vehicle the detector overlooked once.
            found = Detections.join(named, Detections(rest.boxes, rest.scores, np.full(len(rest), OBJECT, np.int64)))
            blobs = [*([None] * len(named)), *blobs]
            tracks = self._tracker.update(found, frame.ts_ms)
        else:
            return self._tracker.hold(frame.ts_ms)
        self._remember(found, blobs)
        # The still is made from this frame: a later one at which nobody looked could show somebody unmasked.
        self._last, self._last_found, self._last_tracks = frame, found, list(self._tracker.tracks)
        return tracks

    def _things(self, residual: Residual) -> tuple[Detections, list[Blob | None]]:
        """Blobs as detections in pixels of the frame, sorted into groups by their size on the ground."""
        assert self._size is not None  # noqa: S101 - set before any frame is analysed
        scale_x, scale_y = self._size[0] / self._small[0], self._size[1] / self._small[1]
        blobs = list(residual.blobs)
        if not blobs:
            return Detections.none(), []
        boxes = np.array([blob.box for blob in blobs], np.float32) * (scale_x, scale_y, scale_x, scale_y)
        groups = np.array([self._group(blob) for blob in blobs], np.int64)
        scores = np.array([blob.conf for blob in blobs], np.float32)
        return Detections(boxes.astype(np.float32), scores, groups), list(blobs)

    def _group(self, blob: Blob) -> int:
        x1, y1, x2, y2 = blob.box
        for zone in self._zones:
            if zone.ground is None:
                continue
            across = zone.ground.metres_per_fraction((x1 + x2) / 2 / self._small[0], min(1.0, y2 / self._small[1]))
            if np.isnan(across):
                continue
            metres_per_px = across / self._small[0]
            wide, tall = (x2 - x1) * metres_per_px, (y2 - y1) * metres_per_px
            if blob.area_px * metres_per_px**2 >= _VEHICLE_M2 and wide >= _VEHICLE_WIDE_M:
                return VEHICLE
            if wide <= _PERSON_WIDE_M and tall >= max(_PERSON_TALL * wide, 1.0):
                return PERSON
            return OBJECT
        return OBJECT

    def _remember(self, found: Detections, blobs: list[Blob | None]) -> None:
        """Keep each track's contact with the ground as the last frame showed it."""
        alive: dict[int, tuple[Footprint | None, float]] = {}
        for track in self._tracker.tracks:
            if track.misses == 0 and len(found):
                index = int(np.abs(found.boxes - track.box).sum(axis=1).argmin())
                blob = blobs[index] if index < len(blobs) else None
                area = float((track.box[2] - track.box[0]) * (track.box[3] - track.box[1]))
                if blob is None:
                    alive[track.id] = (None, area)
                else:
                    fill = blob.area_px / max(1, (blob.box[2] - blob.box[0]) * (blob.box[3] - blob.box[1]))
                    alive[track.id] = (self._contact(blob), area * fill)
            elif track.id in self._footprints:
                alive[track.id] = self._footprints[track.id]
        self._footprints = alive

    def _contact(self, blob: Blob) -> Footprint | None:
        """Where a thing's outline touches the ground, from the lowest point of each of its columns."""
        for zone in self._zones:
            if zone.ground is None:
                continue
            points = zone.ground.to_metres(blob.contact.astype(np.float64) / self._small)
            points = points[~np.isnan(points).any(axis=1)]
            if not len(points):
                continue
            foot = touching(points)
            return float(foot[:, 0].min()), float(foot[:, 0].max()), float(foot[:, 1].min())
        return None

    def _ground_of(self, zone: Zone, present: list[Track]) -> dict[int, tuple[Footprint | None, float]]:
        out: dict[int, tuple[Footprint | None, float]] = {}
        for track in present:
            contact, area = self._footprints.get(track.id, (None, 0.0))
            out[track.id] = (contact or zone.box_footprint(track), area)
        return out


def _hidden(frame: Frame) -> Detections:
    """While the camera is not believed nobody has looked for people: the still shows nothing sharp at all."""
    rows, columns = frame.bgr.shape[:2]
    whole = np.array([[0, 0, columns, rows]], np.float32)
    return Detections(whole, np.zeros(1, np.float32), np.array([VEHICLE], np.int64))


def _ready(residual: Residual | None) -> bool:
    return residual is not None and residual.ready


def _covered(things: Detections, named: Detections) -> Mask:
    """Which residuals are things that the detector has named."""
    if not len(things) or not len(named):
        return np.zeros(len(things), bool)
    left_top = np.maximum(things.boxes[:, None, :2], named.boxes[None, :, :2])
    right_bottom = np.minimum(things.boxes[:, None, 2:], named.boxes[None, :, 2:])
    shared = np.prod(np.clip(right_bottom - left_top, 0, None), axis=2)
    own = np.prod(things.boxes[:, 2:] - things.boxes[:, :2], axis=1)
    out: Mask = (shared / np.maximum(own, 1)[:, None]).max(axis=1) > _COVERED
    return out


def _polygons(shapes: tuple[tuple[Point, ...], ...], width: int, height: int) -> Mask | None:
    """Union of polygons as a mask; None if there are none."""
    if not shapes:
        return None
    mask = np.zeros((height, width), np.uint8)
    for shape in shapes:
        cv2.fillPoly(mask, [np.round(np.array(shape, np.float64) * (width, height)).astype(np.int32)], 1)
    return mask > 0
