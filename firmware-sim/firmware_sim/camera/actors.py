"""Things that come into the lane: where they are at a given second, and how they look from the camera.

Boxes in metres, drawn with the faces that the camera sees. Nothing here is traced from a photograph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from firmware_sim.camera.geometry import LANE_WIDTH_M, Pinhole
from firmware_sim.camera.model import Actor

Image = NDArray[np.uint8]
Float64s = NDArray[np.float64]

#: width, length, height (m) and driving speed (m/s)
SIZES_M = {
    "car": (1.8, 4.5, 1.45, 4.0),
    "van": (2.0, 5.2, 2.3, 4.0),
    "truck": (2.4, 7.5, 3.1, 3.0),
    "bicycle": (0.6, 1.8, 1.7, 3.0),
    "person": (0.5, 0.4, 1.7, 1.3),
    "pile": (1.7, 1.2, 1.0, 0.0),
}
_FAR_M, _GONE_M = 42.0, 2.5
_COLOURS = {"car": (52, 44, 158), "van": (206, 208, 204), "truck": (168, 112, 44), "pile": (74, 118, 158)}
_TURN_S = 2.0


@dataclass(frozen=True, slots=True)
class Pose:
    """Where an actor is: middle of its footprint (m), how far it is turned out of the lane's axis (rad)."""

    x_m: float
    y_m: float
    yaw: float = 0.0
    walking: bool = True


def parked(actor: Actor) -> tuple[float, float, float]:
    """(x, y, yaw) so that the widest free strip is ``clear_width_m``: it stands crosswise as far as that takes."""
    width, length, _, _ = SIZES_M[actor.kind]
    clear = min(actor.clear_width_m, LANE_WIDTH_M - width)
    yaw, extent = 0.0, width
    if actor.kind in ("car", "van", "truck"):
        wanted = LANE_WIDTH_M - 2 * clear  # below this the strip on its other side would be the wider one
        for degrees in range(0, 91):
            yaw = math.radians(degrees)
            extent = width * math.cos(yaw) + length * math.sin(yaw)
            if extent >= wanted:
                break
    depth = length * math.cos(yaw) + width * math.sin(yaw)
    return LANE_WIDTH_M - clear - extent / 2, actor.at_m + depth / 2, yaw


def pose(actor: Actor, t_s: float) -> Pose | None:
    """Where the actor is at ``t_s``; None when it is out of view."""
    since = actor.local_s(t_s)
    if since < 0:
        return None
    x, y, yaw = parked(actor)
    speed = SIZES_M[actor.kind][3]
    if actor.kind == "pile":
        return Pose(x, y, walking=False) if actor.stop_s == 0 or since < actor.stop_s else None
    if actor.kind == "person":  # crosses from the pavement to the lawn, stands in the middle
        x_of = -2.6 + since * speed
        middle = LANE_WIDTH_M / 2
        arrive = (middle + 2.6) / speed
        if actor.stop_s and since > arrive:
            x_of = middle + max(0.0, since - arrive - actor.stop_s) * speed
        if x_of > LANE_WIDTH_M + 3.5:
            return None
        return Pose(x_of, actor.at_m, walking=x_of != middle)
    arrive = (_FAR_M - y) / speed
    if since < arrive or actor.stop_s == 0:
        turned = yaw * min(1.0, max(0.0, 1 - (arrive - since) / _TURN_S)) if actor.stop_s else 0.0
        y_now = _FAR_M - since * speed
        return Pose(x, y_now, turned) if y_now > _GONE_M else None
    if since < arrive + actor.stop_s:
        return Pose(x, y, yaw, walking=False)
    leaving = since - arrive - actor.stop_s
    y_now = y - leaving * speed
    return Pose(x, y_now, yaw * max(0.0, 1 - leaving / _TURN_S)) if y_now > _GONE_M else None


