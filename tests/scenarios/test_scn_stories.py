"""The packs' stories, played to the engine alone: signals in, verdicts out.

Protocols, links and cases are played elsewhere, end to end. This says in a second whether a story's signals and the
pack's rules agree: what the rules owe comes and clears, and nothing that must not come does.
"""

from __future__ import annotations

from fnmatch import fnmatch
from importlib import resources
from pathlib import Path

import pytest

from firmware_sim.scene import Scene, load_scene
from firmware_sim.signals import Signal
from protocols import devices as device_types
from protocols.core.model import Event, Quality
from protocols.vocabulary import event_types
from scenarios.packs import bind, load, pack_ids, roles_for
from tests.scenarios.world import Sample, World

#: Told by connectors and the core, not by rules on readings.
NOT_OURS = ("wf.*", "dev.*", "data.rejected")
PACKS = Path(str(resources.files("scenarios.packs")))
STORIES = sorted(PACKS.glob("*/*/stories/*.toml"))


def name_of(path: Path) -> tuple[str, str]:
    return "/".join(path.parts[-4:-2]), path.stem


def ids(path: Path) -> str:
    return "/".join(name_of(path))


def test_every_pack_has_its_three_stories() -> None:
    assert {name_of(path) for path in STORIES} == {
        (pack, story) for pack in pack_ids() for story in ("normal", "abnormal", "bad_input")
    }


@pytest.mark.parametrize("path", STORIES, ids=ids)
def test_story_names_what_exists(path: Path) -> None:
    scene = load_scene(path)
    pack = load(name_of(path)[0])
    assert scene.id == path.stem and scene.zh and scene.en
    assert scene.start is not None and scene.duration_s is not None and scene.expect is not None
    assert set(scene.expect.events) <= set(event_types())
    for pattern in scene.expect.none_of:
        assert any(fnmatch(event, pattern) for event in event_types())
        assert not any(fnmatch(event, pattern) for event in scene.expect.events)
    if path.stem == "normal":
        assert scene.expect.none_of == ("*",)
    if path.stem == "abnormal":
        assert scene.expect.case is not None
        assert (scene.expect.case.type, scene.expect.case.department) == (pack.case.type, pack.case.department)
        assert set(scene.expect.events) & {rule.event for rule in pack.rule}
    types = {device.id: device.type for device in scene.device}
    types.update({str(table["id"]): "camera" for table in scene.camera})
    bind(pack, roles_for(pack, types))  # its devices fill the pack's roles


def played(scene: Scene, pack_id: str, step_s: int) -> list[Event]:
    """Every signal sampled at equal steps, as its device type shows it on the wire."""
    pack = load(pack_id)
    world = World(pack, roles_for(pack, {device.id: device.type for device in scene.device}))
    columns: list[tuple[str, str, int, Signal, list[tuple[float, float]]]] = []
    for device in scene.device:
        for point in device_types.load(device.type).points:
            if point.name not in device.signals:
                continue
            signal = Signal(device.signals[point.name], f"{device.id}/{point.name}", scene.seed)
            marks = [(m.at_s, m.at_s + (m.for_s or 1e9)) for m in device.mark if m.point == point.name]
            columns.append((device.id, point.name, point.decimals, signal, marks))
    assert scene.start_ms is not None and scene.duration_s is not None
    events: list[Event] = []
    for second in range(0, int(scene.duration_s) + 1, step_s):
        rows: list[Sample] = []
        for device_id, name, decimals, signal, marks in columns:
            marked = any(begin <= second < end for begin, end in marks)
            quality = Quality.CALIBRATING if marked else Quality.GOOD
            value = round(signal.value(float(second)), decimals)
            rows.append((device_id, name, scene.start_ms + second * 1000, value, int(quality)))
        events += world.feed(rows)
        events += world.engine.tick(scene.start_ms + second * 1000)
    return events


@pytest.mark.parametrize("step_s", [10, 60])
@pytest.mark.parametrize("path", [path for path in STORIES if "fire_lane" not in path.parts], ids=ids)
def test_story_on_the_engine(path: Path, step_s: int) -> None:
    scene = load_scene(path)
    assert scene.expect is not None
    events = played(scene, name_of(path)[0], step_s)
    raised = {event.type for event in events if event.state == "raise"}
    owed = {kind for kind in scene.expect.events if not any(fnmatch(kind, other) for other in NOT_OURS)}
    assert owed <= raised
    unwanted = [
        (event.type, event.ts_ms - (scene.start_ms or 0), dict(event.values))
        for event in events
        if event.level != "info" and any(fnmatch(event.type, pattern) for pattern in scene.expect.none_of)
    ]
    assert unwanted == []
    open_now: dict[str, str] = {}
    for event in events:
        if event.state == "clear":
            open_now.pop(event.key)
        elif event.state == "raise":
            assert event.key not in open_now
            open_now[event.key] = event.type
    assert not set(scene.expect.cleared) & set(open_now.values()), open_now
    if scene.expect.case is not None:
        worst = {event.level for event in events if event.state in ("raise", "update")}
        assert scene.expect.case.level in worst
