"""Tracker, zones and lines on drawn boxes: identities, stillness, inertia, dwell, crossings."""

from __future__ import annotations

import numpy as np
import pytest

from edge.vision.config import LineConfig, ZoneConfig
from edge.vision.frame import OBJECT, PERSON, VEHICLE, Detections
from edge.vision.tracker import Track, Tracker
from edge.vision.zones import Crossing, Lines, Zone, touching

W, H = 640, 360
STEP_MS = 200


def boxes(*rows: tuple[float, float, float, float], score: float = 0.8, group: int = VEHICLE) -> Detections:
    count = len(rows)
    return Detections(
        np.array(rows, np.float32).reshape(-1, 4), np.full(count, score, np.float32), np.full(count, group, np.int64)
    )


def at(x: float, foot: float, size: float = 40) -> tuple[float, float, float, float]:
    return (x - size / 2, foot - size, x + size / 2, foot)


def test_a_thing_counts_after_three_boxes_with_a_good_median() -> None:
    tracker = Tracker(confirm=0.5)
    counted = [len(tracker.update(boxes(at(100 + 10 * i, 200)), i * STEP_MS)) for i in range(4)]
    assert counted == [0, 0, 1, 1]
    weak = Tracker(confirm=0.5)
    for i in range(8):
        assert weak.update(boxes(at(100, 200), score=0.4), i * STEP_MS) == []
    assert len(weak.update(boxes(at(100, 200), score=0.95), 1600)) == 0  # one lucky box does not lift the median


def test_fast_things_keep_their_number_though_their_boxes_do_not_overlap() -> None:
    tracker = Tracker()
    numbers = set()
    for i in range(10):
        for track in tracker.update(boxes(at(50 + 55 * i, 200)), i * STEP_MS):  # 275 px/s, 40 px long
            numbers.add(track.id)
    assert len(numbers) == 1


def test_two_that_pass_each_other_keep_their_numbers() -> None:
    tracker = Tracker()
    for i in range(20):
        tracker.update(boxes(at(100 + 20 * i, 200), at(500 - 20 * i, 215)), i * STEP_MS)
    left, right = sorted(tracker.counting(), key=lambda t: t.id)
    assert left.foot[0] == pytest.approx(480)
    assert right.foot[0] == pytest.approx(120)
    assert len(tracker.tracks) == 2


def test_weak_boxes_keep_a_track_but_open_none() -> None:
    tracker = Tracker()
    for i in range(4):
        tracker.update(boxes(at(100, 200)), i * STEP_MS)
    for i in range(4, 30):
        tracker.update(boxes(at(100, 200), at(400, 200), score=0.2), i * STEP_MS)
    assert [t.foot[0] for t in tracker.tracks] == [100]
    assert tracker.tracks[0].misses == 0


def test_a_person_does_not_take_over_a_vehicles_track() -> None:
    tracker = Tracker()
    for i in range(4):
        tracker.update(boxes(at(100, 200)), i * STEP_MS)
    tracker.update(boxes(at(100, 200), group=PERSON), 800)
    assert sorted(t.group for t in tracker.tracks) == [VEHICLE, PERSON]


def test_a_mere_object_becomes_a_vehicle_once_it_is_named() -> None:
    tracker = Tracker()
    for i in range(3):
        tracker.update(boxes(at(100, 200), group=OBJECT), i * STEP_MS)
    (track,) = tracker.update(boxes(at(100, 200)), 600)
    assert (track.id, track.group) == (1, VEHICLE)


def test_stillness_survives_somebody_walking_past_and_ends_when_it_moves() -> None:
    tracker = Tracker()
    ts = 0
    for i in range(50):
        ts = i * STEP_MS
        wide = i in (30, 31)  # for two frames its box is merged with a passer-by's
        tracker.update(boxes((80, 160, 220 if wide else 120, 200)), ts)
    (track,) = tracker.counting()
    assert track.still_s() == pytest.approx(ts / 1000)
    for i in range(50, 62):
        tracker.update(boxes(at(100 + 15 * (i - 49), 200)), i * STEP_MS)
    assert track.still_s() < 1.5


def test_a_slow_creeper_is_not_still_for_ever() -> None:
    tracker = Tracker()
    for i in range(300):
        tracker.update(boxes(at(100 + i, 200)), i * STEP_MS)  # 5 px/s: half its length in four seconds
    (track,) = tracker.counting()
    assert track.still_s() < 6


def test_a_parked_thing_outlives_a_bus_before_it_a_passing_one_does_not() -> None:
    parked, passing = Tracker(), Tracker()
    for i in range(75):
        parked.update(boxes(at(100, 200)), i * STEP_MS)
        passing.update(boxes(at(100 + 20 * i, 200)), i * STEP_MS)
    for i in range(75, 100):  # five seconds unseen
        parked.update(Detections.none(), i * STEP_MS)
        passing.update(Detections.none(), i * STEP_MS)
    assert len(parked.counting()) == 1
    assert passing.counting() == []
    for i in range(100, 160):
        parked.update(Detections.none(), i * STEP_MS)
    assert parked.counting() == []


def test_hold_keeps_what_nobody_looked_at() -> None:
    tracker = Tracker()
    for i in range(4):
        tracker.update(boxes(at(100, 200)), i * STEP_MS)
    for i in range(4, 400):
        tracker.hold(i * STEP_MS)
    (track,) = tracker.counting()
    assert track.seen_ms == 399 * STEP_MS
    assert track.still_s() == pytest.approx(399 * STEP_MS / 1000)


