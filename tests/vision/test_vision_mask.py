"""What leaves the gateway: people and vehicles unreadable, private windows blurred, plates found without a detector."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.vision.detector import Detector
from edge.vision.frame import PERSON, VEHICLE, Detections, Frame
from edge.vision.mask import masked, plate_like, still
from edge.vision.pipeline import CameraPipeline
from tests.vision.support import SHARED, START_MS, Play, camera, clip_frames, sharpness

WHOLE = (0, 0, 640, 360)


def one(box: tuple[int, int, int, int], score: float, group: int) -> Detections:
    return Detections(np.array([box], np.float32), np.array([score], np.float32), np.array([group]))


def grey_noise() -> np.ndarray:  # type: ignore[type-arg]
    """Detail everywhere and no colour, so that nothing in it looks like a plate."""
    return np.repeat(np.random.default_rng(1).integers(0, 255, (360, 640, 1), dtype=np.uint8), 3, axis=2)


def decoded(jpeg: bytes) -> np.ndarray:  # type: ignore[type-arg]
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(picture)


def test_people_and_vehicles_of_real_frames_are_unreadable_in_the_still(registry: Path) -> None:
    detector = Detector.load(registry, "nanodet_m_416")
    street = next(f.bgr for f in clip_frames("street_oncoming.mp4", 24) if f.ts_ms >= 9950)
    desk = next(f.bgr for f in clip_frames("desk_visits.mp4", 10) if f.ts_ms >= 10_000)
    for picture, group in ((street, VEHICLE), (desk, PERSON)):
        found = detector.detect(picture)
        jpeg, sha256 = still(picture, found)
        assert sha256 == hashlib.sha256(jpeg).hexdigest()
        shown = decoded(jpeg)
        chosen = found.boxes[(found.groups == group) & (found.scores > 0.4)]
        assert len(chosen)
        for x1, y1, x2, y2 in chosen.astype(int).tolist():
            part = (x1, y1, x2, y2 if group == VEHICLE else y1 + round(0.35 * (y2 - y1)))
            before, after = sharpness(picture, part), sharpness(shown, part)
            assert after < 0.08 * before, (part, before, after)
        floor = (440, 250, 630, 350)  # what nobody stands on stays as sharp as JPEG leaves it
        assert sharpness(shown, floor) > 0.4 * sharpness(picture, floor)


def test_an_uncertain_person_is_masked_whole() -> None:
    noise = grey_noise()
    legs = (210, 220, 250, 300)
    sure = masked(noise, one((200, 100, 260, 310), 0.8, PERSON))
    unsure = masked(noise, one((200, 100, 260, 310), 0.3, PERSON))
    assert sharpness(sure, (205, 95, 255, 170)) < 0.01 * sharpness(noise, (205, 95, 255, 170))
    assert sharpness(sure, legs) == sharpness(noise, legs)
    assert sharpness(unsure, legs) < 0.01 * sharpness(noise, legs)


def test_a_plate_on_a_large_near_vehicle_has_fewer_cells_than_signs() -> None:
    """Two plates that differ in every sign must look alike after masking: nothing is left to read."""
    pictures = []
    for text in ("A12345", "H98767"):
        picture = np.full((360, 640, 3), 120, np.uint8)
        cv2.rectangle(picture, (100, 60), (500, 320), (60, 60, 160), -1)
        cv2.rectangle(picture, (250, 240), (350, 268), (150, 60, 10), -1)
        cv2.putText(picture, text, (256, 262), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2, cv2.LINE_AA)
        pictures.append(masked(picture, one((100, 60, 500, 320), 0.9, VEHICLE)).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() < 40  # white on blue differed by more than 200


@pytest.mark.parametrize("number", range(5))
def test_hefei_plates_are_found_and_hidden_without_any_detector(number: int) -> None:
    path = SHARED / "images" / f"ccpd_{number}.jpg"
    if not path.is_file():
        pytest.skip("../shared/vision is not here")
    picture = cv2.imread(str(path))
    plates = [
        box
        for box in plate_like(picture)
        if 1.5 <= (box[2] - box[0]) / (box[3] - box[1]) <= 5 and box[2] - box[0] > 140
    ]
    assert plates
    shown = decoded(still(picture, Detections.none())[0])
    for box in plates:
        height = box[3] - box[1]
        inner = (int(box[0]) + 10, int(box[1] + 0.25 * height), int(box[2]) - 10, int(box[3] - 0.25 * height))
        inner = (max(0, inner[0]), max(0, inner[1]), inner[2], inner[3])
        assert sharpness(shown, inner) < 0.05 * sharpness(picture, inner)


def test_private_windows_are_blurred_and_the_input_is_left_alone() -> None:
    noise = grey_noise()
    copy = noise.copy()
    shown = masked(noise, Detections.none(), private=[[(0.5, 0.0), (1.0, 0.0), (1.0, 0.5), (0.5, 0.5)]])
    assert sharpness(shown, (330, 10, 630, 170)) < 0.01 * sharpness(noise, (330, 10, 630, 170))
    assert np.array_equal(noise, copy)


def test_without_a_detector_only_the_zones_background_stays_sharp() -> None:
    play = Play(
        2,
        actor=[
            {"kind": "car", "enter_s": 5, "stop_s": 100, "at_m": 17},
            {"kind": "person", "enter_s": 16, "at_m": 10, "stop_s": 60},
        ],
    )
    assert play.pipeline.last_still() is None
    play.run(24)
    found = play.pipeline.last_still()
    assert found is not None
    shown, raw = decoded(found[0]), play.scene.render(23.5)
    wall, lane = (20, 80, 120, 200), (230, 285, 330, 300)
    assert sharpness(shown, wall) < 0.05 * sharpness(raw, wall)
    assert sharpness(shown, lane) > 0.3 * sharpness(raw, lane)
    facts = {f.values["cls"]: str(f.values["box"]) for f in play.of("zone.object", after_s=22)}
    assert set(facts) == {"vehicle", "person"}
    for text in facts.values():
        x, y, w, h = (float(v) for v in text.split(","))
        box = (int(x * 640), int(y * 360), int((x + w) * 640), int((y + h) * 360))
        assert sharpness(shown, box) < 0.1 * sharpness(raw, box)


def test_while_the_camera_is_not_believed_nothing_in_the_still_is_sharp() -> None:
    play = Play(2, effect=[{"kind": "knock", "at_s": 10, "for_s": 30}]).run(25)
    assert play.codes()[-1] == "moved"
    found = play.pipeline.last_still()
    assert found is not None
    assert sharpness(decoded(found[0]), WHOLE) < 0.01 * sharpness(play.scene.render(24.5), WHOLE)


def test_a_frame_nobody_looked_at_is_never_shown(registry: Path) -> None:
    """The gate is shut: the still must be the frame the detector saw, not a later one with somebody new in it."""
    pipeline = CameraPipeline(camera(model="yolox_nano_416", analyse_fps=5, full_scan_s=60), registry)
    empty = next(f.bgr for f in clip_frames("desk_visits.mp4", 10))
    for number in range(4):
        pipeline.step(Frame(START_MS + 200 * number, empty))
    looked = pipeline.counters.detector_runs
    tinted = empty.copy()
    tinted[:8, :8] = (0, 0, 255)  # too small for the gate
    pipeline.step(Frame(START_MS + 800, tinted))
    assert pipeline.counters.detector_runs == looked
    found = pipeline.last_still()
    assert found is not None
    assert decoded(found[0])[3, 3, 2] < 200
