"""The model registry and the detector: papers, checksums, refusal of faces, and each family read right."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge.vision.detector import Detector
from edge.vision.frame import GROUPS, OBJECT, PERSON, VEHICLE, iou_matrix, suppress
from edge.vision.models import (
    PURPOSES,
    Manifest,
    Recipe,
    add_model,
    check_manifest,
    dump_manifest,
    find_model,
    list_models,
    read_manifest,
)
from protocols.core.errors import ConfigError, LinkRefused
from tests.vision.onnx_bytes import constant_model
from tests.vision.support import clip_frames

CLASSES = ("car", "truck", "person", "kite")
GROUP_TABLE = {"vehicle": ("car", "truck"), "person": ("person",)}


def papers(data: bytes = b"", **changes: Any) -> Manifest:
    table: dict[str, Any] = {
        "id": "tiny",
        "file": "tiny.onnx",
        "sha256": hashlib.sha256(data).hexdigest(),
        "licence": "Apache-2.0",
        "source": "written by the test",
        "purpose": "object_detection",
        "family": "yolo-raw",
        "width": 320,
        "height": 320,
        "recipe": {"order": "RGB", "std": [255, 255, 255], "anchor": "centre"},
        "classes": CLASSES,
        "groups": GROUP_TABLE,
    }
    return msgspec.convert(table | changes, Manifest)


def loaded(tmp_path: Path, data: bytes, any_class: bool = False, **changes: Any) -> Detector:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(data)
    return Detector(papers(data, **changes), path, floor=0.3, any_class=any_class)


# ---- registry ----


def test_adding_a_model_keeps_file_and_papers(tmp_path: Path) -> None:
    data = b"not really a network"
    origin = tmp_path / "download.bin"
    origin.write_bytes(data)
    folder = tmp_path / "models"
    shown = add_model(folder, origin, papers(data, zh='测试 "模型"'))
    assert (shown.licence, shown.sha256) == ("Apache-2.0", hashlib.sha256(data).hexdigest())
    assert [m.id for m in list_models(folder)] == ["tiny"]
    manifest, path = find_model(folder, "tiny")
    assert path.read_bytes() == data
    assert manifest == shown
    assert sorted(p.name for p in folder.iterdir()) == ["tiny.onnx", "tiny.toml"]


def test_papers_may_come_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "in.onnx").write_bytes(b"x")
    (tmp_path / "papers.toml").write_text(dump_manifest(papers(b"x")), "utf-8")
    assert add_model(tmp_path / "models", tmp_path / "in.onnx", tmp_path / "papers.toml") == papers(b"x")


def test_a_wrong_checksum_adds_nothing(tmp_path: Path) -> None:
    origin = tmp_path / "download.bin"
    origin.write_bytes(b"something else")
    with pytest.raises(ConfigError, match="not added"):
        add_model(tmp_path / "models", origin, papers(b"expected"))
    assert list((tmp_path / "models").iterdir()) == []


def test_a_file_changed_on_disk_is_not_loaded(own_registry: Path) -> None:
    path = own_registry / "nanodet_m_416.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="not loaded"):
        Detector.load(own_registry, "nanodet_m_416")


@pytest.mark.parametrize("origin", ["http://example.org/m.onnx", "ftp://example.org/m.onnx", "file:///etc/hostname"])
def test_only_files_and_https_are_fetched(tmp_path: Path, origin: str) -> None:
    with pytest.raises(LinkRefused, match="only https"):
        add_model(tmp_path, origin, papers())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"licence": ""}, "licence"),
        ({"sha256": "abc"}, "sha256"),
        ({"file": "../tiny.onnx"}, "plain name"),
        ({"id": "../up"}, "id"),
        ({"width": 10}, "out of range"),
        ({"groups": {"dog": ["car"]}}, "groups.dog"),
        ({"groups": {"vehicle": ["lorry"]}}, "lorry"),
        ({"recipe": {"std": [0, 1, 1]}}, "std"),
    ],
)
def test_bad_papers_are_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        check_manifest(papers(**changes), "here")


def test_papers_with_an_unknown_key_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(dump_manifest(papers()).replace("zh =", "colour ="), "utf-8")
    with pytest.raises(ConfigError, match=r"tiny\.toml.*colour"):
        read_manifest(path)


# ---- privacy block P1: no model of identity, by purpose, by name, by output ----


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "face_recognition"},
        {"purpose": "reidentification"},
        {"id": "arcface_r50", "file": "m.onnx"},
        {"id": "yolov8n-face"},
        {"file": "retinaface.onnx"},
        {"source": "github.com/deepinsight/insightface"},
        {"file": "person_reid_0288.onnx"},
        {"classes": ["face", "car"], "groups": {"vehicle": ["car"]}},
        {"en": "face recognition of residents"},
        {"zh": "人脸比对"},
        {"id": "osnet_re-id"},
        {"source": "gait recognition"},
    ],
)
def test_models_of_identity_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        add_model(tmp_path / "models", tmp_path / "none", papers(**changes))
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", ["surface_defects", "road-surface", "interface_v2", "pacemaker", "barbican"])
def test_innocent_names_are_not_mistaken_for_faces(name: str) -> None:
    check_manifest(papers(id=name), "here")


def test_no_purpose_of_identity_is_on_the_list_and_no_registered_model_has_one(registry: Path) -> None:
    assert not [p for p in PURPOSES if "face" in p or "ident" in p or "recogn" in p]
    for manifest in list_models(registry):
        check_manifest(manifest, manifest.id)
        assert "face" not in " ".join(manifest.class_names)


@pytest.mark.parametrize("family", ["nanodet", "yolox", "yolo-raw", "yolo-nms-free"])
def test_a_network_that_gives_one_vector_is_refused_whatever_its_papers_say(tmp_path: Path, family: str) -> None:
    embedding = constant_model((1, 3, 320, 320), {"embedding": np.zeros((1, 512), np.float32)})
    with pytest.raises(ConfigError, match="outputs"):
        loaded(tmp_path, embedding, family=family)


# ---- families ----


def test_a_file_that_is_no_network_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a model"):
        loaded(tmp_path, b"hello")


def raw_output() -> np.ndarray[Any, Any]:
    table = np.zeros((1, 8, 50), np.float32)
    table[0, :4, 3] = (160, 160, 80, 40)  # one thing called car ...
    table[0, 4 + 0, 3] = 0.9
    table[0, :4, 9] = (162, 161, 78, 42)  # ... and truck
    table[0, 4 + 1, 9] = 0.8
    table[0, :4, 11] = (160, 160, 80, 40)  # a person right there is somebody else
    table[0, 4 + 2, 11] = 0.7
    table[0, :4, 20] = (60, 120, 20, 20)  # below the floor
    table[0, 4 + 0, 20] = 0.2
    table[0, :4, 21] = (60, 200, 20, 20)  # of no group
    table[0, 4 + 3, 21] = 0.95
    return table


def test_yolo_raw_is_suppressed_across_the_group_and_laid_back_into_the_picture(tmp_path: Path) -> None:
    detector = loaded(tmp_path, constant_model((1, 3, 320, 320), {"output0": raw_output()}))
    found = detector.detect(np.zeros((360, 640, 3), np.uint8))
    # 640 x 360 in 320 x 320, centred: half size, 70 px above.
    assert found.boxes.tolist() == [[240, 140, 400, 220], [240, 140, 400, 220]]
    assert found.groups.tolist() == [VEHICLE, PERSON]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert found.boxes.dtype == np.float32


def test_yolo_nms_free(tmp_path: Path) -> None:
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, 0] = (120, 140, 200, 180, 0.88, 0)
    rows[0, 1] = (10, 80, 40, 140, 0.75, 2)
    rows[0, 2] = (10, 200, 40, 230, 0.95, 3)  # kite: of no group
    rows[0, 3] = (50, 80, 90, 140, 0.25, 2)  # below the floor
    detector = loaded(tmp_path, constant_model((1, 3, 320, 320), {"output0": rows}), family="yolo-nms-free")
    found = detector.detect(np.zeros((360, 640, 3), np.uint8))
    assert found.groups.tolist() == [VEHICLE, PERSON]
    assert found.boxes.tolist() == [[240, 140, 400, 220], [20, 20, 80, 140]]
    every = loaded(tmp_path, constant_model((1, 3, 320, 320), {"output0": rows}), True, family="yolo-nms-free")
    assert every.detect(np.zeros((360, 640, 3), np.uint8)).groups.tolist() == [OBJECT] * 3


def test_nothing_found_is_an_empty_answer(tmp_path: Path) -> None:
    detector = loaded(tmp_path, constant_model((1, 3, 320, 320), {"output0": np.zeros((1, 8, 50), np.float32)}))
    found = detector.detect(np.zeros((100, 100, 3), np.uint8))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


def test_preparation_follows_the_recipe(tmp_path: Path) -> None:
    data = constant_model((1, 3, 320, 320), {"output0": np.zeros((1, 8, 50), np.float32)})
    picture = np.full((160, 320, 3), (10, 20, 30), np.uint8)
    recipe = Recipe(order="RGB", mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 5.0), pad=51.0, anchor="top_left")
    tensor, scale, place = loaded(tmp_path, data, recipe=msgspec.to_builtins(recipe)).prepare(picture)
    assert (scale, place) == ((1.0, 1.0), (0, 0))
    assert tensor[0, :, 80, 80].tolist() == pytest.approx([(30 - 1) / 2, (20 - 2) / 4, (10 - 3) / 5])
    assert tensor[0, :, 200, 80].tolist() == pytest.approx([(51 - 1) / 2, (51 - 2) / 4, (51 - 3) / 5])


def test_a_stream_that_changes_its_shape_leaves_no_rest_of_the_old_picture(tmp_path: Path) -> None:
    data = constant_model((1, 3, 320, 320), {"output0": np.zeros((1, 8, 50), np.float32)})
    detector = loaded(tmp_path, data, recipe={"anchor": "top_left"})
    detector.prepare(np.full((320, 320, 3), 255, np.uint8))
    tensor, _, _ = detector.prepare(np.zeros((160, 320, 3), np.uint8))
    assert tensor[0, :, 200:, :].min() == tensor[0, :, 200:, :].max() == 114.0


def test_suppression_is_by_group() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [30, 0, 40, 10]], np.float32)
    kept = suppress(boxes, np.array([0.5, 0.9, 0.4, 0.3], np.float32), np.array([0, 0, 1, 0]), 0.5)
    assert kept.tolist() == [1, 2, 3]


@pytest.mark.parametrize("model", ["nanodet_m_416", "yolox_nano_416"])
def test_real_weights_find_the_white_car_and_the_visitor(registry: Path, model: str) -> None:
    detector = Detector.load(registry, model, floor=0.4)
    street = next(frame for frame in clip_frames("street_oncoming.mp4", 24) if frame.ts_ms >= 9950)
    found = detector.detect(street.bgr)
    suv = np.array([[294, 155, 436, 248]], np.float32)
    assert iou_matrix(found.boxes[found.groups == VEHICLE], suv).max() > 0.75
    assert set(found.groups.tolist()) == {VEHICLE}
    desk = next(frame for frame in clip_frames("desk_visits.mp4", 10) if frame.ts_ms >= 10_000)
    people = detector.detect(desk.bgr)
    assert [GROUPS[g] for g in people.groups] == ["person"]
    assert iou_matrix(people.boxes, np.array([[318, 12, 430, 328]], np.float32))[0, 0] > 0.8
