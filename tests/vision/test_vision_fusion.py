"""A model and the background together: named once where both see a thing, found anyway where the model has no word."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from edge.vision.models import Manifest, Recipe, add_model
from firmware_sim.camera.actors import SIZES_M, parked
from firmware_sim.camera.geometry import Pinhole
from firmware_sim.camera.model import Actor
from tests.vision.onnx_bytes import constant_model
from tests.vision.support import Play

CAR = {"kind": "car", "enter_s": 0, "stop_s": 100, "clear_width_m": 2.4, "at_m": 14}
PILE = {"kind": "pile", "enter_s": 6, "at_m": 9.2, "clear_width_m": 4.2}


def car_box() -> tuple[float, float, float, float]:
    """Where the parked car is drawn, px of 640 x 360."""
    x, y, _ = parked(Actor(kind="car", clear_width_m=2.4, at_m=14))
    width, length, height, _ = SIZES_M["car"]
    corners = [(x + a * width / 2, y + b * length / 2, c * height) for a in (-1, 1) for b in (-1, 1) for c in (0, 1)]
    pixels = Pinhole().project(np.array(corners))
    return (*pixels.min(axis=0).tolist(), *pixels.max(axis=0).tolist())


def registry(tmp_path: Path, *boxes: tuple[float, float, float, float]) -> Path:
    """A "detector" that always sees cars in the given boxes of a 640 x 360 picture."""
    rows = np.zeros((1, 300, 6), np.float32)
    for number, box in enumerate(boxes):
        rows[0, number] = (*(v / 2 for v in box), 0.9, 0)
    data = constant_model((1, 3, 320, 320), {"output0": rows})
    manifest = Manifest(
        id="fixed",
        file="fixed.onnx",
        sha256=hashlib.sha256(data).hexdigest(),
        licence="Apache-2.0",
        source="written by the test",
        purpose="object_detection",
        family="yolo-nms-free",
        width=320,
        height=320,
        recipe=Recipe(anchor="top_left"),
        classes=("car",),
        groups={"vehicle": ("car",)},
    )
    (tmp_path / "fixed.bin").write_bytes(data)
    add_model(tmp_path / "models", tmp_path / "fixed.bin", manifest)
    return tmp_path / "models"


def play(models: Path, **config: object) -> Play:
    return Play(2, actor=[CAR, PILE], model="fixed", models=models, **config).run(30)


def test_what_both_see_is_named_once_and_what_the_model_cannot_name_is_an_object(tmp_path: Path) -> None:
    made = play(registry(tmp_path, car_box()))
    seen = made.of("zone.object", after_s=20)
    by_class: dict[str, set[str]] = {}
    for fact in seen:
        by_class.setdefault(str(fact.values["cls"]), set()).add(fact.subject)
    assert {name: len(subjects) for name, subjects in by_class.items()} == {"vehicle": 1, "object": 1}
    for fact in seen:
        wanted = 2.4 if fact.values["cls"] == "vehicle" else 4.2
        assert float(fact.values["clear_width_m"]) == pytest.approx(wanted, abs=0.35)
    assert made.pipeline.counters.detector_runs > 5


def test_a_blind_model_does_not_hide_what_stands_there(tmp_path: Path) -> None:
    seen = play(registry(tmp_path)).of("zone.object", after_s=20)
    assert {fact.values["cls"] for fact in seen} == {"object"}
    assert len({fact.subject for fact in seen}) == 2


def test_residuals_can_be_switched_off(tmp_path: Path) -> None:
    assert play(registry(tmp_path), residual=False).of("zone.object") == []
