"""What one simulated camera shows and when: the ``[[camera]]`` table of a scene or story file.

Held apart from the drawing so that a scene file can be checked on a machine without OpenCV.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from protocols.core.errors import ConfigError

ACTOR_KINDS = ("car", "van", "truck", "person", "bicycle", "pile")
EFFECT_KINDS = ("shadow", "rain", "knock", "black", "freeze", "end", "dusk")
SCENES = ("fire_lane",)


@dataclass(frozen=True, slots=True)
class Actor:
    """One thing that comes into the lane, stands there and goes. ``stop_s`` 0 = passes through (a pile: for ever)."""

    kind: str
    enter_s: float = 0.0
    stop_s: float = 0.0
    clear_width_m: float = 2.4  # the widest free strip it leaves beside itself while it stands
    at_m: float = 12.0  # where along the lane it stands: distance of its near side from the camera's foot
    repeat_s: float = 0.0  # 0 = once; else it comes again every so often

    def local_s(self, t_s: float) -> float:
        """Seconds since it last entered; negative before the first time."""
        since = t_s - self.enter_s
        return since % self.repeat_s if self.repeat_s > 0 and since >= 0 else since


@dataclass(frozen=True, slots=True)
class Effect:
    """What spoils the picture for a while (``dusk``: falls during ``for_s`` and stays)."""

    kind: str
    at_s: float = 0.0
    for_s: float = 60.0
    repeat_s: float = 0.0

    def local_s(self, t_s: float) -> float:
        since = t_s - self.at_s
        return since % self.repeat_s if self.repeat_s > 0 and since >= 0 else since

    def active(self, t_s: float) -> bool:
        return 0 <= self.local_s(t_s) < self.for_s


@dataclass(frozen=True, slots=True)
class CameraModel:
    """One simulated camera. Immutable; :class:`~firmware_sim.camera.scene.LaneScene` draws it."""

    id: str
    bus: str = ""
    scene: str = "fire_lane"
    fps: float = 5.0
    seed: int = 0
    actors: tuple[Actor, ...] = ()
    effects: tuple[Effect, ...] = ()

    @classmethod
    def from_table(cls, table: Mapping[str, Any], *, seed: int = 0) -> CameraModel:
        """Read a ``[[camera]]`` table. Raises ConfigError naming the camera and the key."""
        name = str(table.get("id", ""))
        if not name:
            raise ConfigError("camera: id is missing")
        where = f"camera {name}"
        rest = {key: value for key, value in table.items() if key not in ("actor", "effect")}
        _refuse_unknown(where, rest, {"id", "bus", "scene", "fps", "seed"})
        scene = str(rest.get("scene", "fire_lane"))
        if scene not in SCENES:
            raise ConfigError(f"{where}: scene {scene!r} is not one of {', '.join(SCENES)}")
        fps = _number(where, "fps", rest.get("fps", 5.0))
        if not 0.1 <= fps <= 30:
            raise ConfigError(f"{where}: fps must be between 0.1 and 30, got {fps}")
        return cls(
            id=name,
            bus=str(rest.get("bus", "")),
            scene=scene,
            fps=fps,
            seed=int(rest.get("seed", seed)),
            actors=tuple(_entry(Actor, f"{where}.actor", item, ACTOR_KINDS) for item in table.get("actor", ())),
            effects=tuple(_entry(Effect, f"{where}.effect", item, EFFECT_KINDS) for item in table.get("effect", ())),
        )


EntryT = TypeVar("EntryT", Actor, Effect)


def _refuse_unknown(where: str, table: Mapping[str, Any], known: set[str]) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}")


def _number(where: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where}: {key} must be a number, got {value!r}")
    return float(value)


def _entry(cls: type[EntryT], where: str, item: Mapping[str, Any], kinds: tuple[str, ...]) -> EntryT:
    kind = item.get("kind")
    if kind not in kinds:
        raise ConfigError(f"{where}: kind {kind!r} is not one of {', '.join(kinds)}")
    _refuse_unknown(where, item, {field.name for field in fields(cls)})
    values = {key: _number(where, key, value) for key, value in item.items() if key != "kind"}
    for key, value in values.items():
        if value < 0:
            raise ConfigError(f"{where}: {key} must not be negative, got {value}")
    return cls(kind=kind, **values)
