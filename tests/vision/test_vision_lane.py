"""The drawn fire lane, played in virtual time: what stands there, how much it leaves free, and when to say nothing.

The geometry comes from the drawing, so widths have exact answers; the stories are those of the scenario
``community/fire_lane``.
"""

from __future__ import annotations

import numpy as np
import pytest

from edge.vision.background import BackgroundModel
from edge.vision.frame import Frame
from edge.vision.gate import HEIGHT_PX, WIDTH_PX, MotionGate
from edge.vision.pipeline import CameraPipeline
from firmware_sim.camera.model import CameraModel
from firmware_sim.camera.scene import LaneScene
from tests.vision.support import START_MS, Play


def test_a_car_stands_twelve_minutes_and_leaves_two_point_four_metres() -> None:
    play = Play(1, actor=[{"kind": "car", "enter_s": 20, "stop_s": 720, "clear_width_m": 2.4}]).run(790)
    static = [f for f in play.of("zone.object") if f.values["static"]]
    assert {f.values["cls"] for f in static} == {"vehicle"}
    assert len({f.subject for f in static}) == 1
    assert float(static[-1].values["static_s"]) == pytest.approx(720, abs=8)
    widths = [float(f.values["clear_width_m"]) for f in static]
    assert 2.1 <= min(widths) <= max(widths) <= 2.7
    assert 3.0 < float(np.median([float(f.values["area_m2"]) for f in static])) < 6.0
    gaps = np.diff([f.ts_ms for f in static])
    assert gaps.max() <= 2000  # about one fact a second
    # It comes into view at 20 s, stops at 27 s; empty before, empty once it has gone, never in between.
    assert all(play.second(f) < 30 or play.second(f) > 745 for f in play.of("zone.empty"))
    assert play.of("zone.empty", after_s=745)
    assert play.codes() == ["ok"]
    assert len(play.of("cam.state")) == pytest.approx(790 / 30, abs=2)


def test_a_delivery_van_stops_ninety_seconds() -> None:
    play = Play(2, actor=[{"kind": "van", "enter_s": 10, "stop_s": 90}]).run(125)
    static = [f for f in play.of("zone.object") if f.values["static"]]
    assert {f.values["cls"] for f in static} == {"vehicle"}
    assert float(static[-1].values["static_s"]) == pytest.approx(90, abs=4)
    assert play.of("zone.empty", after_s=112)


def test_a_pile_is_an_object_of_its_size_and_is_seen_to_be_taken_away() -> None:
    play = Play(1, actor=[{"kind": "pile", "enter_s": 20, "stop_s": 60, "clear_width_m": 2.4}]).run(100)
    static = [f for f in play.of("zone.object") if f.values["static"]]
    assert {f.values["cls"] for f in static} == {"object"}
    assert 0.5 < float(static[-1].values["area_m2"]) < 2.8
    assert float(static[-1].values["clear_width_m"]) == pytest.approx(2.4, abs=0.3)
    assert float(static[-1].values["static_s"]) == pytest.approx(60, abs=5)
    assert play.of("zone.empty", after_s=84)


@pytest.mark.parametrize("kind", ["person", "bicycle"])
def test_who_only_passes_is_never_static(kind: str) -> None:
    play = Play(5, actor=[{"kind": kind, "enter_s": 3, "at_m": 13}]).run(18)
    facts = play.of("zone.object")
    assert facts
    assert {f.values["cls"] for f in facts} == {"person"}
    assert not any(f.values["static"] for f in facts)
    assert play.of("zone.empty", after_s=9)


def test_a_person_who_stands_is_a_person_not_a_pile() -> None:
    play = Play(5, actor=[{"kind": "person", "enter_s": 3, "at_m": 12, "stop_s": 12}]).run(20)
    static = [f for f in play.of("zone.object") if f.values["static"]]
    assert static
    assert {f.values["cls"] for f in static} == {"person"}


def test_people_who_walk_past_do_not_restart_a_parked_cars_clock() -> None:
    people = [{"kind": "person", "enter_s": 30 + 6 * i, "at_m": 10 + 3.5 * (i % 3)} for i in range(4)]
    play = Play(2, actor=[{"kind": "car", "enter_s": 8, "stop_s": 70}, *people]).run(72)
    cars = [f for f in play.of("zone.object", after_s=25) if f.values["cls"] == "vehicle"]
    assert len({f.subject for f in cars}) == 1
    assert float(cars[-1].values["static_s"]) == pytest.approx(72 - 15.4, abs=3)


