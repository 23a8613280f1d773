"""Model files and their papers: a detector runs only with a manifest that says what it is, whose, and for what.

The registry is a folder: ``<id>.toml`` beside ``<id>.onnx``. Privacy block P1 of the scenario catalogue: detectors give
class, box or counts, never identity, so a model that recognises faces or re-identifies people is refused by its
purpose, its names and its output, and cannot be added by mistake.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Literal

import msgspec

from edge.vision.frame import GROUPS
from protocols.core.errors import ConfigError, LinkDown, LinkRefused

Family = Literal["nanodet", "yolox", "yolo-raw", "yolo-nms-free"]

#: What a model may be for. Recognising who somebody is, is not among them and does not get in by configuration.
PURPOSES = ("object_detection", "safety_gear", "smoke_fire", "litter")

_IDENTITY = re.compile(
    r"(?<![a-z])faces?(?![a-z])|facenet|face_?(recog|detect|id|embed|net|verif)|(retina|arc|cos|sphere|blaze|insight|deep|center|mobile)_?face"
    r"|(?<![a-z])(sface|yunet|scrfd|adaface|buffalo)(?![a-z])"
    r"|re_?-?id(?![a-z])|re-?identif|gait|biometric|人脸|面部|身份|步态"
)
_MAX_BYTES = 512 * 1024 * 1024

_COCO = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign "
    "parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag "
    "tie suitcase frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard "
    "tennis_racket bottle wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot "
    "hot_dog pizza donut cake chair couch potted_plant bed dining_table toilet tv laptop mouse remote keyboard "
    "cell_phone microwave oven toaster sink refrigerator book clock vase scissors teddy_bear hair_drier "
    "toothbrush"
)
COCO80 = tuple(_COCO.split())
COCO_GROUPS = {
    "vehicle": ("car", "bus", "truck", "train"),
    "person": ("person",),
    "two_wheeler": ("bicycle", "motorcycle"),
}


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a picture becomes the model's input."""

    order: Literal["BGR", "RGB"] = "BGR"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # in ``order``, on 0-255
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resize: Literal["letterbox", "stretch"] = "letterbox"
    anchor: Literal["top_left", "centre"] = "top_left"  # where a letterboxed picture lies
    pad: float = 114.0  # on 0-255


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model's papers."""

    id: str
    file: str
    sha256: str
    licence: str
    source: str
    purpose: str
    family: Family
    width: int
    height: int
    recipe: Recipe = Recipe()
    classes: tuple[str, ...] | Literal["coco80"] = "coco80"
    groups: dict[str, tuple[str, ...]] = msgspec.field(default_factory=lambda: dict(COCO_GROUPS))
    zh: str = ""
    en: str = ""

    @property
    def class_names(self) -> tuple[str, ...]:
        return COCO80 if self.classes == "coco80" else self.classes


