"""A camera's table: what is refused, and that checking it loads no image library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge.vision.config import CameraConfig, check_camera, zone_ground
from edge.vision.ground import GroundMap, homography, inside, widest_gap
from firmware_sim.camera.geometry import Pinhole, lane_ground
from protocols.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SQUARE = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]


def build(**table: Any) -> CameraConfig:
    return msgspec.convert({"id": "cam-1", "url": "rtsp://127.0.0.1/1", **table}, CameraConfig)


def test_the_drawn_lane_is_a_valid_configuration_and_measures_six_metres() -> None:
    config = build(zone=[lane_ground(Pinhole()).as_config()])
    check_camera(config, "edge.toml")
    ground = zone_ground(config.zone[0])
    assert ground is not None
    assert ground.width_m() == pytest.approx(6.0, abs=0.02)


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ({"analyse_fps": 0}, "analyse_fps"),
        ({"score": 1.0}, "score"),
        ({"full_scan_s": 0}, "full_scan_s"),
        ({"zone": [{"id": "z", "polygon": [[0, 0], [1, 1]]}]}, "three points"),
        ({"zone": [{"id": "z", "polygon": [[0, 0], [0.5, 0.5], [1, 1]]}]}, "no area"),
        ({"zone": [{"id": "z", "polygon": [[0, 0], [320, 0], [320, 200]]}]}, "fractions"),
        ({"zone": [{"id": "z", "polygon": SQUARE}, {"id": "z", "polygon": SQUARE}]}, "twice"),
        ({"zone": [{"id": "z", "polygon": SQUARE, "inertia": 0}]}, "inertia"),
        ({"zone": [{"id": "z", "polygon": SQUARE, "width_m": -1}]}, "width_m"),
        ({"line": [{"id": "l", "points": [[0.5, 0.5], [0.5, 0.5]]}]}, "the same"),
        ({"private": [[[0.1, 0.1], [0.2, 0.1]]]}, "private[0]"),
        ({"url": ""}, "id and url"),
    ],
)
def test_impossible_numbers_are_refused_with_camera_and_key(table: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_camera(build(**table), "edge.toml")
    assert word in str(caught.value)
    assert "edge.toml" in str(caught.value)


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="analyze_fps"):
        build(analyze_fps=5)


def test_ground_points_in_feet_contradict_the_stated_width() -> None:
    table = lane_ground(Pinhole()).as_config()
    table["ground"]["metres"] = [[x * 3.28, y * 3.28] for x, y in table["ground"]["metres"]]  # type: ignore[index]
    with pytest.raises(ConfigError, match=r"width_m says 6, polygon and ground points give 19\.7 m"):
        check_camera(build(zone=[table]), "edge.toml")


def test_three_ground_points_on_a_line_are_refused() -> None:
    table = lane_ground(Pinhole()).as_config()
    table["ground"]["image"] = [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3], [0.9, 0.1]]  # type: ignore[index]
    with pytest.raises(ConfigError, match="on one line"):
        check_camera(build(zone=[table]), "edge.toml")


def test_homography_takes_pixels_of_the_pinhole_back_to_metres() -> None:
    lens, ground = Pinhole(), lane_ground(Pinhole())
    there = GroundMap(ground.image, ground.metres, ground.polygon)
    places = np.array([(1.2, 9.0, 0.0), (4.7, 15.5, 0.0), (3.0, 21.0, 0.0)])
    back = there.to_metres(lens.project(places) / (640, 360))
    assert np.abs(back - places[:, :2]).max() < 0.03


def test_a_point_above_the_horizon_is_nowhere_on_the_ground() -> None:
    view = homography([(0.3, 0.5), (0.7, 0.5), (1.0, 1.0), (0.0, 1.0)], [(0, 20), (6, 20), (6, 5), (0, 5)])
    assert view.shape == (3, 3)
    there = GroundMap([(0.3, 0.5), (0.7, 0.5), (1.0, 1.0), (0.0, 1.0)], [(0, 20), (6, 20), (6, 5), (0, 5)], SQUARE)  # type: ignore[arg-type]
    assert np.isnan(there.to_metres(np.array([(0.5, 0.0)]))).all()
    assert not np.isnan(there.to_metres(np.array([(0.5, 0.6)]))).any()


@pytest.mark.parametrize(
    ("taken", "free"),
    [([], 6.0), ([(1.8, 3.6)], 2.4), ([(0, 2), (4, 6)], 2.0), ([(-1, 7)], 0.0), ([(2, 3), (2.5, 5)], 2.0)],
)
def test_widest_gap(taken: list[tuple[float, float]], free: float) -> None:
    assert widest_gap((0.0, 6.0), taken) == pytest.approx(free)


def test_point_in_polygon() -> None:
    shape = np.array([(0, 0), (10, 0), (10, 10), (5, 5), (0, 10)], float)
    assert inside(shape, 2, 3)
    assert not inside(shape, 5, 8)
    assert not inside(shape, 11, 3)


def test_reading_the_configuration_loads_no_image_library() -> None:
    code = (
        "import sys; import edge.vision, edge.vision.config, firmware_sim.camera.model;"
        "heavy = {'cv2', 'av', 'onnxruntime'} & set(sys.modules); sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'firmware-sim'}", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
