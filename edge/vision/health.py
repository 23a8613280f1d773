"""Can this camera be believed? Dark, frozen, covered, moved, or a picture too poor to judge.

While the answer is not ``ok`` the pipeline states nothing about zones: a camera that sees nothing must not report an
empty lane. A cause must hold for a few seconds before it is stated, and be gone for a few before the camera is
believed again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from edge.vision.background import Residual
from edge.vision.frame import Float32s, Grey

Code = Literal["ok", "blocked", "moved", "dark", "frozen", "low_conf", "ended", "lost"]

_DARK = 14.0  # mean grey level: nothing can be told apart
_HOLD_MS = 2500
_RECOVER_MS = 3000
_FROZEN_MS = 5000
_FROZEN_FRAMES = 5
_LOOK_MS = 1000  # alignment is checked about once a second
_LEARN_FRAMES = 5
_REFRESH_MS = 600_000
_MOVED_SHARE = 0.0125  # of the picture's width: 8 px of 640, 15 cm of a lane 12 m away
_TILES = (4, 6)  # rows, columns
_TILE_MATCH = 0.30  # correlation above which a tile still shows what it used to
_LIGHT_SHARE = 0.25  # of the zones in changed light
_SPECKS = 1.0  # new specks for each 1000 watched pixels
_VOTES_MS = 4000


@dataclass(frozen=True, slots=True)
class CamState:
    code: Code
    detail: str = ""


OK = CamState("ok")


class CameraHealth:
    """``step`` once an analysed frame with the small grey picture (about 320 wide) and what the background found."""

    def __init__(self) -> None:
        self.state = OK
        self._candidate = OK
        self._since_ms = 0
        self._last: Grey | None = None
        self._still_ms: int | None = None
        self._still_frames = 0
        self._usual = 1.0
        self._learnt: list[Float32s] = []
        self._reference: Float32s | None = None
        self._energy: Float32s | None = None
        self._looked_ms: int | None = None
        self._refreshed_ms = 0
        self._view = OK
        self._votes: deque[tuple[int, bool, bool]] = deque()

    def accept_view(self) -> None:
        """The installer has turned the camera on purpose: learn the view afresh."""
        self._reference, self._energy, self._view = None, None, OK
        self._learnt.clear()

    def step(self, grey: Grey, ts_ms: int, residual: Residual | None) -> CamState:
        found = self._judge(grey, ts_ms, residual)
        if found.code == self.state.code:
            self._candidate, self._since_ms = found, ts_ms
            self.state = found if found.code != "ok" else OK
            return self.state
        if found.code != self._candidate.code:
            self._candidate, self._since_ms = found, ts_ms
        hold_ms = _RECOVER_MS if found.code == "ok" else (0 if found.code in ("frozen", "low_conf") else _HOLD_MS)
        if ts_ms - self._since_ms >= hold_ms:
            self.state = found
        return self.state

    @property
    def doubtful(self) -> bool:
        """Something looks wrong, though not for long enough to be stated: better say nothing about zones."""
        return self._candidate.code != "ok" or self.state.code != "ok"

    def _judge(self, grey: Grey, ts_ms: int, residual: Residual | None) -> CamState:
        frozen = self._frozen(grey, ts_ms)
        mean = float(grey.mean())
        if mean < _DARK:
            return CamState("dark", f"mean grey level {mean:.0f}")
        if frozen:
            return frozen
        low = self._low(residual, ts_ms)
        view = self._aligned(grey, ts_ms, believe=low is None)
        if view.code != "ok":
            return view
        return low or OK

    def _frozen(self, grey: Grey, ts_ms: int) -> CamState | None:
        """The same picture again and again. Compared with how much this camera's pictures usually differ: a quiet
        scene through a strong codec hardly changes, but its noise and its clock do."""
        before, self._last = self._last, grey
        if before is None:
            return None
        change = float(cv2.mean(cv2.absdiff(grey, before))[0])
        if change > max(0.01, 0.1 * min(self._usual, 2.0)):
            self._usual += 0.05 * (change - self._usual)
            self._still_ms, self._still_frames = None, 0
            return None
        if self._still_ms is None:
            self._still_ms = ts_ms
        self._still_frames += 1
        still_s = (ts_ms - self._still_ms) / 1000
        if self._still_frames >= _FROZEN_FRAMES and still_s * 1000 >= _FROZEN_MS:
            return CamState("frozen", f"same picture for {still_s:.0f} s")
        return None

    def _low(self, residual: Residual | None, ts_ms: int) -> CamState | None:
        """Hard shadows or rain over the zones: most of the last seconds' frames must agree."""
        if residual is None or not residual.ready:
            return None
        self._votes.append((ts_ms, residual.light_share > _LIGHT_SHARE, residual.specks > _SPECKS))
        while self._votes[0][0] < ts_ms - _VOTES_MS and len(self._votes) > 3:
            self._votes.popleft()
        needed = max(3, round(0.6 * len(self._votes)))
        if sum(rain for _, _, rain in self._votes) >= needed:
            return CamState("low_conf", "rain, snow or insects before the lens")
        if sum(light for _, light, _ in self._votes) >= needed:
            return CamState("low_conf", f"light has changed on {residual.light_share:.0%} of the zone")
        return None

    def _aligned(self, grey: Grey, ts_ms: int, *, believe: bool) -> CamState:
        """Does the view lie where it did when it was learnt, and is it still there at all?"""
        if self._looked_ms is not None and ts_ms - self._looked_ms < _LOOK_MS and self._reference is not None:
            return self._view
        self._looked_ms = ts_ms
        structure, energy = _structure(grey)
        if self._reference is None or self._energy is None:
            if believe:
                self._learnt.append(structure)
                self._energy = energy
            if len(self._learnt) >= _LEARN_FRAMES:
                self._reference = np.median(np.stack(self._learnt), axis=0).astype(np.float32)
                self._learnt.clear()
                self._refreshed_ms = ts_ms
            return OK
        self._view = self._compare(structure, energy)
        if self._view.code == "ok" and believe and ts_ms - self._refreshed_ms >= _REFRESH_MS:
            self._refreshed_ms = ts_ms  # seasons and lamps: follow the look of the view, not its place
            self._reference = (0.8 * self._reference + 0.2 * structure).astype(np.float32)
            self._energy = (0.8 * self._energy + 0.2 * energy).astype(np.float32)
        return self._view

    def _compare(self, structure: Float32s, energy: Float32s) -> CamState:
        reference, usual = self._reference, self._energy
        assert reference is not None and usual is not None  # noqa: S101 - the caller has just looked
        textured = usual > 2.0
        if np.count_nonzero(textured) < 4:
            return OK  # a blank wall: neither move nor cover can be told
        matched = _tile_match(structure, reference)[textured] > _TILE_MATCH
        if matched.mean() >= 0.5:
            return OK
        height, width = structure.shape
        window = cv2.createHanningWindow((width, height), cv2.CV_32F)
        # Copies: at sizes that suit its transform OpenCV applies the window to the caller's own array.
        (dx, dy), _ = cv2.phaseCorrelate(reference.copy(), structure.copy(), window)
        away = float(np.hypot(dx, dy))
        if _MOVED_SHARE * width <= away <= 0.4 * width:
            back = np.array([[1, 0, -dx], [0, 1, -dy]], np.float32)
            shifted = cv2.warpAffine(structure, back, (width, height))
            again = _tile_match(shifted, reference)[textured] > _TILE_MATCH
            if again.mean() >= max(0.3, 1.5 * matched.mean()):
                return CamState("moved", f"by {away / width:.1%} of the picture's width")
        left = float((energy[textured] > 0.4 * usual[textured]).mean())
        if left < 0.5:
            return CamState("blocked", f"{1 - left:.0%} of the view has lost its detail")
        return OK if matched.mean() >= 0.25 else CamState("moved", "the view is another one")


def _structure(grey: Grey) -> tuple[Float32s, Float32s]:
    """The picture without its light: detail at its local strength, and how much detail each tile has."""
    plain = grey.astype(np.float32)
    detail = cv2.GaussianBlur(plain, (0, 0), 1.2) - cv2.GaussianBlur(plain, (0, 0), 6)
    strength = cv2.blur(detail * detail, (25, 25))
    energy = np.sqrt(_tiles(detail * detail))
    out: Float32s = detail / np.sqrt(strength + 4.0)
    return out, energy


def _tiles(plane: Float32s) -> Float32s:
    """Mean of each tile: (rows * columns,)."""
    out: Float32s = cv2.resize(plane, (_TILES[1], _TILES[0]), interpolation=cv2.INTER_AREA).ravel()
    return out


def _tile_match(first: Float32s, second: Float32s) -> Float32s:
    out: Float32s = _tiles(first * second) / np.sqrt(np.maximum(_tiles(first * first) * _tiles(second * second), 1e-6))
    return out