def _box(pose_: Pose, size: tuple[float, float], low: float, high: float, inset: float = 0.0) -> Float64s:
    """Eight corners of a box on the pose: four low, four high (``inset`` shortens the top: a cabin's slope)."""
    cos, sin = math.cos(pose_.yaw), math.sin(pose_.yaw)
    corners = []
    for level, shrink in ((low, 0.0), (high, inset)):
        half_w, half_l = size[0] / 2 - shrink * 0.3, size[1] / 2 - shrink
        for across, along in ((-half_w, -half_l), (half_w, -half_l), (half_w, half_l), (-half_w, half_l)):
            corners.append((pose_.x_m + across * cos - along * sin, pose_.y_m + across * sin + along * cos, level))
    return np.array(corners)


_FACES = (((3, 2, 6, 7), 0.62), ((1, 2, 6, 5), 0.74), ((0, 3, 7, 4), 0.80), ((0, 1, 5, 4), 0.88), ((4, 5, 6, 7), 1.0))


def _draw_box(picture: Image, camera: Pinhole, corners: Float64s, colour: tuple[int, ...]) -> None:
    pixels = np.round(camera.project(corners) * 16).astype(np.int32)
    for face, light in _FACES:  # back to front: far end, sides, near end, roof
        tone = tuple(int(channel * light) for channel in colour)
        cv2.fillConvexPoly(picture, pixels[list(face)], tone, cv2.LINE_AA, 4)


