"""Words for what the pipeline has seen, at a measured pace: an object about once a second, the rest on change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge.vision.config import CameraConfig
from edge.vision.frame import GROUPS
from edge.vision.health import CamState
from edge.vision.tracker import Track
from edge.vision.zones import Crossing, Footprint, Zone
from protocols.core.model import Fact, Quality

_OBJECT_MS = 1000
_EMPTY_MS = 10_000
_STATE_MS = 30_000
_EARLY_MS = 100  # streams tremble: a second less a bit is a second
_STATIC_S = 3.0


class FactWriter:
    """Knows when what was last said; decides nothing."""

    def __init__(self, config: CameraConfig) -> None:
        self._config = config
        self._state: CamState | None = None
        self._state_ms = 0
        self._said: dict[tuple[str, int], int] = {}
        self._empty_ms: dict[str, int] = {}

    def forget(self) -> None:
        """Nothing that was said about zones holds any more."""
        self._said.clear()
        self._empty_ms.clear()

    def periodic_state(self, state: CamState, ts_ms: int) -> list[Fact]:
        """``cam.state`` on change and every half minute."""
        changed = self._state is None or self._state.code != state.code
        if not changed and ts_ms - self._state_ms < _STATE_MS - _EARLY_MS:
            return []
        return self.state(state, ts_ms)

    def state(self, state: CamState, ts_ms: int) -> list[Fact]:
        self._state, self._state_ms = state, ts_ms
        values = {"code": state.code, "detail": state.detail}
        return [Fact(device=self._config.id, kind="cam.state", ts_ms=ts_ms, values=values)]

    def crossings(self, crossings: Sequence[Crossing]) -> list[Fact]:
        return [
            Fact(
                device=self._config.id,
                kind="line.crossed",
                ts_ms=crossing.ts_ms,
                zone=crossing.line,
                subject=str(crossing.track.id),
                values={
                    "cls": GROUPS[crossing.track.group],
                    "direction": crossing.direction,
                    "conf": round(crossing.track.score, 2),
                },
            )
            for crossing in crossings
        ]

    def zone(
        self,
        zone: Zone,
        present: Sequence[Track],
        ground: Mapping[int, tuple[Footprint | None, float]],
        ts_ms: int,
        size: tuple[int, int],
    ) -> list[Fact]:
        """Facts about one zone at one frame."""
        name = zone.config.id
        if not present:
            for key in [key for key in self._said if key[0] == name]:
                del self._said[key]
            last = self._empty_ms.get(name)
            if last is not None and ts_ms - last < _EMPTY_MS - _EARLY_MS:
                return []
            self._empty_ms[name] = ts_ms
            return [Fact(device=self._config.id, kind="zone.empty", ts_ms=ts_ms, zone=name)]
        self._empty_ms.pop(name, None)
        here = {track.id for track in present}
        for key in [key for key in self._said if key[0] == name and key[1] not in here]:
            del self._said[key]
        facts: list[Fact] = []
        for track in present:
            key = (name, track.id)
            if key in self._said and ts_ms - self._said[key] < _OBJECT_MS - _EARLY_MS:
                continue
            self._said[key] = ts_ms
            facts.append(self._object(zone, track, ground, ts_ms, size))
        return facts

    def _object(
        self,
        zone: Zone,
        track: Track,
        ground: Mapping[int, tuple[Footprint | None, float]],
        ts_ms: int,
        size: tuple[int, int],
    ) -> Fact:
        entered_ms = zone.presence[track.id].entered_ms
        # Time in the zone, not in view: a car that stood before the zone has not blocked it.
        static_s = max(0.0, min(track.still_s(), (ts_ms - entered_ms) / 1000))
        x1, y1, x2, y2 = (float(v) for v in track.box)
        width, height = size
        box = (x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height)
        values: dict[str, float | int | str | bool] = {
            "cls": GROUPS[track.group],
            "static": static_s >= _STATIC_S,
            "static_s": round(static_s, 1),
            "dwell_s": round((ts_ms - entered_ms) / 1000, 1),
            "conf": round(track.score, 2),
            "box": ",".join(f"{v:.3f}" for v in box),
        }
        footprint, outline_px = ground[track.id]
        area_m2 = zone.area_m2(track, outline_px)
        if area_m2 is not None:
            values["area_m2"] = round(area_m2, 2)
        if footprint is not None:
            beside = [f for number, (f, _) in ground.items() if number != track.id and f is not None]
            clear_m = zone.clear_width_m(footprint, beside)
            if clear_m is not None:
                values["clear_width_m"] = round(clear_m, 2)
        return Fact(
            device=self._config.id,
            kind="zone.object",
            ts_ms=ts_ms,
            zone=zone.config.id,
            subject=str(track.id),
            values=values,
            quality=Quality.GOOD,
        )
