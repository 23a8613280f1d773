"""What a camera costs: frames a second of the whole pipeline against the bare minimum, in the same run, on one thread.

The bare minimum is decoding every frame and one ``session.run`` of the same model a frame on a ready input: what is
left to gain by better code of ours. ``ratio`` compares like with like: the detector runs on every frame (gate off).
``gated_ratio`` is what the motion gate makes of the same clip. Rounds alternate, CPU time is counted, and the median
of the rounds is reported, so that a busy machine disturbs little. ``*_wall_fps`` is by the clock on the wall.

    ./citybrain bench camera
    PYTHONPATH=.:firmware-sim python bench/camera.py [--clip FILE] [--model FILE.onnx] [--frames 240] [--rounds 3]

Without ../shared a drawn scene is measured on the background model alone; the bare minimum is then decoding.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import msgspec

from edge.vision.config import CameraConfig
from edge.vision.detector import Detector
from edge.vision.models import Manifest, Recipe, add_model, digest
from edge.vision.pipeline import CameraPipeline
from edge.vision.source import FileSource
from firmware_sim.camera.file import write_mp4
from firmware_sim.camera.geometry import Pinhole, lane_ground
from firmware_sim.camera.model import CameraModel

SHARED = Path(__file__).resolve().parents[2] / "shared" / "vision"


def cpu_s(work: Callable[[], int]) -> tuple[float, float, int]:
    """CPU seconds, wall seconds and what the work counted."""
    wall, start = time.perf_counter(), time.process_time()
    count = work()
    return time.process_time() - start, time.perf_counter() - wall, count


def decode(clip: Path, frames: int, each: Callable[[Any], object]) -> int:
    source, count = FileSource(clip), 0
    while count < frames and (frame := source.read()) is not None:
        each(frame)
        count += 1
    source.close()
    return count


def register(folder: Path, weights: Path) -> str:
    manifest = Manifest(
        id="bench",
        file=weights.name,
        sha256=digest(weights),
        licence="Apache-2.0",
        source="see ../shared/vision/README.md",
        purpose="object_detection",
        family="yolox" if "yolox" in weights.name else "nanodet",
        width=416,
        height=416,
        recipe=Recipe()
        if "yolox" in weights.name
        else Recipe(mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395), pad=0.0),
    )
    add_model(folder, weights, manifest)
    return manifest.id


def configured(model: str, *, gate: bool) -> CameraConfig:
    """Every frame of the clip is analysed: the most a camera can ask for."""
    table: dict[str, Any] = {"id": "bench", "url": "clip", "model": model, "gate": gate, "analyse_fps": 30}
    if model:
        area = {"id": "road", "polygon": [[0.3, 0.3], [0.95, 0.3], [0.95, 0.98], [0.3, 0.98]]}
        table |= {"zone": [area], "line": [{"id": "line", "points": [[0.31, 0.68], [0.94, 0.68]]}]}
    else:
        table["zone"] = [lane_ground(Pinhole()).as_config()]
    return msgspec.convert(table, CameraConfig)


def bare_work(clip: Path, frames: int, detector: Detector | None) -> Callable[[], int]:
    if detector is None:
        return partial(decode, clip, frames, lambda _frame: None)
    session, name = detector.session, str(detector.session.get_inputs()[0].name)
    tensor = detector.prepare(first_picture(clip))[0].copy()
    return partial(decode, clip, frames, lambda _frame: session.run(None, {name: tensor}))


def measure(clip: Path, folder: Path, model: str, frames: int, rounds: int) -> dict[str, Any]:
    bare_fps, full_fps, gated_fps, shares, wall_fps = [], [], [], [], []
    bare = bare_work(clip, frames, Detector.load(folder, model) if model else None)
    count = 0
    for _ in range(rounds):
        spent, _, count = cpu_s(bare)
        bare_fps.append(count / spent)
        spent, wall, count = cpu_s(
            partial(decode, clip, frames, CameraPipeline(configured(model, gate=False), folder).step)
        )
        full_fps.append(count / spent)
        wall_fps.append(count / wall)
        gated = CameraPipeline(configured(model, gate=True), folder)
        spent, _, count = cpu_s(partial(decode, clip, frames, gated.step))
        gated_fps.append(count / spent)
        shares.append(gated.counters.detector_runs / count if model else gated.counters.gate_share)
    median = statistics.median
    return {
        "frames": count,
        "bare_fps": round(median(bare_fps), 1),
        "pipeline_fps": round(median(full_fps), 1),
        "pipeline_wall_fps": round(median(wall_fps), 1),
        "ratio": round(median(f / b for f, b in zip(full_fps, bare_fps, strict=True)), 3),
        "gated_fps": round(median(gated_fps), 1),
        "gated_ratio": round(median(g / b for g, b in zip(gated_fps, bare_fps, strict=True)), 3),
        "gate_share": round(median(shares), 3),
    }


def first_picture(clip: Path) -> Any:
    source = FileSource(clip)
    frame = source.read()
    source.close()
    if frame is None:
        raise SystemExit(f"{clip}: no picture in it")
    return frame.bgr


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Frames a second of the camera pipeline against the bare minimum.")
    parser.add_argument("--clip", type=Path, default=SHARED / "clips" / "desk_visits.mp4")
    parser.add_argument("--model", type=Path, default=SHARED / "weights" / "nanodet_m_416.onnx")
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip, model = options.clip, ""
        if clip.is_file() and options.model.is_file():
            model = register(folder, options.model)
        else:
            clip = folder / "lane.mp4"
            table = {"id": "bench", "fps": 10, "actor": [{"kind": "car", "enter_s": 4, "stop_s": 100}]}
            write_mp4(CameraModel.from_table(table), clip, options.frames / 10)
        result = measure(clip, folder, model, options.frames, options.rounds)
    print(
        json.dumps({"clip": clip.name, "model": options.model.stem if model else "", "threads": 1, **result}, indent=1)
    )


if __name__ == "__main__":
    main()