def test_two_things_side_by_side_leave_the_gap_between_them() -> None:
    car = {"kind": "car", "enter_s": 4, "stop_s": 70, "clear_width_m": 2.1, "at_m": 11}
    pile = {"kind": "pile", "enter_s": 5, "at_m": 13.5, "clear_width_m": 4.25}
    both = Play(2, actor=[car, pile]).run(25)
    alone = Play(2, actor=[pile]).run(25)
    by_itself = float(alone.of("zone.object", after_s=20)[-1].values["clear_width_m"])
    assert by_itself == pytest.approx(4.25, abs=0.3)
    # So close together they may be one outline or two: either way what is left is what lies beside both.
    last = [float(f.values["clear_width_m"]) for f in both.of("zone.object", after_s=20)]
    assert 1.8 <= min(last) <= max(last) <= 2.4


# ---- when not to be believed ----


@pytest.mark.parametrize(
    ("kind", "code"),
    [("shadow", "low_conf"), ("rain", "low_conf"), ("knock", "moved"), ("black", "dark"), ("freeze", "frozen")],
)
def test_a_spoilt_picture_is_a_state_of_the_camera_and_never_a_vehicle(kind: str, code: str) -> None:
    play = Play(2, effect=[{"kind": kind, "at_s": 15, "for_s": 40}]).run(75)
    assert play.codes() == ["ok", code, "ok"]
    change = next(f for f in play.of("cam.state") if f.values["code"] == code)
    back = next(f for f in play.of("cam.state", after_s=20) if f.values["code"] == "ok")
    assert 15 < play.second(change) < 30
    assert 53 < play.second(back) < 65
    assert not play.of("zone.object")
    said = [play.second(f) for f in play.of("zone.empty")]
    assert not [s for s in said if play.second(change) <= s < play.second(back)]
    assert [s for s in said if s > play.second(back)]


def test_dusk_is_no_reason_for_distrust_and_a_car_is_still_seen() -> None:
    play = Play(
        2, actor=[{"kind": "car", "enter_s": 50, "stop_s": 60}], effect=[{"kind": "dusk", "at_s": 5, "for_s": 40}]
    )
    play.run(80)
    assert play.codes() == ["ok"]
    last = play.of("zone.object")[-1]
    assert (last.values["cls"], last.values["static"]) == ("vehicle", True)
    assert float(last.values["clear_width_m"]) == pytest.approx(2.4, abs=0.3)


def test_after_a_knock_nothing_is_called_empty_while_the_car_is_found_again() -> None:
    play = Play(
        2,
        actor=[{"kind": "car", "enter_s": 5, "stop_s": 100}],
        effect=[{"kind": "knock", "at_s": 25, "for_s": 20}],
    ).run(60)
    assert play.codes() == ["ok", "moved", "ok"]
    assert not play.of("zone.empty", after_s=15)
    assert [f for f in play.of("zone.object", after_s=47) if f.values["static"]]


def test_the_end_of_the_stream_is_stated() -> None:
    play = Play(2, effect=[{"kind": "end", "at_s": 10}]).run(30)
    assert play.codes() == ["ok", "ended"]


def test_what_the_reader_reports_as_lost_voids_what_was_known() -> None:
    play = Play(2, actor=[{"kind": "car", "enter_s": 5, "stop_s": 100}]).run(30)
    (lost,) = play.pipeline.source_state("lost", START_MS + 30_000, "no answer in time")
    assert dict(lost.values) == {"code": "lost", "detail": "no answer in time"}
    play.facts.clear()
    play.run(34, start_s=31)
    assert not play.of("zone.empty")


def test_a_restart_beside_a_parked_car_still_sees_it() -> None:
    before = Play(1, actor=[{"kind": "car", "enter_s": 10, "stop_s": 200}]).run(60)
    kept = before.pipeline.snapshot()
    assert kept.startswith(b"\x89PNG")
    after = Play(1, actor=[{"kind": "car", "enter_s": 10, "stop_s": 200}])
    after.pipeline.restore(kept)
    after.run(80, start_s=60)
    assert [f for f in after.of("zone.object") if f.values["static"] and f.values["cls"] == "vehicle"]
    assert not after.of("zone.empty")
    fresh = Play(1, actor=[{"kind": "car", "enter_s": 10, "stop_s": 200}]).run(80, start_s=60)
    assert not fresh.of("zone.object")  # the documented limit: without the snapshot it is part of the street ...
    fresh.facts.clear()
    fresh.run(260, start_s=225)
    assert not fresh.of("zone.object", after_s=230)  # ... and its place is no ghost once it has gone