def _contact_shadow(picture: Image, camera: Pinhole, pose_: Pose, width: float, length: float) -> None:
    corners = _box(pose_, (width + 0.12, length + 0.12), 0.0, 0.01)[:4]
    pixels = camera.project(corners)
    left, top = (int(v) for v in np.maximum(np.floor(pixels.min(axis=0)) - 4, 0))
    right, bottom = (int(v) for v in np.ceil(pixels.max(axis=0)) + 4)
    part = picture[top:bottom, left:right]
    if not part.size:
        return
    shade = np.zeros(part.shape[:2], np.uint8)
    cv2.fillConvexPoly(shade, np.round((pixels - (left, top)) * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(shade, (7, 7), 0)[:, :, None].astype(np.float32) / 255
    part[:] = (part * (1 - 0.6 * soft)).astype(np.uint8)


def _vehicle(picture: Image, camera: Pinhole, kind: str, at: Pose) -> None:
    width, length, height, _ = SIZES_M[kind]
    colour = _COLOURS[kind]
    _contact_shadow(picture, camera, at, width, length)
    _draw_box(picture, camera, _box(at, (width, length), 0.12, 0.3), (40, 40, 40))
    if kind == "car":
        _draw_box(picture, camera, _box(at, (width, length), 0.25, 0.85), colour)
        cabin = Pose(at.x_m, at.y_m + 0.2, at.yaw)
        _draw_box(picture, camera, _box(cabin, (width - 0.2, length * 0.6), 0.85, height, inset=0.5), (72, 58, 48))
        _draw_box(picture, camera, _box(cabin, (width - 0.55, length * 0.36), height - 0.03, height), colour)
    elif kind == "van":
        _draw_box(picture, camera, _box(at, (width, length), 0.3, height), colour)
    else:
        _draw_box(picture, camera, _box(at, (width, length), 0.9, height), colour)
        _draw_box(picture, camera, _box(at, (width, length), 0.3, 0.9), (70, 70, 74))
    # Face towards the camera: windscreen, lamps and a number plate without a number, in the face's own plane.
    cos, sin = math.cos(at.yaw), math.sin(at.yaw)

    def on_front(across: float, level: float) -> tuple[float, float, float]:
        along = -length / 2
        return (at.x_m + across * cos - along * sin, at.y_m + across * sin + along * cos, level)

    def patch(left: float, right: float, low: float, high: float, tone: tuple[int, int, int]) -> None:
        points = np.array([on_front(left, low), on_front(right, low), on_front(right, high), on_front(left, high)])
        cv2.fillConvexPoly(picture, np.round(camera.project(points) * 16).astype(np.int32), tone, cv2.LINE_AA, 4)

    if kind != "car":
        patch(-width * 0.42, width * 0.42, height * 0.55, height * 0.85, (88, 70, 56))
    patch(-width * 0.46, -width * 0.30, 0.55, 0.72, (220, 236, 240))
    patch(width * 0.30, width * 0.46, 0.55, 0.72, (220, 236, 240))
    patch(-0.22, 0.22, 0.36, 0.50, (150, 70, 20))
    for bar in np.linspace(-0.18, 0.16, 7):
        patch(bar, bar + 0.03, 0.39, 0.47, (240, 240, 240))


def _upright(picture: Image, camera: Pinhole, at: Pose, t_s: float, colour: tuple[int, int, int]) -> None:
    """A standing figure, drawn flat towards the camera."""
    foot, head = camera.project(np.array([(at.x_m, at.y_m, 0.0), (at.x_m, at.y_m, 1.7)]))
    unit = float(foot[1] - head[1]) / 1.7  # pixels a metre
    swing = 0.22 * math.sin(t_s * 7) if at.walking else 0.1
    x, y = float(foot[0]), float(foot[1])

    def point(across: float, up: float) -> tuple[int, int]:
        return (round(x + across * unit), round(y - up * unit))

    thick = max(2, round(0.16 * unit))
    for side in (-1, 1):
        cv2.line(picture, point(0, 0.85), point(side * swing, 0.0), (58, 46, 40), thick, cv2.LINE_AA)
        cv2.line(
            picture,
            point(side * 0.18, 1.35),
            point(side * (0.22 + swing / 2), 0.85),
            colour,
            max(2, thick // 2),
            cv2.LINE_AA,
        )
    cv2.ellipse(
        picture,
        (point(0, 1.12), (max(2, round(0.42 * unit)), max(3, round(0.66 * unit))), 0.0),
        colour,
        -1,
        cv2.LINE_AA,
    )
    cv2.circle(picture, point(0, 1.57), max(2, round(0.13 * unit)), (118, 148, 196), -1, cv2.LINE_AA)


def _bicycle(picture: Image, camera: Pinhole, at: Pose, t_s: float) -> None:
    for along in (-0.55, 0.55):
        hub = camera.project(np.array([(at.x_m, at.y_m + along, 0.34), (at.x_m, at.y_m + along, 0.0)]))
        radius = max(2, round(float(hub[1, 1] - hub[0, 1])))
        centre = (round(float(hub[0, 0])), round(float(hub[0, 1])))
        cv2.ellipse(picture, centre, (max(2, radius // 3), radius), 0, 0, 360, (30, 30, 30), 2, cv2.LINE_AA)
    _upright(picture, camera, at, t_s, (150, 120, 40))


def _pile(picture: Image, camera: Pinhole, at: Pose) -> None:
    """Cartons and sacks left in the lane."""
    _contact_shadow(picture, camera, at, 1.7, 1.2)
    cartons = (
        (-0.45, 0.25, 0.75, 0.6, 0.0, 0.62, (92, 140, 182)),
        (0.42, 0.1, 0.8, 0.7, 0.0, 0.5, (70, 112, 150)),
        (-0.3, -0.3, 1.0, 0.5, 0.0, 0.4, (64, 92, 118)),
        (0.0, 0.2, 0.6, 0.5, 0.55, 1.0, (104, 150, 190)),
    )
    for across, along, width, depth, low, high, colour in cartons:
        _draw_box(picture, camera, _box(Pose(at.x_m + across, at.y_m + along), (width, depth), low, high), colour)


def draw(picture: Image, camera: Pinhole, actor: Actor, at: Pose, t_s: float) -> None:
    """Draw one actor into the picture, in place."""
    if actor.kind in ("car", "van", "truck"):
        _vehicle(picture, camera, actor.kind, at)
    elif actor.kind == "person":
        _upright(picture, camera, at, t_s, (120, 60, 50))
    elif actor.kind == "bicycle":
        _bicycle(picture, camera, at, t_s)
    else:
        _pile(picture, camera, at)
