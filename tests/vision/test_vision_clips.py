"""Real clips against hand-made truth (../shared/vision/truth.json): crossings, visits, the gate's figures, health."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.vision.frame import Image
from edge.vision.gate import HEIGHT_PX, WIDTH_PX, MotionGate
from edge.vision.pipeline import CameraPipeline
from tests.vision.support import camera, clip, clip_frames, truth

CROSSING_TOL_S = 0.3  # as truth.json states


def line_table(entry: dict[str, Any], size: list[int]) -> dict[str, Any]:
    x1, y1, x2, y2 = entry["line"]
    return {"id": entry["id"], "points": [[x1 / size[0], y1 / size[1]], [x2 / size[0], y2 / size[1]]]}


def crossings(name: str, registry: Path, fps: float, **config: Any) -> tuple[dict[str, list[float]], CameraPipeline]:
    """Seconds of the crossings by truth entry: of its line, in its direction."""
    clip(name)
    facts_of = truth(name)
    pipeline = CameraPipeline(
        camera(analyse_fps=fps, line=[line_table(e, facts_of["size"]) for e in facts_of["line_crossings"]], **config),
        registry,
    )
    got: dict[str, list[float]] = {e["id"]: [] for e in facts_of["line_crossings"]}
    wanted = {e["id"]: e["direction"] for e in facts_of["line_crossings"]}
    for frame in clip_frames(name, fps):
        for fact in pipeline.step(frame):
            if fact.kind == "line.crossed" and fact.values["direction"] == wanted[fact.zone]:
                got[fact.zone].append(fact.ts_ms / 1000)
    return got, pipeline


def assert_crossings(got: dict[str, list[float]], name: str) -> None:
    for entry in truth(name)["line_crossings"]:
        times = sorted(got[entry["id"]])
        assert len(times) == entry["count"], f"{entry['id']}: {times}"
        for second, event in zip(times, entry["events"], strict=True):
            assert event["first"] - CROSSING_TOL_S <= second <= event["last"] + CROSSING_TOL_S, (entry["id"], second)


@pytest.mark.parametrize(("model", "fps"), [("nanodet_m_416", 8), ("nanodet_m_416", 5), ("yolox_nano_416", 6)])
def test_seven_vehicles_cross_the_street_line_and_none_the_other_way(registry: Path, model: str, fps: float) -> None:
    got, pipeline = crossings("street_oncoming.mp4", registry, fps, model=model)
    assert_crossings(got, "street_oncoming.mp4")
    counters = pipeline.counters
    assert counters.detector_runs == counters.gate_open
    assert counters.detector_ms > 0
    assert counters.fps == pytest.approx(fps, rel=0.25)


def test_car_park_from_above_counts_things_of_any_class(registry: Path) -> None:
    got, _ = crossings("carpark_cars.mp4", registry, 6.25, model="nanodet_m_416", any_class=True)
    assert_crossings(got, "carpark_cars.mp4")


def test_desk_visits_enter_leave_and_dwell(registry: Path) -> None:
    clip("desk_visits.mp4")
    entry = truth("desk_visits.mp4")["zone_visits"][0]
    polygon = [[x / 640, y / 360] for x, y in entry["zone"]]
    pipeline = CameraPipeline(
        camera(model="yolox_nano_416", analyse_fps=5, zone=[{"id": "desk", "polygon": polygon, "watch": ["person"]}]),
        registry,
    )
    visits: dict[str, list[float]] = {}
    longest: dict[str, float] = {}
    for frame in clip_frames("desk_visits.mp4", 5):
        for fact in pipeline.step(frame):
            if fact.kind == "zone.object":
                assert fact.values["cls"] == "person"
                dwell = float(fact.values["dwell_s"])
                visit = visits.setdefault(fact.subject, [fact.ts_ms / 1000 - dwell, 0.0])
                visit[1] = fact.ts_ms / 1000
                longest[fact.subject] = dwell
    assert len(visits) == 3
    for (enter, last), wanted in zip(visits.values(), entry["visits"], strict=True):
        assert enter == pytest.approx(wanted["enter"], abs=entry["tol_s"])
        # Facts come once a second, so the last one may be a second before the leaving.
        assert wanted["leave"] - 1 - entry["tol_s"] <= last <= wanted["leave"] + entry["tol_s"]
    assert sum(dwell > 15 for dwell in longest.values()) == entry["loiter_over_15s"]
    # People stand almost still: the gate must have saved work and yet lost nobody.
    assert pipeline.counters.gate_share < 0.9


def test_a_car_that_stands_in_the_queue_is_static_until_it_drives_off(registry: Path) -> None:
    clip("street_oncoming.mp4")
    entry = truth("street_oncoming.mp4")["stationary"][0]
    polygon = [[x / 640, y / 352] for x, y in entry["zone"]]
    pipeline = CameraPipeline(
        camera(model="nanodet_m_416", analyse_fps=5, zone=[{"id": "queue", "polygon": polygon}]), registry
    )
    static: list[float] = []
    for frame in clip_frames("street_oncoming.mp4", 5):
        static += [f.ts_ms / 1000 for f in pipeline.step(frame) if f.kind == "zone.object" and f.values["static"]]
    assert min(static) < 5.0
    assert max(np.diff(static)) < 2.5
    assert entry["moves_off"] - 1.5 <= max(static) <= entry["leaves_zone"] + entry["tol_s"]


def gate_figures(name: str, margin_s: float = 0.5) -> tuple[float, float, float]:
    """Share of frames called moving, of frames with something in view caught, of truth-empty frames called moving."""
    clip(name)
    facts_of = truth(name)
    gate = MotionGate(full_scan_s=1e9)
    moving, caught, false = [], [], []
    for number, frame in enumerate(clip_frames(name, 5)):
        opened = gate.step(small(frame.bgr), frame.ts_ms).moving
        second = frame.ts_ms / 1000
        if number == 0:
            continue
        moving.append(opened)
        if any(v["from"] + margin_s <= second <= v["to"] - margin_s for v in facts_of["visible"]):
            caught.append(opened)
        if any(start <= second <= end for start, end in facts_of["empty"]):
            false.append(opened)
    return float(np.mean(moving)), float(np.mean(caught)), float(np.mean(false))


def small(bgr: Image) -> Any:
    return cv2.resize(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize(
    ("name", "share_below", "caught_above", "false_below"),
    [("carpark_cars.mp4", 0.60, 0.97, 0.20), ("carpark_mixed.mp4", 0.60, 0.90, 0.10)],
)
def test_gate_figures(name: str, share_below: float, caught_above: float, false_below: float) -> None:
    share, caught, false = gate_figures(name)
    assert share < share_below
    assert caught >= caught_above
    assert false < false_below


@pytest.mark.parametrize("name", ["street_oncoming.mp4", "carpark_cars.mp4", "desk_visits.mp4"])
def test_good_cameras_are_believed_throughout(name: str) -> None:
    """Leaves, auto-exposure and people close to the lens are no reason for distrust."""
    pipeline = CameraPipeline(
        camera(analyse_fps=2, zone=[{"id": "z", "polygon": [[0.2, 0.3], [0.9, 0.3], [0.9, 0.9], [0.2, 0.9]]}])
    )
    codes = {f.values["code"] for frame in clip_frames(name, 2) for f in pipeline.step(frame) if f.kind == "cam.state"}
    assert codes == {"ok"}
