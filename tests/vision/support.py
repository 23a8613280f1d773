"""Helpers: play a drawn scene or a real clip through a pipeline in virtual time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import pytest

from edge.vision.config import CameraConfig, check_camera
from edge.vision.frame import Frame
from edge.vision.pipeline import CameraPipeline
from edge.vision.source import FileSource
from firmware_sim.camera.model import CameraModel
from firmware_sim.camera.scene import LaneScene
from protocols.core.model import Fact

SHARED = Path(__file__).resolve().parents[3] / "shared" / "vision"
START_MS = 1_772_000_000_000


def clip(name: str) -> Path:
    path = SHARED / "clips" / name
    if not path.is_file():
        pytest.skip("../shared/vision is not here")
    return path


def truth(name: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((SHARED / "truth.json").read_text("utf-8"))["clips"][name]
    return table


def clip_frames(name: str, fps: float) -> Iterator[Frame]:
    """Frames of a real clip, thinned to about ``fps``."""
    source, due_ms = FileSource(clip(name)), 0.0
    while (frame := source.read()) is not None:
        if frame.ts_ms >= due_ms:
            due_ms = frame.ts_ms + 900 / fps
            yield frame
    source.close()


def camera(**table: Any) -> CameraConfig:
    config = msgspec.convert({"id": "cam-1", "url": "test", **table}, CameraConfig)
    check_camera(config, "test")
    return config


class Play:
    """A drawn lane before a background-only pipeline; ``at`` times are seconds of the scene."""

    def __init__(
        self, fps: float, *, actor: Any = (), effect: Any = (), models: Path | None = None, **config: Any
    ) -> None:
        self.model = CameraModel.from_table({"id": "lane-cam-1", "fps": 5, "actor": actor, "effect": effect})
        self.scene = LaneScene(self.model)
        self.fps = fps
        self.config = camera(analyse_fps=fps, zone=[self.scene.ground().as_config()], **config)
        self.pipeline = CameraPipeline(self.config, models)
        self.facts: list[Fact] = []

    def run(self, until_s: float, start_s: float = 0.0) -> Play:
        for number in range(int(start_s * self.fps), int(until_s * self.fps)):
            t_s = number / self.fps
            if self.scene.ended(t_s):
                self.facts += self.pipeline.source_state("ended", START_MS + round(t_s * 1000))
                break
            self.facts += self.pipeline.step(Frame(START_MS + round(t_s * 1000), self.scene.render(t_s)))
        return self

    def of(self, kind: str, after_s: float = 0.0, before_s: float = 1e9) -> list[Fact]:
        low, high = START_MS + after_s * 1000, START_MS + before_s * 1000
        return [fact for fact in self.facts if fact.kind == kind and low <= fact.ts_ms < high]

    def codes(self) -> list[str]:
        """The camera's states in order, repeats left out."""
        seen: list[str] = []
        for fact in self.of("cam.state"):
            code = str(fact.values["code"])
            if not seen or seen[-1] != code:
                seen.append(code)
        return seen

    @staticmethod
    def second(fact: Fact) -> float:
        return (fact.ts_ms - START_MS) / 1000


def sharpness(bgr: Any, box: tuple[int, int, int, int]) -> float:
    """Energy of fine detail (Laplacian variance) in a part of a picture: what letters and features are made of."""
    x1, y1, x2, y2 = box
    grey = cv2.cvtColor(bgr[y1:y2, x1:x2], cv2.COLOR_BGR2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())