def check_manifest(manifest: Manifest, where: str) -> None:
    """Raise ConfigError naming the key. Refuses models of identity (P1)."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,63}", manifest.id):
        raise ConfigError(f"{where}: id {manifest.id!r} must be lower-case letters, digits, _ . -")
    if manifest.purpose not in PURPOSES:
        raise ConfigError(f"{where}: purpose {manifest.purpose!r} is not one of {', '.join(PURPOSES)}")
    texts = (manifest.id, manifest.file, manifest.source, manifest.zh, manifest.en, *manifest.class_names)
    for text in (*texts, *(name for names in manifest.groups.values() for name in names), *manifest.groups):
        if _IDENTITY.search(text.lower()):
            raise ConfigError(f"{where}: {text!r}: models that recognise or re-identify people are not accepted (P1)")
    if not manifest.licence:
        raise ConfigError(f"{where}: licence is empty: a model without a licence may not be used")
    if not re.fullmatch(r"[0-9a-f]{64}", manifest.sha256):
        raise ConfigError(f"{where}: sha256 must be 64 hex digits")
    if Path(manifest.file).name != manifest.file or not manifest.file.endswith(".onnx"):
        raise ConfigError(f"{where}: file must be the plain name of an .onnx file, got {manifest.file!r}")
    if not 32 <= manifest.width <= 2048 or not 32 <= manifest.height <= 2048:
        raise ConfigError(f"{where}: input {manifest.width} x {manifest.height} is out of range")
    if 0.0 in manifest.recipe.std:
        raise ConfigError(f"{where}: recipe.std must not contain 0")
    known = set(manifest.class_names)
    for group, names in manifest.groups.items():
        if group not in GROUPS:
            raise ConfigError(f"{where}: groups.{group} is not one of {', '.join(GROUPS)}")
        for name in names:
            if name not in known:
                raise ConfigError(f"{where}: groups.{group}: the model has no class {name!r}")


def read_manifest(path: Path) -> Manifest:
    """Read and check ``<id>.toml``."""
    try:
        manifest = msgspec.convert(tomllib.loads(path.read_text("utf-8")), Manifest)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
    check_manifest(manifest, str(path))
    return manifest


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_model(folder: Path, model_id: str) -> tuple[Manifest, Path]:
    """Papers and file of a registered model; its checksum is verified each time it is loaded."""
    manifest = read_manifest(folder / f"{model_id}.toml")
    if manifest.id != model_id:
        raise ConfigError(f"{folder / model_id}.toml: id is {manifest.id!r}, the file name says {model_id!r}")
    path = folder / manifest.file
    if not path.is_file():
        raise ConfigError(f"{path}: model file is missing")
    found = digest(path)
    if found != manifest.sha256:
        raise ConfigError(f"{path}: sha256 is {found}, the manifest says {manifest.sha256}: not loaded")
    return manifest, path


def list_models(folder: Path) -> list[Manifest]:
    return [read_manifest(path) for path in sorted(folder.glob("*.toml"))]


def add_model(
    folder: Path, origin: str | Path, manifest: Manifest | str | Path, *, timeout_s: float = 60.0
) -> Manifest:
    """Bring a model file (path or https address) into the registry; ``manifest``: its papers or the file they are in.
    Returns the papers: whoever adds a model is to be shown its licence and checksum.

    The file is moved in only after its checksum has been found right; the manifest is written last, so a power cut
    leaves either a registered model or none.
    """
    if not isinstance(manifest, Manifest):
        manifest = read_manifest(Path(manifest))
    check_manifest(manifest, f"manifest of {manifest.id}")
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{manifest.file}.part"
    try:
        _fetch(str(origin), part, timeout_s)
        found = digest(part)
        if found != manifest.sha256:
            raise ConfigError(f"{origin}: sha256 is {found}, the manifest says {manifest.sha256}: not added")
        part.replace(folder / manifest.file)
    finally:
        part.unlink(missing_ok=True)
    papers = folder / f"{manifest.id}.toml"
    draft = folder / f".{manifest.id}.toml.part"
    draft.write_text(dump_manifest(manifest), "utf-8")
    draft.replace(papers)
    return manifest


def dump_manifest(manifest: Manifest) -> str:
    """The manifest as TOML (JSON strings and arrays of them are TOML)."""
    lines, tables = [], []
    for key, value in msgspec.to_builtins(manifest).items():
        if isinstance(value, dict):
            tables += [f"\n[{key}]", *(f"{name} = {_toml(item)}" for name, item in value.items())]
        else:
            lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines + tables) + "\n"


def _toml(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _fetch(origin: str, target: Path, timeout_s: float) -> None:
    if "://" not in origin:
        path = Path(origin)
        if not path.is_file():
            raise LinkRefused(f"no such file: {origin}")
        shutil.copyfile(path, target)
        return
    if not origin.startswith("https://"):
        raise LinkRefused(f"{origin}: only https is fetched")
    try:
        with urllib.request.urlopen(origin, timeout=timeout_s) as answer, target.open("wb") as file:  # noqa: S310
            taken = 0
            while chunk := answer.read(1 << 20):
                taken += len(chunk)
                if taken > _MAX_BYTES:
                    raise LinkRefused(f"{origin}: larger than {_MAX_BYTES} bytes")
                file.write(chunk)
    except urllib.error.HTTPError as error:
        raise LinkRefused(f"{origin}: {error.code} {error.reason}") from error
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise LinkDown(f"{origin}: {error}") from error
