"""The empty street: concrete lane with joints and markings, kerbs, grass, a block of flats, drawn once per seed.

The ground is painted flat in metres and then laid into the picture, so that its grain shrinks with distance as it does
on a real road. An analyser that asks "is this still the same surface?" needs that grain.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from firmware_sim.camera.geometry import HEIGHT_PX, LANE_WIDTH_M, WIDTH_PX, Pinhole

Image = NDArray[np.uint8]

_PX_PER_M = 36
_LEFT_M, _RIGHT_M, _NEAR_M, _FAR_M = -9.0, 15.0, 4.0, 48.0
_WALL_X_M = -3.2


def _ground_texture(rng: np.random.Generator) -> Image:
    width, height = int((_RIGHT_M - _LEFT_M) * _PX_PER_M), int((_FAR_M - _NEAR_M) * _PX_PER_M)
    picture = np.empty((height, width, 3), np.float32)

    def column(x_m: float) -> int:
        return int((x_m - _LEFT_M) * _PX_PER_M)

    picture[:] = (96, 104, 106)  # pavement slabs left of the kerb
    picture[:, column(0.0) :] = (118, 122, 124)  # concrete lane
    picture[:, column(LANE_WIDTH_M + 0.3) :] = (62, 104, 78)  # lawn
    grain = rng.normal(0.0, 1.0, (height // 4, width // 4)).astype(np.float32)
    blotch = rng.normal(0.0, 1.0, (height // 48, width // 48)).astype(np.float32)
    picture += 9.0 * cv2.resize(grain, (width, height), interpolation=cv2.INTER_LINEAR)[:, :, None]
    picture += 7.0 * cv2.resize(blotch, (width, height), interpolation=cv2.INTER_CUBIC)[:, :, None]
    for row in range(0, height, 4 * _PX_PER_M):  # expansion joints every 4 m, as concrete roads have
        picture[row : row + 3, column(0.0) : column(LANE_WIDTH_M)] -= 40
    picture[:, column(LANE_WIDTH_M / 2) - 1 : column(LANE_WIDTH_M / 2) + 2] -= 34
    for _ in range(26):  # cracks and repairs
        x, y = rng.uniform(0.3, LANE_WIDTH_M - 0.3), rng.uniform(_NEAR_M, _FAR_M)
        points = np.cumsum(rng.normal(0, 0.35, (7, 2)), axis=0) + np.array((x - _LEFT_M, y - _NEAR_M))
        cv2.polylines(picture, [(points * _PX_PER_M).astype(np.int32)], False, (74, 76, 78), 2)
    for row in range(0, height, _PX_PER_M):
        picture[row : row + 2, : column(-0.3)] -= 22
    for kerb in (-0.3, LANE_WIDTH_M):
        picture[:, column(kerb) : column(kerb + 0.3)] = (168, 172, 174)
    yellow = (62, 186, 214)
    for edge in (0.12, LANE_WIDTH_M - 0.27):
        picture[:, column(edge) : column(edge + 0.15)] = yellow
    flat = np.clip(picture, 0, 255).astype(np.uint8)
    for start in np.arange(6.0, _FAR_M - 4, 8.0):  # the crossed box that says: keep free
        near, far = (int((m - _NEAR_M) * _PX_PER_M) for m in (start, start + 4))
        left, right = column(0.6), column(LANE_WIDTH_M - 0.6)
        cv2.rectangle(flat, (left, near), (right, far), yellow, 4)
        cv2.line(flat, (left, near), (right, far), yellow, 4)
        cv2.line(flat, (left, far), (right, near), yellow, 4)
    return flat


def _quad(camera: Pinhole, corners: list[tuple[float, float, float]]) -> NDArray[np.int32]:
    return np.round(camera.project(np.array(corners, dtype=np.float64)) * 16).astype(np.int32)


def _fill(picture: Image, camera: Pinhole, corners: list[tuple[float, float, float]], colour: tuple[int, ...]) -> None:
    cv2.fillPoly(picture, [_quad(camera, corners)], colour, cv2.LINE_AA, 4)


def _facade(picture: Image, camera: Pinhole, rng: np.random.Generator) -> None:
    wall_y = (6.0, 46.0)
    x = _WALL_X_M
    _fill(
        picture, camera, [(x, wall_y[0], 0), (x, wall_y[1], 0), (x, wall_y[1], 12), (x, wall_y[0], 12)], (150, 168, 182)
    )
    for y in np.arange(8.0, 44.0, 3.2):
        for z in (1.2, 4.2, 7.2):
            tone = int(rng.integers(60, 110))
            window = [(x, y, z), (x, y + 1.6, z), (x, y + 1.6, z + 1.5), (x, y, z + 1.5)]
            _fill(picture, camera, window, (tone + 20, tone + 8, tone))
    end = 44.0
    _fill(picture, camera, [(x, end, 0), (16, end, 0), (16, end, 12), (x, end, 12)], (128, 142, 150))
    for across in np.arange(-2.0, 15.0, 3.0):
        for z in (1.5, 4.5, 7.5):
            window = [(across, end, z), (across + 1.4, end, z), (across + 1.4, end, z + 1.6), (across, end, z + 1.6)]
            _fill(picture, camera, window, (96, 88, 80))


def backdrop(camera: Pinhole, seed: int) -> Image:
    """The street without anybody in it, BGR."""
    rng = np.random.default_rng((seed, 1))
    flat = _ground_texture(rng)
    height, width = flat.shape[:2]
    texture = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    metres = [(_LEFT_M, _NEAR_M, 0), (_RIGHT_M, _NEAR_M, 0), (_RIGHT_M, _FAR_M, 0), (_LEFT_M, _FAR_M, 0)]
    pixels = camera.project(np.array(metres, np.float64)).astype(np.float32)
    lay = cv2.getPerspectiveTransform(texture, pixels)
    picture: Image = cv2.warpPerspective(
        flat, lay, (WIDTH_PX, HEIGHT_PX), flags=cv2.INTER_AREA, borderValue=(120, 120, 120)
    )
    _facade(picture, camera, rng)
    return picture