def test_a_broken_snapshot_is_ignored() -> None:
    play = Play(1)
    play.pipeline.restore(b"not a picture")
    assert play.run(20).of("zone.empty")


def test_old_time_stamps_are_counted_and_left() -> None:
    play = Play(2).run(10)
    picture = play.scene.render(11)
    assert play.pipeline.step(Frame(START_MS + 2000, picture)) == []
    assert play.pipeline.step(Frame(START_MS + 2500, picture)) == []
    assert play.pipeline.counters.stale == 2
    assert play.pipeline.counters.last_ms == START_MS + 9500


def test_frames_faster_than_asked_for_are_left() -> None:
    play = Play(2)
    for number in range(50):
        play.pipeline.step(Frame(START_MS + number * 40, play.scene.render(number * 0.04)))
    assert play.pipeline.counters.frames == 50
    assert play.pipeline.counters.analysed == 5


def test_a_stream_that_changes_its_size_starts_afresh() -> None:
    play = Play(2).run(6)
    half = np.ascontiguousarray(play.scene.render(6.0)[::2, ::2])
    assert play.pipeline.step(Frame(START_MS + 6000, half)) == []


# ---- stages by themselves ----


def test_the_gate_takes_a_change_of_exposure_for_light() -> None:
    scene = LaneScene(CameraModel.from_table({"id": "c"}))
    grey = np.ascontiguousarray(scene.render(0)[::2, ::2, 1])[:HEIGHT_PX, :WIDTH_PX]
    gate = MotionGate(full_scan_s=1e9)
    gate.step(grey, 0)
    assert not gate.step(grey, 500).moving
    assert not gate.step((grey * 0.8).astype(np.uint8), 1000).moving
    walker = (grey * 0.8).astype(np.uint8)
    walker[40:60, 60:66] = 0
    assert gate.step(walker, 1500).moving
    assert gate.step(255 - grey, 2000).lights


def test_the_gate_opens_for_a_full_scan() -> None:
    gate = MotionGate(full_scan_s=4.0)
    still = np.full((HEIGHT_PX, WIDTH_PX), 90, np.uint8)
    scans = [t for t in range(0, 13_000, 500) if gate.step(still, t).full_scan]
    assert scans == [0, 4000, 8000, 12_000]


def test_motion_under_the_mask_means_nothing() -> None:
    ignore = np.zeros((HEIGHT_PX, WIDTH_PX), bool)
    ignore[:, :80] = True
    gate = MotionGate(full_scan_s=1e9, ignore=ignore)
    still = np.full((HEIGHT_PX, WIDTH_PX), 90, np.uint8)
    gate.step(still, 0)
    leaf = still.copy()
    leaf[30:60, 20:60] = 200
    assert not gate.step(leaf, 500).moving
    car = leaf.copy()
    car[30:60, 100:140] = 200
    assert gate.step(car, 1000).moving


def test_the_background_follows_slowly_and_not_under_what_stands() -> None:
    empty = np.full((180, 320, 3), 100, np.uint8)
    model = BackgroundModel()
    for second in range(5):
        model.step(empty, second * 1000)
    box = empty.copy()
    box[80:120, 100:160] = (20, 40, 200)
    residual = model.step(box, 5000)
    assert len(residual.blobs) == 1
    for second in range(6, 1200, 6):
        residual = model.step(box, second * 1000)
    assert [blob.box for blob in residual.blobs] == [pytest.approx((100, 80, 160, 120), abs=2)]
    residual = model.step(empty, 1_201_000)
    assert residual.blobs == ()


def test_the_camera_without_a_registry_refuses_a_model() -> None:
    from protocols.core.errors import ConfigError
    from tests.vision.support import camera

    with pytest.raises(ConfigError, match="no model registry"):
        CameraPipeline(camera(model="nanodet_m_416"))