# ---- zones ----


def zone(**changes: object) -> Zone:
    return Zone(ZoneConfig(id="z", polygon=((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)), **changes), W, H)  # type: ignore[arg-type]


def counting(track_id: int, x: float, foot: float, ts_ms: int, group: int = VEHICLE) -> Track:
    box = np.array(at(x, foot), np.float32)
    track = Track(track_id, box, 0, ts_ms, counts=True, still_box=box)
    track.groups[group] += 1
    track.scores.append(0.9)
    return track


def test_entry_and_exit_take_three_frames_and_are_dated_back_to_the_first() -> None:
    place = zone()
    inside: list[bool] = []
    for i, x in enumerate([100, 200, 200, 200, 200, 100, 100, 100, 100]):
        inside.append(bool(place.update([counting(1, x, 180, i * STEP_MS)], i * STEP_MS)))
    assert inside == [False, False, False, True, True, True, True, False, False]
    assert (place.presence[1].entered_ms, place.presence[1].left_ms) == (200, 1000)


def test_a_box_that_trembles_on_the_border_makes_no_visit() -> None:
    place = zone()
    for i in range(40):
        foot_x = 162 if i % 2 else 158  # the border is at 160
        assert place.update([counting(1, foot_x, 180, i * STEP_MS)], i * STEP_MS) == []


def test_the_bottom_centre_decides() -> None:
    place = zone(inertia=1)
    head_in = counting(1, 320, 300, 0)  # head in the zone, feet below it (zone ends at 270)
    feet_in = counting(2, 320, 95, 0)
    feet_in.box = np.array([300, 40, 340, 95], np.float32)
    assert [t.id for t in place.update([head_in, feet_in], 0)] == [2]


def test_only_watched_groups_enter() -> None:
    place = zone(inertia=1, watch=("vehicle",))
    here = place.update([counting(1, 300, 180, 0, PERSON), counting(2, 340, 180, 0)], 0)
    assert [t.id for t in here] == [2]


def test_an_unseen_track_keeps_its_place() -> None:
    place = zone(inertia=1)
    track = counting(1, 300, 180, 0)
    assert place.update([track], 0)
    assert place.update([track], 1000)  # not seen at 1000: still there
    assert place.update([], 1200) == []
    assert place.presence == {}


def test_overhanging_columns_do_not_widen_a_footprint() -> None:
    foot = [(2.0 + 0.05 * i, 12.0 + 0.01 * i) for i in range(36)]
    mirror = [(1.6, 15.0), (1.7, 15.0)]
    kept = touching(np.array([*mirror, *foot, (3.9, 14.0)]))
    assert kept[:, 0].min() == pytest.approx(2.0)
    assert kept[:, 0].max() == pytest.approx(3.75)


# ---- lines ----


def walk(feet: list[tuple[float, float]], line: tuple[tuple[float, float], tuple[float, float]]) -> list[Crossing]:
    lines = Lines([LineConfig(id="l", points=line)], W, H)
    out: list[Crossing] = []
    for i, (x, foot) in enumerate(feet):
        out += lines.update([counting(1, x, foot, i * STEP_MS)], i * STEP_MS)
    return out


MIDDLE = ((0.25, 0.5), (0.75, 0.5))  # y = 180, x from 160 to 480


@pytest.mark.parametrize(("start", "end", "word"), [(100, 260, "down"), (260, 100, "up")])
def test_a_crossing_is_counted_once_with_direction_and_time(start: float, end: float, word: str) -> None:
    crossings = walk([(300, y) for y in np.linspace(start, end, 17)], MIDDLE)
    assert [c.direction for c in crossings] == [word]
    assert crossings[0].ts_ms == pytest.approx(8 * STEP_MS, abs=60)


def test_the_direction_does_not_depend_on_which_end_of_the_line_was_drawn_first() -> None:
    feet = [(300, y) for y in np.linspace(100, 260, 17)]
    assert [c.direction for c in walk(feet, (MIDDLE[1], MIDDLE[0]))] == ["down"]
    across = [(x, 180) for x in np.linspace(200, 440, 17)]
    assert [c.direction for c in walk(across, ((0.5, 0.1), (0.5, 0.9)))] == ["right"]
    assert [c.direction for c in walk(across[::-1], ((0.5, 0.9), (0.5, 0.1)))] == ["left"]


def test_passing_beside_the_end_of_a_line_is_no_crossing() -> None:
    assert walk([(520, y) for y in np.linspace(100, 260, 17)], MIDDLE) == []


def test_trembling_on_a_line_is_no_crossing() -> None:
    assert walk([(300, 150), *[(300, 178 + 4 * (i % 2)) for i in range(40)], (300, 150)], MIDDLE) == []


def test_there_and_back_are_two_crossings() -> None:
    feet = [(300.0, y) for y in [*np.linspace(120, 240, 9), *np.linspace(240, 120, 9)]]
    assert [c.direction for c in walk(feet, MIDDLE)] == ["down", "up"]


def test_a_crossing_before_the_thing_counts_is_reported_when_it_does() -> None:
    lines = Lines([LineConfig(id="l", points=MIDDLE)], W, H)
    tracker = Tracker()
    out: list[Crossing] = []
    for i in range(6):
        tracker.update(boxes(at(300, 150 + 30 * i)), i * STEP_MS)  # over the line at its second box
        out += lines.update(tracker.tracks, i * STEP_MS)
    assert [(c.direction, c.track.id) for c in out] == [("down", 1)]
    assert out[0].ts_ms <= 300
