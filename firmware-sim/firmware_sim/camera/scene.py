"""The drawn fire lane: ``render(t_s)`` is a pure function of the second, so a story plays alike every time.

A picture is the backdrop, trees that move in the wind, the actors from far to near, then what spoils it (shadow, rain,
a knock ...), sensor noise and the clock a camera prints into its corner.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from firmware_sim.camera import actors
from firmware_sim.camera.backdrop import backdrop
from firmware_sim.camera.geometry import HEIGHT_PX, LANE_WIDTH_M, WIDTH_PX, Ground, Pinhole, lane_ground
from firmware_sim.camera.model import CameraModel, Effect

Image = NDArray[np.uint8]

_NOISE_SIGMA = 2.0  # grey levels, a small sensor by day
_KNOCK_PX = (30.0, 16.0)  # where the view lies after a blow against the pole
_KNOCK_DEG = 2.5
_DUSK_LEFT = 0.38  # light that is left once the sun is down and the lamps are on
_SHADOW_LIGHT = 0.52


class LaneScene:
    """An estate's fire lane seen from an arch over it, 640x360."""

    def __init__(self, model: CameraModel) -> None:
        self.model = model
        self.camera = Pinhole()
        self._backdrop = backdrop(self.camera, model.seed)
        rng = np.random.default_rng((model.seed, 2))
        # One large noise picture read at a new offset each frame: fresh noise at a tenth of the cost.
        noise = np.round(rng.normal(0.0, _NOISE_SIGMA, (HEIGHT_PX + 64, WIDTH_PX + 64, 3)))
        self._noise_up, self._noise_down = noise.clip(0).astype(np.uint8), (-noise).clip(0).astype(np.uint8)
        self._leaves = [
            (
                rng.uniform(8.6, 12.5),
                y + rng.uniform(-1, 1),
                rng.uniform(2.4, 5.2),
                rng.uniform(0.5, 1.0),
                rng.uniform(0, 6),
            )
            for y in (12, 12, 12, 12, 19, 19, 19, 19, 27, 27, 27)
        ]

    def ground(self) -> Ground:
        """The geometry that an agent's configuration must state for this view."""
        return lane_ground(self.camera)

    def ended(self, t_s: float) -> bool:
        """The camera has been switched off (effect ``end``)."""
        return any(effect.kind == "end" and effect.active(t_s) for effect in self.model.effects)

    def render(self, t_s: float) -> Image:
        """The picture at second ``t_s``: BGR, 360 x 640, always the same for the same model and second."""
        for effect in self.model.effects:
            if effect.kind == "black" and effect.active(t_s):
                return np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
        for effect in self.model.effects:
            if effect.kind == "freeze" and effect.active(t_s):
                t_s -= effect.local_s(t_s)
                break
        rng = np.random.default_rng((self.model.seed, 3, max(0, round(t_s * 1000))))
        picture = self._backdrop.copy()
        self._trees(picture, t_s)
        shown = [(at, actor) for actor in self.model.actors if (at := actors.pose(actor, t_s)) is not None]
        for at, actor in sorted(shown, key=lambda pair: -pair[0].y_m):
            actors.draw(picture, self.camera, actor, at, t_s)
        light = 1.0
        for effect in self.model.effects:
            if effect.kind == "dusk" and effect.local_s(t_s) >= 0:
                done = min(1.0, effect.local_s(t_s) / effect.for_s) if effect.for_s else 1.0
                light = 1 - (1 - _DUSK_LEFT) * done
            elif not effect.active(t_s):
                continue
            elif effect.kind == "shadow":
                self._shadow(picture, effect, t_s)
            elif effect.kind == "rain":
                self._rain(picture, rng)
            elif effect.kind == "knock":
                picture = self._knock(picture, effect, t_s)
        dy, dx = int(rng.integers(0, 64)), int(rng.integers(0, 64))
        if light < 1:
            picture = cv2.convertScaleAbs(picture, alpha=light)
        here = np.s_[dy : dy + HEIGHT_PX, dx : dx + WIDTH_PX]
        out: Image = cv2.subtract(cv2.add(picture, self._noise_up[here]), self._noise_down[here])
        self._clock(out, t_s)
        return out

    def _trees(self, picture: Image, t_s: float) -> None:
        points: list[tuple[float, float, float]] = []
        for x, y, z, radius, phase in self._leaves:
            sway = 0.10 * math.sin(1.3 * t_s + phase) + 0.05 * math.sin(3.1 * t_s + 2 * phase)
            points += [(x, y, 0.0), (x + sway, y, z), (x + sway + radius, y, z)]
        pixels = self.camera.project(np.array(points, np.float64)).reshape(-1, 3, 2)
        for (foot, crown, rim), (*_, phase) in zip(pixels, self._leaves, strict=True):
            cv2.line(picture, _px(foot), _px(crown), (48, 66, 84), 4, cv2.LINE_AA)
            size = max(3, round(float(rim[0] - crown[0])))
            cv2.circle(picture, _px(crown), size, (44, 92 + int(8 * phase), 58), -1, cv2.LINE_AA)

    def _shadow(self, picture: Image, effect: Effect, t_s: float) -> None:
        """The hard shadow of a building at noon, wandering across the lane for the length of the effect."""
        done = effect.local_s(t_s) / effect.for_s
        left = -7.0 + 9.0 * min(1.0, done * 2)  # in over the first half, then it lies still
        corners = np.array(
            [(left, 6.0, 0), (left + 4.2, 6.0, 0), (left + 5.2, 26.0, 0), (left + 0.6, 26.0, 0)], np.float64
        )
        shade = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
        cv2.fillConvexPoly(shade, np.round(self.camera.project(corners) * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
        soft = cv2.GaussianBlur(shade, (5, 5), 0)[:, :, None].astype(np.float32) / 255
        picture[:] = (picture * (1 - (1 - _SHADOW_LIGHT) * soft)).astype(np.uint8)

    def _rain(self, picture: Image, rng: np.random.Generator) -> None:
        """Streaks in the air, a grey veil and splinters of reflected light on the wet lane."""
        picture[:] = cv2.addWeighted(picture, 0.82, np.full_like(picture, 150), 0.18, 0)
        spots = np.stack([rng.uniform(-0.3, LANE_WIDTH_M + 0.3, 90), rng.uniform(8.0, 26.0, 90), np.zeros(90)], axis=1)
        for (u, v), along in zip(self.camera.project(spots), spots[:, 1], strict=True):
            near = 12.0 / float(along)
            reach = (max(1, round(rng.uniform(2, 5) * near)), max(1, round(rng.uniform(2, 9) * near)))
            cv2.ellipse(picture, _px((u, v)), reach, 0, 0, 360, (225, 228, 230), -1, cv2.LINE_AA)
        for x, y, length in zip(
            rng.integers(0, WIDTH_PX, 260), rng.integers(0, HEIGHT_PX, 260), rng.integers(8, 26, 260), strict=True
        ):
            cv2.line(picture, (int(x), int(y)), (int(x) + 3, int(y + length)), (205, 208, 210), 1, cv2.LINE_AA)

    def _knock(self, picture: Image, effect: Effect, t_s: float) -> Image:
        since = effect.local_s(t_s)
        swing = math.exp(-2.5 * since) * math.cos(9 * since)
        turn = cv2.getRotationMatrix2D((WIDTH_PX / 2, HEIGHT_PX / 2), _KNOCK_DEG * (1 - 0.6 * swing), 1.0)
        turn[:, 2] += (_KNOCK_PX[0] * (1 + 0.8 * swing), _KNOCK_PX[1] * (1 - 0.5 * swing))
        moved: Image = cv2.warpAffine(picture, turn, (WIDTH_PX, HEIGHT_PX), borderMode=cv2.BORDER_REFLECT)
        return moved

    def _clock(self, picture: Image, t_s: float) -> None:
        whole = int(t_s)
        text = f"{self.model.id} {whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
        picture[6:26, 6:184] //= 4
        cv2.putText(picture, text, (10, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (240, 240, 240), 1, cv2.LINE_AA)


def _px(point: tuple[float, float] | NDArray[np.float64]) -> tuple[int, int]:
    return (round(float(point[0])), round(float(point[1])))
